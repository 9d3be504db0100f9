//! Functions from a symbol table, for code that has no debug info.
//!
//! A symbol names an address only if it covers it: the nearest one below is not good enough, as
//! in a stripped library that may be a function far away. Mini debug info (`.gnu_debugdata`) is
//! not read: it would take a decompressor of its own.

use super::elf::{Elf, code_ranges};
use object::elf::{STB_LOCAL, STB_WEAK, STT_FUNC, STT_GNU_IFUNC, STT_NOTYPE};
use object::read::ReadRef;
use object::read::elf::{ElfFile64, SectionHeader, Sym};
use object::{Endianness, elf::FileHeader64};

/// How many symbols below an address are tried, for tables in which they are nested.
const NEAREST: usize = 16;

type Raw<'a, R> = object::read::elf::SymbolTable<'a, FileHeader64<Endianness>, R>;

/// The functions of one symbol table, sorted by address.
pub(super) struct SymbolTable<'a> {
    strings: &'a [u8],
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    start: u64,
    end: u64,
    /// Where its name is among the strings.
    name: u32,
    rank: u8,
}

impl<'a> SymbolTable<'a> {
    /// Reads the table of `elf` itself, or that of its exports where there is no other.
    pub(super) fn read<R: ReadRef<'a>>(elf: &ElfFile64<'a, Endianness, R>) -> Self {
        let code = code_ranges(elf);
        let mut raw = elf.elf_symbol_table();
        let mut entries: Vec<Entry> = functions(elf, raw, &code).collect();
        if entries.is_empty() {
            raw = elf.elf_dynamic_symbol_table();
            entries = functions(elf, raw, &code).collect();
        }
        entries.sort_unstable_by_key(|e| (e.start, e.name));
        close_open_ends(&mut entries, &code);
        Self { strings: strings(elf, raw), entries }
    }

    /// The mangled name of the function that covers `address`.
    pub(super) fn name(&self, address: u64) -> Option<&'a str> {
        let below = self.entries.partition_point(|e| e.start <= address);
        let mut best: Option<(Entry, &str)> = None;
        for entry in self.entries[..below].iter().rev().take(NEAREST) {
            if best.is_some_and(|(b, _)| b.start != entry.start) {
                break;
            }
            if address >= entry.end {
                continue;
            }
            let Some(name) = self.name_at(entry.name) else { continue };
            if best.is_none_or(|(b, other)| preference(*entry, name) < preference(b, other)) {
                best = Some((*entry, name));
            }
        }
        best.map(|(_, name)| name)
    }

    fn name_at(&self, at: u32) -> Option<&'a str> {
        let rest = self.strings.get(at as usize..)?;
        let name = std::str::from_utf8(rest.split(|byte| *byte == 0).next()?).ok()?;
        // A version may follow, as in `memcpy@@GLIBC_2.14`.
        let name = name.split('@').next().unwrap_or(name);
        // `$x` and `$d` tell code from data on aarch64.
        (!name.is_empty() && !name.starts_with('$')).then_some(name)
    }
}

/// Whether there are functions in the symbol table, and in that of the exports.
pub(super) fn has_functions(elf: &Elf<'_>) -> (bool, bool) {
    let code = code_ranges(elf);
    let any = |raw| functions(elf, raw, &code).any(|entry| entry.end > entry.start);
    (any(elf.elf_symbol_table()), any(elf.elf_dynamic_symbol_table()))
}

fn functions<'a, R: ReadRef<'a>>(
    elf: &ElfFile64<'a, Endianness, R>,
    raw: &Raw<'a, R>,
    code: &[(u64, u64)],
) -> impl Iterator<Item = Entry> {
    let endian = elf.endian();
    raw.iter().filter_map(move |symbol| {
        let start = symbol.st_value(endian);
        // Functions written in assembly often have no type.
        let function = matches!(symbol.st_type(), STT_FUNC | STT_GNU_IFUNC | STT_NOTYPE);
        let inside = code.iter().any(|(from, to)| (*from..*to).contains(&start));
        (function && inside && !symbol.is_undefined(endian)).then(|| Entry {
            start,
            end: start.saturating_add(symbol.st_size(endian)),
            name: symbol.st_name(endian),
            rank: match symbol.st_bind() {
                STB_LOCAL => 2,
                STB_WEAK => 1,
                _ => 0,
            },
        })
    })
}

/// The strings of a table, read at once: they are asked for one by one, and in no order.
fn strings<'a, R: ReadRef<'a>>(elf: &ElfFile64<'a, Endianness, R>, raw: &Raw<'a, R>) -> &'a [u8] {
    let section = elf.elf_section_table().section(raw.string_section());
    section.ok().and_then(|s| s.data(elf.endian(), elf.data()).ok()).unwrap_or_default()
}

/// Symbols without a size end at the next symbol, or with their section.
fn close_open_ends(entries: &mut [Entry], code: &[(u64, u64)]) {
    let (mut here, mut above) = (u64::MAX, u64::MAX);
    for entry in entries.iter_mut().rev() {
        if entry.start != here {
            (here, above) = (entry.start, here);
        }
        if entry.end == entry.start {
            let section = code.iter().find(|(start, end)| (*start..*end).contains(&entry.start));
            entry.end = section.map_or(entry.start, |(_, end)| above.min(*end));
        }
    }
}

/// Of several names for one function the public one is best, and the plain one.
fn preference(entry: Entry, name: &str) -> (u8, usize, usize, &str) {
    let underscores = name.len() - name.trim_start_matches('_').len();
    let mangled = name.starts_with("_Z") || name.starts_with("_R");
    (entry.rank, if mangled { 0 } else { underscores }, name.len(), name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(start: u64, end: u64) -> Entry {
        Entry { start, end, name: 0, rank: 0 }
    }

    #[test]
    fn a_symbol_without_a_size_ends_at_the_next_or_with_its_section() {
        let mut entries = [
            entry(0x10, 0x18),
            entry(0x20, 0x20),
            entry(0x20, 0x20),
            entry(0x28, 0x30),
            entry(0x40, 0x40),
        ];
        close_open_ends(&mut entries, &[(0x10, 0x50)]);
        assert_eq!(entries.map(|e| e.end), [0x18, 0x28, 0x28, 0x30, 0x50]);
    }

    #[test]
    fn a_symbol_names_what_it_covers() {
        let strings = b"\0outer\0__alias\0inner@@V_1\0last\0$x\0\xff\0";
        let at = |name: &[u8]| strings.windows(name.len()).position(|w| w == name).unwrap() as u32;
        let symbol = |start, end, name| Entry { start, end, name: at(name), rank: 0 };
        let table = SymbolTable {
            strings,
            entries: vec![
                symbol(0x10, 0x40, b"__alias"),
                symbol(0x10, 0x40, b"outer"),
                symbol(0x20, 0x28, b"inner"),
                symbol(0x50, 0x58, b"last"),
                symbol(0x50, 0x60, b"$x"),
                symbol(0x70, 0x78, b"\xff"),
                Entry { name: u32::MAX, ..symbol(0x80, 0x88, b"last") },
            ],
        };
        for (address, want) in [
            (0x0f, None),
            (0x10, Some("outer")),
            (0x1f, Some("outer")),
            (0x20, Some("inner")),
            (0x28, Some("outer")),
            (0x40, None),
            (0x57, Some("last")),
            (0x58, None),
            (0x70, None),
            (0x80, None),
            (u64::MAX, None),
        ] {
            assert_eq!(table.name(address), want, "{address:#x}");
        }
    }

    #[test]
    fn the_public_and_plain_name_is_preferred() {
        let public = |name| preference(Entry { rank: 0, ..entry(0, 1) }, name);
        let weak = |name| preference(Entry { rank: 1, ..entry(0, 1) }, name);
        assert!(public("malloc") < public("__libc_malloc"));
        assert!(public("malloc") < weak("malloc"));
        assert!(public("__libc_x") < weak("x"));
        assert!(public("_ZN1a1bE") < public("__a_much_longer_alias"));
    }
}
