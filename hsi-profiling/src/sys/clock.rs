//! Clocks: the CPU's own counter for timing the handler, and the CPU clock of the process.

use std::time::{Duration, Instant};

/// The processor's constant-rate counter. Costs a few nanoseconds and no system call, unlike the
/// CPU clock of a thread, which costs some hundred.
#[inline]
pub(crate) fn ticks() -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: every x86_64 processor has RDTSC, and Linux leaves it enabled in user mode.
        unsafe { core::arch::x86_64::_rdtsc() }
    }
    #[cfg(target_arch = "aarch64")]
    {
        let now: u64;
        // SAFETY: Linux lets user mode read the virtual counter; the instruction has no other
        // effect.
        unsafe {
            core::arch::asm!("mrs {}, cntvct_el0", out(reg) now, options(nomem, nostack, preserves_flags));
        }
        now
    }
}

/// How many ticks there are in a nanosecond, measured against the monotonic clock over the time
/// since it was made.
#[derive(Debug)]
pub(crate) struct TickRate {
    ticks: u64,
    at: Instant,
}

impl TickRate {
    /// Starts measuring.
    pub(crate) fn start() -> Self {
        Self { ticks: ticks(), at: Instant::now() }
    }

    /// The ticks in a time; `None` until enough has passed to tell.
    pub(crate) fn ticks_in(&self, time: Duration) -> Option<u64> {
        let nanos = self.at.elapsed().as_nanos();
        if nanos < 1_000_000 {
            return None;
        }
        let ticks = u128::from(ticks().wrapping_sub(self.ticks));
        u64::try_from(time.as_nanos() * ticks / nanos).ok()
    }

    /// The nanoseconds in `elapsed` ticks; 0 until some time has passed.
    pub(crate) fn nanos(&self, elapsed: u64) -> u64 {
        let ticks = ticks().wrapping_sub(self.ticks);
        if ticks == 0 {
            return 0;
        }
        let nanos = self.at.elapsed().as_nanos();
        u64::try_from(u128::from(elapsed) * nanos / u128::from(ticks)).unwrap_or(u64::MAX)
    }
}

/// The CPU time of the whole process, dead threads included; zero if the kernel won't say.
pub(crate) fn process_cpu() -> Duration {
    read(libc::CLOCK_PROCESS_CPUTIME_ID).unwrap_or_default()
}

/// The calling thread's CPU time. A system call, safe in a signal handler.
pub(crate) fn own_cpu() -> Duration {
    read(libc::CLOCK_THREAD_CPUTIME_ID).unwrap_or_default()
}

/// Reads a POSIX clock.
pub(super) fn read(clock: libc::clockid_t) -> Option<Duration> {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of this frame.
    if unsafe { libc::clock_gettime(clock, &mut now) } != 0 {
        return None;
    }
    Some(Duration::new(u64::try_from(now.tv_sec).ok()?, u32::try_from(now.tv_nsec).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_measure_time() {
        // The thread may wait for a processor between any two readings.
        let (rate, around) = (TickRate::start(), Instant::now());
        let (before, within) = (ticks(), Instant::now());
        while within.elapsed() < Duration::from_millis(20) {}
        let within = within.elapsed();
        let passed = ticks() - before;
        let (nanos, around) = (rate.nanos(passed), around.elapsed());
        let bounds = within.mul_f64(0.95).as_nanos()..around.mul_f64(1.05).as_nanos();
        assert!(bounds.contains(&u128::from(nanos)), "{nanos} is not in {bounds:?}");
        let there = rate.ticks_in(Duration::from_nanos(nanos)).unwrap();
        assert!(rate.nanos(there).abs_diff(nanos) < nanos / 10, "{there} ticks");
    }
}
