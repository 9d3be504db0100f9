//! Other processes: forked, replaced, spawned.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{assert_adds_up, burn, burn_until, child, child::isolated, os, spin, wait_until};
use hsi_profiling::{Config, Error, Handle, ProfileType, Query, Session, State};
use std::{
    hint::black_box,
    os::unix::process::CommandExt,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

const MS: Duration = Duration::from_millis(1);

/// Threads that hold the profiler's locks, and the allocator's, most of the time.
fn with_load<R>(handle: &Handle, act: impl FnOnce() -> R) -> R {
    let stop = AtomicBool::new(false);
    let go_on = || !stop.load(Ordering::Relaxed);
    thread::scope(|scope| {
        scope.spawn(|| {
            let profile = handle.query(&Query::new(ProfileType::Cpu)).unwrap();
            while go_on() {
                black_box(handle.symbolize(&profile));
            }
        });
        scope.spawn(|| {
            while go_on() {
                black_box(handle.stats());
                black_box(handle.query(&Query::new(ProfileType::Cpu)).unwrap());
            }
        });
        scope.spawn(|| {
            let mut i = 0;
            while go_on() {
                let _label = hsi_profiling::label("number", &format!("{}", i % 500));
                black_box(vec![0u8; 1000 + i % 5000]);
                i += 1;
            }
        });
        let _end = common::OnDrop(|| stop.store(true, Ordering::Relaxed));
        act()
    })
}

/// What a forked child does with what it has inherited; 0, or the number of what went wrong.
/// It must not panic: the lock of the output may have been held.
fn in_the_child(session: Session, handle: &Handle) -> i32 {
    if os::posix_timers().unwrap_or(0) != 0 {
        return 1;
    }
    let _label = hsi_profiling::label("who", "child");
    burn(30 * MS);
    let stats = handle.stats();
    if (stats.signals, stats.recorded) != (0, 0) {
        return 2;
    }
    if handle.state() != State::Stopped {
        return 3;
    }
    let refused = |result| matches!(result, Err(Error::NotRunning));
    if !refused(handle.pause()) || !refused(handle.resume()) || !refused(handle.set_cpu_hz(5)) {
        return 4;
    }
    let query = handle.query(&Query::new(ProfileType::Cpu));
    if query.is_ok_and(|profile| !profile.is_empty()) {
        return 5;
    }
    if !matches!(handle.capture(ProfileType::Cpu, MS), Err(Error::NotRunning)) {
        return 6;
    }
    let mut profile = hsi_profiling::Profile::cpu(MS);
    let here = hsi_profiling::Location::new(in_the_child as *const () as u64, None);
    let here = profile.stacks.location(here);
    let stack = profile.stacks.intern([here]);
    profile.add(stack, hsi_profiling::LabelsId::EMPTY, &[1, 1]);
    black_box(handle.symbolize(&profile));
    black_box((handle.symbol_status(), handle.history(), handle.label_values("thread")));
    if !matches!(Config::builder("child").start(), Err(Error::NotRunning)) {
        return 7;
    }
    drop(hsi_profiling::start("child"));
    drop(session);
    if os::posix_timers().unwrap_or(0) != 0 {
        return 8;
    }
    0
}

#[test]
fn a_forked_child_samples_nothing_and_hangs_nowhere() {
    isolated("a_forked_child_samples_nothing_and_hangs_nowhere", || {
        let mut session = Some(Config::builder("forks").cpu_hz(1000).start().unwrap());
        let handle = session.as_ref().unwrap().handle();
        burn(50 * MS);
        with_load(&handle, || {
            for _ in 0..40 {
                let ended = os::fork(|| in_the_child(session.take().unwrap(), &handle));
                assert_eq!(ended, Ok(0), "{}", handle.state());
                spin(1000);
            }
        });
        // The parent goes on.
        let before = handle.stats();
        burn_until("samples", || handle.stats().recorded > before.recorded);
        handle.pause().unwrap();
        assert_adds_up(&handle.stats());
    });
}

#[test]
fn a_process_that_replaces_itself_takes_no_signal_along() {
    const NAME: &str = "a_process_that_replaces_itself_takes_no_signal_along";
    if !child::is_scenario(NAME) {
        for _ in 0..5 {
            let ended = child::run(NAME, &[]);
            let replaced = ended.output.contains("replaced");
            assert!(ended.status.success() && replaced, "{}\n{}", ended.status, ended.output);
        }
        return;
    }
    let session = Config::builder("exec").cpu_hz(1000).start().unwrap();
    let handle = session.handle();
    for _ in 0..3 {
        thread::spawn(|| {
            loop {
                spin(10_000);
            }
        });
    }
    wait_until("samples", || handle.stats().recorded > 20);
    let work = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo replaced";
    panic!("{}", Command::new("/bin/sh").args(["-c", work]).exec());
}

#[test]
fn four_hundred_commands_run_under_load() {
    isolated("four_hundred_commands_run_under_load", || {
        let session = Config::builder("spawns").cpu_hz(1000).start().unwrap();
        let handle = session.handle();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    spin(10_000);
                }
            });
            let _end = common::OnDrop(|| stop.store(true, Ordering::Relaxed));
            for i in 0..400 {
                let mut command = Command::new("/bin/true");
                if i % 4 == 0 {
                    os::by_fork(&mut command);
                }
                let status = command.status().unwrap();
                assert!(status.success(), "command {i}: {status}");
            }
        });
        assert_eq!(handle.state(), State::Running);
        handle.pause().unwrap();
        let stats = handle.stats();
        assert!(stats.recorded > 0, "{stats:?}");
        assert_adds_up(&stats);
    });
}
