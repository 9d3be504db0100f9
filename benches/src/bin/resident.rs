//! What does a service's memory grow by? Starts yolo26-stub twice, with profiling and without, both
//! under their built-in load, polls the page's graph of the one that has it, and compares what is
//! resident.
//!
//! `resident service=PATH [minutes=15] [poll=10] [rate=1]`. The two run at the same time, so that
//! whatever the machine does to one it does to the other.
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use hsi_profiling_bench_load::figures::{argument, median};
use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Well away from the services' own defaults, and from what their tests take.
const PORTS: [u16; 2] = [38426, 38427];

fn main() {
    let minutes: f64 = argument("minutes", 15.0);
    let poll = Duration::from_secs_f64(argument("poll", 10.0));
    let services = [start(PORTS[0], "true"), start(PORTS[1], "false")];
    println!(
        "| minute | with, anonymous MB | without | difference | with, all MB | without | difference |"
    );
    println!("|---|---|---|---|---|---|---|");
    let begun = Instant::now();
    let length = Duration::from_secs_f64(minutes * 60.0);
    let (mut next_row, mut asked, mut answered) = (Duration::ZERO, 0u32, 0u32);
    let mut last = Vec::new();
    while begun.elapsed() < length {
        thread::sleep(poll);
        for path in ["/debug/profiling/graph", "/debug/profiling"] {
            asked += 1;
            answered += u32::from(get(PORTS[0], path));
        }
        let rows: Vec<[f64; 2]> = services.iter().map(|service| memory(service.0.id())).collect();
        last.push(rows[0][0] - rows[1][0]);
        if begun.elapsed() >= next_row {
            next_row += Duration::from_secs(30);
            println!("| {:.1} | {} |", begun.elapsed().as_secs_f64() / 60.0, row(&rows));
        }
    }
    let rows: Vec<[f64; 2]> = services.iter().map(|service| memory(service.0.id())).collect();
    println!("| {:.1} | {} |", begun.elapsed().as_secs_f64() / 60.0, row(&rows));
    let tail = last.len().saturating_sub(6);
    println!("\nanonymous, the median of the last readings: {:+.1} MB", median(&last[tail..]));
    println!("pages answered: {answered} of {asked}");
}

fn row(rows: &[[f64; 2]]) -> String {
    let part = |i: usize| {
        format!("{:.1} | {:.1} | {:+.1}", rows[0][i], rows[1][i], rows[0][i] - rows[1][i])
    };
    format!("{} | {}", part(0), part(1))
}

/// A service that ends with us.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(port: u16, enabled: &str) -> Service {
    let service: String = argument("service", "target/release/yolo26-stub".to_owned());
    let rate: f64 = argument("rate", 1.0);
    let child = Command::new(&service)
        .args(["--rate", &rate.to_string()])
        .env("YOLO26_ADDR", format!("127.0.0.1:{port}"))
        .env("HSI_PROFILING_ENABLED", enabled)
        .env("RUST_LOG", "error")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Service(child.unwrap_or_else(|error| panic!("{service}: {error}")))
}

/// Anonymous and all resident memory, in MB (2^20 bytes).
fn memory(pid: u32) -> [f64; 2] {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    ["RssAnon:", "VmRSS:"].map(|field| {
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kib = line.and_then(|l| l.split_whitespace().next()?.parse::<f64>().ok());
        kib.unwrap_or(f64::NAN) / 1024.0
    })
}

/// Whether the page was given.
fn get(port: u16, path: &str) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer.starts_with(b"HTTP/1.1 200"))
    };
    ask().unwrap_or(false)
}
