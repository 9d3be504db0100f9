//! What the tests share: work to be sampled, and a look at who was seen doing it.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of this")]

pub mod child;
pub mod os;

use hsi_profiling::{CallTree, Handle, Profile, Stats};
use std::{
    hint::black_box,
    time::{Duration, Instant},
};

/// The calling thread's CPU time, from the kernel.
pub fn thread_cpu() -> Duration {
    clock(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// The process's CPU time, from the kernel.
pub fn process_cpu() -> Duration {
    clock(libc::CLOCK_PROCESS_CPUTIME_ID)
}

#[expect(unsafe_code, reason = "the clock that is the judge of the sampler")]
fn clock(id: libc::clockid_t) -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of this frame.
    assert_eq!(unsafe { libc::clock_gettime(id, &mut now) }, 0);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Uses this much of the calling thread's CPU time.
pub fn burn(cpu: Duration) {
    let end = thread_cpu() + cpu;
    while thread_cpu() < end {
        spin(2_000);
    }
}

/// Some arithmetic that the compiler can't leave out.
#[inline(never)]
pub fn spin(rounds: u64) -> u64 {
    let mut x = black_box(1u64);
    for i in 0..rounds {
        x = x.wrapping_mul(6364136223846793005).wrapping_add(i);
    }
    black_box(x)
}

/// What may be missing at the end of a thread, or of a stretch of its time. The kernel looks at
/// CPU timers at its tick only, and on a machine with more to do than processors a thread may run
/// between the ticks for quite some time; the next one that finds it makes up for it.
pub const UNSEEN: Duration = Duration::from_millis(80);

/// CPU time that is said to be in no sample. On a virtual machine that is seldom let run, a thread's
/// clock goes on for long without a tick, and that is more than a sample may stand for.
pub fn stated(stats: &Stats) -> Duration {
    stats.merged_cpu + stats.lost_cpu
}

/// That what was sampled of a thread, or of several, is the truth but for what is unseen, and for
/// what is stated to be in no sample.
#[track_caller]
pub fn assert_near(
    what: &str,
    got: Duration,
    want: Duration,
    tolerance: f64,
    threads: u32,
    stats: &Stats,
) {
    let bound = want.mul_f64(tolerance) + threads * UNSEEN + stated(stats);
    assert!(got.abs_diff(want) < bound, "{what}: {got:?} is not {want:?}, within {bound:?}");
}

/// Burns CPU time until `done` says so; panics with `what` after half a minute.
pub fn burn_until(what: &str, mut done: impl FnMut() -> bool) {
    wait_until(what, || {
        burn(Duration::from_millis(10));
        done()
    });
}

/// Waits until `done` says so; panics with `what` after half a minute.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::yield_now();
    }
}

/// Does something when it goes, panic or not: threads of a scope that are waited for must end.
pub struct OnDrop<F: FnMut()>(pub F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Every signal is accounted for by exactly one reason, once no handler is at work.
pub fn assert_adds_up(stats: &Stats) {
    let sum = stats.recorded
        + stats.lost_ring_full
        + stats.lost_ring_busy
        + stats.foreign
        + stats.late
        + stats.covered
        + stats.stale;
    assert_eq!(sum, stats.signals, "{stats:?}");
}

/// CPU time of samples in which some function's name has `part` in it.
pub fn time_in(handle: &Handle, profile: &Profile, part: &str) -> Duration {
    let symbols = handle.symbolize(profile);
    let named = |location| symbols.get(location).iter().any(|frame| frame.function.contains(part));
    let nanos: i64 = profile
        .samples()
        .filter(|(sample, _)| profile.stacks.frames(sample.stack).any(named))
        .map(|(_, values)| values[1])
        .sum();
    Duration::from_nanos(nanos as u64)
}

/// CPU time of samples with this label.
pub fn time_with(profile: &Profile, key: &str, value: &str) -> Duration {
    let nanos: i64 = profile
        .samples()
        .filter(|(sample, _)| profile.labels.get(sample.labels).get(key) == Some(value))
        .map(|(_, values)| values[1])
        .sum();
    Duration::from_nanos(nanos as u64)
}

/// CPU time of all samples.
pub fn total(profile: &Profile) -> Duration {
    Duration::from_nanos(profile.total(1) as u64)
}

/// The profile as text, for messages.
pub fn folded(handle: &Handle, profile: &Profile) -> String {
    let symbols = handle.symbolize(profile);
    let tree = CallTree::new(profile, &symbols, 1);
    hsi_profiling::encode::folded::encode(&tree)
}
