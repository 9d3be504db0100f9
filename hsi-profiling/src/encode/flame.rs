//! The call tree as the flame graph's viewer reads it, version 1.
//!
//! The viewer draws a hundred thousand frames; as JSON they would be many megabytes that a browser
//! parses on its main thread. Here a node is three small numbers, and everything is read in one
//! pass. All numbers are unsigned LEB128 and below 2^53, so that JavaScript holds them exactly:
//!
//! ```text
//! "HSF1"
//! J, then J bytes             metadata, JSON in UTF-8; the caller's
//! S, then S texts             each its length in bytes, then UTF-8; the first one is empty
//! F, then F frames            each name (text), file (text), line, crate (text)
//! N, then N nodes, preorder   each depth, frame, self value; the first one is the root, depth 0
//! ```

use crate::profile::CallTree;
use std::collections::HashMap;

/// The tree in the viewer's format, with `metadata` as its JSON text. Negative values are
/// written as 0.
#[must_use]
pub fn encode(tree: &CallTree, metadata: &[u8]) -> Vec<u8> {
    // A directory says `rayon-core` where a path says `rayon_core`: one crate, one colour.
    let crates: Vec<String> =
        tree.frames().iter().map(|frame| frame.crate_name().replace('-', "_")).collect();
    let mut texts = Texts::default();
    texts.number("");
    let mut frames = Vec::new();
    for (frame, name) in tree.frames().iter().zip(&crates) {
        push(&mut frames, texts.number(&frame.function));
        push(&mut frames, texts.number(&frame.file));
        push(&mut frames, frame.line.into());
        push(&mut frames, texts.number(name));
    }

    let mut out = Vec::with_capacity(metadata.len() + frames.len() + 6 * tree.nodes().len() + 64);
    out.extend_from_slice(b"HSF1");
    push(&mut out, metadata.len() as u64);
    out.extend_from_slice(metadata);
    push(&mut out, texts.in_order.len() as u64);
    for text in &texts.in_order {
        push(&mut out, text.len() as u64);
        out.extend_from_slice(text.as_bytes());
    }
    push(&mut out, tree.frames().len() as u64);
    out.append(&mut frames);
    push(&mut out, tree.nodes().len() as u64);
    for node in tree.nodes() {
        push(&mut out, node.depth.into());
        push(&mut out, node.frame.into());
        push(&mut out, u64::try_from(node.self_value).unwrap_or(0));
    }
    out
}

#[derive(Default)]
struct Texts<'a> {
    in_order: Vec<&'a str>,
    numbers: HashMap<&'a str, u64>,
}

impl<'a> Texts<'a> {
    fn number(&mut self, text: &'a str) -> u64 {
        *self.numbers.entry(text).or_insert_with(|| {
            self.in_order.push(text);
            self.in_order.len() as u64 - 1
        })
    }
}

fn push(out: &mut Vec<u8>, number: u64) {
    let mut rest = number.min((1 << 53) - 1);
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{Frame, LabelsId, Location, Profile, Symbols};
    use std::time::Duration;

    fn tree(value: i64) -> CallTree {
        let mut p = Profile::cpu(Duration::from_millis(10));
        let mut names = Symbols::new();
        let a = p.stacks.location(Location::new(1, None));
        names.set(a, [Frame::new("app::in").at("a.rs", 300), Frame::new("app::out")].into());
        let stack = p.stacks.intern([a]);
        p.add(stack, LabelsId::EMPTY, &[1, value]);
        CallTree::new(&p, &names, 1)
    }

    #[test]
    fn every_byte_is_as_the_format_says() {
        let mut want = b"HSF1\x02{}".to_vec();
        want.extend_from_slice(b"\x06\x00\x03all\x08app::out\x03app\x07app::in\x04a.rs");
        // Frames: the root, which is of no crate, app::out, app::in at line 300.
        want.extend_from_slice(&[3, 1, 0, 0, 0, 2, 0, 0, 3, 4, 5, 0xac, 2, 3]);
        // Nodes: depth, frame, self value; 200 takes two bytes.
        want.extend_from_slice(&[3, 0, 0, 0, 1, 1, 0, 2, 2, 0xc8, 1]);
        assert_eq!(encode(&tree(200), b"{}"), want);
    }

    #[test]
    fn values_stay_within_what_javascript_counts() {
        let largest = encode(&tree(i64::MAX), b"");
        assert!(largest.ends_with(&[2, 2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f]));
        assert!(encode(&tree(-5), b"").ends_with(&[2, 2, 0]));
    }
}
