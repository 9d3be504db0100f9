//! What a pass over debug info takes in memory: little more than its answers, however large the
//! file is. In a program of its own, because it counts what every thread allocates.

#![allow(unsafe_code, reason = "an allocator that counts is one")]

use hsi_profiling::{Location, Module, StackTable, Symbolizer};
use object::{Object, ObjectSection};
use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How much more was live than before, at most, while `call` ran.
fn peak<T>(call: impl FnOnce() -> T) -> (usize, T) {
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let result = call();
    (PEAK.load(Ordering::Relaxed) - before, result)
}

#[test]
fn a_pass_takes_little_more_than_its_answers() {
    let path = fs::read_link("/proc/self/exe").unwrap();
    let (text, build_id) = {
        let bytes = fs::read(&path).unwrap();
        let file = object::File::parse(&*bytes).unwrap();
        let text = file.section_by_name(".text").unwrap();
        let id = file.build_id().unwrap().unwrap_or_default();
        (
            text.address()..text.address() + text.size(),
            id.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
        )
    };
    let addresses: Vec<u64> =
        (0..400).map(|i| text.start + (text.end - text.start) * i / 400).collect();
    let mut stacks = StackTable::new();
    let module = Module {
        path: path.to_str().unwrap().into(),
        build_id: build_id.into(),
        ..Module::default()
    };
    let module = stacks.module(&Arc::new(module));
    for address in &addresses {
        stacks.location(Location::new(*address, Some(module)));
    }
    let symbolizer = Symbolizer::new();
    let (ours, symbols) = peak(|| symbolizer.symbolize(&stacks));
    let lines = stacks.location_ids().filter(|id| symbols.get(*id).iter().any(|f| f.line > 0));
    assert!(lines.count() > 200, "there is too little debug info to measure by");
    // A reader with an index of the file: what this must never be again.
    let (index, ()) = peak(|| {
        let reader = addr2line::Loader::new(&path).unwrap();
        for address in &addresses {
            let mut frames = reader.find_frames(*address).unwrap();
            while frames.next().unwrap().is_some() {}
        }
    });
    println!("a pass takes {} KiB, an index {} KiB", ours >> 10, index >> 10);
    assert!(ours < 4 << 20, "{ours} bytes");
    assert!(index > 4 << 20, "{index} bytes: the bound would not notice an index");
}
