//! Readable names from mangled ones, each made once in a pass and shared by its frames.
//!
//! There are two steps. While debug info is read, the answers are drafts: numbers into the tables
//! here, which are a few large pieces of memory. Frames are made of them after it was closed.
//! Otherwise the small strings that stay would lie between what goes, and keep the pages of both.
//!
//! Names are bounded: a generic future can have a name of a hundred kilobytes, and a crafted one
//! has no end at all.

use super::guard::guarded;
use crate::profile::Frame;
use rustc_hash::{FxBuildHasher, FxHashMap};
use std::fmt::{self, Write};
use std::hash::BuildHasher;
use std::ops::Range;
use std::sync::Arc;

/// The longest name that is kept, in bytes.
const MAX_NAME: usize = 4096;

/// A frame to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draft {
    pub(super) function: FunctionId,
    pub(super) place: Option<Place>,
}

/// A function by its number in [`Names`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FunctionId(u32);

/// A line of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    file: u32,
    line: u32,
}

/// The names that one pass has met so far.
#[derive(Debug)]
pub(super) struct Names {
    /// All names and paths, one after the other.
    text: String,
    functions: Vec<Function>,
    files: Vec<File>,
    /// Functions and files by the hash of what they were asked for with. Of two with one hash
    /// the later one is found, and the other is made twice.
    known_functions: FxHashMap<u64, u32>,
    known_files: FxHashMap<u64, u32>,
    empty: Arc<str>,
}

#[derive(Debug)]
struct Function {
    asked: Range<usize>,
    /// Empty where it is what was asked for.
    readable: Range<usize>,
    made: Option<(Arc<str>, Arc<str>)>,
}

#[derive(Debug)]
struct File {
    path: Range<usize>,
    made: Option<Arc<str>>,
}

impl Names {
    pub(super) fn new() -> Self {
        Self {
            text: String::new(),
            functions: Vec::new(),
            files: Vec::new(),
            known_functions: FxHashMap::default(),
            known_files: FxHashMap::default(),
            empty: Arc::from(""),
        }
    }

    /// The function that the object calls `mangled`.
    pub(super) fn function(&mut self, mangled: &str) -> FunctionId {
        let hash = FxBuildHasher.hash_one(mangled);
        if let Some(id) = self.known_functions.get(&hash)
            && self.text.get(self.functions[*id as usize].asked.clone()) == Some(mangled)
        {
            return FunctionId(*id);
        }
        let readable = guarded(|| demangle(mangled)).flatten().unwrap_or_default();
        let function =
            Function { asked: self.add(mangled), readable: self.add(&readable), made: None };
        let id = self.functions.len() as u32;
        self.functions.push(function);
        self.known_functions.insert(hash, id);
        FunctionId(id)
    }

    /// A line of the file at `path`.
    pub(super) fn place(&mut self, path: &str, line: u32) -> Place {
        let hash = FxBuildHasher.hash_one(path);
        if let Some(file) = self.known_files.get(&hash)
            && self.text.get(self.files[*file as usize].path.clone()) == Some(path)
        {
            return Place { file: *file, line };
        }
        let file = self.files.len() as u32;
        let path = self.add(path);
        self.files.push(File { path, made: None });
        self.known_files.insert(hash, file);
        Place { file, line }
    }

    /// Whether the object has a mangled name for the function, which has its full path in it.
    pub(super) fn is_mangled(&self, id: FunctionId) -> bool {
        self.functions.get(id.0 as usize).is_some_and(|f| !f.readable.is_empty())
    }

    /// Makes the frame of a draft. No debug info should be open.
    pub(super) fn frame(&mut self, draft: Draft) -> Frame {
        let (text, empty) = (&self.text, &self.empty);
        let shared = |range: &Range<usize>| -> Arc<str> {
            let text = text.get(range.clone()).unwrap_or_default();
            if text.is_empty() { Arc::clone(empty) } else { prefix(text, MAX_NAME).into() }
        };
        let (function, system_name) = match self.functions.get_mut(draft.function.0 as usize) {
            Some(f) if f.readable.is_empty() => {
                f.made.get_or_insert_with(|| (shared(&f.asked), Arc::clone(empty))).clone()
            }
            Some(f) => {
                f.made.get_or_insert_with(|| (shared(&f.readable), shared(&f.asked))).clone()
            }
            None => (Arc::clone(empty), Arc::clone(empty)),
        };
        let file = draft.place.and_then(|place| self.files.get_mut(place.file as usize));
        let file = match file {
            Some(f) => f.made.get_or_insert_with(|| shared(&f.path)).clone(),
            None => Arc::clone(empty),
        };
        Frame { function, system_name, file, line: draft.place.map_or(0, |place| place.line) }
    }

    fn add(&mut self, text: &str) -> Range<usize> {
        let start = self.text.len();
        self.text.push_str(text);
        start..self.text.len()
    }
}

/// The readable form of a mangled name: Rust (legacy without its hash, or v0) or C++. `None`
/// where the name is not mangled.
fn demangle(mangled: &str) -> Option<String> {
    let mut text = Bounded::default();
    // A name that outgrows the bound ends in an error; what was written of it is still good.
    let result = if let Ok(name) = rustc_demangle::try_demangle(mangled) {
        write!(text, "{name:#}")
    } else if mangled.starts_with("_Z") && mangled.len() <= MAX_NAME {
        let name = cpp_demangle::BorrowedSymbol::new(mangled.as_bytes()).ok()?;
        name.structured_demangle(&mut text, &cpp_demangle::DemangleOptions::new())
    } else {
        return None;
    };
    (result.is_ok() || text.full).then_some(text.text)
}

/// The longest prefix of whole characters that has at most `limit` bytes.
fn prefix(text: &str, limit: usize) -> &str {
    let mut end = limit.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Text that refuses to grow beyond [`MAX_NAME`].
#[derive(Default)]
struct Bounded {
    text: String,
    full: bool,
}

impl Write for Bounded {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        if self.full {
            return Err(fmt::Error);
        }
        let room = MAX_NAME.saturating_sub(self.text.len());
        if more.len() <= room {
            self.text.push_str(more);
            return Ok(());
        }
        self.text.push_str(prefix(more, room));
        self.full = true;
        Err(fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(names: &mut Names, mangled: &str, place: Option<(&str, u32)>) -> Frame {
        let function = names.function(mangled);
        let place = place.map(|(path, line)| names.place(path, line));
        assert_eq!(names.is_mangled(function), demangle(mangled).is_some());
        names.frame(Draft { function, place })
    }

    #[test]
    fn names_are_demangled() {
        for (mangled, want) in [
            (
                "_ZN5tokio7runtime4task3raw4poll17h0123456789abcdefE",
                "tokio::runtime::task::raw::poll",
            ),
            (
                "_ZN71_$LT$Test$u20$$u2b$$u20$$u27$static$u20$as$u20$foo..Bar$LT$Test$GT$$GT$3bar17h930b740aa94f1d3aE",
                "<Test + 'static as foo::Bar<Test>>::bar",
            ),
            ("_ZN4core3fmt5write17h0123456789abcdefE.llvm.1234567", "core::fmt::write"),
            ("_RNvNtCs1234_7mycrate3foo3bar", "mycrate::foo::bar"),
            ("_RNCNvC4demo4main0", "demo::main::{closure#0}"),
            ("_ZN3foo3barEiPKc", "foo::bar(int, char const*)"),
            (
                "_ZNSt6vectorIiSaIiEE9push_backERKi",
                "std::vector<int, std::allocator<int> >::push_back(int const&)",
            ),
        ] {
            let frame = frame(&mut Names::new(), mangled, None);
            assert_eq!(&*frame.function, want);
            assert_eq!(&*frame.system_name, mangled);
        }
        for plain in ["main", "__libc_start_main", "_start", "_Zebra", "_R", ""] {
            let frame = frame(&mut Names::new(), plain, None);
            assert_eq!((&*frame.function, &*frame.system_name), (plain, ""));
        }
    }

    #[test]
    fn names_have_an_end() {
        // Sixty nested pairs, each of which names the one before it twice: 2^60 words.
        let mut cpp = "_Z1fSt4pairI1AS_E".to_owned();
        for i in 0..60u32 {
            let back = format!("S{}_", char::from_digit(i % 36, 36).unwrap().to_ascii_uppercase());
            cpp.push_str(&format!("St4pairI{back}{back}E"));
        }
        for name in
            [cpp, "é".repeat(MAX_NAME), format!("_ZN{}{}E", MAX_NAME * 3, "x".repeat(MAX_NAME * 3))]
        {
            let frame = frame(&mut Names::new(), &name, Some((&name, 1)));
            assert!(frame.function.len() <= MAX_NAME);
            assert!(frame.system_name.len() <= MAX_NAME);
            assert!(frame.file.len() <= MAX_NAME);
        }
    }

    #[test]
    fn equal_names_are_one() {
        let mut names = Names::new();
        let a = frame(&mut names, "_ZN1a1bE", Some(("f.rs", 1)));
        let b = frame(&mut names, "_ZN1a1bE", Some(("f.rs", 2)));
        assert!(Arc::ptr_eq(&a.function, &b.function));
        assert!(Arc::ptr_eq(&a.system_name, &b.system_name));
        assert!(Arc::ptr_eq(&a.file, &b.file));
    }
}
