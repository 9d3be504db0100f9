//! What does sampling cost? Four answers, which must agree: how long the handler takes in place,
//! in a program that uses its caches; the account of handlers, signals and our own thread; the
//! same by switching the sampler off and on; and how much of the signal stack the handler uses.
//!
//! `cost [hz=100] [threads=2] [seconds=60] [window=250] [part=place,account,toggle,stack]`
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use hsi_profiling::{Config, Session, Stats};
use hsi_profiling_bench_load::{
    clock,
    figures::{argument, list, median},
    toggle::toggle,
    work::Crew,
};
use hsi_profiling_benches::{
    raise::{Painted, Raise, at_depth},
    times::Times,
};
use std::{thread, time::Duration};

fn main() {
    let hz: u32 = argument("hz", 100);
    let threads: usize = argument("threads", 2);
    let length = Duration::from_secs_f64(argument("seconds", 60.0));
    let window = Duration::from_millis(argument("window", 250));
    let parts = list("part", &["place", "account", "toggle", "stack"].map(String::from));
    let delivery = delivery();
    println!("a signal's delivery and return: {:.2} µs, warm", delivery * 1e6);
    for part in parts {
        match &*part {
            "place" | "account" => account(&part, hz, threads, length, delivery),
            "toggle" => switched(hz, threads, length, window),
            "stack" => stack(),
            _ => println!("{part}? There is place, account, toggle and stack."),
        }
    }
}

fn start(hz: u32) -> Session {
    Config::builder("cost").cpu_hz(hz).start().unwrap_or_else(|error| panic!("{error}"))
}

/// What the kernel takes to push a signal's frame, enter a handler and return, in seconds: a
/// signal to oneself less the system call that sends it.
fn delivery() -> f64 {
    let empty = Raise::empty();
    let time = |act: &dyn Fn()| {
        let rounds: Vec<f64> = (0..40)
            .map(|_| {
                let begun = clock::thread_cpu();
                (0..500).for_each(|_| act());
                (clock::thread_cpu() - begun).as_secs_f64() / 500.0
            })
            .collect();
        median(&rounds)
    };
    time(&|| empty.send()) - time(&|| empty.send_none())
}

/// Handlers, signals and our thread, by our own numbers.
fn account(part: &str, hz: u32, threads: usize, length: Duration, delivery: f64) {
    let session = start(hz);
    let handle = session.handle();
    let crew = Crew::start(threads);
    // Stacks are found, code is paged in, the tables are warm: the steady state.
    thread::sleep(Duration::from_secs(3));
    let (times, before, cpu) = (Times::start(), handle.stats(), crew.done().0);
    thread::sleep(length);
    let ([p50, p90, p99], recorded) = times.quantiles([0.5, 0.9, 0.99]);
    let (after, busy) = (handle.stats(), (crew.done().0 - cpu).as_secs_f64());
    crew.end();
    let signals = (after.signals - before.signals) as f64;
    let handler = (after.handler_time - before.handler_time).as_secs_f64();
    let own = (after.own_cpu - before.own_cpu).as_secs_f64();
    let percent = |seconds: f64| seconds / busy * 100.0;
    if part == "place" {
        println!(
            "in place, {hz} Hz, {threads} threads: handler p50 {p50:.2} µs, p90 {p90:.2}, \
             p99 {p99:.2} of {recorded} samples; mean of all signals {:.2} µs",
            handler / signals * 1e6
        );
        return;
    }
    println!(
        "account, {hz} Hz, {threads} threads, {busy:.1} CPU s: {:.1} signals a CPU second \
         ({:.1} samples, {:.1} covered)",
        signals / busy,
        (after.recorded - before.recorded) as f64 / busy,
        (after.covered - before.covered) as f64 / busy
    );
    let (delivered, all) = (signals * delivery, handler + signals * delivery + own);
    println!(
        "  handler {:.4} % + delivery {:.4} % + our thread {:.4} % = {:.4} % of a busy core",
        percent(handler),
        percent(delivered),
        percent(own),
        percent(all)
    );
    println!("  counted: {}", counted(&before, &after));
}

fn counted(before: &Stats, after: &Stats) -> String {
    let pairs = before.losses().into_iter().zip(after.losses());
    let lost: Vec<String> = pairs
        .filter(|((_, b), (_, a))| a > b)
        .map(|((name, b), (_, a))| format!("{name} {}", a - b))
        .collect();
    if lost.is_empty() { "no loss".to_owned() } else { lost.join(", ") }
}

/// The same by switching the sampler off and on.
fn switched(hz: u32, threads: usize, length: Duration, window: Duration) {
    let session = start(hz);
    let handle = session.handle();
    let crew = Crew::start(threads);
    thread::sleep(Duration::from_secs(2));
    let toggled = toggle(&crew, window, length, |on| {
        let switched = if on { handle.resume() } else { handle.pause() };
        switched.unwrap_or_else(|error| panic!("{error}"));
    });
    // Switching nothing: what this method can't tell from zero.
    handle.pause().unwrap_or_else(|error| panic!("{error}"));
    let nothing = toggle(&crew, window, length, |_| ());
    crew.end();
    let ((cost, error), (null, null_error)) = (toggled.percent(), nothing.percent());
    println!(
        "switched every {} ms at {hz} Hz, {} groups: {cost:+.3} ± {error:.3} % in the working \
         threads, {:+.3} % in others; switching nothing: {null:+.3} ± {null_error:.3} %",
        window.as_millis(),
        toggled.ratios.len(),
        toggled.others_percent()
    );
}

/// The deepest byte of the signal stack that the handler reaches, at several depths.
fn stack() {
    let session = start(100);
    let measured = thread::Builder::new().name("stack".to_owned()).spawn(move || {
        let mut painted = Painted::install();
        let empty = Raise::empty();
        empty.send();
        let frame = painted.used();
        println!("stack: the signal's frame and an empty handler take {frame} bytes");
        // The thread's first signals: it gets a slot and a timer, and its stack is not known yet.
        let ours = Raise::ours();
        let first = painted.used();
        println!("  ours takes {} more when it finds a new thread", first as i64 - frame as i64);
        thread::sleep(Duration::from_secs(2));
        for depth in [5, 50, 400] {
            painted.used();
            at_depth(depth, &mut || ours.send());
            let used = painted.used();
            println!("  at {depth} frames ours takes {} more", used as i64 - frame as i64);
        }
    });
    let measured = measured.unwrap_or_else(|error| panic!("no thread: {error}"));
    assert!(measured.join().is_ok());
    drop(session);
}
