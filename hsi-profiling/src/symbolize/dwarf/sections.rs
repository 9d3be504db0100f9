//! Debug info as sections in memory: those of a mapped file itself, or copies where they are
//! compressed. What no lookup needs is not unpacked.

use gimli::{DwarfSections, EndianSlice, NativeEndian, SectionId};
use object::read::elf::ElfFile64;
use object::{Endianness, Object, ObjectSection};
use std::borrow::Cow;

/// A reader of bytes. Programs that run here have the byte order of this machine.
pub(super) type Bytes<'a> = EndianSlice<'a, NativeEndian>;
pub(super) type Unit<'a> = gimli::Unit<Bytes<'a>>;
pub(super) type Value<'a> = gimli::AttributeValue<Bytes<'a>>;

/// The sections of the file that consists of `bytes`.
pub(super) fn sections(bytes: &[u8]) -> Result<DwarfSections<Cow<'_, [u8]>>, String> {
    let elf = ElfFile64::<Endianness>::parse(bytes).map_err(|error| error.to_string())?;
    if elf.is_little_endian() != cfg!(target_endian = "little") {
        return Err("its byte order is not that of this machine".to_owned());
    }
    DwarfSections::load(|id| match elf.section_by_name(id.name()) {
        Some(section) if is_needed(id) => section.uncompressed_data().map_err(|e| e.to_string()),
        _ => Ok(Cow::Borrowed(&[][..])),
    })
}

fn is_needed(id: SectionId) -> bool {
    use SectionId::{
        DebugAbbrev, DebugAddr, DebugInfo, DebugLine, DebugLineStr, DebugRanges, DebugRngLists,
        DebugStr, DebugStrOffsets,
    };
    matches!(
        id,
        DebugAbbrev
            | DebugAddr
            | DebugInfo
            | DebugLine
            | DebugLineStr
            | DebugRanges
            | DebugRngLists
            | DebugStr
            | DebugStrOffsets
    )
}
