//! Threads on a bad day: without a timer, with the signal blocked, ten thousand of them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{
    UNSEEN, assert_adds_up, assert_near, burn, child::isolated, os, process_cpu, thread_cpu,
    time_with, total, wait_until,
};
use hsi_profiling::{Config, Handle, Profile, ProfileType, Query, Stats};
use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

const MS: Duration = Duration::from_millis(1);

fn everything(handle: &Handle) -> Profile {
    handle.query(&Query::new(ProfileType::Cpu)).unwrap()
}

/// Threads of one name that burn `cpu` each; what they used in sum, by their own clocks.
fn busy(name: &str, count: usize, cpu: Duration) -> Duration {
    let spawn = |_| {
        let work = move || {
            burn(cpu);
            thread_cpu()
        };
        thread::Builder::new().name(name.to_owned()).spawn(work).unwrap()
    };
    let threads: Vec<_> = (0..count).map(spawn).collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).sum()
}

#[test]
fn threads_that_get_no_timer_are_covered_by_the_process() {
    isolated("threads_that_get_no_timer_are_covered_by_the_process", || {
        let session = Config::builder("starved").cpu_hz(1000).start().unwrap();
        let handle = session.handle();
        os::limit_pending_signals(0);
        let (before, process) = (handle.stats(), process_cpu());
        let truth = busy("starved", 4, 600 * MS);
        let process = process_cpu() - process;
        let after = handle.stats();
        assert!(after.timer_errors >= before.timer_errors + 4, "{after:?}");
        assert!(after.timers <= 2, "timers were refused: {after:?}");
        assert_near("process", after.sampled_cpu - before.sampled_cpu, process, 0.08, 2, &after);
        let profile = everything(&handle);
        let starved = time_with(&profile, "thread", "starved");
        assert_near("starved", starved, truth, 0.08, 2, &after);
        handle.pause().unwrap();
        assert_adds_up(&handle.stats());
    });
}

#[test]
fn threads_beyond_the_cap_on_timers_are_covered_by_the_process() {
    isolated("threads_beyond_the_cap_on_timers_are_covered_by_the_process", || {
        let session = Config::builder("capped").cpu_hz(1000).max_timers(4).start().unwrap();
        let handle = session.handle();
        let before = handle.stats();
        let most = AtomicU64::new(0);
        let done = AtomicBool::new(false);
        let truth = thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    most.fetch_max(handle.stats().timers, Ordering::Relaxed);
                    thread::sleep(20 * MS);
                }
            });
            let truth = busy("capped", 12, 300 * MS);
            done.store(true, Ordering::Relaxed);
            truth
        });
        assert_eq!(most.load(Ordering::Relaxed), 4);
        handle.pause().unwrap();
        let after = handle.stats();
        assert!(after.timer_cap > before.timer_cap, "{after:?}");
        let capped = time_with(&everything(&handle), "thread", "capped");
        assert_near("capped", capped, truth, 0.10, 4, &after);
        assert_adds_up(&after);
        assert_eq!(after.timers, 0, "paused");
    });
}

#[test]
fn ten_thousand_threads_come_and_go() {
    isolated("ten_thousand_threads_come_and_go", || {
        let session = Config::builder("many").cpu_hz(1000).start().unwrap();
        let handle = session.handle();
        let stats = handle.stats();
        for _ in 0..100 {
            thread::scope(|scope| {
                for _ in 0..100 {
                    scope.spawn(|| burn(MS / 10));
                }
            });
        }
        // The profiler reaps by itself, without being asked for anything.
        if os::posix_timers().is_some() {
            wait_until("dead threads' timers to be reaped", || {
                os::posix_timers().unwrap() <= 1 + os::thread_count()
            });
        }
        let after = handle.stats();
        assert!(after.timers <= 4, "{after:?}");
        assert!(after.recorded - stats.recorded > 100, "{after:?}");
        let process = after.process_cpu - stats.process_cpu;
        assert_near("process", after.sampled_cpu - stats.sampled_cpu, process, 0.08, 2, &after);
        // There is still room for the next thread.
        let most = AtomicU64::new(0);
        thread::scope(|scope| {
            let next = scope.spawn(|| burn(200 * MS));
            while !next.is_finished() {
                most.fetch_max(handle.stats().timers, Ordering::Relaxed);
                thread::sleep(5 * MS);
            }
        });
        assert!(most.load(Ordering::Relaxed) > 0);
        handle.pause().unwrap();
        assert_adds_up(&handle.stats());
        assert_eq!(os::posix_timers().unwrap_or(0), 0);
    });
}

/// When the deaf thread stops its ears.
#[derive(Clone, Copy, PartialEq)]
enum Deaf {
    /// Before its first sample, so that it never gets a timer.
    FromTheStart,
    /// When it has a timer already.
    Later,
}

fn a_deaf_thread(deaf: Deaf, max_timers: u32) {
    let signal = libc::SIGRTMIN() + 7;
    let session =
        Config::builder("deaf").cpu_hz(1000).signal(signal).max_timers(max_timers).start().unwrap();
    let handle = session.handle();
    let enough = AtomicBool::new(false);
    // What the deaf thread has used so, in milliseconds.
    let unheard = AtomicU64::new(0);
    let (blocked, heard, innocent, seen) = thread::scope(|scope| {
        let spawn = |name: &str| thread::Builder::new().name(name.to_owned());
        let work = || {
            if deaf == Deaf::Later {
                burn(60 * MS);
            }
            let before = thread_cpu();
            os::block(signal, true);
            while !enough.load(Ordering::Relaxed) {
                burn(5 * MS);
                unheard.store((thread_cpu() - before).as_millis() as u64, Ordering::Relaxed);
            }
            let blocked = thread_cpu() - before;
            os::block(signal, false);
            burn(60 * MS);
            (blocked, thread_cpu() - blocked)
        };
        let deaf = spawn("deaf").spawn_scoped(scope, work).unwrap();
        let work = || {
            while !enough.load(Ordering::Relaxed) {
                burn(5 * MS);
            }
            thread_cpu()
        };
        let innocent = spawn("innocent").spawn_scoped(scope, work).unwrap();
        let mut seen = Stats::default();
        let _end = common::OnDrop(|| enough.store(true, Ordering::Relaxed));
        wait_until("the deaf thread to be reported", || {
            thread::sleep(50 * MS);
            let stats = handle.stats();
            if stats.blocked_threads > 0 {
                seen = stats;
            }
            seen.blocked_threads > 0 && unheard.load(Ordering::Relaxed) > 1000
        });
        enough.store(true, Ordering::Relaxed);
        let (blocked, heard) = deaf.join().unwrap();
        (blocked, heard, innocent.join().unwrap(), seen)
    });
    handle.pause().unwrap();
    let stats = handle.stats();
    assert_eq!(seen.blocked_threads, 1, "{seen:?}");
    assert_adds_up(&stats);
    // What it used is stated: as not sampled, or, once heard of, as merged.
    let unsampled = Duration::from_nanos(stats.residual_nanos().max(0) as u64) + stats.merged_cpu;
    assert!(unsampled + 150 * MS > blocked.mul_f64(0.9), "{unsampled:?} of {blocked:?}: {stats:?}");
    assert!(unsampled < blocked.mul_f64(1.1) + 150 * MS, "{unsampled:?} of {blocked:?}: {stats:?}");
    // It is charged to nobody else, and the one sample when it hears again is no heap of time.
    let profile = everything(&handle);
    // (Threads without a timer share an account with it until it is found.)
    let before_found = if max_timers == 0 { 250 * MS } else { UNSEEN };
    let charged = time_with(&profile, "thread", "innocent");
    let bound = innocent.mul_f64(0.05) + before_found;
    assert!(charged.abs_diff(innocent) < bound, "{charged:?} of {innocent:?}: {stats:?}");
    let own = time_with(&profile, "thread", "deaf");
    assert!(own < heard + 150 * MS, "{own:?} of {heard:?}");
    let others = total(&profile) - own - time_with(&profile, "thread", "innocent");
    assert!(others < stats.own_cpu + blocked.mul_f64(0.03) + 250 * MS, "{others:?}: {stats:?}");
}

#[test]
fn a_thread_that_blocks_the_signal_is_reported() {
    isolated("a_thread_that_blocks_the_signal_is_reported", || a_deaf_thread(Deaf::Later, 4096));
}

#[test]
fn a_thread_that_always_blocked_the_signal_is_reported() {
    isolated("a_thread_that_always_blocked_the_signal_is_reported", || {
        a_deaf_thread(Deaf::FromTheStart, 4096);
    });
}

#[test]
fn a_thread_that_blocks_the_signal_is_not_charged_to_threads_without_a_timer() {
    isolated("a_thread_that_blocks_the_signal_is_not_charged_to_threads_without_a_timer", || {
        a_deaf_thread(Deaf::FromTheStart, 0);
    });
}
