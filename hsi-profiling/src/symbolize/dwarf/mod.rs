//! Functions, inlined functions and lines from debug info, in one pass over the file.
//!
//! The usual readers build an index of a whole file first, which for a large program takes tens of
//! megabytes that a C library hardly gives back. A profile needs a few hundred addresses of it, so
//! here the addresses are what is kept: the units are read one after the other, and of each that
//! has wanted addresses the entries and the line program are walked once. What stays is the
//! answers. Debug info that is spread over files is the exception: see [`split`].
//!
//! Debug info may be in the file itself, in `.dwo` files or a `.dwp` package that the file names,
//! or in a separate file with the same build id. Nothing is fetched from a network.
//!
//! Any bytes give an answer or a fault: what is nested and what is referred to has a bound, and no
//! call is recursive.
//!
//! The file is mapped. That is the one hazard that safe code cannot remove: a file that is cut
//! short in place while it is read raises SIGBUS. A running program and its libraries cannot be
//! treated so without dying of it anyway; separate debug files should be replaced by renaming, as
//! packages do.

mod cover;
mod lines;
mod origin;
mod sections;
mod split;
mod units;
mod walk;

use super::guard::guarded;
use super::names::{Draft, FunctionId, Names, Place};
use crate::sys::FileMap;
use cover::Cover;
use gimli::{DwLang, EndianSlice, NativeEndian, UnitType};
use lines::Lines;
use std::fs::File;
use std::path::Path;
use units::{Info, Root};
use walk::{Entry, Hit, Walk};

/// More inlined functions than this at one address are not believed.
const MAX_DEPTH: usize = 256;

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

/// What a pass has found.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// For each address; empty where the debug info does not cover it.
    pub(super) found: Vec<Found>,
    /// How many readers were made.
    pub(super) readers: u64,
    /// The first fault, or the gravest.
    pub(super) fault: Option<Fault>,
    /// How many lookups failed.
    pub(super) failed: u64,
}

/// Looks up sorted addresses in the file at `path`, which shares strings with `supplement`, if
/// there is one.
pub(super) fn read(
    path: &Path,
    supplement: Option<&Path>,
    addresses: &[u64],
    names: &mut Names,
) -> Answers {
    let mut answers = Answers::default();
    answers.found.resize_with(addresses.len(), Found::default);
    if supplement.is_some() {
        let all: Vec<usize> = (0..addresses.len()).collect();
        split::read((path, supplement), addresses, &all, names, &mut answers);
        return answers;
    }
    let map = match File::open(path).and_then(|file| FileMap::new(&file)) {
        Ok(map) => map,
        Err(error) => {
            answers.fail(Fault::Passing(error.to_string()), 1);
            return answers;
        }
    };
    answers.readers += 1;
    let mut apart = Vec::new();
    match guarded(|| pass(map.bytes(), addresses, names, &mut answers, &mut apart)) {
        Some(Ok(())) => {}
        Some(Err(why)) => answers.fail(Fault::Unsound(why), 1),
        None => {
            answers.fail(Fault::Panic, 1);
            return answers;
        }
    }
    drop(map);
    apart.sort_unstable();
    apart.dedup();
    split::read((path, None), addresses, &apart, names, &mut answers);
    answers
}

/// One pass over the units. Puts into `apart` which addresses are of units that are elsewhere.
fn pass(
    bytes: &[u8],
    addresses: &[u64],
    names: &mut Names,
    answers: &mut Answers,
    apart: &mut Vec<usize>,
) -> Result<(), String> {
    let sections = sections::sections(bytes)?;
    let mut info =
        Info::new(sections.borrow(|section| EndianSlice::new(section.bytes(), NativeEndian)));
    let mut cover = Cover::new(addresses);
    // For each address the end of the range by which a unit had it: the nearest one wins.
    let mut best = vec![u64::MAX; addresses.len()];
    let mut headers = info.dwarf.units();
    while let Some(header) = headers.next().map_err(|error| error.to_string())? {
        // The others have no code; names may be looked up in them.
        if !matches!(header.type_(), UnitType::Compilation | UnitType::Skeleton(_)) {
            continue;
        }
        // A unit that cannot be read is passed over.
        let Ok(root) = info.root(header) else { continue };
        if let Err(error) = cover.find(&info, &root) {
            answers.fail(Fault::Unsound(error.to_string()), 1);
        }
        if cover.indexes().is_empty() {
            continue;
        }
        if root.split {
            apart.extend_from_slice(cover.indexes());
        } else {
            let wanted: Vec<u64> =
                cover.indexes().iter().filter_map(|i| addresses.get(*i).copied()).collect();
            match look_up(&mut info, &root, &wanted, names, answers) {
                Ok(found) => {
                    for (index, found) in cover.indexes().iter().zip(found) {
                        let end = cover.end(*index);
                        if let Some(found) = found
                            && let Some(best) = best.get_mut(*index).filter(|best| end < **best)
                        {
                            *best = end;
                            answers.set(*index, found);
                        }
                    }
                }
                Err(error) => {
                    answers.fail(Fault::Unsound(error.to_string()), wanted.len() as u64);
                }
            }
        }
        cover.clear();
    }
    Ok(())
}

/// What the unit with this root says of the sorted addresses `wanted`.
fn look_up<'a>(
    info: &mut Info<'a>,
    root: &Root<'a>,
    wanted: &[u64],
    names: &mut Names,
    answers: &mut Answers,
) -> gimli::Result<Vec<Option<Found>>> {
    let mut walk = Walk::new(info, &root.unit, wanted, names);
    walk.run()?;
    let (hits, entries, nameless) = (walk.hits, walk.entries, walk.nameless);
    if let Some((error, count)) = nameless {
        answers.fail(Fault::Unsound(error.to_string()), count);
    }
    let mut lines = Lines::open(info, root)?;
    let rows = lines.as_mut().map_or_else(|| Ok(vec![None; wanted.len()]), |l| l.run(wanted))?;
    let mut place = |place: Option<(u64, u32)>, names: &mut Names| match (&lines, place) {
        (Some(lines), Some(place)) => lines.place(info, &root.unit, place, names),
        _ => Ok(None),
    };
    let mut all = Vec::with_capacity(wanted.len());
    for (hit, row) in hits.iter().zip(rows) {
        let row = row.map(|row| (row.file, row.line));
        all.push(match (hit, row) {
            (None, None) => None,
            (None, row) => Some(Found { place: place(row, names)?, ..Found::default() }),
            (Some(hit), row) => {
                Some(found(hit, &entries, row, names, &mut place)?.finished(root.language, names))
            }
        });
    }
    Ok(all)
}

/// The frames of an address, of which the innermost is at `row` and each other one where the one
/// before it was called.
fn found(
    hit: &Hit,
    entries: &[Entry],
    row: Option<(u64, u32)>,
    names: &mut Names,
    mut place: impl FnMut(Option<(u64, u32)>, &mut Names) -> gimli::Result<Option<Place>>,
) -> gimli::Result<Found> {
    let mut found = Found::default();
    let mut at = row;
    for index in hit.chain().into_iter().chain([hit.function()]) {
        let Some(entry) = entries.get(index) else { continue };
        if !found.add(entry.name, place(at, names)?) {
            break;
        }
        at = entry.call_file.map(|file| (file, entry.call_line));
    }
    Ok(found)
}

impl Found {
    /// Adds the next frame further out, and returns whether more of them are believed.
    fn add(&mut self, name: Option<FunctionId>, place: Option<Place>) -> bool {
        match name {
            Some(function) => self.frames.push(Draft { function, place }),
            None => self.place = place,
        }
        self.frames.len() < MAX_DEPTH
    }

    fn finished(mut self, language: Option<DwLang>, names: &Names) -> Self {
        // The last frame is not counted: the symbol table has its full name.
        let inlined = self.frames.split_last().map_or(&[][..], |(_, inlined)| inlined);
        self.short = language == Some(gimli::DW_LANG_Rust)
            && inlined.iter().any(|draft| !names.is_mangled(draft.function));
        self
    }
}

impl Answers {
    fn set(&mut self, index: usize, found: Found) {
        if let Some(place) = self.found.get_mut(index) {
            *place = found;
        }
    }

    fn fail(&mut self, fault: Fault, count: u64) {
        self.failed += count;
        if self.fault.is_none() || matches!(fault, Fault::Panic) {
            self.fault = Some(fault);
        }
    }
}

#[cfg(test)]
mod tests;
