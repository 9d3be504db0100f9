//! Go's own pprof as the judge of the files that we write: it reads a profile with known stacks,
//! and its numbers have to be ours.
//!
//! Without `go` the tests pass with a word on stderr, except in CI (`HSI_CI=1`), where they fail.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "the helpers of a test")]

use hsi_profiling::{
    CallTree, Frame, Labels, Location, LocationId, Module, Profile, Symbols, Timestamp, encode,
};
use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

const MS: i64 = 1_000_000;

#[test]
fn top_counts_each_function_as_the_tree_does() {
    let Some(case) = Case::new("top") else { return };
    let text = case.pprof(&["-top", "-nodecount=100"]);
    assert_eq!(line(&text, "File:"), "File: checkout");
    assert_eq!(line(&text, "Build ID:"), "Build ID: 0123456789abcdef0123456789abcdef01234567");
    assert_eq!(line(&text, "Type:"), "Type: cpu");
    assert!(line(&text, "Duration: 10s, Total samples = 370ms").contains("3.70%"), "{text}");
    let columns = |name: &str| -> Vec<String> {
        let line = line_ending(&text, name);
        line.split_whitespace().take(5).map(Into::into).collect()
    };
    // flat, flat %, sum %, cum, cum %
    assert_eq!(columns("checkout::price")[0], "200ms");
    assert_eq!(columns("checkout::price")[3], "300ms");
    assert_eq!(columns("core::iter::sum (inline)")[..2], ["100ms", "27.03%"]);
    assert_eq!(columns("checkout::main")[3..], ["370ms", "100%"]);
    assert_eq!(columns("checkout::walk")[3], "70ms");

    let tree = CallTree::new(&case.profile, &case.symbols, 1);
    for function in tree.functions_by_total() {
        let name = &tree.frames()[function.frame as usize].function;
        if name.starts_with("0x") || name.contains('+') {
            continue;
        }
        let row = text.lines().find(|l| l.trim_end_matches(" (inline)").ends_with(&**name));
        let row: Vec<_> =
            row.unwrap_or_else(|| panic!("{name}: {text}")).split_whitespace().collect();
        let ms = |nanos: i64| if nanos == 0 { "0".into() } else { format!("{}ms", nanos / MS) };
        assert_eq!((row[0], row[3]), (&*ms(function.self_value), &*ms(function.total)), "{name}");
    }
}

#[test]
fn counts_are_the_other_type() {
    let Some(case) = Case::new("counts") else { return };
    let text = case.pprof(&["-top", "-sample_index=samples"]);
    assert!(line_ending(&text, "checkout::price").starts_with("        20 "), "{text}");
}

#[test]
fn tree_shows_callers_and_callees() {
    let Some(case) = Case::new("tree") else { return };
    let text = case.pprof(&["-tree", "-nodecount=100"]);
    let mut blocks = text.split("-+-------------\n");
    let ours = |block: &&str| {
        block.lines().any(|l| l.starts_with("     200ms") && l.ends_with("| checkout::price"))
    };
    let block = blocks.find(ours).unwrap_or_else(|| panic!("{text}"));
    let rows: Vec<Vec<&str>> = block.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(rows[0][..2], ["300ms", "100%"], "the caller's share: {block}");
    assert_eq!(rows[0].last(), Some(&"checkout::main"));
    assert_eq!(rows[2][0], "100ms", "the callee's share: {block}");
    assert!(rows[2].contains(&"core::iter::sum"), "{block}");
}

#[test]
fn traces_hold_labels_and_lines() {
    let Some(case) = Case::new("traces") else { return };
    let text = case.pprof(&["-traces", "-lines"]);
    let trace = text.split("-\n").find(|trace| trace.contains("core::iter::sum"));
    let trace = trace.unwrap_or_else(|| panic!("{text}"));
    let rows: Vec<_> = trace.lines().map(str::trim).collect();
    assert_eq!(rows[0], "route:  /pay");
    assert_eq!(rows[1], "span_id:  00f067aa0ba902b7");
    assert!(
        rows[2].starts_with("100ms   core::iter::sum ") && rows[2].ends_with("sum.rs:12 (inline)"),
        "{trace}"
    );
    assert!(rows[3].starts_with("checkout::price ") && rows[3].ends_with("price.rs:4"), "{trace}");
    assert!(rows[4].starts_with("checkout::main ") && rows[4].ends_with("main.rs:9"), "{trace}");

    let focused = case.pprof(&["-top", "-tagfocus=route:/pay"]);
    assert!(
        focused.contains("Showing nodes accounting for 300ms, 81.08% of 370ms total"),
        "{focused}"
    );
}

#[test]
fn raw_holds_addresses_and_mappings() {
    let Some(case) = Case::new("raw") else { return };
    let text = case.pprof(&["-raw"]);
    assert_eq!(line(&text, "PeriodType:"), "PeriodType: cpu nanoseconds");
    assert_eq!(line(&text, "Period:"), "Period: 10000000");
    assert!(text.contains("samples/count cpu/nanoseconds[dflt]"), "{text}");
    assert!(text.contains("lost 3 · ring full"), "{text}");
    let location = line(&text, "     3: 0x");
    assert!(location.contains("0x555500002000 M=1 core::iter::sum"), "{text}");
    let mappings: Vec<_> = text.lines().skip_while(|l| *l != "Mappings").skip(1).collect();
    assert_eq!(
        mappings[0],
        "1: 0x555500000000/0x555500100000/0x1000 /no/such/dir/checkout \
         0123456789abcdef0123456789abcdef01234567 [FN][FL][LN][IN]"
    );
    assert_eq!(mappings[1], "2: 0x7f0000000000/0x7f0000100000/0x0 /no/such/dir/libc.so.6  ");
}

#[test]
fn list_annotates_the_lines_of_the_source() {
    let Some(case) = Case::new("list") else { return };
    let text = case.pprof(&["-list", "^checkout::price$"]);
    let row =
        |code: &str| -> Vec<&str> { line_ending(&text, code).split_whitespace().take(3).collect() };
    assert_eq!(row("items.sum()"), [".", "100ms", "4:"], "{text}");
    assert_eq!(row("+ tax(items)"), ["200ms", "200ms", "5:"], "{text}");
}

#[test]
fn addresses_alone_are_enough() {
    let Some(case) = Case::new("addresses") else { return };
    let bare = case.path.with_extension("bare.pb.gz");
    std::fs::write(&bare, encode::pprof::encode(&case.profile, &Symbols::new())).unwrap();
    let text = pprof(&bare, &["-top", "-addresses"]);
    let row = line_ending(&text, "0000555500002000 [checkout]");
    assert_eq!(row.split_whitespace().next(), Some("100ms"), "{text}");
}

#[test]
fn what_has_names_is_not_looked_up_again() {
    let Some(case) = Case::new("lookup") else { return };
    let output = Command::new("go").args(["tool", "pprof", "-top"]).arg(&case.path).output();
    let error = String::from_utf8(output.unwrap().stderr).unwrap();
    // Of the two files, which are not there, it only misses the one without names.
    assert!(error.contains("libc.so.6") && !error.contains("for checkout"), "{error}");
}

#[test]
fn a_difference_is_what_pprof_computes() {
    let Some(case) = Case::new("diff") else { return };
    let half = case.profile.scaled(0.5);
    let (difference, _) = half.diff(&case.profile);
    let (mut ours, mut base, mut now) = (case.path.clone(), case.path.clone(), case.path.clone());
    for (path, name, profile) in [
        (&mut ours, "ours", &difference),
        (&mut base, "base", &case.profile),
        (&mut now, "now", &half),
    ] {
        path.set_extension(format!("{name}.pb.gz"));
        std::fs::write(path, encode::pprof::encode(profile, &case.symbols)).unwrap();
    }
    let rows = |text: &str| -> Vec<String> {
        let rows = text.lines().skip_while(|l| !l.contains("flat%")).skip(1);
        let mut rows: Vec<_> = rows
            .map(|l| {
                let words: Vec<_> = l.split_whitespace().collect();
                format!("{} {} {}", words[0], words[3], words[5..].join(" "))
            })
            .collect();
        rows.sort();
        rows
    };
    let theirs = pprof(&now, &["-top", "-diff_base", &base.display().to_string()]);
    let ours = pprof(&ours, &["-top"]);
    assert!(rows(&theirs).contains(&"-100ms -150ms checkout::price".to_owned()), "{theirs}");
    assert_eq!(rows(&ours), rows(&theirs));
}

/// A profile of 370 ms with inlined functions, labels, two modules and a place without a name.
struct Case {
    profile: Profile,
    symbols: Symbols,
    path: PathBuf,
}

impl Case {
    /// `None` where there is no judge.
    fn new(name: &str) -> Option<Self> {
        if Command::new("go").arg("version").output().is_err() {
            assert!(
                std::env::var_os("HSI_CI").is_none_or(|v| v != "1"),
                "`go` is not installed, and HSI_CI=1 asks for its verdict on our pprof files"
            );
            eprintln!("skipped: `go` is not installed, so its pprof can't read our files");
            return None;
        }
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pprof_go").join(name);
        std::fs::create_dir_all(&dir).unwrap();
        let source = dir.join("price.rs");
        std::fs::write(&source, SOURCE).unwrap();

        let mut profile = Profile::cpu(Duration::from_millis(10));
        profile.start = Timestamp::from_unix_millis(1_700_000_000_000);
        profile.duration = Duration::from_secs(10);
        profile.comments.push("lost 3 · ring full".into());
        let mut symbols = Symbols::new();
        let places = places(&mut profile, &mut symbols, &source.display().to_string());
        let [main, price_inlined, price, walk, libc] = places;
        let pay = Labels::EMPTY.with("route", "/pay").with("span_id", "00f067aa0ba902b7");
        for (root_first, labels, samples) in [
            (&[main, price][..], &pay, 20),
            (&[main, price_inlined], &pay, 10),
            (&[main, walk, walk, libc], &Labels::EMPTY, 7),
        ] {
            let stack = profile.stacks.intern(root_first.iter().copied());
            let labels = profile.labels.intern(labels);
            profile.add(stack, labels, &[samples, samples * 10 * MS]);
        }
        let path = dir.join("cpu.pb.gz");
        std::fs::write(&path, encode::pprof::encode(&profile, &symbols)).unwrap();
        Some(Self { profile, symbols, path })
    }

    fn pprof(&self, arguments: &[&str]) -> String {
        pprof(&self.path, arguments)
    }
}

const SOURCE: &str = "\
//! The prices of things.

fn price(items: &[u64]) -> u64 {
    items.sum()
        + tax(items)
}
";

fn places(profile: &mut Profile, symbols: &mut Symbols, source: &str) -> [LocationId; 5] {
    let program = profile.stacks.module(&Arc::new(Module {
        path: "/no/such/dir/checkout".into(),
        build_id: "0123456789abcdef0123456789abcdef01234567".into(),
        start: 0x5555_0000_0000,
        end: 0x5555_0010_0000,
        file_offset: 0x1000,
        bias: 0x5554_ffff_f000,
    }));
    let libc = profile.stacks.module(&Arc::new(Module {
        path: "/no/such/dir/libc.so.6".into(),
        start: 0x7f00_0000_0000,
        end: 0x7f00_0010_0000,
        bias: 0x7f00_0000_0000,
        ..Module::default()
    }));
    let price = |line| Frame::new("checkout::price").at(source, line);
    [
        (0x5555_0000_1000, program, vec![Frame::new("checkout::main").at("src/main.rs", 9)]),
        (
            0x5555_0000_2000,
            program,
            vec![Frame::new("core::iter::sum").at("core/sum.rs", 12), price(4)],
        ),
        (0x5555_0000_2010, program, vec![price(5)]),
        (0x5555_0000_3000, program, vec![Frame::new("checkout::walk").at("src/walk.rs", 2)]),
        (0x7f00_0000_1234, libc, vec![]),
    ]
    .map(|(address, module, frames)| {
        let id = profile.stacks.location(Location::new(address, Some(module)));
        symbols.set(id, frames.into());
        id
    })
}

fn pprof(file: &Path, arguments: &[&str]) -> String {
    let output = Command::new("go")
        .args(["tool", "pprof", "-symbolize=none"])
        .args(arguments)
        .arg(file)
        .env("PPROF_TMPDIR", file.parent().unwrap())
        .env("PPROF_NO_BROWSER", "1")
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "go tool pprof {arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

fn line<'a>(text: &'a str, start: &str) -> &'a str {
    text.lines().find(|l| l.starts_with(start)).unwrap_or_else(|| panic!("{start}: {text}"))
}

fn line_ending<'a>(text: &'a str, end: &str) -> &'a str {
    text.lines().find(|l| l.ends_with(end)).unwrap_or_else(|| panic!("{end}: {text}"))
}
