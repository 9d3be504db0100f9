//! The units of a file, one after the other: of each the root entry alone is read, which says what
//! code it covers. No line program is opened for that, and no unit is kept.

use super::sections::{Bytes, Unit, Value};
use gimli::{
    Abbreviations, Attribute, AttributeValue, DebugAddrBase, DebugInfoOffset, DebugLineOffset,
    DebugLocListsBase, DebugRngListsBase, DebugStrOffsetsBase, DwLang, Dwarf, Range, UnitHeader,
    UnitOffset, UnitType,
};
use std::rc::Rc;
use std::sync::Arc;

/// How many units are remembered that names were looked up in from other units.
const FOREIGN: usize = 16;

/// The debug info of a file, with what spares reading the same again.
pub(super) struct Info<'a> {
    pub(super) dwarf: Dwarf<Bytes<'a>>,
    /// Abbreviations by their offset: those that were used last.
    abbreviations: Option<(usize, Arc<Abbreviations>)>,
    /// Where the units begin; only known once a name was in another unit.
    starts: Option<Vec<usize>>,
    foreign: Vec<Rc<Unit<'a>>>,
    next_foreign: usize,
}

/// A unit by its root entry.
pub(super) struct Root<'a> {
    pub(super) unit: Unit<'a>,
    pub(super) extent: Extent<'a>,
    pub(super) language: Option<DwLang>,
    pub(super) lines: Option<DebugLineOffset>,
    /// Whether its functions are in another file.
    pub(super) split: bool,
}

/// The addresses that an entry covers, as its attributes have them.
#[derive(Default)]
pub(super) struct Extent<'a> {
    low: Option<Value<'a>>,
    high: Option<Value<'a>>,
    ranges: Option<Value<'a>>,
}

impl<'a> Info<'a> {
    pub(super) fn new(dwarf: Dwarf<Bytes<'a>>) -> Self {
        Self { dwarf, abbreviations: None, starts: None, foreign: Vec::new(), next_foreign: 0 }
    }

    /// Reads the root entry of the unit with this header.
    pub(super) fn root(&mut self, header: UnitHeader<Bytes<'a>>) -> gimli::Result<Root<'a>> {
        let (encoding, kind) = (header.encoding(), self.dwarf.file_type);
        let dwo_id = match header.type_() {
            UnitType::Skeleton(id) | UnitType::SplitCompilation(id) => Some(id),
            _ => None,
        };
        let unit = Unit {
            abbreviations: self.abbreviations(&header)?,
            name: None,
            comp_dir: None,
            low_pc: 0,
            str_offsets_base: DebugStrOffsetsBase::default_for_encoding_and_file(encoding, kind),
            addr_base: DebugAddrBase(0),
            loclists_base: DebugLocListsBase::default_for_encoding_and_file(encoding, kind),
            rnglists_base: DebugRngListsBase::default_for_encoding_and_file(encoding, kind),
            line_program: None,
            dwo_id,
            header,
        };
        let extent = Extent::default();
        let mut root = Root { unit, extent, language: None, lines: None, split: false };
        root.read(&self.dwarf)?;
        Ok(root)
    }

    /// The unit that has the entry at `offset`, where `from` is not the one.
    pub(super) fn unit_of(
        &mut self,
        offset: DebugInfoOffset,
    ) -> gimli::Result<(Rc<Unit<'a>>, UnitOffset)> {
        let nothing = gimli::Error::NoEntryAtGivenOffset(offset.0 as u64);
        let within = |unit: &Unit<'a>| offset.to_unit_offset(&unit.header);
        if let Some(found) = self.foreign.iter().find_map(|u| Some((Rc::clone(u), within(u)?))) {
            return Ok(found);
        }
        let starts = match &mut self.starts {
            Some(starts) => starts,
            empty => empty.insert(starts(&self.dwarf)?),
        };
        let before = starts.partition_point(|start| *start <= offset.0);
        let start = before.checked_sub(1).and_then(|i| starts.get(i)).ok_or(nothing)?;
        let header = self.dwarf.unit_header(DebugInfoOffset(*start))?;
        let unit = Rc::new(self.root(header)?.unit);
        let found = (Rc::clone(&unit), within(&unit).ok_or(nothing)?);
        match self.foreign.get_mut(self.next_foreign) {
            Some(oldest) => *oldest = unit,
            None => self.foreign.push(unit),
        }
        self.next_foreign = (self.next_foreign + 1) % FOREIGN;
        Ok(found)
    }

    fn abbreviations(
        &mut self,
        header: &UnitHeader<Bytes<'a>>,
    ) -> gimli::Result<Arc<Abbreviations>> {
        let offset = header.debug_abbrev_offset();
        match &self.abbreviations {
            Some((at, known)) if *at == offset.0 => Ok(Arc::clone(known)),
            _ => {
                let new = Arc::new(self.dwarf.debug_abbrev.abbreviations(offset)?);
                self.abbreviations = Some((offset.0, Arc::clone(&new)));
                Ok(new)
            }
        }
    }
}

/// Where the units begin.
fn starts(dwarf: &Dwarf<Bytes<'_>>) -> gimli::Result<Vec<usize>> {
    let (mut starts, mut headers) = (Vec::new(), dwarf.units());
    while let Some(header) = headers.next()? {
        starts.extend(header.debug_info_offset().map(|offset| offset.0));
    }
    Ok(starts)
}

impl<'a> Root<'a> {
    fn read(&mut self, dwarf: &Dwarf<Bytes<'a>>) -> gimli::Result<()> {
        let unit = &mut self.unit;
        let mut entries = unit.header.entries_raw(&unit.abbreviations, None)?;
        let abbreviation = entries.read_abbreviation()?.ok_or(gimli::Error::MissingUnitDie)?;
        self.split = unit.dwo_id.is_some();
        let mut comp_dir = None;
        for spec in abbreviation.attributes() {
            let attribute = entries.read_attribute(*spec)?;
            self.extent.note(&attribute);
            match (attribute.name(), attribute.value()) {
                (gimli::DW_AT_comp_dir, value) => comp_dir = Some(value),
                (gimli::DW_AT_language, AttributeValue::Language(language)) => {
                    self.language = Some(language);
                }
                (gimli::DW_AT_stmt_list, AttributeValue::DebugLineRef(offset)) => {
                    self.lines = Some(offset);
                }
                (gimli::DW_AT_str_offsets_base, AttributeValue::DebugStrOffsetsBase(base)) => {
                    unit.str_offsets_base = base
                }
                (
                    gimli::DW_AT_addr_base | gimli::DW_AT_GNU_addr_base,
                    AttributeValue::DebugAddrBase(base),
                ) => unit.addr_base = base,
                (
                    gimli::DW_AT_rnglists_base | gimli::DW_AT_GNU_ranges_base,
                    AttributeValue::DebugRngListsBase(base),
                ) => unit.rnglists_base = base,
                (gimli::DW_AT_GNU_dwo_id, _) => self.split = true,
                _ => {}
            }
        }
        // These may be by an index, so they wait until the bases are known.
        unit.comp_dir = comp_dir.and_then(|value| dwarf.attr_string(unit, value).ok());
        if let Some(low) = self.extent.low {
            unit.low_pc = dwarf.attr_address(unit, low)?.unwrap_or(0);
        }
        Ok(())
    }
}

impl<'a> Extent<'a> {
    pub(super) fn note(&mut self, attribute: &Attribute<Bytes<'a>>) {
        match attribute.name() {
            gimli::DW_AT_low_pc => self.low = Some(attribute.value()),
            gimli::DW_AT_high_pc => self.high = Some(attribute.value()),
            gimli::DW_AT_ranges => self.ranges = Some(attribute.value()),
            _ => {}
        }
    }

    /// Calls `each` with every range that is not empty, and returns whether there was one.
    pub(super) fn each(
        &self,
        dwarf: &Dwarf<Bytes<'a>>,
        unit: &Unit<'a>,
        mut each: impl FnMut(Range),
    ) -> gimli::Result<bool> {
        let mut any = false;
        let mut range = |begin, end| {
            if begin < end {
                any = true;
                each(Range { begin, end });
            }
        };
        let list = self.ranges.map(|value| dwarf.attr_ranges(unit, value)).transpose()?.flatten();
        if let Some(mut list) = list {
            while let Some(Range { begin, end }) = list.next()? {
                range(begin, end);
            }
        } else if let (Some(low), Some(high)) = (self.low, self.high)
            && let Some(begin) = dwarf.attr_address(unit, low)?
        {
            match high {
                // Code that the linker dropped may begin at the last address: it has no range.
                AttributeValue::Udata(size) => range(begin, begin.wrapping_add(size)),
                high => range(begin, dwarf.attr_address(unit, high)?.unwrap_or(0)),
            }
        }
        Ok(any)
    }
}
