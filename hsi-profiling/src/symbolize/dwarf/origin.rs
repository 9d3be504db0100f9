//! The name of a function: its own, or that of the entry which it refers to, in whatever unit.

use super::sections::{Bytes, Unit, Value};
use super::units::Info;
use gimli::{Attribute, AttributeValue, UnitOffset};
use std::rc::Rc;

/// How many references are followed to a name; a circle of them ends so.
const MAX_REFERENCES: usize = 16;

/// What an entry says of its name.
#[derive(Default)]
pub(super) struct Naming<'a> {
    linkage: Option<Value<'a>>,
    plain: Option<Value<'a>>,
    origin: Option<Value<'a>>,
    /// Whether the reference comes before the name, and so goes before it.
    origin_first: bool,
}

impl<'a> Naming<'a> {
    pub(super) fn note(&mut self, attribute: &Attribute<Bytes<'a>>) {
        match attribute.name() {
            gimli::DW_AT_linkage_name | gimli::DW_AT_MIPS_linkage_name => {
                self.linkage = Some(attribute.value());
            }
            gimli::DW_AT_name => {
                self.plain = Some(attribute.value());
                self.origin_first = self.origin.is_some();
            }
            gimli::DW_AT_abstract_origin | gimli::DW_AT_specification => {
                self.origin.get_or_insert(attribute.value());
            }
            _ => {}
        }
    }

    /// The name, mangled if it is that anywhere on the way to it.
    pub(super) fn name(
        &self,
        info: &mut Info<'a>,
        unit: &Unit<'a>,
    ) -> gimli::Result<Option<Bytes<'a>>> {
        if let Some(name) = string(info, unit, self.linkage) {
            return Ok(Some(name));
        }
        let plain = string(info, unit, self.plain);
        match self.origin {
            Some(origin) if plain.is_none() || self.origin_first => {
                Ok(referred(info, unit, origin)?.or(plain))
            }
            _ => Ok(plain),
        }
    }
}

/// The name of the entry that `reference`, in `unit`, leads to.
fn referred<'a>(
    info: &mut Info<'a>,
    unit: &Unit<'a>,
    mut reference: Value<'a>,
) -> gimli::Result<Option<Bytes<'a>>> {
    let mut other: Option<Rc<Unit<'a>>> = None;
    for _ in 0..MAX_REFERENCES {
        let offset = match reference {
            AttributeValue::UnitRef(offset) => offset,
            AttributeValue::DebugInfoRef(offset) => {
                let (found, offset) = info.unit_of(offset)?;
                other = Some(found);
                offset
            }
            _ => return Ok(None),
        };
        let unit = other.as_deref().unwrap_or(unit);
        let naming = read(unit, offset)?;
        let name = string(info, unit, naming.linkage).or_else(|| string(info, unit, naming.plain));
        match (name, naming.origin) {
            (None, Some(next)) => reference = next,
            (name, _) => return Ok(name),
        }
    }
    Ok(None)
}

fn read<'a>(unit: &Unit<'a>, offset: UnitOffset) -> gimli::Result<Naming<'a>> {
    let mut entries = unit.header.entries_raw(&unit.abbreviations, Some(offset))?;
    let nothing = gimli::Error::NoEntryAtGivenOffset(offset.0 as u64);
    let abbreviation = entries.read_abbreviation()?.ok_or(nothing)?;
    let mut naming = Naming::default();
    for spec in abbreviation.attributes() {
        naming.note(&entries.read_attribute(*spec)?);
    }
    Ok(naming)
}

/// A text that cannot be found is none.
fn string<'a>(info: &Info<'a>, unit: &Unit<'a>, value: Option<Value<'a>>) -> Option<Bytes<'a>> {
    info.dwarf.attr_string(unit, value?).ok()
}
