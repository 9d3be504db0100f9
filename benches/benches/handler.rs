//! The handler by depth of the stack, warm: the signal of our own timer, sent to ourselves.
//!
//! `net` is the handler alone, by its own clock; `round_trip` adds the system call that sends the
//! signal, the kernel's work to deliver it and the way back, which `empty` has as well.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use hsi_profiling::{Config, Handle, ProfileType, Query, Session};
use hsi_profiling_benches::raise::{Raise, at_depth};
use std::{
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::{Duration, Instant},
};

/// What the raising thread is asked for.
struct Order {
    depth: usize,
    signals: u64,
    what: What,
}

#[derive(Clone, Copy)]
enum What {
    Net,
    RoundTrip,
    Empty,
}

/// Records of the deepest stack fill a ring with 32, so that many are sent between two drains.
const BATCH: u64 = 16;

fn handler(criterion: &mut Criterion) {
    let session = start();
    let (orders, answers) = raiser(session.handle());
    let ask = |depth: usize, signals: u64, what: What| {
        let sent = orders.send(Order { depth, signals, what });
        sent.ok().and_then(|()| answers.recv().ok()).unwrap_or_else(|| panic!("no raiser"))
    };
    let mut group = criterion.benchmark_group("handler");
    group.sample_size(30).warm_up_time(Duration::from_millis(500));
    group.measurement_time(Duration::from_secs(1));
    group.bench_function("empty", |b| b.iter_custom(|signals| ask(20, signals, What::Empty)));
    for depth in [10usize, 20, 50, 100, 500] {
        group.bench_function(BenchmarkId::new("net", depth), |b| {
            b.iter_custom(|signals| ask(depth, signals, What::Net));
        });
        group.bench_function(BenchmarkId::new("round_trip", depth), |b| {
            b.iter_custom(|signals| ask(depth, signals, What::RoundTrip));
        });
    }
    group.finish();
    let stats = session.handle().stats();
    assert_eq!(stats.lost_ring_full, 0, "samples were lost, and those are cheaper");
    assert_eq!(stats.unwound, stats.recorded, "stacks were cut, and those are cheaper: {stats:?}");
}

fn start() -> Session {
    // As seldom as can be: the signals that are measured are our own.
    let built = Config::builder("handler").cpu_hz(1).max_stack_depth(2048).start();
    built.unwrap_or_else(|error| panic!("{error}"))
}

/// A thread of its own has a shallow stack, where criterion's is deep.
fn raiser(handle: Handle) -> (Sender<Order>, Receiver<Duration>) {
    let (orders, taken) = channel::<Order>();
    let (answer, answers) = channel();
    let run = move || {
        let (ours, empty) = (Raise::ours(), Raise::empty());
        // One sample without our frames shows how deep the thread is by itself.
        thread::sleep(Duration::from_secs(1));
        let own = own_depth(&handle, ours);
        let _ = answer.send(Duration::ZERO);
        for Order { depth, signals, what } in taken {
            let raise = if matches!(what, What::Empty) { empty } else { ours };
            let mut spent = Duration::ZERO;
            at_depth(depth.saturating_sub(own) as u32, &mut || {
                let mut left = signals;
                while left > 0 {
                    let now = left.min(BATCH);
                    let before = handle.stats().handler_time;
                    let begun = Instant::now();
                    (0..now).for_each(|_| raise.send());
                    let passed = begun.elapsed();
                    let handled = handle.stats().handler_time - before;
                    spent += if matches!(what, What::Net) { handled } else { passed };
                    left -= now;
                }
            });
            if answer.send(spent).is_err() {
                return;
            }
        }
    };
    let spawned = thread::Builder::new().name("raiser".to_owned()).spawn(run);
    spawned.map_or_else(|error| panic!("no thread: {error}"), |_| ());
    // It is ready: its start must not count as anyone's time.
    let _ = answers.recv();
    (orders, answers)
}

/// How many frames the raising thread's stack has where it sends a signal without `at_depth`'s
/// recursion.
fn own_depth(handle: &Handle, raise: Raise) -> usize {
    let label = hsi_profiling::label("raiser", "depth");
    at_depth(0, &mut || raise.send());
    drop(label);
    let query = Query::new(ProfileType::Cpu).label("raiser", "depth");
    let profile = handle.query(&query).unwrap_or_else(|error| panic!("{error}"));
    let deepest = profile.samples().map(|(s, _)| profile.stacks.frames(s.stack).count()).max();
    deepest.unwrap_or_else(|| panic!("the signal gave no sample"))
}

criterion_group!(benches, handler);
criterion_main!(benches);
