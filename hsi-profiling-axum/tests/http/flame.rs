//! A second reader of the graph's format, written from its description alone.

use serde_json::Value;

/// The graph, decoded.
#[derive(Debug)]
pub(crate) struct Graph {
    pub(crate) metadata: Value,
    /// Name, file, line and crate.
    pub(crate) frames: Vec<[String; 4]>,
    /// Depth, frame and self value.
    pub(crate) nodes: Vec<[u64; 3]>,
}

impl Graph {
    pub(crate) fn decode(bytes: &[u8]) -> Self {
        let mut rest = bytes.strip_prefix(b"HSF1").expect("the graph begins with HSF1");
        let metadata = serde_json::from_slice(take(&mut rest)).unwrap();
        let texts: Vec<_> = (0..number(&mut rest))
            .map(|_| String::from_utf8(take(&mut rest).to_vec()).unwrap())
            .collect();
        let frames = (0..number(&mut rest))
            .map(|_| {
                let text = |rest: &mut _| texts[number(rest) as usize].clone();
                let (name, file) = (text(&mut rest), text(&mut rest));
                let line = number(&mut rest).to_string();
                [name, file, line, text(&mut rest)]
            })
            .collect();
        let nodes = (0..number(&mut rest)).map(|_| [(); 3].map(|()| number(&mut rest))).collect();
        assert!(rest.is_empty(), "the graph ends after its nodes");
        Self { metadata, frames, nodes }
    }

    pub(crate) fn total(&self) -> u64 {
        self.nodes.iter().map(|[_, _, own]| own).sum()
    }

    /// The frame whose name contains this.
    pub(crate) fn frame(&self, name: &str) -> Option<&[String; 4]> {
        self.frames.iter().find(|frame| frame[0].contains(name))
    }
}

fn number(rest: &mut &[u8]) -> u64 {
    let mut number = 0;
    for shift in (0..).step_by(7) {
        let (byte, after) = rest.split_first().unwrap();
        *rest = after;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    number
}

fn take<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let length = number(rest) as usize;
    let (taken, after) = rest.split_at(length);
    *rest = after;
    taken
}
