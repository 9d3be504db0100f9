//! Stacks on a bad day: nearly used up, of a fiber, too deep for the rings, in code that comes and
//! goes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{assert_adds_up, burn, child::isolated, os, thread_cpu, time_in, total, wait_until};
use hsi_profiling::{Config, Handle, Profile, ProfileType, Query};
use std::{
    fs,
    hint::black_box,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

const MS: Duration = Duration::from_millis(1);

fn everything(handle: &Handle) -> Profile {
    handle.query(&Query::new(ProfileType::Cpu)).unwrap()
}

/// Samples whose stack is not whole, as a share of those in which a function's name has `part`.
fn share_not_whole(handle: &Handle, profile: &Profile, part: &str) -> f64 {
    let symbols = handle.symbolize(profile);
    let (mut all, mut torn) = (0, 0);
    for (sample, values) in profile.samples() {
        let frames: Vec<_> = profile.stacks.frames(sample.stack).collect();
        let named = |id| symbols.get(id).iter().any(|frame| frame.function.contains(part));
        if frames.iter().any(|id| named(*id)) {
            let module = |id| profile.stacks.resolve(id).and_then(|(_, module)| module);
            let marked = |id| module(id).is_some_and(|m| m.path.starts_with('[') && m.end == 0);
            all += values[0];
            torn += if frames.iter().any(|id| marked(*id)) { values[0] } else { 0 };
        }
    }
    assert!(all > 0, "no sample in {part}: {}", common::folded(handle, profile));
    torn as f64 / all as f64
}

/// Goes down until at most `left` bytes are free above `low`, works there, and says how many.
#[inline(never)]
fn descend(low: usize, left: usize, work: fn()) -> usize {
    let here = black_box(0u8);
    let free = (&raw const here).addr() - low;
    let least = if free > left {
        descend(low, left, work)
    } else {
        work();
        free
    };
    // A frame that is needed after the call is no tail call.
    black_box(least)
}

#[test]
fn two_kilobytes_of_stack_are_enough() {
    isolated("two_kilobytes_of_stack_are_enough", || {
        let session = Config::builder("narrow").cpu_hz(4000).max_stack_depth(2048).start().unwrap();
        let handle = session.handle();
        let narrow = || {
            let low = os::stack_low();
            burn(MS);
            // The work itself needs its few hundred bytes.
            let work = || burn(150 * MS);
            (0..4).map(|_| descend(low, 2048, work)).max().unwrap()
        };
        let spawn = |i: usize| {
            thread::Builder::new()
                .name("narrow".into())
                .stack_size((12 + i) * 4096)
                .spawn(narrow)
                .unwrap()
        };
        let threads: Vec<_> = (0..4).map(spawn).collect();
        for thread in threads {
            let free = thread.join().unwrap();
            assert!((1024..=2048).contains(&free), "{free} bytes were left");
        }
        let profile = everything(&handle);
        let seen = time_in(&handle, &profile, "descend");
        let lost = common::stated(&handle.stats());
        assert!(seen + lost > 2000 * MS && seen > 1000 * MS, "{seen:?}, lost {lost:?}");
        let torn = share_not_whole(&handle, &profile, "descend");
        assert!(torn < 0.01, "{torn}: {:?}", handle.stats());
        handle.pause().unwrap();
        assert_adds_up(&handle.stats());
    });
}

#[inline(never)]
fn deep(frames: u32, work: &dyn Fn()) -> u32 {
    let below = if frames == 0 {
        work();
        0
    } else {
        deep(frames - 1, work)
    };
    black_box(below + 1)
}

#[test]
fn a_full_ring_is_counted() {
    isolated("a_full_ring_is_counted", || {
        let session = Config::builder("deep").cpu_hz(4000).max_stack_depth(2048).start().unwrap();
        let handle = session.handle();
        let before = handle.stats();
        thread::scope(|scope| {
            for _ in 0..8 {
                thread::Builder::new()
                    .name("deep".into())
                    .stack_size(8 << 20)
                    .spawn_scoped(scope, || deep(1900, &|| burn(300 * MS)))
                    .unwrap();
            }
        });
        handle.pause().unwrap();
        let stats = handle.stats();
        assert!(stats.lost_ring_full > 0, "{stats:?}");
        assert!(stats.lost_cpu > Duration::ZERO, "{stats:?}");
        assert_adds_up(&stats);
        // What was lost is known, and together it is the process's time.
        let process = (stats.process_cpu - before.process_cpu).as_secs_f64();
        let residual = (stats.residual_nanos() - before.residual_nanos()) as f64 / 1e9;
        assert!(residual.abs() < process * 0.2, "{residual} s of {process} s: {stats:?}");
        let profile = everything(&handle);
        assert!(share_not_whole(&handle, &profile, "deep") < 0.01);
        let deepest = profile.samples().map(|(s, _)| profile.stacks.frames(s.stack).count()).max();
        assert!(deepest > Some(1900), "{deepest:?}");
    });
}

#[cfg(target_arch = "x86_64")]
mod fibers {
    //! A stack that is no thread's.
    #![expect(unsafe_code, reason = "a fiber is made by hand")]

    use super::*;
    use std::{arch::asm, ptr};

    /// Memory for a fiber to run on.
    pub(super) struct Stack {
        start: *mut libc::c_void,
        length: usize,
    }

    impl Stack {
        pub(super) fn new(length: usize) -> Self {
            Self::at(ptr::null_mut(), length, 0)
        }

        fn at(address: *mut libc::c_void, length: usize, flags: i32) -> Self {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let flags = flags | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            // SAFETY: a new mapping, which replaces none.
            let start = unsafe { libc::mmap(address, length, access, flags, -1, 0) };
            assert_ne!(start, libc::MAP_FAILED);
            Self { start, length }
        }

        /// A stack that ends where the mapping of `address` begins, so that the kernel makes the
        /// two one; `None` where there is no room.
        pub(super) fn below(address: usize, length: usize) -> Option<Self> {
            let maps = fs::read_to_string("/proc/self/maps").unwrap();
            let number = |text: &str| usize::from_str_radix(text, 16).unwrap();
            let ranges: Vec<_> = maps
                .lines()
                .filter_map(|line| line.split(' ').next()?.split_once('-'))
                .map(|(start, end)| number(start)..number(end))
                .collect();
            let end = ranges.iter().find(|range| range.contains(&address))?.start;
            let wanted = end - length..end;
            if ranges.iter().any(|r| r.start < wanted.end && wanted.start < r.end) {
                return None;
            }
            let at = ptr::without_provenance_mut(wanted.start);
            Some(Self::at(at, length, libc::MAP_FIXED_NOREPLACE))
        }

        /// Gives the upper part back, so that `length` bytes are left.
        pub(super) fn cut(&mut self, length: usize) {
            // SAFETY: the part above `length` is of this mapping and nobody is on it.
            let cut = unsafe { libc::munmap(self.start.byte_add(length), self.length - length) };
            assert_eq!(cut, 0);
            self.length = length;
        }

        /// Runs `work` on this stack. Nothing in the registers or on the stack says where the
        /// caller's frame is: the unwind information of this function is wrong meanwhile, as it
        /// is for the switches that people write by hand.
        #[inline(never)]
        pub(super) fn run(&mut self, work: extern "C" fn()) {
            // SAFETY: the memory is this stack's alone, and its end is aligned to 16 as a call
            // needs it; r12 survives the call and brings the old stack back.
            unsafe {
                let top = self.start.byte_add(self.length);
                asm!(
                    "mov r12, rsp",
                    "mov rsp, {top}",
                    "call {work}",
                    "mov rsp, r12",
                    top = in(reg) top,
                    work = in(reg) work,
                    out("r12") _,
                    clobber_abi("C"),
                );
            }
        }
    }

    impl Drop for Stack {
        fn drop(&mut self) {
            // SAFETY: the mapping is this stack's, and nobody runs on it any more.
            unsafe { libc::munmap(self.start, self.length) };
        }
    }
}

#[cfg(target_arch = "x86_64")]
extern "C" fn on_the_fiber() {
    burn(10 * MS);
}

#[cfg(target_arch = "x86_64")]
extern "C" fn long_on_the_fiber() {
    burn(200 * MS);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn fibers_are_walked_and_unmapped() {
    use fibers::Stack;
    isolated("fibers_are_walked_and_unmapped", || {
        let session = Config::builder("fibers").cpu_hz(4000).start().unwrap();
        let handle = session.handle();
        thread::scope(|scope| {
            for _ in 0..2 {
                let work = || {
                    for i in 0..60usize {
                        let mut stack = Stack::new((5 + i % 7 * 3) * 4096);
                        stack.run(on_the_fiber);
                        drop(stack);
                        burn(MS);
                    }
                };
                thread::Builder::new().name("fibers".into()).spawn_scoped(scope, work).unwrap();
            }
        });
        let profile = everything(&handle);
        let seen = time_in(&handle, &profile, "on_the_fiber");
        common::assert_near("fibers", seen, 1200 * MS, 0.08, 2, &handle.stats());
        handle.pause().unwrap();
        assert_adds_up(&handle.stats());
    });
}

/// The first thread's own storage is not above its stack, but in a mapping among others, which
/// the kernel joins with whatever is mapped below it. Its end is no stack's end.
#[cfg(target_arch = "x86_64")]
mod first_thread {
    use super::*;
    use fibers::Stack;

    pub(super) const NAME: &str = "a_fiber_of_the_first_thread_is_not_taken_for_its_stack";

    /// Tests run on threads of their own; only what runs before `main` is on the first.
    #[expect(unsafe_code, reason = "there is no safe way to run before `main`")]
    // The C library calls what stands in this section as `extern "C" fn()`.
    #[used]
    #[unsafe(link_section = ".init_array")]
    static BEFORE_MAIN: extern "C" fn() = before_main;

    extern "C" fn before_main() {
        if common::child::is_scenario(NAME) {
            scenario();
            #[expect(clippy::exit, reason = "a test program's `main` has nothing to do here")]
            std::process::exit(0);
        }
    }

    fn scenario() {
        // Before anything else is mapped there.
        let mut stack = Stack::below(os::thread_pointer(), 1 << 20).expect("room below");
        let session = Config::builder("first").cpu_hz(4000).start().unwrap();
        let handle = session.handle();
        // Long enough for the profiler to read the memory map while the thread is on the fiber.
        let begun = Instant::now();
        while begun.elapsed() < 1200 * MS {
            stack.run(long_on_the_fiber);
        }
        stack.cut(256 << 10);
        for _ in 0..5 {
            stack.run(long_on_the_fiber);
        }
        drop(stack);
        burn(100 * MS);
        let seen = time_in(&handle, &everything(&handle), "long_on_the_fiber");
        assert!(seen > 1000 * MS, "{seen:?}");
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_fiber_of_the_first_thread_is_not_taken_for_its_stack() {
    let ended = common::child::run(first_thread::NAME, &[]);
    assert!(ended.status.success(), "{}\n{}", ended.status, ended.output);
}

const LIBRARY: &str = r#"
#include <stdint.h>
/* Its frame is large, so that no return address stands at the top of the stack by chance. */
__attribute__((noinline)) uint64_t hsi_test_inner(uint64_t rounds) {
    volatile uint64_t words[64];
    uint64_t x = NUMBER;
    for (uint64_t i = 0; i < rounds; i++) {
        x = x * 6364136223846793005u + i;
        words[x % 64] = x;
    }
    return words[x % 64] + x;
}
uint64_t hsi_test_outer(uint64_t rounds) {
    volatile uint64_t more[32];
    more[rounds % 32] = hsi_test_inner(rounds);
    return more[rounds % 32] + 1;
}
"#;

/// Libraries that differ in their code, made by the C compiler; they go with this.
struct Libraries(std::path::PathBuf);

impl Libraries {
    fn make(count: usize) -> Self {
        let dir = std::env::temp_dir().join(format!("hsi-stacks-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let source = dir.join("library.c");
        fs::write(&source, LIBRARY).unwrap();
        let libraries = Self(dir);
        for number in 0..count {
            let mut cc = Command::new("cc");
            cc.args(["-shared", "-fPIC", "-O1", "-fomit-frame-pointer", "-Wl,--build-id"]);
            cc.arg(format!("-DNUMBER={number}u")).arg(&source).arg("-o");
            let made = cc.arg(libraries.path(number)).status().expect("a C compiler");
            assert!(made.success());
        }
        libraries
    }

    fn path(&self, number: usize) -> std::path::PathBuf {
        self.0.join(format!("library{number}.so"))
    }
}

impl Drop for Libraries {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn libraries_come_and_go() {
    isolated("libraries_come_and_go", || {
        let libraries = Libraries::make(3);
        let session = Config::builder("libraries").cpu_hz(1000).start().unwrap();
        let handle = session.handle();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for first in 0..2 {
                let (libraries, stop) = (&libraries, &stop);
                scope.spawn(move || {
                    let mut number = first;
                    while !stop.load(Ordering::Relaxed) {
                        let library = os::Library::open(&libraries.path(number % 2));
                        let end = thread_cpu() + 2 * MS;
                        while thread_cpu() < end {
                            library.call("hsi_test_outer", 10_000);
                        }
                        number += 1;
                    }
                });
            }
            let _end = common::OnDrop(|| stop.store(true, Ordering::Relaxed));
            let begun = handle.stats().recorded;
            wait_until("samples of libraries", || {
                thread::sleep(50 * MS);
                handle.stats().recorded > begun + 300
            });
        });
        // One that stays is walked within a second.
        let library = os::Library::open(&libraries.path(2));
        let opened = Instant::now();
        while opened.elapsed() < 1000 * MS {
            library.call("hsi_test_outer", 100_000);
        }
        let capture = handle.capture(ProfileType::Cpu, 400 * MS).unwrap();
        let end = thread_cpu() + 600 * MS;
        thread::scope(|scope| {
            let captured = scope.spawn(|| capture.wait().unwrap());
            while thread_cpu() < end || !captured.is_finished() {
                library.call("hsi_test_outer", 100_000);
            }
            let profile = captured.join().unwrap();
            let seen = time_in(&handle, &profile, "hsi_test_inner");
            let whole = total(&profile);
            assert!(
                seen > whole / 2,
                "{seen:?} of {whole:?}: {}",
                common::folded(&handle, &profile)
            );
            let torn = share_not_whole(&handle, &profile, "hsi_test_inner");
            assert!(torn < 0.01, "{torn}: {}", common::folded(&handle, &profile));
            // From the library through the caller to the thread's first function.
            let through = time_in(&handle, &profile, "libraries_come_and_go");
            assert!(through >= seen, "{through:?} of {seen:?}");
        });
        handle.pause().unwrap();
        assert_adds_up(&handle.stats());
    });
}
