//! Threads: who runs, what they are called, where their thread pointer is.

use super::{clock, signal};
use std::{
    fs, io,
    mem::{self, MaybeUninit},
    ptr,
    time::Duration,
};

/// The calling thread's number. One raw system call, safe in a signal handler.
#[inline]
pub(crate) fn tid() -> u32 {
    // SAFETY: gettid takes no arguments and cannot fail.
    (unsafe { libc::syscall(libc::SYS_gettid) }) as u32
}

/// Whether the thread still runs in this process.
pub(crate) fn is_alive(pid: u32, tid: u32) -> bool {
    // SAFETY: signal 0 is checked for but never sent.
    let sent =
        unsafe { libc::syscall(libc::SYS_tgkill, pid as libc::pid_t, tid as libc::pid_t, 0) };
    // Where asking is not permitted, a thread must not be taken for dead.
    sent == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH)
}

/// Does something, as starting a thread, with all signals blocked but those of faults and ours. A
/// thread inherits what is blocked: one of ours must not be where the kernel delivers a signal that
/// the host has blocked in its own threads, to wait for it.
pub(crate) fn without_signals<R>(act: impl FnOnce() -> R) -> R {
    let let_through = [
        libc::SIGSEGV,
        libc::SIGBUS,
        libc::SIGFPE,
        libc::SIGILL,
        libc::SIGTRAP,
        libc::SIGSYS,
        signal::installed(),
    ];
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: a sigset_t is plain data, filled before it is used, as is `before` by the call that
    // gets it; numbers that are no signal's are refused.
    let restore = unsafe {
        let mut blocked: libc::sigset_t = mem::zeroed();
        libc::sigfillset(&mut blocked);
        for signal in let_through {
            libc::sigdelset(&mut blocked, signal);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &blocked, before.as_mut_ptr()) == 0
    };
    let result = act();
    if restore {
        // SAFETY: the call that returned 0 has filled in `before`.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut()) };
    }
    result
}

/// Whether the calling thread blocks the signal.
pub(crate) fn is_blocked_here(signal: i32) -> bool {
    let mut mask = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: a null new mask only asks; all zeroes is a set without signals, should it fail.
    unsafe {
        libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), mask.as_mut_ptr());
        libc::sigismember(mask.as_ptr(), signal) == 1
    }
}

/// The CPU time of a thread of this process; `None` when it is gone.
pub(crate) fn thread_cpu(tid: u32) -> Option<Duration> {
    clock::read(clock_of(tid))
}

/// The kernel's number for the CPU clock of a thread: `MAKE_THREAD_CPUCLOCK(tid, CPUCLOCK_SCHED)`
/// of include/linux/posix-timers_types.h, as clock_getres(2) and pthread_getcpuclockid(3) use it.
pub(super) fn clock_of(tid: u32) -> libc::clockid_t {
    const SCHED: i32 = 2;
    const PER_THREAD: i32 = 4;
    ((!(tid as i32)) << 3) | SCHED | PER_THREAD
}

/// A thread's name as the kernel keeps it: at most 15 bytes, zeroes after them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct ThreadName(pub(crate) [u64; 2]);

impl ThreadName {
    /// The name as text; bytes that are not UTF-8 are replaced.
    pub(crate) fn to_text(self) -> String {
        let mut bytes = [0u8; 16];
        bytes[..8].copy_from_slice(&self.0[0].to_ne_bytes());
        bytes[8..].copy_from_slice(&self.0[1].to_ne_bytes());
        let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    }
}

/// The calling thread's name. One raw system call, safe in a signal handler, and it needs no
/// /proc; a dead thread's name cannot be asked for later.
#[inline]
pub(crate) fn thread_name() -> ThreadName {
    let mut name = [0u64; 2];
    // SAFETY: PR_GET_NAME writes at most 16 bytes, which is the size of `name` (prctl(2)).
    unsafe { libc::syscall(libc::SYS_prctl, libc::PR_GET_NAME, name.as_mut_ptr(), 0, 0, 0) };
    ThreadName(name)
}

/// The calling thread's thread pointer, which glibc and musl place above the thread's stack in
/// the same mapping, for every thread but the first. It is the upper bound of what a walk of the
/// stack may read.
#[inline]
pub(crate) fn thread_pointer() -> u64 {
    let pointer: u64;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the x86_64 ELF TLS ABI stores the thread pointer's own value at fs:0.
    unsafe {
        core::arch::asm!("mov {}, fs:0", out(reg) pointer, options(nostack, readonly, preserves_flags));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: user mode may read its own thread pointer register.
    unsafe {
        core::arch::asm!("mrs {}, tpidr_el0", out(reg) pointer, options(nomem, nostack, preserves_flags));
    }
    pointer
}

/// The threads of this process, from /proc; empty where there is no /proc.
pub(crate) fn threads() -> Vec<u32> {
    fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// Whether the thread blocks the signal, from /proc; `None` where that can't be read.
pub(crate) fn signal_blocked(tid: u32, signal: i32) -> Option<bool> {
    let status = fs::read_to_string(format!("/proc/self/task/{tid}/status")).ok()?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:"))?;
    let mask = u64::from_str_radix(mask.trim(), 16).ok()?;
    let bit = u32::try_from(signal).ok()?.checked_sub(1)?;
    Some(mask.checked_shr(bit)? & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_thread_knows_its_name_and_clock() {
        let seen = std::thread::Builder::new()
            .name("a-name".into())
            .spawn(|| (thread_name().to_text(), thread_cpu(tid()).is_some(), tid()))
            .unwrap()
            .join()
            .unwrap();
        assert_eq!((&*seen.0, seen.1), ("a-name", true));
        let pid = std::process::id();
        assert!(is_alive(pid, tid()));
        assert!(!is_alive(pid, seen.2), "the thread was joined");
        assert!(threads().contains(&tid()));
        assert_eq!(signal_blocked(tid(), libc::SIGUSR2), Some(false));
        let blocked = |signal| (signal_blocked(tid(), signal), is_blocked_here(signal));
        let apart = without_signals(|| {
            std::thread::spawn(move || (blocked(libc::SIGTERM), blocked(libc::SIGSEGV)))
        });
        assert_eq!(apart.join().unwrap(), ((Some(true), true), (Some(false), false)));
        assert_eq!(blocked(libc::SIGTERM), (Some(false), false), "and none here afterwards");
    }
}
