//! Signals that are not ours, and some that pretend to be.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{assert_adds_up, burn, burn_until, child::isolated, os, wait_until};
use hsi_profiling::{Config, Error, Handle, State};
use std::{
    fs,
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
    thread,
    time::Duration,
};

const MS: Duration = Duration::from_millis(1);

fn foreign(handle: &Handle) -> u64 {
    handle.stats().foreign
}

/// Calls of the program's own handler, and the value that came with the last one.
static CALLS: AtomicU64 = AtomicU64::new(0);
static VALUE: AtomicI64 = AtomicI64::new(0);

extern "C" fn plain(signal: libc::c_int) {
    assert_eq!(signal, libc::SIGPROF);
    CALLS.fetch_add(1, Ordering::SeqCst);
}

fn with_info(value: i64) {
    CALLS.fetch_add(1, Ordering::SeqCst);
    VALUE.store(value, Ordering::SeqCst);
}

#[test]
fn a_plain_handler_that_was_there_before_is_called() {
    isolated("a_plain_handler_that_was_there_before_is_called", || {
        os::handle(libc::SIGPROF, plain);
        let session = Config::builder("chain").signal(libc::SIGPROF).cpu_hz(1000).start().unwrap();
        let handle = session.handle();
        burn(50 * MS);
        assert_eq!(CALLS.load(Ordering::SeqCst), 0, "our own are not passed on");
        for _ in 0..10 {
            os::raise(libc::SIGPROF);
        }
        assert_eq!((CALLS.load(Ordering::SeqCst), foreign(&handle)), (10, 10));
        drop(session);
        os::raise(libc::SIGPROF);
        assert_eq!(CALLS.load(Ordering::SeqCst), 11, "after the session's end too");
        let again = Config::builder("chain").signal(libc::SIGPROF).cpu_hz(1000).start().unwrap();
        os::raise(libc::SIGPROF);
        assert_eq!(CALLS.load(Ordering::SeqCst), 12, "our own handler is not its own predecessor");
        burn_until("samples", || again.handle().stats().recorded > 5);
        again.handle().pause().unwrap();
        assert_adds_up(&again.handle().stats());
    });
}

#[test]
fn a_handler_that_wants_the_value_gets_it() {
    isolated("a_handler_that_wants_the_value_gets_it", || {
        os::handle_with_value(libc::SIGPROF, with_info);
        let session = Config::builder("chain").signal(libc::SIGPROF).cpu_hz(1000).start().unwrap();
        os::forge(libc::SIGPROF, libc::SI_QUEUE, 0x1234_5678, 0);
        assert_eq!(CALLS.load(Ordering::SeqCst), 1);
        assert_eq!(VALUE.load(Ordering::SeqCst), 0x1234_5678);
        // A timer of the program's own on the same signal.
        os::forge(libc::SIGPROF, libc::SI_TIMER, 77, 0);
        assert_eq!((CALLS.load(Ordering::SeqCst), VALUE.load(Ordering::SeqCst)), (2, 77));
        assert_eq!(foreign(&session.handle()), 2);
    });
}

#[test]
fn where_there_was_no_handler_a_foreign_signal_is_swallowed() {
    isolated("where_there_was_no_handler_a_foreign_signal_is_swallowed", || {
        let signal = libc::SIGRTMIN() + 3;
        for signal in [signal, signal] {
            let session = Config::builder("swallow").signal(signal).start().unwrap();
            let before = foreign(&session.handle());
            os::raise(signal);
            os::forge(signal, libc::SI_QUEUE, 5, 0);
            assert_eq!(foreign(&session.handle()), before + 2);
            drop(session);
            // The default would end the process, and the handler is still there.
            os::raise(signal);
        }
        let error = Config::builder("other").signal(signal + 1).start().unwrap_err();
        assert!(error.to_string().contains(&signal.to_string()), "{error}");
    });
}

#[test]
fn who_takes_the_handler_away_ends_sampling_and_nothing_else() {
    isolated("who_takes_the_handler_away_ends_sampling_and_nothing_else", || {
        let signal = libc::SIGPROF;
        let session = Config::builder("replaced").signal(signal).cpu_hz(1000).start().unwrap();
        let handle = session.handle();
        burn_until("samples", || handle.stats().recorded > 5);
        os::handle(signal, plain);
        burn_until("the end of sampling", || handle.state() == State::Paused);
        assert_eq!(os::posix_timers().unwrap_or(0), 0, "nothing of ours comes to a stranger");
        let error = handle.resume().unwrap_err();
        assert!(matches!(error, Error::Handler(_)), "{error:?}");
        drop(session);
        let error = Config::builder("replaced").signal(signal).start().unwrap_err().to_string();
        assert!(error.contains(&signal.to_string()), "{error}");
        os::raise(signal);
        assert!(CALLS.load(Ordering::SeqCst) > 0, "the stranger's is still there");
    });
}

#[test]
fn our_threads_leave_the_hosts_signals_to_the_host() {
    isolated("our_threads_leave_the_hosts_signals_to_the_host", || {
        let signal = libc::SIGRTMIN() + 3;
        let session = Config::builder("masks").signal(signal).cpu_hz(100).start().unwrap();
        let blocks = |tid: &str, signal: i32| {
            let status = fs::read_to_string(format!("/proc/self/task/{tid}/status")).unwrap();
            let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
            u64::from_str_radix(mask.trim(), 16).unwrap() >> (signal - 1) & 1 == 1
        };
        let ours = || {
            let tasks = fs::read_dir("/proc/self/task").unwrap();
            tasks.map(|task| task.unwrap().file_name().into_string().unwrap()).find(|tid| {
                let name = fs::read_to_string(format!("/proc/self/task/{tid}/comm"));
                name.is_ok_and(|name| name.trim() == "hsi-profiler")
            })
        };
        wait_until("the profiler's thread", || ours().is_some());
        let ours = ours().unwrap();
        for host in [libc::SIGTERM, libc::SIGINT, libc::SIGUSR1, libc::SIGHUP] {
            assert!(blocks(&ours, host), "the host may block signal {host}, to wait for it");
        }
        for own in [signal, libc::SIGSEGV] {
            assert!(!blocks(&ours, own), "signal {own}");
        }
        drop(session);
    });
}

#[test]
fn forged_signals_do_no_harm() {
    isolated("forged_signals_do_no_harm", || {
        let signal = libc::SIGRTMIN() + 3;
        let session = Config::builder("forged").signal(signal).cpu_hz(1000).start().unwrap();
        let handle = session.handle();
        let before = handle.stats();
        const EACH: u64 = 5_000;
        thread::scope(|scope| {
            for thread in 0..3u64 {
                scope.spawn(move || {
                    let mut state = thread + 1;
                    let mut random = || {
                        state ^= state << 13;
                        state ^= state >> 7;
                        state ^= state << 17;
                        state
                    };
                    burn(20 * MS);
                    for i in 0..EACH {
                        let (run, slot, overrun) = (random() as u16, random() as u32, random());
                        let (value, overrun) = match i % 5 {
                            0 => (random(), overrun as i32),
                            1 => (os::token(run, slot), overrun as i32),
                            // Of the run that there is, and slots that may be.
                            2 => (os::token(1, slot % 9000), overrun as i32),
                            3 => (os::token(1, u32::MAX), i32::MAX),
                            _ => (os::token(1, slot), -1),
                        };
                        let code = [libc::SI_TIMER, libc::SI_QUEUE][(i % 7 / 6) as usize];
                        os::forge(signal, code, value, overrun);
                    }
                });
            }
        });
        burn(100 * MS);
        handle.pause().unwrap();
        let after = handle.stats();
        assert!(after.signals - before.signals >= 3 * EACH, "{after:?}");
        assert!(after.foreign > before.foreign && after.stale > before.stale, "{after:?}");
        assert!(after.late > before.late && after.recorded > before.recorded, "{after:?}");
        assert_adds_up(&after);
    });
}
