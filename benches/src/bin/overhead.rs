//! What profilers cost, side by side: runs the peers' binaries in turn, there and back again, and
//! makes the table of `README.md`. `run.sh` builds them and starts this.
//!
//! `overhead dir=PATH [peers=a,b] [hz=100,1000] [rounds=4] [seconds=10] [threads=4]`
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "its output is what it is for")]

use hsi_profiling_bench_load::figures::{argument, list, median, median_error};
use hsi_profiling_benches::sink;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const PEERS: [&str; 6] = ["nothing", "ours", "pprof", "pprof-framehop", "pyroscope", "rpprof"];

/// What one peer has answered at one rate, over all rounds.
#[derive(Debug, Default)]
struct Answers {
    ratios: Vec<f64>,
    values: BTreeMap<String, Vec<f64>>,
}

fn main() {
    let dir = PathBuf::from(argument("dir", "target/peers/release".to_owned()));
    let peers = list("peers", &PEERS.map(String::from));
    let rates: Vec<u32> = list("hz", &[100, 1000]);
    let rounds: usize = argument("rounds", 4);
    let sink = sink::start();
    let mut answers: BTreeMap<(u32, String), Answers> = BTreeMap::new();
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        let mut turns: Vec<(u32, &String)> =
            rates.iter().flat_map(|hz| peers.iter().map(|peer| (*hz, peer))).collect();
        // There and back again: a machine that slows down slows all of them alike.
        if round % 2 == 1 {
            turns.reverse();
        }
        for (hz, peer) in turns {
            let answers = answers.entry((hz, peer.clone())).or_default();
            for part in ["cost", "captured", "split"] {
                answers.add(&ask(&dir, peer, part, hz, sink));
            }
        }
    }
    println!(
        "| Hz | profiler | handler, mean | signals a CPU s | handlers | switched | other threads | \
         memory after start | after a report | captured/true CPU | 80/20 seen as |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    for ((hz, peer), answers) in rates
        .iter()
        .flat_map(|hz| peers.iter().filter_map(|peer| answers.get_key_value(&(*hz, peer.clone()))))
    {
        println!("| {hz} | {peer} | {} |", answers.row());
    }
}

/// Runs one part of one peer; its line of `name=value`.
fn ask(dir: &Path, peer: &str, part: &str, hz: u32, sink: u16) -> String {
    let seconds: f64 = argument("seconds", 10.0);
    let threads: usize = argument("threads", 4);
    let seconds = if part == "split" { 3.0 } else { seconds };
    let output = Command::new(dir.join(format!("peer-{peer}")))
        .args([format!("part={part}"), format!("hz={hz}"), format!("seconds={seconds}")])
        .arg(format!("threads={threads}"))
        .env("PYROSCOPE_SINK", format!("http://127.0.0.1:{sink}"))
        .stderr(Stdio::null())
        .output();
    let output = output.unwrap_or_else(|error| panic!("{peer} in {}: {error}", dir.display()));
    let line = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    eprintln!("{line} {}", output.status);
    line
}

impl Answers {
    fn add(&mut self, line: &str) {
        for (name, value) in line.split_whitespace().filter_map(|word| word.split_once('=')) {
            if name == "ratios" {
                self.ratios.extend(value.split(',').filter_map(|r| r.parse::<f64>().ok()));
            } else if let Ok(value) = value.parse::<f64>() {
                self.values.entry(name.to_owned()).or_default().push(value);
            }
        }
    }

    fn of(&self, name: &str) -> &[f64] {
        self.values.get(name).map_or(&[], Vec::as_slice)
    }

    fn row(&self) -> String {
        let percents: Vec<f64> = self.ratios.iter().map(|ratio| (ratio - 1.0) * 100.0).collect();
        let megabytes = |name: &str| median(self.of(name)) / 1024.0;
        let splits: Vec<String> = self
            .of("seen_a")
            .iter()
            .map(|a| format!("{:.0}/{:.0}", a * 100.0, (1.0 - a) * 100.0))
            .collect();
        format!(
            "{:.1} µs | {:.0} | {:.2} % | {:+.2} ± {:.2} % | {:+.2} % | {:+.1} MB | {:+.1} MB | {:.3} | {}",
            median(self.of("handler_us")),
            median(self.of("signals")),
            median(self.of("handlers")),
            median(&percents),
            median_error(&percents),
            median(self.of("others")),
            megabytes("started_kib"),
            megabytes("finished_kib"),
            median(self.of("captured")),
            splits.join(" ")
        )
    }
}
