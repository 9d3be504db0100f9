//! The kernel's CPU clocks and memory counts: the judges. None of them is a profiler's own.
#![expect(unsafe_code, reason = "clocks and thread numbers come from system calls")]

use std::{fs, time::Duration};

/// The calling thread's CPU time.
#[must_use]
pub fn thread_cpu() -> Duration {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// The process's CPU time, dead threads included.
#[must_use]
pub fn process_cpu() -> Duration {
    read(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// The CPU time of a living thread of this process; zero once it is gone.
#[must_use]
pub fn cpu_of(tid: i32) -> Duration {
    // MAKE_THREAD_CPUCLOCK(tid, CPUCLOCK_SCHED) of include/linux/posix-timers_types.h.
    read((!tid << 3) | 6)
}

/// The calling thread's number.
#[must_use]
pub fn tid() -> i32 {
    // SAFETY: gettid takes nothing and can't fail.
    unsafe { libc::gettid() }
}

/// The kernel's tick rate, as far as user space can see it: the resolution of a coarse clock.
#[must_use]
pub fn kernel_hz() -> u32 {
    let mut resolution = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of this frame.
    let got = unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, &mut resolution) };
    if got == 0 && resolution.tv_nsec > 0 { (1_000_000_000 / resolution.tv_nsec) as u32 } else { 0 }
}

/// Memory of this process that is not a file's, in KiB: `RssAnon` of /proc/self/status.
#[must_use]
pub fn anonymous_kib() -> u64 {
    status_kib("RssAnon:")
}

/// All resident memory of this process, in KiB: `VmRSS` of /proc/self/status.
#[must_use]
pub fn resident_kib() -> u64 {
    status_kib("VmRSS:")
}

fn status_kib(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn read(clock: libc::clockid_t) -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of this frame.
    match unsafe { libc::clock_gettime(clock, &mut now) } {
        0 => Duration::new(now.tv_sec as u64, now.tv_nsec as u32),
        _ => Duration::ZERO,
    }
}
