//! Samples add up to the CPU time that threads used, by the threads' own clocks.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{burn, process_cpu, thread_cpu, time_with, total, wait_until};
use hsi_profiling::{Config, Handle, ProfileType, Query, Session, Timestamp};
use std::{
    sync::{Barrier, Mutex, PoisonError},
    thread,
    time::{Duration, SystemTime},
};

/// There is one profiler in a process: the tests of this file take turns.
static TURN: Mutex<()> = Mutex::new(());

fn start(hz: u32) -> (Session, Handle) {
    let session = Config::builder("cpu-time").cpu_hz(hz).start().unwrap();
    let handle = session.handle();
    (session, handle)
}

/// Threads burn the same CPU time each; returns truth and samples of each, and what was merged
/// beyond what a sample may stand for (a processor that is taken away for long counts as used), in
/// seconds.
fn threads(count: usize, hz: u32, each: Duration) -> (Vec<(f64, f64)>, f64) {
    let (_session, handle) = start(hz);
    let merged = handle.stats().merged_cpu;
    let begin = Barrier::new(count);
    let truths: Vec<Duration> = thread::scope(|scope| {
        let spawned: Vec<_> = (0..count)
            .map(|i| {
                let begin = &begin;
                let work = move || {
                    begin.wait();
                    let before = thread_cpu();
                    burn(each);
                    thread_cpu() - before
                };
                thread::Builder::new().name(format!("w{i}")).spawn_scoped(scope, work).unwrap()
            })
            .collect();
        spawned.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let profile = handle.query(&Query::new(ProfileType::Cpu)).unwrap();
    let sampled = |i: usize| time_with(&profile, "thread", &format!("w{i}")).as_secs_f64();
    let all =
        truths.iter().enumerate().map(|(i, truth)| (truth.as_secs_f64(), sampled(i))).collect();
    (all, (handle.stats().merged_cpu - merged).as_secs_f64())
}

#[test]
fn samples_add_up_to_the_threads_clocks() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    // Each thread's sum is right to a period, and to the few milliseconds between the kernel's
    // last tick in it and its end: short runs want a wide bound.
    for (count, hz, each, bound) in [
        (1, 100, 2000, 0.03),
        (1, 1000, 2000, 0.02),
        (4, 100, 1000, 0.03),
        (4, 1000, 1000, 0.02),
        (64, 100, 150, 0.06),
        (64, 1000, 150, 0.05),
    ] {
        let (all, merged) = threads(count, hz, Duration::from_millis(each));
        let (truth, sampled) = all.iter().fold((0.0, 0.0), |s, t| (s.0 + t.0, s.1 + t.1));
        let ratio = (sampled + merged) / truth;
        eprintln!("{count} threads at {hz} Hz: {ratio:.4}");
        assert!((ratio - 1.0).abs() < bound, "{count} threads at {hz} Hz: {ratio}");
        // Each thread has its own share, within two periods.
        let period = 1.0 / f64::from(hz);
        for (i, (truth, sampled)) in all.iter().enumerate() {
            assert!(
                (sampled - truth).abs()
                    < truth * 0.05 + 2.0 * period + common::UNSEEN.as_secs_f64() + merged,
                "thread {i} of {count} at {hz} Hz: {sampled} s of {truth} s"
            );
        }
    }
}

#[test]
fn short_lived_threads_are_seen_too() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    for millis in [1, 5] {
        let (_session, handle) = start(100);
        let before = handle.stats();
        let mut truth = Duration::ZERO;
        while truth < Duration::from_secs(3) {
            let work = move || {
                burn(Duration::from_millis(millis));
                thread_cpu()
            };
            truth +=
                thread::Builder::new().name("short".into()).spawn(work).unwrap().join().unwrap();
        }
        let profile = handle.query(&Query::new(ProfileType::Cpu)).unwrap();
        let sampled = time_with(&profile, "thread", "short");
        let ratio = sampled.as_secs_f64() / truth.as_secs_f64();
        let after = handle.stats();
        let process = after.process_cpu - before.process_cpu;
        let whole = (after.sampled_cpu - before.sampled_cpu).as_secs_f64() / process.as_secs_f64();
        eprintln!("{millis} ms threads: {ratio:.3} of their time, {whole:.3} of the process's");
        assert!((ratio - 1.0).abs() < 0.15, "{millis} ms: {sampled:?} of {truth:?}");
        assert!((whole - 1.0).abs() < 0.05, "{millis} ms: {whole} of the process's time");
    }
}

#[test]
fn what_is_sampled_and_what_is_left_make_the_process() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let (_session, handle) = start(1000);
    let (before, clock) = (handle.stats(), process_cpu());
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| burn(Duration::from_millis(300)));
        }
    });
    let (after, clock) = (handle.stats(), process_cpu() - clock);
    let process = (after.process_cpu - before.process_cpu).as_secs_f64();
    assert!((process - clock.as_secs_f64()).abs() < 0.02, "{process} s is not {clock:?}");
    let residual = (after.residual_nanos() - before.residual_nanos()) as f64 / 1e9;
    let sampled = (after.sampled_cpu - before.sampled_cpu).as_secs_f64();
    let lost =
        (after.lost_cpu + after.merged_cpu - before.lost_cpu - before.merged_cpu).as_secs_f64();
    assert!((sampled + lost + residual - process).abs() < 1e-6, "the account does not add up");
    assert!(residual.abs() < process * 0.03 + 0.01, "{residual} s of {process} s are in no sample");
}

#[test]
fn a_capture_is_the_coming_time_and_leaves_the_sampler_as_it_is() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let (_session, handle) = start(1000);
    burn(Duration::from_millis(200));
    let stop = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                common::spin(10_000);
            }
        });
        let (begun, clock) = (Timestamp::from(SystemTime::now()), process_cpu());
        let short = handle.capture(ProfileType::Cpu, Duration::from_millis(500)).unwrap();
        let long = handle.capture(ProfileType::Cpu, Duration::from_millis(1500)).unwrap();
        let (short, long) = (short.wait().unwrap(), long.wait().unwrap());
        let clock = process_cpu() - clock;
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(short.start >= begun, "{:?} is before {begun:?}", short.start);
        assert!(short.duration >= Duration::from_millis(500), "{:?}", short.duration);
        assert!(long.duration >= Duration::from_millis(1500), "{:?}", long.duration);
        assert!(total(&long) > total(&short), "{:?} and {:?}", total(&long), total(&short));
        let ratio = total(&long).as_secs_f64() / clock.as_secs_f64();
        assert!(
            (ratio - 1.0).abs() < 0.1,
            "the process used {clock:?}, seen are {:?}",
            total(&long)
        );
        let comment = |part: &str| long.comments.iter().any(|comment| comment.contains(part));
        assert!(comment("CPU time of the process"), "{:?}", long.comments);
        let all = handle.query(&Query::new(ProfileType::Cpu)).unwrap();
        assert!(total(&all) >= total(&long), "the history has it too: {:?}", total(&all));
    });
    assert_eq!(handle.cpu_hz(), 1000);
    drop(handle.capture(ProfileType::Cpu, Duration::from_secs(500)).unwrap());
    let error = handle.capture(ProfileType::Cpu, Duration::from_secs(601)).unwrap_err();
    assert!(error.to_string().contains("duration"), "{error}");
}

#[test]
fn windows_of_the_history_are_kept_by_ten_seconds() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let (_session, handle) = start(100);
    burn(Duration::from_millis(300));
    wait_until("the bucket", || handle.history().end.is_some());
    let now = Timestamp::from(SystemTime::now());
    let recent = Query::new(ProfileType::Cpu).from(now.before(Duration::from_secs(60))).to(now);
    let profile = handle.query(&recent).unwrap();
    assert!(total(&profile) > Duration::from_millis(200));
    assert!(profile.start >= now.before(Duration::from_secs(60)));
    let future = Query::new(ProfileType::Cpu).from(now.after(Duration::from_secs(3600)));
    assert!(handle.query(&future).unwrap().is_empty());
    assert!(handle.label_values("thread").iter().any(|name| !name.is_empty()));
}
