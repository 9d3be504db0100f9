//! Names of real programs: a small one is compiled with each kind of debug info, and every
//! address of its functions is looked up.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod symbols_support;

use hsi_profiling::{Frame, Location, Module, StackTable, SymbolKind, Symbolizer};
use std::fs;
use symbols_support::{Build, Function, frames_of, function, line_of, program};

const BIAS: u64 = 0x7f00_1234_5000;
const LEGACY: [&str; 3] = ["inlined::innermost", "inlined::middle", "inlined::nested::outer"];
const V0: [&str; 3] = ["inlined::innermost", "inlined::middle", "inlined::nested::outer::<u32>"];

/// The frames of every address of the function that holds the inlined ones.
fn frames_of_outer(symbolizer: &Symbolizer, build: &Build) -> Vec<Vec<Frame>> {
    let outer = function(&build.original, "outer");
    frames_of(symbolizer, &build.module(BIAS), BIAS, outer.addresses())
}

/// Asserts that the whole chain is seen, innermost first, and at the right lines.
fn assert_inlined(build: &Build, chain: [&str; 3]) {
    let symbolizer = Symbolizer::new();
    let all = frames_of_outer(&symbolizer, build);
    let in_chain: Vec<_> =
        all.iter().filter(|frames| frames.iter().any(|f| *f.function == *chain[0])).collect();
    assert!(in_chain.len() > 10, "{all:#?}");
    let work = line_of("work");
    assert!(in_chain.iter().any(|frames| frames.iter().any(|f| f.line == work)));
    for frames in in_chain {
        // Below the innermost of ours there may be some of the standard library.
        let ours = &frames[frames.len() - 3..];
        assert_eq!([0, 1, 2].map(|i| &*ours[i].function), chain);
        assert_eq!(ours[1].line, line_of("innermost is called"), "{frames:#?}");
        assert_eq!(ours[2].line, line_of("middle is called"), "{frames:#?}");
        assert!(ours[0].line <= line_of("end of innermost"), "{frames:#?}");
        for frame in ours {
            let file = if frame.line > 0 { "tests/fixtures/inlined.rs" } else { "" };
            assert!(frame.file.ends_with(file), "{frames:#?}");
        }
        assert!(ours[2].system_name.starts_with("_ZN") || ours[2].system_name.starts_with("_R"));
    }
    // Whatever is inlined, the last frame is the function that holds the code.
    for frames in &all {
        assert_eq!(frames.last().map(|f| &*f.function), Some(chain[2]), "{frames:#?}");
    }
    let status = symbolizer.statuses().remove(0);
    assert_eq!((&status.kind, &status.problem), (&SymbolKind::Lines, &None));
    assert_eq!(symbolizer.status(&build.module(0)).kind, SymbolKind::Lines);
    assert_eq!(symbolizer.stats().faults, 0);
    assert!(status.lines * 10 > status.addresses * 9);
}

/// Asserts that functions have names, but no lines.
fn assert_functions(build: &Build, kind: &SymbolKind) {
    let symbolizer = Symbolizer::new();
    for frames in frames_of_outer(&symbolizer, build) {
        let [frame] = &frames[..] else { panic!("{frames:#?}") };
        assert_eq!(&*frame.function, LEGACY[2]);
        assert_eq!((&*frame.file, frame.line), ("", 0));
    }
    assert_eq!(symbolizer.status(&build.module(0)).kind, *kind);
    assert_eq!(symbolizer.status(&build.module(0)).fix(), None, "it is not the main program");
}

/// Asserts that addresses have no name.
fn assert_offsets(symbolizer: &Symbolizer, build: &Build) {
    let outer = function(&build.original, "outer");
    for (i, frames) in frames_of_outer(symbolizer, build).into_iter().enumerate() {
        let [frame] = &frames[..] else { panic!("{frames:#?}") };
        let file = build.path.file_name().unwrap().to_str().unwrap();
        assert_eq!(*frame.function, format!("{file}+{:#x}", outer.start + i as u64));
    }
}

#[test]
fn limited_debug_info_gives_inlined_functions_and_lines() {
    let build = program(&["-Cdebuginfo=1"]);
    assert_inlined(&build, LEGACY);
}

#[test]
fn so_does_full_debug_info() {
    let build = program(&["-Cdebuginfo=2"]);
    assert_inlined(&build, LEGACY);
}

#[test]
fn so_do_names_mangled_the_new_way() {
    let build = program(&["-Cdebuginfo=1", "-Csymbol-mangling-version=v0"]);
    assert_inlined(&build, V0);
}

/// The compiler gives them no more than the last word of their names.
#[test]
fn line_tables_give_inlined_functions_short_names() {
    let build = program(&["-Cdebuginfo=line-tables-only"]);
    assert_inlined(&build, ["innermost", "middle", LEGACY[2]]);
    let build = program(&["-Cdebuginfo=line-tables-only", "-Csymbol-mangling-version=v0"]);
    assert_inlined(&build, ["innermost", "middle", V0[2]]);
    let symbolizer = Symbolizer::new();
    frames_of_outer(&symbolizer, &build);
    let mut status = symbolizer.statuses().remove(0);
    assert!(status.short_names > 10);
    status.main = true;
    assert!(status.fix().is_some_and(|fix| fix.contains("\"limited\"")));
}

#[test]
fn so_does_compressed_debug_info() {
    let build = program(&["-Cdebuginfo=2", "-Clink-arg=-Wl,--compress-debug-sections=zlib"]);
    assert_inlined(&build, LEGACY);
}

#[test]
fn so_does_debug_info_in_a_package_beside_the_program() {
    let build = program(&["-Cdebuginfo=2", "-Csplit-debuginfo=packed"]);
    assert!(build.path.with_extension("dwp").exists());
    assert_inlined(&build, LEGACY);
}

#[test]
fn so_does_debug_info_in_object_files() {
    let build = program(&["-Cdebuginfo=2", "-Csplit-debuginfo=unpacked"]);
    assert_inlined(&build, LEGACY);
}

#[test]
fn so_does_debug_info_that_was_split_off_with_objcopy() {
    let mut build = program(&["-Cdebuginfo=1"]);
    let (debug, bare) = (build.path.with_extension("debug"), build.path.with_extension("bare"));
    build.objcopy(&["--only-keep-debug"], &debug);
    let link = format!("--add-gnu-debuglink={}", debug.display());
    build.objcopy(&["--strip-all", &link], &bare);
    build.path = bare;
    assert_inlined(&build, LEGACY);
    // Without the file, nothing is left; and a file of another build is not it.
    let other = program(&["-Cdebuginfo=1", "-Copt-level=1"]);
    other.objcopy(&["--only-keep-debug"], &debug);
    assert_offsets(&Symbolizer::new(), &build);
    fs::remove_file(&debug).unwrap();
    assert_offsets(&Symbolizer::new(), &build);
    assert_eq!(Symbolizer::new().status(&build.module(0)).kind, SymbolKind::Addresses);
}

#[test]
fn without_debug_info_the_symbol_table_names_functions() {
    let build = program(&["-Cdebuginfo=0", "-Cstrip=debuginfo"]);
    assert_functions(&build, &SymbolKind::Functions);
    let v0 = ["-Cdebuginfo=0", "-Cstrip=debuginfo", "-Csymbol-mangling-version=v0"];
    let build = program(&v0);
    let outer = function(&build.original, "outer");
    let frames =
        frames_of(&Symbolizer::new(), &build.module(0), 0, std::iter::once(outer.start)).remove(0);
    assert_eq!(&*frames[0].function, V0[2]);
    assert!(frames[0].system_name.starts_with("_R"));
    let plain = function(&build.original, "plain_name");
    let frames =
        frames_of(&Symbolizer::new(), &build.module(0), 0, std::iter::once(plain.start)).remove(0);
    assert_eq!((&*frames[0].function, &*frames[0].system_name), ("plain_name", ""));
}

#[test]
fn code_without_debug_info_falls_back_address_by_address() {
    // The standard library comes with debug info of its own, so the file has some.
    let build = program(&["-Cdebuginfo=0"]);
    assert_functions(&build, &SymbolKind::Lines);
    let Function { start, .. } = function(&build.original, "std::rt::lang_start_internal");
    let symbolizer = Symbolizer::new();
    let frames = frames_of(&symbolizer, &build.module(0), 0, std::iter::once(start + 4)).remove(0);
    let last = frames.last().unwrap();
    assert_eq!(&*last.function, "std::rt::lang_start_internal");
    assert!(last.file.ends_with("library/std/src/rt.rs") && last.line > 0, "{last:?}");
}

#[test]
fn a_stripped_program_has_offsets() {
    let build = program(&["-Cdebuginfo=2", "-Cstrip=symbols"]);
    let symbolizer = Symbolizer::new();
    // It has no symbols to find the addresses by; any address of its code will do.
    let addresses = 0x8000..0x8040;
    let all = frames_of(&symbolizer, &build.module(BIAS), BIAS, addresses.clone());
    for (frames, address) in all.into_iter().zip(addresses) {
        assert_eq!(frames, [Frame::new(format!("program+{address:#x}"))]);
    }
    assert_eq!(symbolizer.statuses()[0].kind, SymbolKind::Addresses);
}

#[test]
fn a_replaced_file_is_not_used() {
    let build = program(&["-Cdebuginfo=1"]);
    let module = build.module(BIAS);
    let other = program(&["-Cdebuginfo=1", "-Copt-level=1"]);
    assert_ne!(module.build_id, other.module(0).build_id);
    // As a deploy does it: the new file takes the name of the old one.
    fs::copy(&build.path, build.path.with_extension("kept")).unwrap();
    fs::rename(&other.path, &build.path).unwrap();
    let symbolizer = Symbolizer::new();
    let outer = function(&build.path.with_extension("kept"), "outer");
    let all = frames_of(&symbolizer, &module, BIAS, outer.addresses());
    assert!(all.iter().all(|frames| frames.len() == 1 && frames[0].function.contains("+0x")));
    assert_eq!(symbolizer.statuses()[0].kind, SymbolKind::Replaced);
    assert_eq!((symbolizer.stats().replaced, symbolizer.stats().unreadable), (1, 0));
    // The new one is another module, and has its names.
    let mut build = build;
    build.original = build.path.clone();
    assert_inlined(&build, LEGACY);
}

#[test]
fn a_missing_or_damaged_file_is_unreadable() {
    let build = program(&["-Cdebuginfo=1"]);
    let module = build.module(BIAS);
    let outer = function(&build.original, "outer");
    let bytes = fs::read(&build.path).unwrap();
    let check = |what: &str| {
        let symbolizer = Symbolizer::new();
        let all = frames_of(&symbolizer, &module, BIAS, outer.addresses());
        assert!(all.iter().all(|f| f.len() == 1 && f[0].function.starts_with("program+0x")));
        let kind = symbolizer.statuses().remove(0).kind;
        assert!(matches!(kind, SymbolKind::Unreadable { .. }), "{what}: {kind:?}");
        assert_eq!(symbolizer.stats().unreadable, 1);
    };
    fs::write(&build.path, b"").unwrap();
    check("empty");
    fs::write(&build.path, &bytes[..40]).unwrap();
    check("half a header");
    fs::write(&build.path, [b"x", &bytes[1..]].concat()).unwrap();
    check("another format");
    fs::remove_file(&build.path).unwrap();
    fs::create_dir(&build.path).unwrap();
    check("a directory");
    fs::remove_dir(&build.path).unwrap();
    check("nothing");
}

#[test]
fn damage_costs_names_and_nothing_else() {
    let build = program(&["-Cdebuginfo=2"]);
    let bytes = fs::read(&build.path).unwrap();
    let outer = function(&build.original, "outer");
    // Without a build id to compare, damage does not make it another file.
    let module = Module { build_id: "".into(), ..build.module(BIAS) };
    let (debug, others) = (build.sections(".debug_"), build.sections(""));
    let mut random = random_numbers();
    for round in 0..120 {
        let mut damaged = bytes.clone();
        for _ in 0..1 << (round % 12) {
            let part = match round % 4 {
                0 => others[random() as usize % others.len()].clone(),
                1 => build.headers(random().is_multiple_of(2)),
                _ => debug[random() as usize % debug.len()].clone(),
            };
            let at = part.start + random() % (part.end - part.start);
            damaged[at as usize] = random() as u8;
        }
        fs::write(&build.path, &damaged).unwrap();
        let symbolizer = Symbolizer::new();
        for frames in frames_of(&symbolizer, &module, BIAS, outer.addresses()) {
            assert!(!frames.is_empty() && frames.iter().all(|f| !f.function.is_empty()));
        }
        assert_eq!(symbolizer.stats().panics, 0, "round {round}");
    }
}

fn random_numbers() -> impl FnMut() -> u64 {
    let mut seed = 1u64;
    move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    }
}

#[test]
fn a_second_look_reads_no_file() {
    let build = program(&["-Cdebuginfo=1"]);
    let symbolizer = Symbolizer::new();
    let first = frames_of_outer(&symbolizer, &build);
    let stats = symbolizer.stats();
    assert_eq!((stats.passes, stats.hits, stats.misses), (1, 0, first.len() as u64));
    assert_eq!((stats.entries, stats.resolved), (first.len(), first.len() as u64));
    fs::remove_file(&build.path).unwrap();
    // The same code elsewhere in memory is the same code.
    let outer = function(&build.original, "outer");
    let second = frames_of(&symbolizer, &build.module(0x1000), 0x1000, outer.addresses());
    assert_eq!(first, second);
    let stats = symbolizer.stats();
    assert_eq!((stats.passes, stats.hits), (1, first.len() as u64));
}

#[test]
fn an_address_outside_of_all_modules_is_itself() {
    let mut stacks = StackTable::new();
    let id = stacks.location(Location::new(0x1234, None));
    let symbolizer = Symbolizer::new();
    assert_eq!(symbolizer.symbolize(&stacks).get(id), [Frame::new("0x1234")]);
    assert_eq!(symbolizer.stats().passes, 0);
}
