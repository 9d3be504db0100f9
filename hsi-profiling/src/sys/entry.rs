//! Where a signal of ours enters, and the stacks that the handler runs on.
//!
//! The kernel calls a handler on the thread's alternate stack, where it has one. Rust's standard
//! library makes that as large as the kernel's own frame may get, and eight kilobytes at least: after
//! the frame of a thread that has used AMX, of eleven kilobytes, some four hundred bytes are left.
//! A build without optimization needs more than that for its first call. So the entry is a few
//! instructions that need three words: they claim a stack of ours and move to it.

use std::{arch::naked_asm, cell::UnsafeCell, sync::atomic::AtomicBool};

/// What an entry leads to. All are async-signal-safe, do not unwind, and get what the kernel handed
/// to the handler.
pub(super) trait Handler {
    /// A timer's signal, with a value that is marked as ours. Runs on a stack of ours, of
    /// [`SIZE`] bytes.
    extern "C" fn on_timer(
        signal: libc::c_int,
        info: *mut libc::siginfo_t,
        context: *mut libc::c_void,
    );
    /// The same, but every stack is claimed. Runs where the kernel called, with next to no room.
    extern "C" fn on_no_stack(
        signal: libc::c_int,
        info: *mut libc::siginfo_t,
        context: *mut libc::c_void,
    );
    /// Any other signal. Runs where the kernel called.
    extern "C" fn on_foreign(
        signal: libc::c_int,
        info: *mut libc::siginfo_t,
        context: *mut libc::c_void,
    );
}

/// The mark of our timers: the upper 16 bits of the value that their signals carry.
pub(super) const MAGIC: u64 = 0x4853;

/// How many stacks there are: two for each of 32 processors at work in a handler at once.
const COUNT: usize = 64;
/// Bytes of a stack: several times what the handler needs in a build without optimization.
const SIZE: usize = 16 * 1024;
const SIZE_LOG: u32 = SIZE.ilog2();

/// Which stacks are in use. A handler claims one by an exchange.
static CLAIMED: [AtomicBool; COUNT] = [const { AtomicBool::new(false) }; COUNT];
static STACKS: Stacks = Stacks(UnsafeCell::new([0; COUNT * SIZE]));

/// Zeroes whose pages are touched as they are used.
#[repr(C, align(64))]
struct Stacks(UnsafeCell<[u8; COUNT * SIZE]>);

// SAFETY: a part of it is used only by who has claimed it.
unsafe impl Sync for Stacks {}

/// Whether an address lies in one of the stacks.
#[cfg(test)]
pub(super) fn is_in_stacks(address: usize) -> bool {
    let start = STACKS.0.get().addr();
    (start..start + COUNT * SIZE).contains(&address)
}

/// How many stacks are claimed now.
#[cfg(test)]
pub(super) fn claimed() -> usize {
    CLAIMED.iter().filter(|claimed| claimed.load(std::sync::atomic::Ordering::Relaxed)).count()
}

/// What sigaction is given.
///
/// # Safety
///
/// To be called by the kernel alone, as an SA_SIGINFO handler with all signals masked.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
pub(super) unsafe extern "C" fn entry<H: Handler>(
    _signal: libc::c_int,
    _info: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    naked_asm!(
        // siginfo_t: si_code at 8, a timer's si_value at 24.
        "cmp dword ptr [rsi + 8], {si_timer}",
        "jne {foreign}",
        "mov rax, qword ptr [rsi + 24]",
        "shr rax, 48",
        "cmp eax, {magic}",
        "jne {foreign}",
        // Threads' stacks are pages apart, so that each begins its search elsewhere.
        "mov rcx, rsp",
        "shr rcx, 12",
        "lea r8, [rip + {claimed}]",
        "mov r10d, {count}",
        "2:",
        "and ecx, {count} - 1",
        "mov al, 1",
        "xchg byte ptr [r8 + rcx], al",
        "test al, al",
        "je 3f",
        "inc ecx",
        "dec r10d",
        "jne 2b",
        "jmp {no_stack}",
        "3:",
        // Two registers that a callee preserves, for the way back.
        "push r12",
        "push r13",
        "mov r12, rsp",
        "lea r13, [r8 + rcx]",
        "inc rcx",
        "shl rcx, {size_log}",
        "lea rsp, [rip + {stacks}]",
        "add rsp, rcx",
        "call {timer}",
        "mov rsp, r12",
        "mov byte ptr [r13], 0",
        "pop r13",
        "pop r12",
        "ret",
        si_timer = const libc::SI_TIMER,
        magic = const MAGIC,
        count = const COUNT,
        size_log = const SIZE_LOG,
        claimed = sym CLAIMED,
        stacks = sym STACKS,
        timer = sym H::on_timer,
        no_stack = sym H::on_no_stack,
        foreign = sym H::on_foreign,
    )
}

/// What sigaction is given.
///
/// # Safety
///
/// To be called by the kernel alone, as an SA_SIGINFO handler with all signals masked.
#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
pub(super) unsafe extern "C" fn entry<H: Handler>(
    _signal: libc::c_int,
    _info: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    naked_asm!(
        // A landing pad for who enters indirectly, where that is enforced; else it does nothing.
        "hint #34",
        // siginfo_t: si_code at 8, a timer's si_value at 24.
        "ldr w9, [x1, #8]",
        "cmn w9, #{si_timer_negated}",
        "b.ne 5f",
        "ldrh w9, [x1, #30]",
        "mov w10, #{magic}",
        "cmp w9, w10",
        "b.ne 5f",
        // Threads' stacks are pages apart, so that each begins its search elsewhere.
        "mov x9, sp",
        "lsr x9, x9, #12",
        "adrp x10, {claimed}",
        "add x10, x10, :lo12:{claimed}",
        "mov w12, #{count}",
        "mov w14, #1",
        "2:",
        "and x9, x9, #{count} - 1",
        "add x13, x10, x9",
        "3:",
        "ldaxrb w15, [x13]",
        "stxrb w16, w14, [x13]",
        "cbnz w16, 3b",
        "cbz w15, 4f",
        "add x9, x9, #1",
        "subs w12, w12, #1",
        "b.ne 2b",
        "b {no_stack}",
        "4:",
        // Registers that a callee preserves, for the way back.
        "stp x29, x30, [sp, #-32]!",
        "stp x20, x21, [sp, #16]",
        "mov x20, sp",
        "mov x21, x13",
        "add x9, x9, #1",
        "adrp x11, {stacks}",
        "add x11, x11, :lo12:{stacks}",
        "add x11, x11, x9, lsl #{size_log}",
        "mov sp, x11",
        "bl {timer}",
        "mov sp, x20",
        "stlrb wzr, [x21]",
        "ldp x20, x21, [sp, #16]",
        "ldp x29, x30, [sp], #32",
        "ret",
        "5:",
        "b {foreign}",
        si_timer_negated = const -libc::SI_TIMER,
        magic = const MAGIC,
        count = const COUNT,
        size_log = const SIZE_LOG,
        claimed = sym CLAIMED,
        stacks = sym STACKS,
        timer = sym H::on_timer,
        no_stack = sym H::on_no_stack,
        foreign = sym H::on_foreign,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        ptr,
        sync::atomic::{AtomicUsize, Ordering},
    };

    static TIMERS: AtomicUsize = AtomicUsize::new(0);
    static FOREIGN: AtomicUsize = AtomicUsize::new(0);

    struct Probe;

    impl Handler for Probe {
        extern "C" fn on_timer(
            signal: libc::c_int,
            info: *mut libc::siginfo_t,
            context: *mut libc::c_void,
        ) {
            let local = [0u8; 64];
            assert!(is_in_stacks((&raw const local).addr()), "on a stack of ours");
            assert!((signal, context.addr()) == (7, 9) && !info.is_null());
            assert!(claimed() >= 1);
            TIMERS.fetch_add(1, Ordering::Relaxed);
        }
        extern "C" fn on_no_stack(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
        extern "C" fn on_foreign(
            _: libc::c_int,
            _: *mut libc::siginfo_t,
            context: *mut libc::c_void,
        ) {
            let local = [0u8; 64];
            assert!(!is_in_stacks((&raw const local).addr()), "where the kernel called");
            FOREIGN.fetch_add(context.addr(), Ordering::Relaxed);
        }
    }

    #[test]
    fn a_timer_of_ours_moves_to_a_stack_of_ours_and_comes_back() {
        // As a siginfo_t begins: four words of 32 bits, timer and overrun, and the value.
        let mut info = [0u64; 16];
        let context = ptr::without_provenance_mut(9);
        let mut enter = |code: i32, value: u64| {
            info[1] = u64::from(code as u32);
            info[3] = value;
            // SAFETY: the handlers above look at no more than what is passed here, and an entry
            // keeps the ABI of a C function. No signal of ours is about in this process's tests
            // that could need the stacks.
            unsafe { entry::<Probe>(7, info.as_mut_ptr().cast(), context) };
        };
        for run in 0..1000u64 {
            enter(libc::SI_TIMER, MAGIC << 48 | run);
        }
        assert_eq!(TIMERS.load(Ordering::Relaxed), 1000);
        enter(libc::SI_USER, MAGIC << 48);
        enter(libc::SI_TIMER, 0x4854 << 48);
        enter(libc::SI_TIMER, 0);
        assert_eq!(FOREIGN.load(Ordering::Relaxed), 27);
        assert_eq!(TIMERS.load(Ordering::Relaxed), 1000);
    }
}
