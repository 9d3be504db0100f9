//! Starting, not starting, stopping and changing on a bad day.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{
    assert_near, burn,
    child::{isolated, isolated_with, not_permitted},
    os, process_cpu, spin, thread_cpu, time_in, time_with, wait_until,
};
use hsi_profiling::{Config, Error, Handle, Profile, ProfileType, Query, State, Stats};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

const MS: Duration = Duration::from_millis(1);

fn everything(handle: &Handle) -> Profile {
    handle.query(&Query::new(ProfileType::Cpu)).unwrap()
}

/// Burns until the process has used so much CPU time from now on.
fn let_the_process_use(cpu: Duration) {
    let end = process_cpu() + cpu;
    while process_cpu() < end {
        thread::sleep(2 * MS);
    }
}

/// What was sampled in an interval, or stated to be in no sample, and what the process used in it.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    sampled: Duration,
    process: Duration,
}

impl Account {
    fn add(&mut self, before: &Stats, after: &Stats) {
        self.sampled += after.sampled_cpu - before.sampled_cpu;
        self.sampled += common::stated(after) - common::stated(before);
        self.process += after.process_cpu - before.process_cpu;
    }

    /// That it is right but for what the process's threads have used since they were last seen.
    #[track_caller]
    fn assert_near(&self, threads: u32) {
        let none = Stats::default();
        assert_near("account", self.sampled, self.process, 0.04, threads, &none);
    }
}

/// Threads that burn CPU until this goes.
fn with_busy_threads<R>(count: usize, act: impl FnOnce() -> R) -> R {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..count {
            let work = || {
                while !stop.load(Ordering::Relaxed) {
                    spin(10_000);
                }
            };
            thread::Builder::new().name("busy".into()).spawn_scoped(scope, work).unwrap();
        }
        let _end = common::OnDrop(|| stop.store(true, Ordering::Relaxed));
        act()
    })
}

/// What can be seen of a profiler from outside.
fn traces() -> (String, usize, Option<usize>) {
    (os::status("SigCgt"), os::thread_count(), os::posix_timers())
}

/// The reason why this session is off.
fn reason(session: &hsi_profiling::Session) -> String {
    match session.handle().state() {
        State::Off { reason } => reason,
        state => panic!("{state}"),
    }
}

/// An off session answers everything, and the service goes on.
fn assert_serves_without_profiling(session: hsi_profiling::Session) {
    let handle = session.handle();
    let _label = hsi_profiling::label("stage", "unprofiled");
    burn(20 * MS);
    assert_eq!(handle.service(), "service");
    assert_eq!(handle.stats().signals, 0);
    assert!(everything(&handle).is_empty());
    assert!(handle.symbol_status().is_empty() && handle.label_values("thread").is_empty());
    for refused in [handle.pause(), handle.resume(), handle.set_cpu_hz(50)] {
        assert!(matches!(refused, Err(Error::NotRunning)), "{refused:?}");
    }
    assert!(matches!(handle.capture(ProfileType::Cpu, MS), Err(Error::NotRunning)));
    drop(session);
    assert!(matches!(handle.state(), State::Off { .. }));
}

#[test]
fn switched_off_by_the_environment_leaves_no_trace() {
    const NAME: &str = "switched_off_by_the_environment_leaves_no_trace";
    isolated_with(NAME, &[("HSI_PROFILING_ENABLED", "false")], || {
        let before = traces();
        let session = hsi_profiling::start("service");
        assert!(reason(&session).contains("HSI_PROFILING_ENABLED"), "{}", reason(&session));
        let code = Config::builder("service").enabled(true).cpu_hz(4000).start().unwrap();
        assert!(matches!(code.handle().state(), State::Off { .. }), "code does not beat it");
        burn(50 * MS);
        assert_eq!(traces(), before);
        assert_eq!(before.2.unwrap_or(0), 0);
        assert_serves_without_profiling(session);
        assert_eq!(traces(), before);
    });
}

#[test]
fn a_bad_variable_is_named_and_the_service_goes_on() {
    const NAME: &str = "a_bad_variable_is_named_and_the_service_goes_on";
    isolated_with(NAME, &[("HSI_PROFILING_CPU_HZ", "10k")], || {
        let before = traces();
        let error = Config::builder("service").start().unwrap_err().to_string();
        for part in ["HSI_PROFILING_CPU_HZ", "10k", "1 to 4000"] {
            assert!(error.contains(part), "{error} does not say {part}");
        }
        let session = hsi_profiling::start("service");
        assert_eq!(reason(&session), error);
        assert_eq!(traces(), before);
        assert_serves_without_profiling(session);
        // What the code sets is not looked for in the environment.
        drop(Config::builder("service").cpu_hz(10).start().unwrap());
    });
}

#[test]
fn a_bad_rate_is_named() {
    for hz in [0, 4001, u32::MAX] {
        let error = Config::builder("service").cpu_hz(hz).start().unwrap_err();
        assert!(matches!(error, Error::Setting { name: "cpu_hz", .. }), "{error:?}");
        let error = error.to_string();
        assert!(error.contains(&hz.to_string()) && error.contains("1 to 4000"), "{error}");
    }
}

#[test]
fn refused_timers_are_an_error_and_the_service_goes_on() {
    isolated("refused_timers_are_an_error_and_the_service_goes_on", || {
        os::forbid(libc::SYS_timer_create);
        let error = Config::builder("service").start().unwrap_err();
        assert!(matches!(error, Error::Timer(_)), "{error:?}");
        assert!(error.to_string().contains("timer_create"), "{error}");
        let session = hsi_profiling::start("service");
        assert_eq!(reason(&session), error.to_string());
        assert_serves_without_profiling(session);
    });
}

#[test]
fn no_room_for_a_timer_is_an_error_that_names_the_limit() {
    isolated("no_room_for_a_timer_is_an_error_that_names_the_limit", || {
        os::limit_pending_signals(0);
        let error = Config::builder("service").start().unwrap_err();
        assert!(matches!(error, Error::Timer(_)), "{error:?}");
        assert!(error.to_string().contains("RLIMIT_SIGPENDING"), "{error}");
        let session = hsi_profiling::start("service");
        assert_eq!(reason(&session), error.to_string());
        assert_serves_without_profiling(session);
    });
}

#[test]
fn without_proc_everything_but_the_rest_works() {
    isolated("without_proc_everything_but_the_rest_works", || {
        if let Err(error) = os::hide_proc() {
            return not_permitted(&format!("taking /proc away: {error}"));
        }
        assert!(std::fs::read_dir("/proc").unwrap().next().is_none(), "/proc is still there");
        let session = Config::builder("no-proc").cpu_hz(1000).start().unwrap();
        let handle = session.handle();
        let work = || {
            burn(800 * MS);
            thread_cpu()
        };
        let worker = thread::Builder::new().name("no-proc".into()).spawn(work).unwrap();
        let truth = worker.join().unwrap();
        let profile = everything(&handle);
        let stats = handle.stats();
        assert_near("worker", time_with(&profile, "thread", "no-proc"), truth, 0.05, 1, &stats);
        assert!(stats.unwound * 100 >= stats.recorded * 99, "{stats:?}");
        // Addresses from its first function to `spin`, and their names.
        let found = time_in(&handle, &profile, "spin");
        assert!(found > truth / 2, "{found:?}: {}", common::folded(&handle, &profile));
        handle.pause().unwrap();
        handle.resume().unwrap();
        handle.set_cpu_hz(100).unwrap();
    });
}

#[test]
fn there_is_one_session_at_a_time() {
    isolated("there_is_one_session_at_a_time", || {
        let first = Config::builder("first").start().unwrap();
        let error = Config::builder("second").start().unwrap_err();
        assert!(matches!(error, Error::AlreadyRunning), "{error:?}");
        let off = hsi_profiling::start("second");
        assert_eq!(reason(&off), error.to_string());
        drop(off);
        assert_eq!(first.handle().state(), State::Running);
        assert!(Config::builder("third").start().is_err(), "an off session's end is not its end");
        let old = first.handle();
        drop(first);
        assert_eq!(old.state(), State::Stopped);
        for refused in [old.pause(), old.resume(), old.set_cpu_hz(50)] {
            assert!(matches!(refused, Err(Error::NotRunning)), "{refused:?}");
        }
        let next = Config::builder("next").cpu_hz(1000).start().unwrap();
        let found = || common::total(&everything(&next.handle()));
        common::burn_until("samples of the next session", || found() > 50 * MS);
        assert_eq!(old.state(), State::Stopped);
    });
}

#[test]
fn fifty_sessions_in_a_busy_process() {
    isolated("fifty_sessions_in_a_busy_process", || {
        with_busy_threads(4, || {
            let (mut short, mut long) = (Account::default(), Account::default());
            let mut last = None;
            let mut former = Stats::default();
            for i in 0..50 {
                let session = Config::builder("again").cpu_hz(1000).start().unwrap();
                let handle = session.handle();
                let before = handle.stats();
                for (now, then) in [
                    (before.handler_time, former.handler_time),
                    (before.own_cpu, former.own_cpu),
                    (before.sampled_cpu, former.sampled_cpu),
                    (before.process_cpu, former.process_cpu),
                ] {
                    assert!(now >= then, "{before:?} is less than {former:?}");
                }
                former = before.clone();
                let_the_process_use(if i == 49 { 1500 * MS } else { 30 * MS });
                (if i == 49 { &mut long } else { &mut short }).add(&before, &handle.stats());
                drop(session);
                // A handler that was about to make one when the session ended takes it back.
                wait_until("the last timer to go", || os::posix_timers().unwrap_or(0) == 0);
                last = Some(handle);
            }
            // What is unseen at a session's end stays a residual, so many ends leave much.
            let Account { sampled, process } = short;
            assert!(sampled > process / 4 && sampled < process.mul_f64(1.2), "{short:?}");
            long.assert_near(4);
            // Stopped is stopped.
            let handle = last.unwrap();
            let mut before = handle.stats();
            wait_until("the last handlers to end", || {
                let_the_process_use(20 * MS);
                let former = std::mem::replace(&mut before, handle.stats());
                former.signals == before.signals
            });
            let_the_process_use(100 * MS);
            let after = handle.stats();
            assert_eq!((after.signals, after.timers), (before.signals, 0), "{after:?}");
            common::assert_adds_up(&after);
        });
    });
}

#[test]
fn the_rate_changes_while_threads_are_busy() {
    isolated("the_rate_changes_while_threads_are_busy", || {
        let session = Config::builder("rates").cpu_hz(1000).start().unwrap();
        let handle = session.handle();
        with_busy_threads(4, || {
            let (begun, mut account) = (handle.stats(), Account::default());
            for (i, hz) in [100, 4000, 250, 1000].into_iter().cycle().take(60).enumerate() {
                handle.set_cpu_hz(hz).unwrap();
                assert_eq!(handle.cpu_hz(), hz);
                // New threads meet every rate in the middle of its change.
                thread::scope(|scope| _ = scope.spawn(|| burn(5 * MS)));
                let_the_process_use(40 * MS);
                if i % 10 == 9 {
                    handle.pause().unwrap();
                    assert_eq!(handle.state(), State::Paused);
                    assert!(matches!(handle.capture(ProfileType::Cpu, MS), Err(Error::NotRunning)));
                    handle.pause().unwrap();
                    handle.resume().unwrap();
                    handle.resume().unwrap();
                    assert_eq!(handle.state(), State::Running);
                }
            }
            account.add(&begun, &handle.stats());
            let Account { sampled, process } = account;
            assert!(sampled > process / 4 && sampled < process.mul_f64(1.2), "{account:?}");
            // And no thread has kept a timer of another rate.
            for hz in [200, 2000] {
                handle.set_cpu_hz(hz).unwrap();
                let (before, mut account) = (handle.stats(), Account::default());
                let_the_process_use(1000 * MS);
                account.add(&before, &handle.stats());
                account.assert_near(4);
            }
        });
        assert!(handle.set_cpu_hz(0).is_err() && handle.set_cpu_hz(4001).is_err());
        assert_eq!(handle.cpu_hz(), 2000);
        handle.pause().unwrap();
        common::assert_adds_up(&handle.stats());
    });
}

#[test]
fn while_paused_nothing_is_sampled() {
    isolated("while_paused_nothing_is_sampled", || {
        let session = Config::builder("paused").cpu_hz(1000).start().unwrap();
        let handle = session.handle();
        burn(50 * MS);
        handle.pause().unwrap();
        let before = handle.stats();
        assert_eq!(os::posix_timers().unwrap_or(0), 0);
        burn(100 * MS);
        handle.set_cpu_hz(500).unwrap();
        assert_eq!(handle.state(), State::Paused);
        let seen = |stats: &Stats| (stats.signals, stats.sampled_cpu, stats.process_cpu);
        assert_eq!(seen(&handle.stats()), seen(&before));
        handle.resume().unwrap();
        let resumed = thread_cpu();
        burn(600 * MS);
        let after = handle.stats();
        let truth = thread_cpu() - resumed;
        assert_near("resumed", after.sampled_cpu - before.sampled_cpu, truth, 0.05, 1, &after);
        drop(session);
        assert_eq!(os::posix_timers().unwrap_or(0), 0);
    });
}

#[test]
fn a_session_ends_under_load_and_its_late_signals_are_counted() {
    isolated("a_session_ends_under_load_and_its_late_signals_are_counted", || {
        with_busy_threads(6, || {
            let signal = libc::SIGRTMIN() + 5;
            let session = Config::builder("ends").cpu_hz(4000).signal(signal).start().unwrap();
            let handle = session.handle();
            wait_until("samples", || handle.stats().recorded > 50);
            let capture = handle.capture(ProfileType::Cpu, Duration::from_secs(300)).unwrap();
            let waiting = thread::spawn(move || capture.wait());
            drop(session);
            let captured = waiting.join().unwrap().unwrap();
            assert!(captured.duration < Duration::from_secs(100), "it ended with the session");
            let before = handle.stats();
            // One of a former run, as if it had been on its way.
            os::forge(signal, libc::SI_TIMER, os::token(1, 0), 3);
            let after = handle.stats();
            assert_eq!((after.late, after.recorded), (before.late + 1, before.recorded));
            common::assert_adds_up(&after);
        });
    });
}

#[test]
fn labels_come_with_the_samples_of_their_thread() {
    isolated("labels_come_with_the_samples_of_their_thread", || {
        let session = Config::builder("labels").cpu_hz(1000).start().unwrap();
        let handle = session.handle();
        let timed = |cpu: Duration| {
            let before = thread_cpu();
            burn(cpu);
            thread_cpu() - before
        };
        let (outer, inner, other) = thread::scope(|scope| {
            let labelled = scope.spawn(|| {
                let _stage = hsi_profiling::label("stage", "outer");
                let mut outer = timed(300 * MS);
                let inner = {
                    let _stage = hsi_profiling::label("stage", "inner");
                    let _kind = hsi_profiling::label("kind", "nested");
                    timed(400 * MS)
                };
                outer += timed(300 * MS);
                (outer, inner)
            });
            let other = scope.spawn(|| timed(300 * MS));
            let (outer, inner) = labelled.join().unwrap();
            (outer, inner, other.join().unwrap())
        });
        let (profile, stats) = (everything(&handle), handle.stats());
        let staged = |stage: &str| time_with(&profile, "stage", stage);
        assert_near("outer", staged("outer"), outer, 0.05, 2, &stats);
        assert_near("inner", staged("inner"), inner, 0.05, 1, &stats);
        assert_near("nested", time_with(&profile, "kind", "nested"), inner, 0.05, 1, &stats);
        let bare: i64 = profile
            .samples()
            .filter(|(sample, _)| profile.labels.get(sample.labels).get("stage").is_none())
            .map(|(_, values)| values[1])
            .sum();
        let bare = Duration::from_nanos(bare as u64);
        let unseen = common::UNSEEN + common::stated(&stats);
        assert!(bare + unseen > other.mul_f64(0.9), "{bare:?} of {other:?}");
        assert_eq!(handle.label_values("stage"), ["inner", "outer"]);
        let only = Query::new(ProfileType::Cpu).label("stage", "inner");
        let only = common::total(&handle.query(&only).unwrap());
        assert_eq!(only, time_with(&profile, "stage", "inner"));
    });
}
