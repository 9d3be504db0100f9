//! Compiles the fixture, and says where in the file its functions are.

use hsi_profiling::{Frame, Location, Module, StackTable, Symbolizer};
use object::{Object, ObjectSection, ObjectSymbol};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/inlined.rs");

/// A compiled fixture, in a directory of its own that goes with it.
pub(crate) struct Build {
    dir: PathBuf,
    /// The file that a module is loaded from.
    pub(crate) path: PathBuf,
    /// A file of the same code with its symbol table, to find functions in.
    pub(crate) original: PathBuf,
    build_id: String,
}

/// A function in a file.
pub(crate) struct Function {
    /// Its address in the file.
    pub(crate) start: u64,
    size: u64,
}

/// Compiles the fixture with `flags`.
pub(crate) fn program(flags: &[&str]) -> Build {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("hsi-symbols-{}-{number}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let path = dir.join("program");
    let mut rustc = Command::new(rustc());
    rustc.args(["--edition=2024", "--crate-name=inlined", "-Copt-level=2", "-Ccodegen-units=1"]);
    rustc.args(["-Clink-arg=-Wl,--build-id"]).args(flags).arg(FIXTURE).arg("-o").arg(&path);
    let output = rustc.current_dir(&dir).output().expect("rustc runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let original = dir.join("original");
    fs::copy(&path, &original).unwrap();
    let build_id = build_id(&path);
    Build { dir, path, original, build_id }
}

impl Build {
    /// The module of this program, loaded at `bias`.
    pub(crate) fn module(&self, bias: u64) -> Module {
        let build_id =
            if self.path.is_file() { build_id(&self.path) } else { self.build_id.clone() };
        let path = self.path.to_str().unwrap().into();
        Module { path, build_id: build_id.into(), bias, ..Module::default() }
    }

    /// Makes a changed copy of the program.
    pub(crate) fn objcopy(&self, flags: &[&str], to: &Path) {
        let status = Command::new("objcopy").args(flags).arg(&self.original).arg(to).status();
        assert!(status.expect("objcopy runs, as it comes with the linker").success());
    }

    /// Where in the file the sections are whose names begin so.
    pub(crate) fn sections(&self, name: &str) -> Vec<Range<u64>> {
        let bytes = fs::read(&self.original).unwrap();
        let file = object::File::parse(&*bytes).unwrap();
        let sections = file.sections().filter(|s| s.name().unwrap().starts_with(name));
        let ranges = sections.filter_map(|s| s.file_range()).map(|(at, size)| at..at + size);
        ranges.filter(|range| !range.is_empty()).collect()
    }

    /// Where in the file its header is, or its table of sections, which is at the end.
    pub(crate) fn headers(&self, first: bool) -> Range<u64> {
        let end = fs::metadata(&self.original).unwrap().len();
        if first { 0..64 } else { end - 40 * 64..end }
    }
}

impl Drop for Build {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Function {
    /// Every address of the function.
    pub(crate) fn addresses(&self) -> Range<u64> {
        self.start..self.start + self.size
    }
}

/// The function whose path ends in `name`.
pub(crate) fn function(path: &Path, name: &str) -> Function {
    let bytes = fs::read(path).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let found = file.symbols().find(|symbol| {
        let full = format!("{:#}", rustc_demangle::demangle(symbol.name().unwrap_or_default()));
        let bare = full.split("::<").next().unwrap_or_default();
        symbol.size() > 0 && (bare == name || bare.ends_with(&format!("::{name}")))
    });
    let symbol = found.unwrap_or_else(|| panic!("{} has no {name}", path.display()));
    Function { start: symbol.address(), size: symbol.size() }
}

/// The line of the fixture that is marked with `mark`.
pub(crate) fn line_of(mark: &str) -> u32 {
    let source = fs::read_to_string(FIXTURE).unwrap();
    let at = source.lines().position(|line| line.ends_with(&format!("//@ {mark}")));
    at.expect("the mark is there") as u32 + 1
}

/// The frames of addresses in the file of `module`, which is loaded at `bias`.
pub(crate) fn frames_of(
    symbolizer: &Symbolizer,
    module: &Module,
    bias: u64,
    addresses: impl Iterator<Item = u64>,
) -> Vec<Vec<Frame>> {
    let mut stacks = StackTable::new();
    let module = stacks.module(&Arc::new(module.clone()));
    let locations: Vec<_> = addresses
        .map(|address| stacks.location(Location::new(address + bias, Some(module))))
        .collect();
    let symbols = symbolizer.symbolize(&stacks);
    locations.into_iter().map(|id| symbols.get(id).to_vec()).collect()
}

fn build_id(path: &Path) -> String {
    let bytes = fs::read(path).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let id = file.build_id().unwrap().expect("the linker was told to make one");
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The compiler beside the running cargo, or the one on the path.
fn rustc() -> PathBuf {
    let beside = Path::new(env!("CARGO")).with_file_name("rustc");
    if beside.exists() { beside } else { "rustc".into() }
}
