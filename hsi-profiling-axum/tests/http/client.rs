//! A client that sends exactly what a test says, down to the headers that it leaves out.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// An answer, taken apart.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
    /// The bytes before the body, without the date.
    pub(crate) head: String,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value)
    }
}

/// `GET` as a browser on this machine would.
pub(crate) fn get(to: SocketAddr, path: &str) -> Answer {
    send(to, "GET", path, &[("Host", &to.to_string())])
}

/// A request with these headers and no others but `Connection`.
pub(crate) fn send(to: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    finish(begin(to, method, path, headers))
}

/// The answer to a request that was sent.
pub(crate) fn finish(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    parse(&bytes)
}

/// Sends a request and leaves the answer to the caller, or to nobody.
pub(crate) fn begin(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> TcpStream {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    let mut request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{request}\r\n").as_bytes()).unwrap();
    stream
}

/// Where a relative address on a page leads, as a browser finds it.
pub(crate) fn resolve(page: &str, relative: &str) -> String {
    let path = page.split('?').next().unwrap();
    let (target, query) = match relative.split_once('?') {
        Some((target, query)) => (target, format!("?{query}")),
        None => (relative, String::new()),
    };
    if target.starts_with('/') {
        return relative.to_owned();
    }
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        if part == ".." {
            parts.pop();
        } else {
            parts.push(part);
        }
    }
    parts.join("/") + &query
}

fn parse(bytes: &[u8]) -> Answer {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").expect("an answer has a head");
    let head = std::str::from_utf8(&bytes[..end]).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers: HashMap<_, _> = lines
        .map(|line| line.split_once(": ").unwrap_or((line, "")))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    assert!(!headers.contains_key("transfer-encoding"), "answers here know their length");
    let head = head.split("\r\n").filter(|line| !line.starts_with("date: ")).collect::<Vec<_>>();
    Answer { status, headers, body: bytes[end + 4..].to_vec(), head: head.join("\n") }
}
