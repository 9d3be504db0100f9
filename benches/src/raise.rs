//! Signals to oneself: the sampler's own, as its timer would send it, and an empty one to compare
//! with; and an alternate signal stack that shows how much of it was used.
#![expect(unsafe_code, reason = "signals and their stacks come from system calls")]

use hsi_profiling::bench;
use hsi_profiling_bench_load::{
    clock,
    work::{Context, burn},
};
use std::{io, mem, ptr, time::Duration};

/// Sends one signal to the calling thread.
#[derive(Clone, Copy, Debug)]
pub struct Raise {
    signal: i32,
    value: u64,
}

/// The start of siginfo_t for a timer, from the kernel's asm-generic/siginfo.h.
#[repr(C)]
struct TimerInfo {
    signo: i32,
    errno: i32,
    code: i32,
    pad: i32,
    timer: i32,
    overrun: i32,
    value: u64,
    rest: [u64; 12],
}

impl Raise {
    /// The sampler's signal to this thread, once it has a timer: for that it works for some
    /// periods.
    ///
    /// # Panics
    ///
    /// When the sampler does not run.
    #[must_use]
    pub fn ours() -> Self {
        let mut context = Context::new(1);
        let deadline = clock::thread_cpu() + Duration::from_secs(20);
        loop {
            if let Some((signal, value)) = bench::own_signal() {
                return Self { signal, value };
            }
            assert!(clock::thread_cpu() < deadline, "this thread got no timer");
            burn(&mut context, Duration::from_millis(5));
        }
    }

    /// A signal whose handler does nothing, set up as ours is.
    ///
    /// # Panics
    ///
    /// When the kernel refuses.
    #[must_use]
    pub fn empty() -> Self {
        extern "C" fn nothing(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
        let signal = libc::SIGUSR2;
        // SAFETY: sigaction is plain data, and the handler touches nothing.
        unsafe {
            let mut action: libc::sigaction = mem::zeroed();
            action.sa_sigaction = nothing as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
            libc::sigfillset(&mut action.sa_mask);
            assert_eq!(libc::sigaction(signal, &action, ptr::null_mut()), 0);
        }
        Self { signal, value: 0 }
    }

    /// Sends it; the handler has run when this returns.
    ///
    /// # Panics
    ///
    /// When the kernel refuses.
    pub fn send(self) {
        let info = TimerInfo {
            signo: self.signal,
            errno: 0,
            code: libc::SI_TIMER,
            pad: 0,
            timer: 0,
            overrun: 0,
            value: self.value,
            rest: [0; 12],
        };
        // SAFETY: `info` is as large as a siginfo_t (128 bytes), and the kernel only reads it. The
        // signal has a handler.
        let sent = unsafe {
            libc::syscall(
                libc::SYS_rt_tgsigqueueinfo,
                libc::getpid(),
                libc::gettid(),
                self.signal,
                &info,
            )
        };
        assert_eq!(sent, 0, "{}", io::Error::last_os_error());
    }

    /// The system call alone: signal 0 is checked for and not sent.
    pub fn send_none(self) {
        // SAFETY: nothing is sent.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::gettid(), 0) };
    }
}

const _: () = assert!(size_of::<TimerInfo>() == 128);

/// Calls `inner` this many frames deep, each frame a real call.
#[inline(never)]
pub fn at_depth(frames: u32, inner: &mut dyn FnMut()) -> u64 {
    // What is done after the call keeps it from becoming a jump.
    match frames {
        0 => {
            inner();
            1
        }
        _ => std::hint::black_box(at_depth(frames - 1, inner)) + 1,
    }
}

/// The calling thread's alternate signal stack, filled with a pattern.
#[derive(Debug)]
pub struct Painted {
    stack: Vec<u8>,
}

const PATTERN: u8 = 0xa7;

impl Painted {
    /// Puts a painted stack in place of the thread's own, which is not put back.
    ///
    /// # Panics
    ///
    /// When the kernel refuses.
    #[must_use]
    pub fn install() -> Self {
        let mut stack = vec![PATTERN; 256 << 10];
        let new =
            libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: stack.len() };
        // SAFETY: dropping this takes the stack out of use before the buffer is freed.
        assert_eq!(unsafe { libc::sigaltstack(&new, ptr::null_mut()) }, 0);
        Self { stack }
    }

    /// How many bytes have been used, from the top to the deepest byte that changed; and paints
    /// it anew.
    pub fn used(&mut self) -> usize {
        let length = self.stack.len();
        let memory = self.stack.as_mut_ptr();
        // Signals write here behind the compiler's back, so reads must not be assumed.
        // SAFETY: `i` is below the length of the buffer.
        let deepest = (0..length).find(|i| unsafe { memory.add(*i).read_volatile() } != PATTERN);
        for i in 0..length {
            // SAFETY: as above.
            unsafe { memory.add(i).write_volatile(PATTERN) };
        }
        length - deepest.unwrap_or(length)
    }
}

impl Drop for Painted {
    fn drop(&mut self) {
        let off = libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
        // SAFETY: switching the alternate stack off is allowed while no handler runs on it.
        unsafe { libc::sigaltstack(&off, ptr::null_mut()) };
    }
}
