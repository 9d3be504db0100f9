//! Names for addresses: a table beside the profile, filled in later by someone else.

use super::stack::{Adopted, LocationId};
use std::sync::Arc;

/// A function at a line of a file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Frame {
    /// The demangled name.
    pub function: Arc<str>,
    /// The mangled name, as it stands in the object; empty where it is the same.
    pub system_name: Arc<str>,
    /// The source file; empty where it is not known.
    pub file: Arc<str>,
    /// The line in `file`, from 1; 0 where it is not known.
    pub line: u32,
}

impl Frame {
    /// A frame with just a name.
    #[must_use]
    pub fn new(function: impl Into<Arc<str>>) -> Self {
        let empty: Arc<str> = Arc::from("");
        Self { function: function.into(), system_name: empty.clone(), file: empty, line: 0 }
    }

    /// The same frame, at a line of a file.
    #[must_use]
    pub fn at(mut self, file: impl Into<Arc<str>>, line: u32) -> Self {
        self.file = file.into();
        self.line = line;
        self
    }

    /// The crate that a Rust function belongs to, for colours and folding: `alloc` for
    /// `<alloc::vec::Vec<T> as core::iter::Extend<T>>::extend`. Where the name has no path (debug
    /// info of line tables alone leaves it out of inlined functions), the source file tells: the
    /// standard library's and a registry's directories are named after the crate. Empty for what
    /// is in no crate that can be told.
    #[must_use]
    pub fn crate_name(&self) -> &str {
        match crate_of(&self.function) {
            "" => crate_of_file(&self.file),
            name => name,
        }
    }
}

/// `std` for `/rustc/…/library/std/src/panicking.rs`, `gimli` for
/// `…/registry/src/…/gimli-0.34.0/src/read.rs`, `app` for `/home/…/app/src/main.rs`.
fn crate_of_file(file: &str) -> &str {
    let Some((before, _)) = file.rsplit_once("/src/") else { return "" };
    let directory = before.rsplit('/').next().unwrap_or(before);
    // A package's directory in a registry ends in its version.
    match directory.rsplit_once('-') {
        Some((name, version)) if version.starts_with(|c: char| c.is_ascii_digit()) => name,
        _ => directory,
    }
}

fn crate_of(name: &str) -> &str {
    let mut rest = name;
    // `<T as Trait>::f` belongs to T's crate where T has a path, and to Trait's otherwise.
    loop {
        rest = rest.trim_start_matches(['<', '&', '*', '(', '[', ' ']);
        let before = rest;
        for word in ["mut ", "const ", "dyn "] {
            rest = rest.strip_prefix(word).unwrap_or(rest);
        }
        if rest == before {
            break;
        }
    }
    let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
    let word = &rest[..end];
    if rest[end..].starts_with("::") {
        return word;
    }
    // A bare type parameter or primitive, as in `<T as core::fmt::Display>::fmt`.
    match rest.split_once(" as ") {
        Some((_, after)) if name.starts_with('<') => crate_of(after),
        _ => "",
    }
}

/// The frames of each location of one profile.
#[derive(Clone, Debug, Default)]
pub struct Symbols {
    by_location: Vec<Option<Arc<[Frame]>>>,
}

impl Symbols {
    /// A table without a name.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the frames of a location: inlined functions first, the function that holds the code
    /// last.
    pub fn set(&mut self, location: LocationId, frames: Arc<[Frame]>) {
        if self.by_location.len() <= location.index() {
            self.by_location.resize(location.index() + 1, None);
        }
        self.by_location[location.index()] = Some(frames);
    }

    /// Takes over the frames of another profile's locations, after that profile was merged into
    /// the one that this table belongs to. Locations that have frames here keep them.
    pub fn adopt(&mut self, from: &Self, adopted: &Adopted) {
        for (there, here) in adopted.locations() {
            if let Some(Some(frames)) = from.by_location.get(there)
                && self.get(here).is_empty()
            {
                self.set(here, Arc::clone(frames));
            }
        }
    }

    /// The frames of a location, innermost first; empty where nothing is known.
    #[must_use]
    pub fn get(&self, location: LocationId) -> &[Frame] {
        self.by_location.get(location.index()).and_then(Option::as_deref).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crate_of_a_rust_name() {
        for (name, want) in [
            ("tokio::runtime::task::raw::poll", "tokio"),
            ("<alloc::vec::Vec<T> as core::iter::Extend<T>>::extend", "alloc"),
            ("<T as core::fmt::Display>::fmt", "core"),
            ("<&mut T as axum::Handler>::call", "axum"),
            ("<dyn core::any::Any as core::fmt::Debug>::fmt", "core"),
            ("<(A, B) as tower::Service>::call", "tower"),
            ("<[T] as alloc::slice::Concat>::concat", "alloc"),
            ("core::ops::function::FnOnce::call_once{{vtable.shim}}", "core"),
            ("main", ""),
            ("next<core::slice::Iter<u8>>", ""),
            ("{closure#0}", ""),
            ("__libc_start_main", ""),
            ("0x55d0", ""),
            ("", ""),
        ] {
            assert_eq!(crate_of(name), want, "{name}");
        }
    }

    #[test]
    fn the_crate_of_a_name_without_a_path_is_its_files() {
        for (file, want) in [
            ("/rustc/59807616/library/core/src/ops/arith.rs", "core"),
            ("/x/registry/src/index-0123/gimli-0.34.0/src/read/cfi.rs", "gimli"),
            ("/x/registry/src/index-0123/rayon-core-1.13.0/src/job.rs", "rayon-core"),
            ("/home/a/yolo26-stub/src/main.rs", "yolo26-stub"),
            ("./math/../sysdeps/ieee754/flt-32/e_expf.c", ""),
            ("", ""),
        ] {
            assert_eq!(Frame::new("mul").at(file, 1).crate_name(), want, "{file}");
        }
        assert_eq!(Frame::new("a::b").at("/c/src/d.rs", 1).crate_name(), "a");
    }
}
