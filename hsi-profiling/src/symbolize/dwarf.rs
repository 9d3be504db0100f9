//! Functions, inlined functions and lines from debug info, by `addr2line`.
//!
//! The reader maps the file and builds indexes of it that are many times larger than the answers,
//! so it lives for one pass and is dropped. Debug info may be in the file itself, in `.dwo` files
//! or a `.dwp` package that the file names, or in a separate file with the same build id. Nothing
//! is fetched from a network.
//!
//! The map is the one hazard that safe code cannot remove: a file that is cut short in place while
//! it is read raises SIGBUS. A running program and its libraries cannot be treated so without
//! dying of it anyway; separate debug files should be replaced by renaming, as packages do.

use super::guard::guarded;
use super::names::{Draft, Names, Place};
use addr2line::Loader;
use addr2line::gimli::DW_LANG_Rust;
use std::io;
use std::path::Path;

/// More inlined functions than this at one address are not believed.
const MAX_DEPTH: usize = 256;

pub(super) struct Dwarf(Loader);

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Fault {
    /// It may go better another time: no file descriptor, no memory.
    Passing(String),
    /// The debug info cannot be read.
    Unsound(String),
    /// The parser panicked; it must not be asked again.
    Panic,
}

/// What debug info says of one address.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Innermost first; the last one is the function that holds the code.
    pub(super) frames: Vec<Draft>,
    /// Whether an inlined Rust function has no more than the last word of its name.
    pub(super) short: bool,
    /// The line, where code has one but belongs to no function that has a name: it is for the
    /// symbol table to name the last frame.
    pub(super) place: Option<Place>,
}

impl Dwarf {
    /// Opens debug info, with the file that it shares strings with, if there is one.
    pub(super) fn open(path: &Path, supplement: Option<&Path>) -> Result<Self, Fault> {
        match guarded(|| Loader::new_with_sup(path, supplement)).ok_or(Fault::Panic)? {
            Ok(loader) => Ok(Self(loader)),
            Err(error) if error.is::<io::Error>() => Err(Fault::Passing(error.to_string())),
            Err(error) => Err(Fault::Unsound(error.to_string())),
        }
    }

    /// The frames at `address`; none where the debug info does not cover it.
    pub(super) fn find(&self, address: u64, names: &mut Names) -> Result<Found, Fault> {
        let found = guarded(|| self.walk(address, names)).ok_or(Fault::Panic)?;
        found.map_err(Fault::Unsound)
    }

    fn walk(&self, address: u64, names: &mut Names) -> Result<Found, String> {
        let (mut found, mut short) = (Found::default(), false);
        let mut iter = self.0.find_frames(address).map_err(|e| e.to_string())?;
        while let Some(frame) = iter.next().map_err(|e| e.to_string())? {
            // Code of line 0 belongs to no line, and what file it names is chance.
            let place = frame.location.and_then(|l| Some((l.file?, l.line.filter(|l| *l > 0)?)));
            let place = place.map(|(file, line)| names.place(file, line));
            let function = frame.function.as_ref();
            let Some(name) = function.and_then(|f| f.raw_name().ok()) else {
                found.place = place;
                continue;
            };
            let draft = Draft { function: names.function(&name), place };
            found.frames.push(draft);
            // That of the last frame is not counted: the symbol table has its full name.
            found.short |= short;
            let rust = function.is_some_and(|f| f.language == Some(DW_LANG_Rust));
            short = rust && !names.is_mangled(draft.function);
            if found.frames.len() == MAX_DEPTH {
                break;
            }
        }
        Ok(found)
    }
}
