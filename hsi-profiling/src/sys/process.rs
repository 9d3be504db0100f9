//! What this process is, and the kernel it runs on.

use std::{
    ffi::CStr,
    mem::MaybeUninit,
    path::PathBuf,
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
};

/// This process's number. After a fork it is another one.
#[inline]
pub(crate) fn pid() -> u32 {
    // SAFETY: getpid takes no arguments and cannot fail.
    (unsafe { libc::getpid() }) as u32
}

/// Whether this is a child of the process that asked [`watch_forks`] to watch: it has none of the
/// parent's threads and timers, and any lock may be held for ever.
#[inline]
pub(crate) fn is_forked_child() -> bool {
    FORKED.load(Ordering::Relaxed)
}

/// Lets children of this process that do not exec know what they are.
pub(crate) fn watch_forks() {
    static ONCE: Once = Once::new();
    extern "C" fn in_child() {
        FORKED.store(true, Ordering::Relaxed);
    }
    ONCE.call_once(|| {
        // SAFETY: `in_child` only stores to an atomic, which is allowed in the child of a process
        // with threads (pthread_atfork(3)). A failure means no memory; forks then go unnoticed.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
}

static FORKED: AtomicBool = AtomicBool::new(false);

/// A kernel version, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kernel(pub(crate) u32, pub(crate) u32);

/// The running kernel's version; 0.0 where its release can't be read.
pub(crate) fn kernel() -> Kernel {
    let mut name = MaybeUninit::<libc::utsname>::uninit();
    // SAFETY: uname fills the struct that the pointer is to.
    if unsafe { libc::uname(name.as_mut_ptr()) } != 0 {
        return Kernel(0, 0);
    }
    // SAFETY: uname returned 0, so every field is set, and each is a string with its zero.
    let release = unsafe { CStr::from_ptr((*name.as_ptr()).release.as_ptr()) };
    parse(&release.to_string_lossy())
}

fn parse(release: &str) -> Kernel {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    Kernel(numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// The running program's file: the name it has on disk, or, without /proc, the name it was
/// started by.
pub(crate) fn executable() -> PathBuf {
    if let Ok(path) = std::fs::read_link("/proc/self/exe") {
        return path;
    }
    // SAFETY: getauxval only reads the auxiliary vector; 0 means that there is no such entry.
    let name = unsafe { libc::getauxval(libc::AT_EXECFN) } as *const libc::c_char;
    if name.is_null() {
        return PathBuf::new();
    }
    // SAFETY: AT_EXECFN is the address of a string that the kernel placed above the first stack,
    // where it stays as long as the process lives (getauxval(3)).
    let name = unsafe { CStr::from_ptr(name) };
    PathBuf::from(name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_distributions_parse() {
        assert_eq!(parse("6.1.0-18-amd64"), Kernel(6, 1));
        assert_eq!(parse("5.15.167.4-microsoft-standard-WSL2"), Kernel(5, 15));
        assert_eq!(parse("custom"), Kernel(0, 0));
        assert!(Kernel(6, 4) > Kernel(5, 19) && Kernel(6, 10) > Kernel(6, 4));
        assert!(kernel() > Kernel(2, 6));
    }
}
