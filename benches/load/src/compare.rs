//! The program that each profiler's binary runs: the same work, the same questions.
//!
//! `part=cost` switches the profiler off and on while threads work, and reads memory before and
//! after it is there; `part=captured` asks how much of the threads' CPU time its samples stand
//! for; `part=split` how it divides two loops that are inlined into one function. The answer is
//! one line of `name=value` on standard output.

use crate::{clock, figures::argument, inlined, itimer, toggle::toggle, work::Crew};
use std::{thread, time::Duration};

/// A profiler, as a service would use it.
pub trait Peer: Sized {
    /// Starts it.
    fn start(hz: u32) -> Self;

    /// Stops and starts the taking of samples; it was started with these many a second.
    fn switch(&mut self, on: bool, hz: u32);

    /// What its handlers have taken since it began, and how many there were.
    fn handlers(&self) -> (Duration, u64) {
        itimer::handlers()
    }

    /// Takes what was sampled, with its names, and ends it.
    fn finish(self) -> Seen;
}

/// What a profiler saw, in samples: a thousand at 1000 Hz stand for a second.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// All samples, each with its weight.
    pub all: f64,
    /// Those with a function in them whose name has `hot_a` in it.
    pub hot_a: f64,
    /// Those with `hot_b`.
    pub hot_b: f64,
}

impl Seen {
    /// Adds so many samples of one stack, given the names of its functions.
    pub fn add<'a>(&mut self, count: f64, names: impl Iterator<Item = &'a str>) {
        self.all += count;
        let (mut a, mut b) = (false, false);
        for name in names {
            a |= name.contains("hot_a");
            b |= name.contains("hot_b");
        }
        self.hot_a += if a { count } else { 0.0 };
        self.hot_b += if b { count } else { 0.0 };
    }
}

/// Runs the part that the arguments ask for.
#[expect(clippy::print_stdout, reason = "the line is what this process is started for")]
pub fn main<P: Peer>(name: &str) {
    let hz: u32 = argument("hz", 100);
    let part: String = argument("part", "cost".to_owned());
    let answer = match &*part {
        "cost" => cost::<P>(hz),
        "captured" => captured::<P>(hz),
        "split" => split::<P>(hz),
        other => format!("error=no-part-{other}"),
    };
    println!("peer={name} part={part} hz={hz} {answer}");
}

fn cost<P: Peer>(hz: u32) -> String {
    let window = Duration::from_millis(argument("window", 200));
    let length = Duration::from_secs_f64(argument("seconds", 10.0));
    let crew = Crew::start(argument("threads", 4));
    thread::sleep(Duration::from_millis(500));
    let before = clock::anonymous_kib();
    let mut peer = P::start(hz);
    itimer::time_handlers();
    thread::sleep(Duration::from_secs(1));
    let started = clock::anonymous_kib();
    // First its handlers, by the clock; then the same by what the work gets done without them.
    let (cpu, (time, signals)) = (crew.done().0, peer.handlers());
    thread::sleep(length);
    let (cpu_after, (time_after, signals_after)) = (crew.done().0, peer.handlers());
    let (signals, time) = (signals_after - signals, time_after - time);
    let busy = (cpu_after - cpu).as_secs_f64();
    let toggled = toggle(&crew, window, length, |on| peer.switch(on, hz));
    crew.end();
    let _ = peer.finish();
    let finished = clock::anonymous_kib();
    let kib = |after: u64| after as i64 - before as i64;
    let ratios: Vec<String> = toggled.ratios.iter().map(|r| format!("{r:.6}")).collect();
    format!(
        "handler_us={:.3} signals={:.2} handlers={:.5} others={:.4} started_kib={} finished_kib={} ratios={}",
        time.as_secs_f64() * 1e6 / signals.max(1) as f64,
        signals as f64 / busy,
        time.as_secs_f64() / busy * 100.0,
        toggled.others_percent(),
        kib(started),
        kib(finished),
        ratios.join(",")
    )
}

fn captured<P: Peer>(hz: u32) -> String {
    let peer = P::start(hz);
    let crew = Crew::start(argument("threads", 4));
    thread::sleep(Duration::from_secs_f64(argument("seconds", 10.0)));
    let truth: Duration = crew.end().into_iter().sum();
    let seen = peer.finish();
    let captured = seen.all / f64::from(hz) / truth.as_secs_f64();
    format!("captured={captured:.4} cpu={:.2}", truth.as_secs_f64())
}

fn split<P: Peer>(hz: u32) -> String {
    let peer = P::start(hz);
    let (a, b) = inlined::outer(Duration::from_secs_f64(argument("seconds", 4.0)));
    let seen = peer.finish();
    let truth = a.as_secs_f64() / (a + b).as_secs_f64();
    format!(
        "true_a={:.3} seen_a={:.3} samples={:.0}",
        truth,
        seen.hot_a / (seen.hot_a + seen.hot_b),
        seen.hot_a + seen.hot_b
    )
}
