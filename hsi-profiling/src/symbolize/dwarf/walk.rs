//! One walk over the entries of a unit, which notes the functions at the wanted addresses and what
//! was inlined there. Nothing is kept of entries that cover no wanted address.

use super::MAX_DEPTH;
use super::origin::Naming;
use super::sections::{Bytes, Unit};
use super::units::{Extent, Info};
use crate::symbolize::names::{FunctionId, Names};
use gimli::{Abbreviation, AttributeValue, EntriesRaw, Range};

/// Functions inside of functions, and inlined ones inside of each other, are not believed to go
/// deeper than this.
const MAX_SCOPES: usize = 1024;

/// The function that holds the code at an address.
pub(super) struct Hit {
    /// Which entry it is.
    function: usize,
    range: Range,
    /// What was inlined there: how many others it is inlined into, and which entry it is.
    inlined: Vec<(usize, usize)>,
}

/// An entry that covers a wanted address.
#[derive(Default)]
pub(super) struct Entry {
    pub(super) name: Option<FunctionId>,
    pub(super) call_file: Option<u64>,
    pub(super) call_line: u32,
}

impl Hit {
    /// The entries of what was inlined, from the innermost to the outermost.
    pub(super) fn chain(&self) -> Vec<usize> {
        let at = |depth| self.inlined.iter().find(|inlined| inlined.0 == depth);
        let mut chain: Vec<_> = (0..).map_while(|depth| Some(at(depth)?.1)).collect();
        chain.reverse();
        chain
    }

    /// The entry of the function.
    pub(super) fn function(&self) -> usize {
        self.function
    }
}

/// A function, or an inlined one, whose entries are being walked.
struct Scope {
    /// How deep its entry is.
    depth: isize,
    /// Its entry, or that of the function around it; `None` if it covers no wanted address.
    function: Option<usize>,
    /// How many inlined functions its entries are in.
    inlined: usize,
}

pub(super) struct Walk<'w, 'a> {
    pub(super) info: &'w mut Info<'a>,
    pub(super) unit: &'w Unit<'a>,
    pub(super) names: &'w mut Names,
    /// Sorted.
    pub(super) addresses: &'w [u64],
    /// For each address what was found.
    pub(super) hits: Vec<Option<Hit>>,
    /// What covers them.
    pub(super) entries: Vec<Entry>,
    /// The first name that could not be read, and how many there were.
    pub(super) nameless: Option<(gimli::Error, u64)>,
}

impl<'w, 'a> Walk<'w, 'a> {
    pub(super) fn new(
        info: &'w mut Info<'a>,
        unit: &'w Unit<'a>,
        addresses: &'w [u64],
        names: &'w mut Names,
    ) -> Self {
        let hits = addresses.iter().map(|_| None).collect();
        Self { info, unit, names, addresses, hits, entries: Vec::new(), nameless: None }
    }

    pub(super) fn run(&mut self) -> gimli::Result<()> {
        let unit = self.unit;
        let mut entries = unit.header.entries_raw(&unit.abbreviations, None)?;
        let mut scopes: Vec<Scope> = Vec::new();
        while !entries.is_empty() {
            let depth = entries.next_depth();
            let Some(abbreviation) = entries.read_abbreviation()? else { continue };
            while scopes.last().is_some_and(|scope| scope.depth >= depth) {
                scopes.pop();
            }
            let scope = scopes.last().and_then(|scope| Some((scope.function?, scope.inlined)));
            let inner = match (abbreviation.tag(), scope) {
                (gimli::DW_TAG_subprogram, _) if has_code(abbreviation) => {
                    let function = self.subprogram(&mut entries, abbreviation)?;
                    Some(Scope { depth, function, inlined: 0 })
                }
                (gimli::DW_TAG_inlined_subroutine, Some((function, inlined))) => {
                    self.inlined(&mut entries, abbreviation, function, inlined)?;
                    Some(Scope { depth, function: Some(function), inlined: inlined + 1 })
                }
                (tag, _) => {
                    entries.skip_attributes(abbreviation.attributes())?;
                    // What is inlined into a function within a function is not the outer one's.
                    (tag == gimli::DW_TAG_subprogram).then_some(Scope {
                        depth,
                        function: None,
                        inlined: 0,
                    })
                }
            };
            // Within what covers no wanted address, another such changes nothing.
            let inner = inner.filter(|inner| inner.function.is_some() || scope.is_some());
            if abbreviation.has_children() && scopes.len() < MAX_SCOPES {
                scopes.extend(inner);
            }
        }
        Ok(())
    }

    /// Reads a function with code, and returns its entry if it covers a wanted address.
    fn subprogram(
        &mut self,
        entries: &mut EntriesRaw<'_, Bytes<'a>>,
        abbreviation: &Abbreviation,
    ) -> gimli::Result<Option<usize>> {
        let (mut extent, mut naming) = (Extent::default(), Naming::default());
        for spec in abbreviation.attributes() {
            let attribute = entries.read_attribute(*spec)?;
            extent.note(&attribute);
            naming.note(&attribute);
        }
        let (function, addresses, hits) = (self.entries.len(), self.addresses, &mut self.hits);
        let mut any = false;
        extent.each(&self.info.dwarf, self.unit, |range| {
            for hit in within(addresses, hits, range) {
                // Of two functions the one that begins later is the inner one; and code that was
                // dropped may be said to begin at 0.
                let better = hit
                    .as_ref()
                    .is_none_or(|hit| (range.begin, hit.range.end) > (hit.range.begin, range.end));
                if better {
                    any = true;
                    *hit = Some(Hit { function, range, inlined: Vec::new() });
                }
            }
        })?;
        if any {
            let name = self.name(&naming);
            self.entries.push(Entry { name, ..Entry::default() });
        }
        Ok(any.then_some(function))
    }

    fn inlined(
        &mut self,
        entries: &mut EntriesRaw<'_, Bytes<'a>>,
        abbreviation: &Abbreviation,
        function: usize,
        depth: usize,
    ) -> gimli::Result<()> {
        let (mut extent, mut naming) = (Extent::default(), Naming::default());
        let mut entry = Entry::default();
        for spec in abbreviation.attributes() {
            let attribute = entries.read_attribute(*spec)?;
            extent.note(&attribute);
            naming.note(&attribute);
            match (attribute.name(), attribute.value()) {
                // Up to DWARF 4 the files are counted from one.
                (gimli::DW_AT_call_file, AttributeValue::FileIndex(file))
                    if file > 0 || self.unit.header.version() >= 5 =>
                {
                    entry.call_file = Some(file);
                }
                (gimli::DW_AT_call_line, _) => {
                    entry.call_line = attribute.udata_value().unwrap_or(0) as u32;
                }
                _ => {}
            }
        }
        if depth >= MAX_DEPTH {
            return Ok(());
        }
        let (number, addresses, hits) = (self.entries.len(), self.addresses, &mut self.hits);
        let mut any = false;
        extent.each(&self.info.dwarf, self.unit, |range| {
            for hit in within(addresses, hits, range).flatten() {
                let taken = || hit.inlined.iter().any(|other| other.0 == depth);
                if hit.function == function && !taken() {
                    any = true;
                    hit.inlined.push((depth, number));
                }
            }
        })?;
        if any {
            entry.name = self.name(&naming);
            self.entries.push(entry);
        }
        Ok(())
    }

    fn name(&mut self, naming: &Naming<'a>) -> Option<FunctionId> {
        match naming.name(self.info, self.unit) {
            Ok(name) => Some(self.names.function(&name?.to_string_lossy())),
            Err(error) => {
                self.nameless.get_or_insert((error, 0)).1 += 1;
                None
            }
        }
    }
}

/// Whether entries of this form may say where their code is.
fn has_code(abbreviation: &Abbreviation) -> bool {
    let name = |spec: &gimli::AttributeSpecification| spec.name();
    abbreviation
        .attributes()
        .iter()
        .any(|spec| matches!(name(spec), gimli::DW_AT_low_pc | gimli::DW_AT_ranges))
}

/// What is known of those of the sorted addresses that are in `range`.
fn within<'h, T>(
    addresses: &[u64],
    hits: &'h mut [T],
    range: Range,
) -> impl Iterator<Item = &'h mut T> {
    let first = addresses.partition_point(|address| *address < range.begin);
    let covered = addresses.get(first..).unwrap_or_default().iter();
    let count = covered.take_while(|address| **address < range.end).count();
    hits.get_mut(first..).unwrap_or_default().iter_mut().take(count)
}
