//! POSIX CPU timers by raw system calls: glibc's wrappers allocate, and these run in the handler.

use super::{signal::Token, thread};
use std::{io, mem, ptr, time::Duration};

/// The clock that a timer counts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum CpuClock {
    /// The CPU time of all threads; the signal goes to whichever thread runs.
    Process,
    /// The calling thread's CPU time; the signal goes to it.
    ThisThread,
    /// Another thread's CPU time; the signal goes to it.
    Thread(u32),
}

/// A timer of the kernel. Dropping it does not delete it: the handler keeps just the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timer(pub(crate) i32);

impl Timer {
    /// Makes a timer that is not yet armed. Safe in a signal handler.
    pub(crate) fn create(clock: CpuClock, signal: i32, token: Token) -> io::Result<Self> {
        // SAFETY: sigevent is plain data; all zeroes is a value of it.
        let mut event: libc::sigevent = unsafe { mem::zeroed() };
        event.sigev_signo = signal;
        event.sigev_value.sival_ptr = ptr::without_provenance_mut(token.to_bits() as usize);
        let clock = match clock {
            CpuClock::Process => {
                event.sigev_notify = libc::SIGEV_SIGNAL;
                libc::CLOCK_PROCESS_CPUTIME_ID
            }
            CpuClock::ThisThread => {
                event.sigev_notify = libc::SIGEV_THREAD_ID;
                event.sigev_notify_thread_id = thread::tid() as libc::pid_t;
                libc::CLOCK_THREAD_CPUTIME_ID
            }
            CpuClock::Thread(tid) => {
                event.sigev_notify = libc::SIGEV_THREAD_ID;
                event.sigev_notify_thread_id = tid as libc::pid_t;
                thread::clock_of(tid)
            }
        };
        let mut id: i32 = -1;
        // SAFETY: the kernel's timer_t is an int and its sigevent has the layout of libc's; both
        // pointers are to values of this frame.
        let result = unsafe { libc::syscall(libc::SYS_timer_create, clock, &event, &mut id) };
        if result == 0 { Ok(Self(id)) } else { Err(io::Error::last_os_error()) }
    }

    /// Lets the timer expire `first` from now and then every `period` of its clock. Safe in a
    /// signal handler.
    pub(crate) fn arm(self, first: Duration, period: Duration) -> io::Result<()> {
        let spec = libc::itimerspec { it_interval: timespec(period), it_value: timespec(first) };
        let none: *mut libc::itimerspec = ptr::null_mut();
        // SAFETY: `spec` lives in this frame, and a null old value is allowed.
        let result = unsafe { libc::syscall(libc::SYS_timer_settime, self.0, 0, &spec, none) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Whether the timer can still expire: it is armed and the thread it counts is not dead.
    /// The kernel gives zeroes for a CPU timer whose thread is gone, even where a new thread has
    /// the same number.
    pub(crate) fn is_live(self) -> bool {
        // SAFETY: itimerspec is plain data; all zeroes is a value of it.
        let mut left: libc::itimerspec = unsafe { mem::zeroed() };
        // SAFETY: the pointer is to a value of this frame.
        let result = unsafe { libc::syscall(libc::SYS_timer_gettime, self.0, &mut left) };
        if result != 0 {
            // Where asking is not permitted, the thread must not be taken for dead.
            return io::Error::last_os_error().raw_os_error() != Some(libc::EINVAL);
        }
        (left.it_value.tv_sec, left.it_value.tv_nsec) != (0, 0)
    }

    /// Gives the timer back to the kernel. A number that is no timer is ignored.
    pub(crate) fn delete(self) {
        // SAFETY: timer_delete takes a number and checks it.
        unsafe { libc::syscall(libc::SYS_timer_delete, self.0) };
    }
}

/// At least a nanosecond: zero would disarm the timer.
fn timespec(duration: Duration) -> libc::timespec {
    let duration = duration.max(Duration::from_nanos(1));
    libc::timespec {
        tv_sec: libc::time_t::try_from(duration.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(duration.subsec_nanos() as i32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_of_a_dead_thread_is_not_live() {
        let (send, receive) = std::sync::mpsc::channel();
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            send.send(thread::tid()).unwrap();
            let _ = wait.recv();
        });
        let tid = receive.recv().unwrap();
        // An hour of CPU time: it never expires here, so the signal's disposition is no matter.
        let hour = Duration::from_secs(3600);
        let timer = Timer::create(CpuClock::Thread(tid), libc::SIGURG, Token::process(0)).unwrap();
        assert!(!timer.is_live(), "not armed yet");
        timer.arm(hour, hour).unwrap();
        assert!(timer.is_live());
        drop(done);
        thread.join().unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while timer.is_live() {
            assert!(std::time::Instant::now() < deadline, "the kernel still calls it live");
            std::thread::yield_now();
        }
        timer.delete();
        timer.delete();
    }
}
