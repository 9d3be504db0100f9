//! Memory: bounded reads of stacks, tables that handlers read while others replace them, and what
//! the kernel says about mappings.

use crate::sync::AtomicU64;
use std::{
    fs,
    mem::MaybeUninit,
    ptr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicPtr, AtomicU32, AtomicU64 as StdAtomicU64, Ordering},
    },
};

/// `count` words of zeroes whose pages are not touched before they are used.
pub(crate) fn zeroed_words(count: usize) -> Box<[AtomicU64]> {
    // The standard library takes a vector of zeroes from the allocator's zeroed pages.
    let words = Box::into_raw(vec![0u64; count].into_boxed_slice());
    // SAFETY: the pointer comes from a box, and an AtomicU64 has the size, the alignment (on the
    // 64-bit targets that this crate is for) and the values of a u64.
    unsafe { Box::from_raw(words as *mut [AtomicU64]) }
}

/// Gives memory that was freed back to the kernel, where the C library keeps it.
pub(crate) fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim may be called at any time, from any thread (malloc_trim(3)).
    unsafe {
        libc::malloc_trim(0);
    }
}

/// A stretch of this process's address space that can be read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    start: u64,
    end: u64,
    /// Whether it is the first thread's stack.
    is_main_stack: bool,
}

/// The readable and writable mappings, in order of address; empty where there is no /proc.
pub(crate) fn mappings() -> Vec<Mapping> {
    fs::read_to_string("/proc/self/maps").unwrap_or_default().lines().filter_map(parse).collect()
}

fn parse(line: &str) -> Option<Mapping> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    if !fields.next()?.starts_with("rw") {
        return None;
    }
    Some(Mapping {
        start: u64::from_str_radix(start, 16).ok()?,
        end: u64::from_str_radix(end, 16).ok()?,
        is_main_stack: fields.nth(3) == Some("[stack]"),
    })
}

/// The part of a thread's stack that may be read without asking the kernel, once it is known.
///
/// The bounds come from the memory map alone: nothing outside this module can set others.
#[derive(Debug)]
pub(crate) struct StackBounds {
    low: StdAtomicU64,
    high: StdAtomicU64,
}

impl StackBounds {
    /// Bounds that are not known.
    pub(crate) const fn unknown() -> Self {
        Self { low: StdAtomicU64::new(0), high: StdAtomicU64::new(0) }
    }

    /// Forgets the bounds.
    pub(crate) fn clear(&self) {
        self.high.store(0, Ordering::Release);
    }

    /// Whether the bounds are known.
    pub(crate) fn is_known(&self) -> bool {
        self.high.load(Ordering::Relaxed) != 0
    }

    /// Looks for the bounds, given where the thread's stack and thread pointer were in one of its
    /// samples; no thread pointer for the first thread. From then on they are known, be it as
    /// none at all.
    ///
    /// Only two kinds of memory are sure to stay mapped while the thread lives: the first
    /// thread's stack, and what lies between a place in another thread's stack and its thread
    /// pointer, without a gap. A fiber's stack is neither, and so is probed each time: there is a guard between it and the thread
    /// pointer, and the first thread's says nothing, for it may be anywhere. The memory map alone
    /// would not do: the kernel merges neighbouring mappings, and new C libraries make their
    /// guards inside of them.
    pub(crate) fn find(
        &self,
        stack_pointer: u64,
        thread_pointer: Option<u64>,
        maps: &[Mapping],
    ) -> bool {
        self.find_among(stack_pointer, thread_pointer, maps, is_mapped)
    }

    fn find_among(
        &self,
        stack_pointer: u64,
        thread_pointer: Option<u64>,
        maps: &[Mapping],
        readable: impl Fn(u64) -> bool,
    ) -> bool {
        let at = maps.partition_point(|m| m.end <= stack_pointer);
        let map = maps.get(at).filter(|m| m.start <= stack_pointer);
        let high = map.and_then(|map| {
            if map.is_main_stack {
                return Some(map.end);
            }
            let pointer = thread_pointer.filter(|pointer| *pointer > stack_pointer)?;
            is_readable_between(stack_pointer, pointer, readable).then_some(pointer)
        });
        let low = map.map_or(u64::MAX, |map| match map.is_main_stack {
            // It grows down as it is used, and nothing is ever mapped where it may grow to.
            true => map.start.min(map.end.saturating_sub(MAIN_GROWTH)),
            false => map.start,
        });
        self.clear();
        self.low.store(low, Ordering::Relaxed);
        // Release: pairs with the Acquire in `view`, which thus sees `low` of the same pair.
        self.high.store(high.unwrap_or(NO_BOUNDS), Ordering::Release);
        high.is_some()
    }

    /// What may be read of the stack that `stack_pointer` lies in: for the running thread only,
    /// whose stack stays mapped while it runs.
    #[inline]
    pub(crate) fn view(&self, stack_pointer: u64) -> StackView {
        let high = self.high.load(Ordering::Acquire);
        let low = self.low.load(Ordering::Relaxed);
        if low <= stack_pointer && stack_pointer < high {
            StackView::known(stack_pointer, stack_pointer.saturating_sub(RED_ZONE).max(low), high)
        } else {
            StackView::probing(stack_pointer)
        }
    }
}

/// Whether every page from `from` up to `to` can be read, as far as that is not too far to look.
fn is_readable_between(from: u64, to: u64, readable: impl Fn(u64) -> bool) -> bool {
    const FARTHEST: u64 = 64 << 20;
    let first = from & !(PAGE - 1);
    to - from <= FARTHEST && (first..to).step_by(PAGE as usize).all(readable)
}

/// How far the first thread's stack may grow in any case: the kernel keeps 128 MiB free for it.
const MAIN_GROWTH: u64 = 8 << 20;
/// An upper end below any stack.
const NO_BOUNDS: u64 = 1;
/// Bytes below the stack pointer that a function may use and the kernel leaves alone: the x86_64
/// ABI's red zone. A register that an epilogue has just popped is still there.
const RED_ZONE: u64 = 128;
/// How far a walk may go on a stack whose bounds are not known, in bytes.
const PROBE_LIMIT: u64 = 1 << 20;
/// The smallest page of the architectures that this runs on: a larger page is just probed twice.
const PAGE: u64 = 4096;

/// A cache line; where it is larger, a line is just asked for twice.
const LINE: u64 = 64;
/// How far above the present frame a walk lets the processor fetch, in bytes: some ten frames.
const FETCH_AHEAD: u64 = 1024;

/// A window of readable stack memory.
#[derive(Debug)]
pub(crate) struct StackView {
    low: u64,
    /// Everything from `low` to here is known to be mapped as long as the thread lives.
    end: u64,
    /// How far from `low` a word may begin so that it ends at `end` or before; 0 where none may.
    span: u64,
    /// Up to here the processor has been asked to fetch what will be read.
    fetched: u64,
    /// Up to here the kernel may be asked for what is not known to be mapped.
    limit: u64,
    /// Where in memory `chunk` is from, and how many bytes of it there are.
    chunk_at: u64,
    chunk_length: u64,
    chunk: [MaybeUninit<u64>; CHUNK],
}

/// How many words the kernel is asked for at a time: some five frames.
const CHUNK: usize = 64;

impl StackView {
    /// A view that has the kernel read: for the first sample of a thread, a fiber, an alternate
    /// signal stack. Asking whether a page is mapped and then reading it would not do: where a stack
    /// ends is not known, and what is above it may be another thread's, who unmaps it meanwhile.
    #[inline]
    pub(crate) fn probing(stack_pointer: u64) -> Self {
        let low = stack_pointer.saturating_sub(RED_ZONE);
        Self::new(stack_pointer, low, low, stack_pointer.saturating_add(PROBE_LIMIT))
    }

    /// A view of memory that is mapped.
    #[inline]
    fn known(stack_pointer: u64, low: u64, high: u64) -> Self {
        Self::new(stack_pointer, low, high, 0)
    }

    #[inline]
    fn new(stack_pointer: u64, low: u64, end: u64, limit: u64) -> Self {
        Self {
            low,
            end,
            span: end.saturating_sub(low).saturating_sub(7),
            fetched: stack_pointer & !(LINE - 1),
            limit,
            chunk_at: 0,
            chunk_length: 0,
            chunk: [MaybeUninit::uninit(); CHUNK],
        }
    }

    /// Asks the processor to fetch what lies above the frame at `stack_pointer`. A walk finds its
    /// next address only when it has read the last one, so without this it would wait for memory
    /// at every frame.
    #[inline]
    pub(crate) fn fetch_ahead(&mut self, stack_pointer: u64) {
        let until = stack_pointer.saturating_add(FETCH_AHEAD).min(self.end);
        // What a large frame holds is passed over.
        self.fetched = self.fetched.max(stack_pointer & !(LINE - 1));
        while self.fetched < until {
            prefetch(self.fetched);
            self.fetched += LINE;
        }
    }

    /// The word at `address`, if it lies in this stack.
    #[inline]
    pub(crate) fn read(&mut self, address: u64) -> Option<u64> {
        if address & 7 != 0 {
            return None;
        }
        if address.wrapping_sub(self.low) >= self.span {
            return self.ask(address);
        }
        let word = ptr::with_exposed_provenance::<u64>(address as usize);
        // SAFETY: `address` is aligned and the eight bytes lie between `low` and `end`, in the
        // stack that this very thread is running on, which stays mapped while it does. Volatile,
        // because the memory belongs to someone else, who may hold any value in it.
        Some(unsafe { ptr::read_volatile(word) })
    }

    /// The word at `address`, by the kernel.
    #[cold]
    fn ask(&mut self, address: u64) -> Option<u64> {
        if address < self.low || address >= self.limit {
            return None;
        }
        if address.wrapping_sub(self.chunk_at) >= self.chunk_length {
            self.chunk_length = copy_words(address, &mut self.chunk) as u64 * 8;
            self.chunk_at = address;
        }
        let from_start = address.wrapping_sub(self.chunk_at);
        if from_start >= self.chunk_length {
            return None;
        }
        // SAFETY: the kernel has filled in the first `chunk_length` bytes, and this word is there.
        self.chunk.get(from_start as usize / 8).map(|word| unsafe { word.assume_init() })
    }
}

/// Copies words from `address` on, as far as they can be read; how many. The kernel copies, so that
/// memory that goes away meanwhile is an error and no fault. Safe in a signal handler.
fn copy_words(address: u64, into: &mut [MaybeUninit<u64>; CHUNK]) -> usize {
    const BYTES: u64 = size_of::<[u64; CHUNK]>() as u64;
    let part = |from: u64, bytes: u64| libc::iovec {
        iov_base: ptr::without_provenance_mut(from as usize),
        iov_len: bytes as usize,
    };
    // What can't be read whole is left out by parts: so the second one begins with a page.
    let first = BYTES.min(PAGE - address % PAGE);
    let remote = [part(address, first), part(address.wrapping_add(first), BYTES - first)];
    let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: BYTES as usize };
    let (pid, call) = (super::process::pid() as libc::pid_t, libc::SYS_process_vm_readv);
    // SAFETY: the kernel writes at most `BYTES` bytes to `into`, and checks what it reads
    // (process_vm_readv(2)). The raw call sets errno, which the handler keeps.
    let copied =
        unsafe { libc::syscall(call, pid, &local, 1_usize, remote.as_ptr(), 2_usize, 0_usize) };
    usize::try_from(copied).unwrap_or(0) / 8
}

/// Asks the processor to fetch a line into its caches; an address that can't be read is ignored.
#[inline]
fn prefetch(address: u64) {
    #[cfg(target_arch = "x86_64")]
    {
        let line = ptr::without_provenance::<i8>(address as usize);
        // SAFETY: every x86_64 processor has SSE, and a prefetch reads nothing and never faults.
        unsafe { core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(line) };
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a prefetch reads nothing and never faults.
    unsafe {
        core::arch::asm!("prfm pldl1keep, [{}]", in(reg) address, options(nostack, preserves_flags));
    }
}

/// Whether the page of `address` can be read. The kernel copies the new mask in before it looks
/// at `how`, so an unreadable page is EFAULT and a readable one EINVAL: no mask is ever changed.
fn is_mapped(address: u64) -> bool {
    const NO_SUCH_HOW: libc::c_int = -1;
    const MASK_BYTES: usize = 8;
    let none: *mut libc::c_void = ptr::null_mut();
    // SAFETY: the call fails in either case and so changes nothing; the kernel checks the address.
    let result = unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, NO_SUCH_HOW, address & !7, none, MASK_BYTES)
    };
    // SAFETY: errno is thread-local and mapped as long as the thread lives.
    result == -1 && unsafe { *libc::__errno_location() } == libc::EINVAL
}

/// A value that handlers read while another thread replaces it.
///
/// A reader never waits. A replaced value is kept until no reader can hold it any more, which is
/// looked for now and then, and never waited for either.
#[derive(Debug)]
pub(crate) struct Published<T> {
    current: AtomicPtr<T>,
    readers: AtomicU32,
    retired: Mutex<Vec<Retired<T>>>,
}

/// A replaced value, which readers may still look at.
#[derive(Debug)]
struct Retired<T>(ptr::NonNull<T>);

// SAFETY: it owns a T that came from a box and is dropped by whoever drops this.
unsafe impl<T: Send + Sync> Send for Retired<T> {}

impl<T> Drop for Retired<T> {
    fn drop(&mut self) {
        // SAFETY: the pointer came from Box::into_raw and was taken out of `current` by a swap, so
        // this is the only owner; `reclaim` drops it when no reader looks at it any more.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

impl<T: Send + Sync> Published<T> {
    /// Nothing is published yet.
    pub(crate) const fn new() -> Self {
        Self {
            current: AtomicPtr::new(ptr::null_mut()),
            readers: AtomicU32::new(0),
            retired: Mutex::new(Vec::new()),
        }
    }

    /// Looks at the current value. Safe in a signal handler if `look` is.
    #[inline]
    pub(crate) fn read<R>(&self, look: impl FnOnce(Option<&T>) -> R) -> R {
        // SeqCst, here and in `reclaim`: a reader that this addition makes visible too late to be
        // counted there has not loaded the pointer yet, and will load a newer one.
        self.readers.fetch_add(1, Ordering::SeqCst);
        let current = self.current.load(Ordering::SeqCst);
        // SAFETY: the pointer is null or came from Box::into_raw in `publish`; `reclaim` frees it
        // only after it was replaced and `readers` was 0 after that, so not while we are counted.
        let result = look(unsafe { current.as_ref() });
        // Release: our reads come before the free that a `reclaim` does when it sees 0.
        self.readers.fetch_sub(1, Ordering::Release);
        result
    }

    /// Replaces the value.
    pub(crate) fn publish(&self, value: Box<T>) {
        let old = self.current.swap(Box::into_raw(value), Ordering::SeqCst);
        if let Some(old) = ptr::NonNull::new(old) {
            self.retired.lock().unwrap_or_else(PoisonError::into_inner).push(Retired(old));
        }
    }

    /// Drops what was replaced, if no reader is at work at this instant; returns how many values
    /// are still waiting for that.
    pub(crate) fn reclaim(&self) -> usize {
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        if !retired.is_empty() && self.readers.load(Ordering::SeqCst) == 0 {
            retired.clear();
        }
        retired.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address_of<T>(value: &T) -> u64 {
        ptr::from_ref(value).expose_provenance() as u64
    }

    #[test]
    fn a_known_stack_is_read_and_nothing_outside_it() {
        std::thread::spawn(|| {
            let words = [1u64, 2, 3, 4];
            let at = address_of(&words[0]);
            let pointer = super::super::thread::thread_pointer();
            let bounds = StackBounds::unknown();
            assert!(bounds.find(at, Some(pointer), &mappings()), "a thread's own stack");
            let mut view = bounds.view(at);
            assert_eq!(view.end, pointer);
            assert_eq!(view.read(at + 8), Some(2));
            assert_eq!(view.read(at + 1), None, "not aligned");
            assert_eq!(view.read(at - RED_ZONE - 8), None, "below the red zone");
            assert_eq!(view.read(view.end), None);
            assert_eq!(view.read(u64::MAX - 7), None);
            view.fetch_ahead(at);
            assert!(view.fetched >= (at + FETCH_AHEAD).min(pointer));
            assert!(view.fetched < at + FETCH_AHEAD + LINE);
            view.fetch_ahead(u64::MAX);
            assert!(view.fetched >= u64::MAX - LINE, "a frame of any size costs a step");
        })
        .join()
        .unwrap();
    }

    #[test]
    fn only_memory_that_outlives_the_thread_bounds_a_stack() {
        let map = Mapping { start: 0x1000, end: 0x90_0000, is_main_stack: false };
        let main = Mapping { start: 0x2a0_0000, end: 0x2a1_0000, is_main_stack: true };
        let maps = [map, main];
        let all = |_| true;
        let bounds = StackBounds::unknown();
        assert!(bounds.find_among(0x2000, Some(0x5000), &maps, all));
        assert_eq!(bounds.view(0x2000).end, 0x5000, "what is above the thread pointer may go");
        assert!(bounds.find_among(0x2a0_8000, None, &maps, all));
        assert_eq!(bounds.view(0x2a0_8000).end, 0x2a1_0000);
        let deeper = bounds.view(0x2a0_0000 - 0x10_0000);
        assert_eq!(deeper.end, 0x2a1_0000, "the first thread's stack grows");
        let guard = |address: u64| address != 0x10_0000;
        let nowhere = [
            (0x2000, Some(0x1800)),
            // There is a guard on the way.
            (0x2000, Some(0x80_0000)),
            (0x1000_0000, Some(0x1000_5000)),
            (0x2000, None),
            (0x2000, Some(0x2000 + (65 << 20))),
        ];
        for (stack, pointer) in nowhere {
            assert!(!bounds.find_among(stack, pointer, &maps, guard), "{stack:x} {pointer:x?}");
            assert!(bounds.is_known(), "and is not looked for again");
            let view = bounds.view(stack);
            assert_eq!(view.span, 0, "a fiber's stack is not read");
        }
    }

    #[test]
    fn probing_stops_at_an_unmapped_page() {
        // SAFETY: a fresh anonymous mapping of three pages, of which the last is made unreadable;
        // it is unmapped at the end and nobody else knows its address.
        let base = unsafe {
            let (size, page) = (3 * PAGE as usize, 2 * PAGE as usize);
            let map = libc::mmap(
                ptr::null_mut(),
                size,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            assert_ne!(map, libc::MAP_FAILED);
            assert_eq!(libc::mprotect(map.byte_add(page), PAGE as usize, libc::PROT_NONE), 0);
            map.expose_provenance() as u64
        };
        let mut view = StackView::probing(base + 16);
        assert_eq!(view.read(base + 16), Some(0));
        assert_eq!(view.read(base + PAGE + 8), Some(0), "the second page is mapped");
        assert_eq!(view.read(base + 2 * PAGE), None, "the third is not readable");
        assert_eq!(view.read(base + 2 * PAGE - 8), Some(0), "up to its very end");
        assert_eq!(view.read(base + 2 * PAGE + 64), None);
        assert_eq!(view.read(base + PAGE + 8), Some(0));
        // SAFETY: the mapping made above.
        unsafe { libc::munmap(ptr::with_exposed_provenance_mut(base as usize), 3 * PAGE as usize) };
    }

    /// Whoever looks first and reads then dies here.
    #[test]
    fn what_goes_away_while_it_is_read_is_no_fault() {
        use std::sync::atomic::AtomicBool;
        let bytes = 16 * PAGE as usize;
        let map = |at: *mut libc::c_void, flags: i32| {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let flags = flags | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            // SAFETY: a mapping of this test's own, at a place of its own once it has one.
            unsafe { libc::mmap(at, bytes, access, flags, -1, 0) }
        };
        let at = map(ptr::null_mut(), 0);
        assert_ne!(at, libc::MAP_FAILED);
        let base = at.expose_provenance() as u64;
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut seen, mut gone) = (0u64, 0u64);
                let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
                while (seen < 10_000 || gone < 1000) && std::time::Instant::now() < deadline {
                    let mut view = StackView::probing(base + 256);
                    for address in (base + 256..base + bytes as u64).step_by(512) {
                        match view.read(address) {
                            Some(word) => seen += u64::from(word == 0),
                            None => gone += 1,
                        }
                    }
                }
                stop.store(true, Ordering::Relaxed);
                assert!(seen >= 10_000 && gone >= 1000, "{seen} seen, {gone} gone");
            });
            while !stop.load(Ordering::Relaxed) {
                // Unreadable rather than unmapped: nobody else must be given the place meanwhile.
                let nothing = libc::PROT_NONE;
                let flags = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                let place = ptr::with_exposed_provenance_mut(base as usize);
                // SAFETY: the mapping made above.
                unsafe { libc::mmap(place, bytes, nothing, flags, -1, 0) };
                assert_ne!(map(place, libc::MAP_FIXED), libc::MAP_FAILED);
            }
        });
        // SAFETY: the mapping made above.
        unsafe { libc::munmap(ptr::with_exposed_provenance_mut(base as usize), bytes) };
    }

    #[test]
    fn readers_never_see_a_freed_value() {
        use std::sync::atomic::AtomicBool;
        // A value that is freed is overwritten by its drop; a reader of it would see that.
        struct Canary(Box<StdAtomicU64>);
        impl Drop for Canary {
            fn drop(&mut self) {
                self.0.store(0xdead, Ordering::SeqCst);
            }
        }
        let published = Published::<Canary>::new();
        let stop = AtomicBool::new(false);
        let reads = StdAtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        published.read(|v| {
                            if let Some(v) = v {
                                assert_eq!(v.0.load(Ordering::SeqCst), 7);
                                reads.fetch_add(1, Ordering::Relaxed);
                            }
                        });
                    }
                });
            }
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
            let mut published_values = 0;
            while (published_values < 20_000 || reads.load(Ordering::Relaxed) < 1000)
                && std::time::Instant::now() < deadline
            {
                published.publish(Box::new(Canary(Box::new(StdAtomicU64::new(7)))));
                published.reclaim();
                published_values += 1;
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert!(reads.load(Ordering::Relaxed) >= 1000);
        assert_eq!(published.reclaim(), 0, "without readers everything old is dropped");
    }
}
