//! The peers' timer and signal: all of them use `setitimer(ITIMER_PROF)` and `SIGPROF`, and have
//! neither a switch nor a clock of their own.
#![expect(unsafe_code, reason = "the process's timer, and a handler around a handler")]

use std::{
    mem, ptr,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

/// Stops the timer, or starts it again as the peers do.
pub fn switch(on: bool, hz: u32) {
    let period = if on { 1_000_000 / libc::suseconds_t::from(hz as i32) } else { 0 };
    let value = libc::timeval { tv_sec: 0, tv_usec: period };
    let timer = libc::itimerval { it_interval: value, it_value: value };
    // SAFETY: `timer` lives in this frame, and a null old value is allowed. The peer has installed
    // its handler for the signal, and leaves it there.
    unsafe { libc::setitimer(libc::ITIMER_PROF, &timer, ptr::null_mut()) };
}

type Handler = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void);

static INNER: AtomicUsize = AtomicUsize::new(0);
static NANOS: AtomicU64 = AtomicU64::new(0);
static SIGNALS: AtomicU64 = AtomicU64::new(0);

/// Puts a handler around the peer's that measures how long it takes. Does nothing where there is
/// none.
pub fn time_handlers() {
    // SAFETY: sigaction is plain data; all zeroes is a value of it, and asking changes nothing.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: the pointer is to a value of this frame.
    let asked = unsafe { libc::sigaction(libc::SIGPROF, ptr::null(), &mut action) };
    let theirs = action.sa_sigaction;
    if asked != 0 || theirs == libc::SIG_DFL || theirs == libc::SIG_IGN {
        return;
    }
    INNER.store(theirs, Ordering::Relaxed);
    action.sa_sigaction = around as *const () as usize;
    // SAFETY: `around` calls nothing but a clock and the handler that was there before.
    unsafe { libc::sigaction(libc::SIGPROF, &action, ptr::null_mut()) };
}

/// What the handlers have taken, and how many there were.
#[must_use]
pub fn handlers() -> (Duration, u64) {
    (Duration::from_nanos(NANOS.load(Ordering::Relaxed)), SIGNALS.load(Ordering::Relaxed))
}

extern "C" fn around(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let begun = now();
    // SAFETY: the address is a handler's, as sigaction gave it; all peers set SA_SIGINFO, and one
    // that had not would ignore what is more.
    let inner = unsafe { mem::transmute::<usize, Handler>(INNER.load(Ordering::Relaxed)) };
    inner(signal, info, context);
    NANOS.fetch_add(now().saturating_sub(begun), Ordering::Relaxed);
    SIGNALS.fetch_add(1, Ordering::Relaxed);
}

/// The monotonic clock, without a system call.
fn now() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of this frame; clock_gettime is async-signal-safe.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
