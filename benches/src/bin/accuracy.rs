//! Are the samples right? For 1 to 64 busy threads at 100, 1000 and 4000 samples a second, the
//! CPU time that the samples stand for against the threads' own clocks; and the same for threads
//! that live for 1 ms and for 5 ms.
//!
//! `accuracy [threads=1,2,…] [hz=100,1000,4000] [cpu=SECONDS] [short=SECONDS]`; `cpu` is what each
//! of the threads uses, `short=0` leaves the short-lived ones out.
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use hsi_profiling::{Config, Session, Stats};
use hsi_profiling_bench_load::{
    clock,
    figures::{argument, list},
    work::{Context, burn},
};
use hsi_profiling_benches::{seen::by_thread, times::Times};
use std::{
    sync::{Arc, Barrier},
    thread,
    time::{Duration, Instant},
};

fn main() {
    let threads = list("threads", &[1, 2, 4, 8, 16, 32, 64]);
    let rates = list("hz", &[100, 1000, 4000]);
    let cpu: f64 = argument("cpu", 1.0);
    let short: f64 = argument("short", 10.0);
    println!("kernel ticks a second: {}\n", clock::kernel_hz());
    println!(
        "| Hz | threads | CPU s | captured/true | least and most of one thread | weights/true | residual | lost |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for hz in &rates {
        for threads in &threads {
            busy(*hz, *threads, cpu);
        }
    }
    if short > 0.0 {
        println!("\n| Hz | life | threads | CPU s | captured/true | of the process | residual |");
        println!("|---|---|---|---|---|---|---|");
        for hz in &rates {
            for life in [1, 5] {
                short_lived(*hz, Duration::from_millis(life), Duration::from_secs_f64(short));
            }
        }
    }
}

/// As much as may be set.
const BUDGET: u32 = 100;

fn start(hz: u32) -> Session {
    // What is judged is the sampler at this rate: the governor, which may lower it, is left out.
    Config::builder("accuracy")
        .cpu_hz(hz)
        .budget_percent(BUDGET)
        .start()
        .unwrap_or_else(|error| panic!("{error}"))
}

/// `threads` threads that use as much CPU time each.
fn busy(hz: u32, threads: usize, cpu: f64) {
    // Few threads work longer, so that a row stands for four CPU seconds at least.
    let each = Duration::from_secs_f64(cpu.max(4.0 * cpu / threads as f64));
    let session = start(hz);
    let (times, before) = (Times::start(), session.handle().stats());
    let ready = Arc::new(Barrier::new(threads));
    let run = |number: usize| {
        let ready = Arc::clone(&ready);
        let work = move || {
            ready.wait();
            burn(&mut Context::new(number as u64), each);
            clock::thread_cpu()
        };
        let spawned = thread::Builder::new().name(format!("busy{number}")).spawn(work);
        spawned.unwrap_or_else(|error| panic!("no thread: {error}"))
    };
    let handles: Vec<_> = (0..threads).map(run).collect();
    let truth: Vec<f64> = handles
        .into_iter()
        .map(|thread| thread.join().map_or(f64::NAN, |cpu| cpu.as_secs_f64()))
        .collect();
    let seen = by_thread(&session.handle());
    let after = session.handle().stats();
    let of = |number: usize| seen.get(&format!("busy{number}")).copied().unwrap_or_default();
    let captured = |number: usize| of(number).cpu.as_secs_f64();
    let weights = |number: usize| of(number).periods as f64 / f64::from(hz);
    let each: Vec<f64> = (0..threads).map(|i| captured(i) / truth[i]).collect();
    let used: f64 = truth.iter().sum();
    let all = (0..threads).map(captured).sum::<f64>() / used;
    let bare = (0..threads).map(weights).sum::<f64>() / used;
    let least = each.iter().copied().fold(f64::INFINITY, f64::min);
    let most = each.iter().copied().fold(0.0, f64::max);
    println!(
        "| {hz} | {threads} | {used:.1} | {all:.4} | {least:.3} to {most:.3} | {bare:.4} | {:+.2} % | {} |",
        residual(&before, &after),
        lost(&before, &after, &times)
    );
}

/// Threads that live for `life` of CPU time, spawned one after the other for `length`.
fn short_lived(hz: u32, life: Duration, length: Duration) {
    let session = start(hz);
    let before = session.handle().stats();
    let process = clock::process_cpu();
    let deadline = Instant::now() + length;
    let (mut truth, mut count) = (Duration::ZERO, 0u32);
    while Instant::now() < deadline {
        // Two at a time: there is a moment in which one is new and another ends.
        let spawn = |seed: u32| {
            let work = move || {
                let mut context = Context::new(u64::from(seed));
                burn(&mut context, life.saturating_sub(clock::thread_cpu()));
                clock::thread_cpu()
            };
            let spawned = thread::Builder::new().name("short".to_owned()).spawn(work);
            spawned.unwrap_or_else(|error| panic!("no thread: {error}"))
        };
        for thread in [spawn(count), spawn(count + 1)] {
            truth += thread.join().unwrap_or_default();
            count += 1;
        }
    }
    let process = clock::process_cpu() - process;
    let seen = by_thread(&session.handle());
    let after = session.handle().stats();
    let all: Duration = seen.values().map(|seen| seen.cpu).sum();
    // A new thread has its creator's name until it has set its own; that is CPU time before the
    // closure runs, and none of it is in the closure's reading of the clock.
    let short = seen.get("short").copied().unwrap_or_default();
    println!(
        "| {hz} | {} ms | {count} | {:.2} | {:.3} | {:.4} | {:+.2} % |",
        life.as_millis(),
        truth.as_secs_f64(),
        short.cpu.as_secs_f64() / truth.as_secs_f64(),
        all.as_secs_f64() / process.as_secs_f64(),
        residual(&before, &after)
    );
}

fn residual(before: &Stats, after: &Stats) -> f64 {
    let process = (after.process_cpu - before.process_cpu).as_nanos() as f64;
    (after.residual_nanos() - before.residual_nanos()) as f64 / process * 100.0
}

/// Counted losses, for the reader to see that there are none.
fn lost(before: &Stats, after: &Stats, times: &Times) -> String {
    let differs = before.losses().into_iter().zip(after.losses());
    let mut lost: Vec<String> = differs
        .filter(|((_, before), (_, after))| after > before)
        .map(|((name, before), (_, after))| format!("{name} {}", after - before))
        .collect();
    let merged = after.merged_cpu - before.merged_cpu;
    if !merged.is_zero() {
        lost.push(format!("merged {} ms", merged.as_millis()));
    }
    if after.governed > before.governed {
        lost.push(format!("governed to {} Hz", after.cpu_hz));
    }
    let signals = (after.signals - before.signals).max(1);
    let handler = (after.handler_time - before.handler_time).as_secs_f64() / signals as f64;
    if handler > 50e-6 {
        // Its clock goes on while a thread waits for a processor in the middle of it.
        let ([p50, p99], count) = times.quantiles([0.5, 0.99]);
        lost.push(format!(
            "handlers took {:.0} µs, waiting included (p50 {p50:.0}, p99 {p99:.0} of {count}, {} signals)",
            handler * 1e6, signals
        ));
    }
    if lost.is_empty() { "none".to_owned() } else { lost.join(", ") }
}
