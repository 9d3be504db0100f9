//! The signal: choosing one, installing the handler, and what a handler is handed.
//!
//! Once installed, the handler stays: a late signal that met the default disposition would end
//! the process.

use super::{
    entry::{self, Handler},
    thread,
};
use std::{
    fmt, io,
    marker::PhantomData,
    mem, ptr,
    sync::atomic::{AtomicI32, AtomicUsize, Ordering},
};

/// What a timer of ours carries in its signals.
///
/// It names a slot by number and never by pointer: any process of the same user can forge a
/// signal's value, so a wrong one must only ever be a wrong number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    /// Which run of the sampler armed the timer.
    pub(crate) run: u16,
    /// The slot of the thread, or [`Token::PROCESS`].
    pub(crate) slot: u32,
}

impl Token {
    /// The slot number of the timer on the process's clock.
    pub(crate) const PROCESS: u32 = u32::MAX;

    /// The token of the process's timer.
    pub(crate) fn process(run: u16) -> Self {
        Self { run, slot: Self::PROCESS }
    }

    /// What the kernel carries.
    pub(crate) fn to_bits(self) -> u64 {
        entry::MAGIC << 48 | u64::from(self.run) << 32 | u64::from(self.slot)
    }

    /// The token in a value that is marked as ours.
    fn from_bits(bits: u64) -> Self {
        Self { run: (bits >> 32) as u16, slot: bits as u32 }
    }
}

/// The registers that a walk of the stack starts from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registers {
    /// The interrupted instruction.
    pub(crate) pc: u64,
    /// The stack pointer.
    pub(crate) sp: u64,
    /// The frame pointer: rbp, x29.
    pub(crate) fp: u64,
    /// The link register: x30; 0 where the architecture has none.
    pub(crate) lr: u64,
}

/// Where and why a thread was interrupted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interrupted {
    /// What the timer carried.
    pub(crate) token: Token,
    /// The expiries that were merged into this signal.
    pub(crate) overrun: u32,
    /// Where the thread was.
    pub(crate) registers: Registers,
}

/// Code that runs inside a signal handler.
///
/// # Safety
///
/// The functions must be async-signal-safe: they do not allocate, take a lock, panic, or call a
/// function of libc that does. They run with all signals blocked.
pub(crate) unsafe trait Interrupt {
    /// A timer of ours has expired in the interrupted thread. Runs on a stack of ours.
    fn on_timer(at: &Interrupted);
    /// The same, when there was no stack to run on.
    fn on_no_stack();
    /// The signal came from someone else; it goes on to the handler that was there before, if any.
    fn on_foreign();
}

/// Why a handler could not be installed.
#[derive(Debug)]
pub(crate) enum HandlerError {
    /// The kernel refused.
    Os(io::Error),
    /// This process already has our handler on another signal, which is never taken away.
    Installed(i32),
    /// Somebody else has taken our handler away from this signal.
    Replaced(i32),
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Os(error) => error.fmt(f),
            Self::Replaced(signal) => write!(
                f,
                "another part of this program has put its own handler in the place of ours on \
                 signal {signal}"
            ),
            Self::Installed(signal) => write!(
                f,
                "this process's handler already stands on signal {signal}, and stays there"
            ),
        }
    }
}

/// The real-time signals that a program may use.
pub(crate) fn real_time_signals() -> std::ops::RangeInclusive<i32> {
    libc::SIGRTMIN()..=libc::SIGRTMAX()
}

/// A real-time signal that nobody uses yet, or the one that we have already.
pub(crate) fn free_signal() -> Option<i32> {
    match INSTALLED.load(Ordering::Acquire) {
        0 => real_time_signals().rev().find(|signal| {
            // One that is blocked may be waited for, by a thread that takes any.
            current(*signal).is_ok_and(|action| action.sa_sigaction == libc::SIG_DFL)
                && !thread::is_blocked_here(*signal)
        }),
        ours => Some(ours),
    }
}

/// Installs the handler for `signal`, once and for ever. Installing it again is no error.
pub(crate) fn install<I: Interrupt>(signal: i32) -> Result<(), HandlerError> {
    match INSTALLED.load(Ordering::Acquire) {
        0 => {}
        ours if ours == signal && is_in_place() => return Ok(()),
        ours if ours == signal => return Err(HandlerError::Replaced(ours)),
        ours => return Err(HandlerError::Installed(ours)),
    }
    stay_loaded(entry::entry::<Entered<I>> as *const ());
    let previous = current(signal).map_err(HandlerError::Os)?;
    PREVIOUS_FLAGS.store(previous.sa_flags, Ordering::Relaxed);
    PREVIOUS.store(previous.sa_sigaction, Ordering::Release);
    // SAFETY: sigaction is plain data; all zeroes is a value of it.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = entry::entry::<Entered<I>> as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
    // Not sigfillset, which leaves out the two signals that the C library keeps for itself: one of
    // them makes every thread run a handler when the process changes its user.
    // SAFETY: the pointer is to the mask of this frame's `action`, of which all bits are valid.
    unsafe { ptr::write_bytes(&raw mut action.sa_mask, 0xff, 1) };
    // SAFETY: `I: Interrupt` promises that the handler is async-signal-safe; both pointers are
    // valid for the call.
    if unsafe { libc::sigaction(signal, &action, ptr::null_mut()) } != 0 {
        return Err(HandlerError::Os(io::Error::last_os_error()));
    }
    ENTRY.store(action.sa_sigaction, Ordering::Release);
    INSTALLED.store(signal, Ordering::Release);
    Ok(())
}

/// The signal that our handler was installed for; 0 if none.
pub(super) fn installed() -> i32 {
    INSTALLED.load(Ordering::Acquire)
}

/// Whether our handler is still what the signal leads to. Somebody who saved what was there before
/// and puts it back takes it away; a timer's signal might then end the process.
pub(crate) fn is_in_place() -> bool {
    let entry = ENTRY.load(Ordering::Acquire);
    current(installed()).is_ok_and(|action| action.sa_sigaction == entry)
}

/// Keeps the library that holds this code loaded for good, if it is in one: the handler stays.
fn stay_loaded(code: *const ()) {
    let mut info = mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: dladdr fills in the struct for an address of code, or returns 0; the name that it
    // gives is a string of the loader's. Opening what is loaded already runs no code of it, and for
    // the program itself, or in a static one, it fails and changes nothing.
    unsafe {
        if libc::dladdr(code.cast(), info.as_mut_ptr()) != 0 {
            let name = info.assume_init().dli_fname;
            let how = libc::RTLD_NOLOAD | libc::RTLD_NODELETE | libc::RTLD_NOW;
            if !name.is_null() {
                libc::dlopen(name, how);
            }
        }
    }
}

static INSTALLED: AtomicI32 = AtomicI32::new(0);
/// The address of our handler.
static ENTRY: AtomicUsize = AtomicUsize::new(0);
/// The handler that was there before ours, or `SIG_DFL` or `SIG_IGN`.
static PREVIOUS: AtomicUsize = AtomicUsize::new(libc::SIG_DFL);
static PREVIOUS_FLAGS: AtomicI32 = AtomicI32::new(0);

fn current(signal: i32) -> io::Result<libc::sigaction> {
    let mut action = mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: a null new action only asks; the other pointer is to a value of this frame.
    match unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) } {
        // SAFETY: sigaction returned 0 and so has filled in the struct.
        0 => Ok(unsafe { action.assume_init() }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What the entry leads to, for an [`Interrupt`].
struct Entered<I>(PhantomData<I>);

impl<I: Interrupt> Handler for Entered<I> {
    extern "C" fn on_timer(
        _signal: libc::c_int,
        info: *mut libc::siginfo_t,
        context: *mut libc::c_void,
    ) {
        // SAFETY: errno is thread-local and mapped as long as the thread lives.
        let errno = unsafe { *libc::__errno_location() };
        // SAFETY: the kernel hands an SA_SIGINFO handler a siginfo and a ucontext, valid while it
        // runs. A siginfo_t is 128 bytes, aligned to 8, all of them set by the kernel; every bit
        // pattern is a value of TimerInfo's 32 bytes.
        let (timer, registers) = unsafe { (&*info.cast::<TimerInfo>(), registers(context.cast())) };
        let (token, overrun) =
            (Token::from_bits(timer.value), u32::try_from(timer.overrun).unwrap_or(0));
        I::on_timer(&Interrupted { token, overrun, registers });
        // SAFETY: as above.
        unsafe { *libc::__errno_location() = errno };
    }

    extern "C" fn on_no_stack(
        _signal: libc::c_int,
        _info: *mut libc::siginfo_t,
        _context: *mut libc::c_void,
    ) {
        I::on_no_stack();
    }

    extern "C" fn on_foreign(
        signal: libc::c_int,
        info: *mut libc::siginfo_t,
        context: *mut libc::c_void,
    ) {
        // SAFETY: errno is thread-local and mapped as long as the thread lives.
        let errno = unsafe { *libc::__errno_location() };
        I::on_foreign();
        // SAFETY: the pointers are the kernel's, unchanged.
        unsafe { pass_on(signal, info, context) };
        // SAFETY: as above.
        unsafe { *libc::__errno_location() = errno };
    }
}

/// The start of siginfo_t for a timer, from sigaction(2) and the kernel's asm-generic/siginfo.h.
#[repr(C)]
struct TimerInfo {
    signo: i32,
    errno: i32,
    code: i32,
    pad: i32,
    timer: i32,
    overrun: i32,
    value: u64,
}

/// # Safety
///
/// `context` must be what the kernel handed to the handler.
#[inline]
unsafe fn registers(context: *const libc::ucontext_t) -> Registers {
    // SAFETY: the kernel's ucontext is valid while the handler runs.
    let machine = unsafe { &(*context).uc_mcontext };
    #[cfg(target_arch = "x86_64")]
    {
        let at = |register: libc::c_int| machine.gregs[register as usize] as u64;
        Registers { pc: at(libc::REG_RIP), sp: at(libc::REG_RSP), fp: at(libc::REG_RBP), lr: 0 }
    }
    #[cfg(target_arch = "aarch64")]
    {
        Registers { pc: machine.pc, sp: machine.sp, fp: machine.regs[29], lr: machine.regs[30] }
    }
}

/// Hands a signal that is not ours to the handler that was there before. Where there was none it
/// is swallowed: the default disposition of most signals ends the process, and whoever sent this
/// one did not mean our handler's presence to be what saves or kills it.
///
/// # Safety
///
/// The pointers must be what the kernel handed to the handler.
unsafe fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let previous = PREVIOUS.load(Ordering::Acquire);
    if previous == libc::SIG_DFL || previous == libc::SIG_IGN {
        return;
    }
    if PREVIOUS_FLAGS.load(Ordering::Relaxed) & libc::SA_SIGINFO != 0 {
        type Action = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
        // SAFETY: sigaction gave this address as an SA_SIGINFO handler, so it has this type.
        let action = unsafe { mem::transmute::<usize, Action>(previous) };
        action(signal, info, context);
    } else {
        // SAFETY: sigaction gave this address as a plain handler, so it has this type.
        let action = unsafe { mem::transmute::<usize, extern "C" fn(libc::c_int)>(previous) };
        action(signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_kernel() {
        for token in [Token::process(7), Token { run: u16::MAX, slot: 4095 }] {
            assert_eq!(Token::from_bits(token.to_bits()), token);
            assert_eq!(token.to_bits() >> 48, entry::MAGIC);
        }
    }
}
