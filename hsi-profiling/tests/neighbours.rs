//! The rest of the program does not notice: what panics, allocates, locks, waits and sleeps goes
//! on as if nobody looked.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{assert_adds_up, burn, child::isolated, os, process_cpu, wait_until};
use hsi_profiling::Config;
use std::{
    backtrace::Backtrace,
    collections::HashMap,
    hint::black_box,
    panic,
    sync::{
        Condvar, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

const MS: Duration = Duration::from_millis(1);

/// Runs `act` on a thread of its own, again and again until `stop`, and counts.
fn again<'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    stop: &'scope AtomicBool,
    count: &'scope AtomicU64,
    act: impl Fn(u64) + Send + 'scope,
) {
    scope.spawn(move || {
        let mut turn = 0;
        while !stop.load(Ordering::Relaxed) {
            act(turn);
            turn += 1;
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
}

#[inline(never)]
fn fails(depth: u64) -> u64 {
    if depth == 0 {
        panic::panic_any(Backtrace::force_capture().to_string().len());
    }
    black_box(fails(depth - 1) + 1)
}

#[test]
fn panics_allocations_and_locks_go_on() {
    isolated("panics_allocations_and_locks_go_on", || {
        panic::set_hook(Box::new(|_| ()));
        let session = Config::builder("work").cpu_hz(1000).start().unwrap();
        let handle = session.handle();
        let stop = AtomicBool::new(false);
        let counts: [AtomicU64; 5] = Default::default();
        let (shared, changed) = (Mutex::new(0u64), Condvar::new());
        thread::scope(|scope| {
            let stop = &stop;
            again(scope, stop, &counts[0], |turn| {
                let length = panic::catch_unwind(|| fails(turn % 20)).unwrap_err();
                assert!(*length.downcast_ref::<usize>().unwrap() > 100, "a backtrace");
            });
            for count in &counts[1..3] {
                again(scope, stop, count, |turn| {
                    let map: HashMap<u64, Vec<u8>> =
                        (0..50).map(|i| (i, vec![1; (turn + i) as usize % 3000])).collect();
                    assert_eq!(black_box(map).len(), 50);
                });
            }
            let (shared, changed) = (&shared, &changed);
            for count in &counts[3..] {
                again(scope, stop, count, move |_| {
                    let mut guard = shared.lock().unwrap();
                    *guard += 1;
                    changed.notify_all();
                    drop(changed.wait_timeout(guard, MS / 10).unwrap());
                });
            }
            let _end = common::OnDrop(|| stop.store(true, Ordering::Relaxed));
            let begun = process_cpu();
            wait_until("work", || {
                thread::sleep(5 * MS);
                process_cpu() - begun > 1500 * MS
                    && counts.iter().all(|count| count.load(Ordering::Relaxed) > 10)
            });
        });
        let turns = counts[3].load(Ordering::Relaxed) + counts[4].load(Ordering::Relaxed);
        assert_eq!(*shared.lock().unwrap(), turns);
        handle.pause().unwrap();
        let stats = handle.stats();
        assert!(stats.recorded > 100, "{stats:?}");
        assert!(stats.unwound * 1000 >= stats.recorded * 999, "{stats:?}");
        assert_adds_up(&stats);
    });
}

/// Threads that wait in five ways while others use CPU time, and start and end if `churn`; how
/// many waits there were, and how many of each kind were interrupted.
fn waits(churn: bool) -> (u64, [u64; 5]) {
    let session = Config::builder("waits").cpu_hz(1000).start().unwrap();
    let handle = session.handle();
    let stop = AtomicBool::new(false);
    let counts: [AtomicU64; 7] = Default::default();
    let interrupted: [AtomicU64; 5] = Default::default();
    thread::scope(|scope| {
        let stop = &stop;
        for ((wait, interrupted), count) in os::WAITS.iter().zip(&interrupted).zip(&counts) {
            again(scope, stop, count, move |_| {
                if wait(MS) {
                    interrupted.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        again(scope, stop, &counts[5], |_| burn(MS));
        again(scope, stop, &counts[6], move |_| match churn {
            true => thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| burn(MS / 5));
                }
            }),
            false => burn(MS),
        });
        let _end = common::OnDrop(|| stop.store(true, Ordering::Relaxed));
        let begun = process_cpu();
        wait_until("waits", || {
            thread::sleep(5 * MS);
            process_cpu() - begun > 2000 * MS
                && counts.iter().all(|count| count.load(Ordering::Relaxed) > 100)
        });
    });
    handle.pause().unwrap();
    let stats = handle.stats();
    assert!(stats.recorded > 100, "{stats:?}");
    assert_adds_up(&stats);
    let waits = counts[..5].iter().map(|count| count.load(Ordering::Relaxed)).sum();
    (waits, interrupted.map(AtomicU64::into_inner))
}

/// Not never: the process's timer sends its signal to the process. The kernel gives it to the
/// thread that runs; but where that one blocks all signals just now, as in our own handler after a
/// signal of its own timer, or as the C library does while threads start and end, another is
/// woken for it.
#[test]
fn threads_that_wait_are_seldom_interrupted() {
    isolated("threads_that_wait_are_seldom_interrupted", || {
        for churn in [false, true] {
            let (waits, interrupted) = waits(churn);
            let sum: u64 = interrupted.iter().sum();
            eprintln!("{interrupted:?} of {waits}: nanosleep, poll, epoll_wait, recv, futex");
            assert!(sum * 500 < waits, "{interrupted:?} of {waits}, churn: {churn}");
        }
    });
}
