//! Names of the running process: its own program, also after a deploy has put another in its
//! place, the C library, and the kernel's library that is in no file.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use hsi_profiling::{Frame, Location, Module, StackTable, SymbolKind, Symbolizer};
use object::{Object, ObjectSymbol};
use std::hint::black_box;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs};

#[inline(never)]
fn a_function_of_the_test(x: u64) -> u64 {
    black_box(x) + 1
}

fn address_of_function() -> u64 {
    black_box(a_function_of_the_test as fn(u64) -> u64) as usize as u64
}

/// The first mapping of the file whose path passes, as a module.
fn module(mut wanted: impl FnMut(&str) -> bool) -> Module {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    for line in maps.lines() {
        let (range, path) = line.split_once(' ').unwrap();
        let Some(at) = path.find(['/', '[']) else { continue };
        let path = &path[at..];
        if wanted(path) {
            let start = u64::from_str_radix(range.split_once('-').unwrap().0, 16).unwrap();
            return Module { path: path.into(), start, bias: start, ..Module::default() };
        }
    }
    panic!("no such module in\n{maps}");
}

fn main_module() -> Module {
    let exe = fs::read_link("/proc/self/exe").unwrap();
    let bytes = fs::read("/proc/self/exe").unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let id = file.build_id().unwrap().unwrap_or_default();
    let build_id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    Module { build_id: build_id.into(), ..module(|path| path == exe.to_str().unwrap()) }
}

fn frames_of(
    symbolizer: &Symbolizer,
    module: &Module,
    addresses: impl Iterator<Item = u64>,
) -> Vec<Vec<Frame>> {
    let mut stacks = StackTable::new();
    let module = stacks.module(&Arc::new(module.clone()));
    let at = |address| stacks.location(Location::new(address, Some(module)));
    let locations: Vec<_> = addresses.map(at).collect();
    let symbols = symbolizer.symbolize(&stacks);
    locations.into_iter().map(|id| symbols.get(id).to_vec()).collect()
}

fn assert_own_names(symbolizer: &Symbolizer) {
    let module = main_module();
    let frames = frames_of(symbolizer, &module, [address_of_function()].into_iter()).remove(0);
    let last = frames.last().unwrap();
    assert_eq!(&*last.function, "symbols_self::a_function_of_the_test");
    assert!(last.file.ends_with("tests/symbols_self.rs") && last.line > 0, "{last:?}");
    let status = symbolizer.statuses().remove(0);
    assert_eq!((status.main, status.kind), (true, SymbolKind::Lines));
}

#[test]
fn the_program_names_itself_and_gives_the_memory_back() {
    static RELEASED: AtomicU32 = AtomicU32::new(0);
    let symbolizer = Symbolizer::new().on_release(|| {
        RELEASED.fetch_add(1, Ordering::Relaxed);
    });
    assert_own_names(&symbolizer);
    assert_own_names(&symbolizer);
    assert_eq!(RELEASED.load(Ordering::Relaxed), 1);
    assert_eq!(symbolizer.stats().readers, 1);
}

#[test]
fn a_program_that_was_replaced_while_it_ran_still_names_itself() {
    let dir = env::temp_dir().join(format!("hsi-symbols-self-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    for way in ["deleted", "replaced"] {
        let copy = dir.join(way);
        fs::copy("/proc/self/exe", &copy).unwrap();
        let child = Command::new(&copy)
            .args(["--exact", "child_of_another_test", "--ignored", "--nocapture"])
            .env("HSI_TEST_WAY", way)
            .output()
            .unwrap();
        let output = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success() && output.contains("1 passed"), "{way}: {output}");
    }
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
#[ignore = "run by another test, in a copy of this program"]
fn child_of_another_test() {
    let Ok(way) = env::var("HSI_TEST_WAY") else { return };
    let path = env::current_exe().unwrap();
    let before = main_module();
    fs::remove_file(&path).unwrap();
    if way == "replaced" {
        fs::copy("/bin/sh", &path).unwrap();
    }
    // Under the name that it has now, which ends in a remark, and the one that it had.
    assert_own_names(&Symbolizer::new());
    let at = [address_of_function()].into_iter();
    let frames = frames_of(&Symbolizer::new(), &before, at).remove(0);
    assert_eq!(&*frames.last().unwrap().function, "symbols_self::a_function_of_the_test");
}

#[test]
fn the_c_library_names_its_exports_at_least() {
    let mut path = String::new();
    let module = module(|p| {
        path = p.to_owned();
        p.contains("/libc.so") || p.contains("/libc-") || p.contains("/ld-musl")
    });
    let bytes = fs::read(path).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let malloc = file.dynamic_symbols().find(|s| s.name() == Ok("malloc")).unwrap();
    let symbolizer = Symbolizer::new();
    let inside = module.bias + malloc.address() + 1;
    let frames = frames_of(&symbolizer, &module, [inside].into_iter()).remove(0);
    assert!(frames.last().unwrap().function.contains("malloc"), "{frames:?}");
    assert_eq!(symbolizer.statuses()[0].fix(), None);
}

#[test]
fn the_library_of_the_kernel_names_its_functions() {
    let vdso = module(|path| path == "[vdso]");
    let symbolizer = Symbolizer::new();
    let all = frames_of(&symbolizer, &vdso, vdso.start..vdso.start + 0x2000);
    let clock = |f: &Frame| f.function.contains("clock_gettime");
    assert!(all.iter().flatten().any(clock), "{:?}", symbolizer.statuses());
    assert!(all.iter().flatten().any(|f| f.function.starts_with("[vdso]+0x")));
}
