//! One pass over one module: each address by the best source that knows it.

use super::dwarf::{self, Fault, Found};
use super::elf::{Contents, Elf, Image, contents};
use super::locate::{self, Missing, Separate};
use super::names::{Draft, Names};
use super::status::SymbolKind;
use super::symtab::SymbolTable;
use crate::profile::{Frame, Module};
use object::read::elf::ElfFile64;
use std::path::PathBuf;

/// What one pass found of a module.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) kind: SymbolKind,
    pub(super) problem: Option<String>,
    pub(super) addresses: u64,
    pub(super) lines: u64,
    pub(super) short: u64,
    pub(super) readers: u64,
    pub(super) faults: u64,
    pub(super) panics: u64,
}

/// The frames of one address. They are not worth keeping where their reason is a passing one.
pub(super) struct Answer {
    pub(super) address: u64,
    pub(super) frames: Vec<Frame>,
    pub(super) keep: bool,
}

/// The best names that the file of `module` can give, without looking one up.
pub(super) fn survey(module: &Module) -> Outcome {
    resolve(module, &[], |_| {})
}

/// Names `addresses`, which are sorted addresses in the file of `module`, one by one.
pub(super) fn resolve(module: &Module, addresses: &[u64], mut each: impl FnMut(Answer)) -> Outcome {
    let mut each_unnamed = |keep| {
        for address in addresses {
            each(Answer {
                address: *address,
                frames: vec![Frame::new(offset(module, *address))],
                keep,
            });
        }
    };
    let image = match locate::open(module) {
        Ok(image) => image,
        Err(missing) => {
            each_unnamed(!matches!(missing, Missing::Passing(_)));
            return Outcome::without_file(missing, addresses);
        }
    };
    match image.parse() {
        Ok(elf) => Pass::new(module, &image, &elf).run(addresses, each),
        Err(why) => {
            each_unnamed(true);
            Outcome::without_file(Missing::Unreadable(why), addresses)
        }
    }
}

/// The name of an address without a module.
pub(super) fn bare(address: u64) -> String {
    format!("{address:#x}")
}

/// The name of an address that nothing names.
fn offset(module: &Module, address: u64) -> String {
    let name = module.path.rsplit('/').next().unwrap_or_default();
    if name.is_empty() { bare(address) } else { format!("{name}+{address:#x}") }
}

struct Pass<'a> {
    module: &'a Module,
    image: &'a Image,
    elf: &'a Elf<'a>,
    separate: Option<Separate>,
    /// The debug info to open, and the file that it shares strings with.
    debug: Option<(PathBuf, Option<PathBuf>)>,
    names: Names,
    keep: bool,
    outcome: Outcome,
}

impl<'a> Pass<'a> {
    fn new(module: &'a Module, image: &'a Image, elf: &'a Elf<'a>) -> Self {
        let own = contents(elf);
        let separate = match own.debug_info {
            true => None,
            false => locate::separate(elf, image.path()),
        };
        let there = separate.as_ref().and_then(|s| Some(contents(&s.image.parse().ok()?)));
        let (kind, problem) = judge(&own, there.as_ref());
        let debug = match (&kind, &separate) {
            (SymbolKind::Lines, None) => {
                image.reopen_path().map(|path| (path, locate::supplement(elf, image.path())))
            }
            (SymbolKind::Lines, Some(s)) => {
                s.image.reopen_path().map(|path| (path, s.supplement.clone()))
            }
            _ => None,
        };
        let outcome = Outcome { kind, problem, ..Outcome::default() };
        Self { module, image, elf, separate, debug, names: Names::new(), keep: true, outcome }
    }

    fn run(mut self, addresses: &[u64], mut each: impl FnMut(Answer)) -> Outcome {
        self.outcome.addresses = addresses.len() as u64;
        let separate = self.separate.take();
        let separate_elf = separate.as_ref().and_then(|s| s.image.parse().ok());
        let with_table = |elf: &&Elf<'_>| contents(elf).symbol_table;
        let (table_elf, image) =
            match separate_elf.as_ref().filter(with_table).zip(separate.as_ref()) {
                Some((elf, separate)) => (elf, &separate.image),
                None => (self.elf, self.image),
            };
        let map = image.map();
        let mapped = map.as_ref().and_then(|map| ElfFile64::parse(map.bytes()).ok());
        let mut table: Option<SymbolTable<'_>> = None;
        let mut drafts = Vec::new();
        for (address, found) in addresses.iter().zip(self.look_up(addresses)) {
            self.outcome.short += u64::from(found.short);
            drafts.clear();
            self.complete(found, *address, &mut drafts, || {
                let table = table.get_or_insert_with(|| match &mapped {
                    Some(elf) => SymbolTable::read(elf),
                    None => SymbolTable::read(table_elf),
                });
                table.name(*address)
            });
            let frames: Vec<Frame> = drafts.iter().map(|d| self.names.frame(*d)).collect();
            self.outcome.lines += u64::from(frames.iter().any(|f| f.line > 0));
            each(Answer { address: *address, frames, keep: self.keep });
        }
        self.outcome
    }

    /// What debug info says of each of the addresses.
    fn look_up(&mut self, addresses: &[u64]) -> Vec<Found> {
        let mut found = Vec::new();
        if let Some((path, supplement)) = self.debug.take().filter(|_| !addresses.is_empty()) {
            let answers = dwarf::read(&path, supplement.as_deref(), addresses, &mut self.names);
            self.outcome.readers = answers.readers;
            if let Some(fault) = answers.fault {
                self.note(fault, answers.failed);
            }
            found = answers.found;
        }
        found.resize_with(addresses.len(), Found::default);
        found
    }

    /// Adds what the symbol table knows better: the function that the debug info does not name,
    /// or names by its last word only.
    fn complete<'s>(
        &mut self,
        found: Found,
        address: u64,
        drafts: &mut Vec<Draft>,
        symbol: impl FnOnce() -> Option<&'s str>,
    ) {
        let covered = !found.frames.is_empty() && found.place.is_none();
        drafts.extend(found.frames);
        match drafts.last_mut() {
            Some(outer) if covered => {
                if !self.names.is_mangled(outer.function)
                    && let Some(full) = symbol().map(|name| self.names.function(name))
                    && self.names.is_mangled(full)
                {
                    outer.function = full;
                }
            }
            _ => {
                let function = match symbol() {
                    Some(name) => self.names.function(name),
                    None => self.names.function(&offset(self.module, address)),
                };
                drafts.push(Draft { function, place: found.place });
            }
        }
    }

    fn note(&mut self, fault: Fault, count: u64) {
        self.outcome.faults += count;
        let why = match fault {
            Fault::Passing(why) => {
                self.keep = false;
                why
            }
            Fault::Unsound(why) => why,
            Fault::Panic => {
                self.outcome.panics += 1;
                "its parser panicked".to_owned()
            }
        };
        self.outcome.problem.get_or_insert_with(|| format!("its debug info cannot be read: {why}"));
    }
}

/// The best names that a file and its separate debug info can give.
fn judge(own: &Contents, separate: Option<&Contents>) -> (SymbolKind, Option<String>) {
    let debug = if own.debug_info { Some(own) } else { separate };
    let too_large = debug.is_some_and(|c| c.too_large);
    let problem = too_large.then(|| "its compressed debug info is too large to unpack".to_owned());
    let kind = if debug.is_some() && !too_large {
        SymbolKind::Lines
    } else if own.symbol_table || separate.is_some_and(|c| c.symbol_table) {
        SymbolKind::Functions
    } else if own.exports {
        SymbolKind::Exports
    } else {
        SymbolKind::Addresses
    };
    (kind, problem)
}

impl Default for Outcome {
    fn default() -> Self {
        Self {
            kind: SymbolKind::Addresses,
            problem: None,
            addresses: 0,
            lines: 0,
            short: 0,
            readers: 0,
            faults: 0,
            panics: 0,
        }
    }
}

impl Outcome {
    fn without_file(missing: Missing, addresses: &[u64]) -> Self {
        let kind = match missing {
            Missing::Replaced => SymbolKind::Replaced,
            Missing::Unreadable(why) | Missing::Passing(why) => SymbolKind::Unreadable { why },
        };
        Self { kind, addresses: addresses.len() as u64, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_source_is_chosen() {
        let huge =
            Contents { debug_info: true, symbol_table: true, exports: true, too_large: true };
        let info = Contents { too_large: false, ..huge };
        let table = Contents { symbol_table: true, exports: true, ..Contents::default() };
        let exports = Contents { exports: true, ..Contents::default() };
        let none = Contents::default();
        for (own, separate, want) in [
            (&info, None, SymbolKind::Lines),
            (&none, Some(&info), SymbolKind::Lines),
            (&table, None, SymbolKind::Functions),
            (&huge, None, SymbolKind::Functions),
            (&exports, Some(&huge), SymbolKind::Functions),
            (&exports, None, SymbolKind::Exports),
            (&none, None, SymbolKind::Addresses),
        ] {
            let (kind, problem) = judge(own, separate);
            assert_eq!(kind, want);
            assert_eq!(problem.is_some(), own.too_large || separate.is_some_and(|s| s.too_large));
        }
    }

    #[test]
    fn what_nothing_names_is_an_offset() {
        let module = |path: &str| Module { path: path.into(), ..Module::default() };
        assert_eq!(offset(&module("/opt/app/server"), 0x1234), "server+0x1234");
        assert_eq!(offset(&module("[vdso]"), 0xc), "[vdso]+0xc");
        assert_eq!(offset(&module(""), 0xc), "0xc");
    }

    #[test]
    fn without_a_file_every_address_still_has_a_frame() {
        let module = Module { path: "/no/such/file.so".into(), ..Module::default() };
        let mut names = Vec::new();
        let outcome =
            resolve(&module, &[1, 2], |a| names.push((a.frames[0].function.clone(), a.keep)));
        assert_eq!(names, [("file.so+0x1".into(), true), ("file.so+0x2".into(), true)]);
        assert!(matches!(outcome.kind, SymbolKind::Unreadable { .. }));
        assert_eq!((outcome.addresses, outcome.lines), (2, 0));
    }
}
