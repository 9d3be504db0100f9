//! The rules of ARCHITECTURE.md that a compiler does not check.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// What each module may name of the crate. A module that is not here may name nothing.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("sync", &[]),
    ("sys", &["sync"]),
    ("profile", &[]),
    ("stats", &["sync"]),
    ("capture", &["sync", "sys", "stats"]),
    ("cfi", &["capture", "stats", "sys"]),
    ("config", &["error", "profile"]),
    ("label", &["capture", "profile", "stats", "sys"]),
    ("aggregate", &["capture", "profile", "stats"]),
    ("symbolize", &["profile", "sys"]),
    ("store", &["error", "profile", "stats"]),
    ("governor", &[]),
    ("encode", &["error", "profile", "stats"]),
];
/// The wiring, and what is there for benches and fuzzers alone.
const MAY_NAME_ALL: &[&str] = &["lib", "session", "bench", "fuzzing"];

#[test]
fn modules_name_only_what_is_below_them() {
    let mut checked = 0;
    for (module, file, text) in sources() {
        if MAY_NAME_ALL.contains(&&*module) {
            continue;
        }
        let allowed = MAY_NAME.iter().find(|(m, _)| *m == module);
        let (_, allowed) = allowed.unwrap_or_else(|| panic!("{file}: no row for `{module}`"));
        // A test may name what it needs; what ships may not.
        for name in named(product_part(&text)) {
            checked += 1;
            assert!(
                name == module || allowed.contains(&&*name) || name == "Session",
                "{file}: `{module}` may not name `{name}`"
            );
        }
    }
    assert!(checked > 30, "the test saw just {checked} names: it looks in the wrong place");
}

#[test]
fn unsafe_code_is_in_sys() {
    let mut in_sys = 0;
    for (module, file, text) in sources() {
        let product = product_part(&text);
        let count = |what: &str| {
            product
                .lines()
                .filter(|l| !l.trim_start().starts_with("//"))
                .filter(|l| l.contains(what))
                .count()
        };
        let blocks =
            count("unsafe {") + count("unsafe fn") + count("unsafe impl") + count("unsafe extern");
        let promises = count("unsafe impl Interrupt for");
        if module == "sys" {
            in_sys += blocks;
        } else {
            assert_eq!(blocks, promises, "{file}: unsafe code outside sys");
        }
    }
    assert!(in_sys > 10, "the test saw {in_sys} blocks in sys: it looks in the wrong place");
}

#[test]
fn no_symbol_is_exported_unmangled() {
    for (_, file, text) in sources() {
        for attribute in ["no_mangle", "export_name"] {
            let exported =
                text.lines().any(|l| l.contains(attribute) && !l.trim_start().starts_with("//"));
            assert!(
                !exported,
                "{file}: {attribute} would clash with another profiler in the program"
            );
        }
    }
}

#[test]
fn every_module_says_why_it_exists() {
    for (_, file, text) in sources() {
        assert!(text.starts_with("//!"), "{file} does not begin with `//!`");
    }
}

fn product_part(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod ")
        .next()
        .unwrap_or(text)
        .split("\n#[cfg(all(test")
        .next()
        .unwrap_or(text)
}

/// The first segment after each `crate::`, in braces or not.
fn named(text: &str) -> Vec<String> {
    let word =
        |t: &str| t.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let code: String =
        text.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut names = Vec::new();
    for path in code.split("crate::").skip(1) {
        let Some(inside) = path.strip_prefix('{') else {
            names.push(word(path));
            continue;
        };
        let mut depth = 0;
        let mut start = true;
        for (at, c) in inside.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => start = true,
                c if start && (c.is_alphabetic() || c == '_') => {
                    names.push(word(&inside[at..]));
                    start = false;
                }
                _ => {}
            }
        }
    }
    names
}

fn sources() -> Vec<(String, String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    files
        .into_iter()
        .map(|path| {
            let file = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            let module = file.split('/').next().unwrap().trim_end_matches(".rs").to_owned();
            (module, file, fs::read_to_string(&path).unwrap())
        })
        .collect()
}

fn collect(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            collect(&entry, out);
        } else if entry.extension().is_some_and(|e| e == "rs") {
            out.push(entry);
        }
    }
}
