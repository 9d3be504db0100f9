//! Debug info as sections in memory: those of a mapped file itself, or copies where they are
//! compressed. What no lookup needs is not unpacked.

use crate::sys::Scratch;
use flate2::{Decompress, FlushDecompress, Status};
use gimli::{DwarfSections, EndianSlice, NativeEndian, SectionId};
use object::read::elf::ElfFile64;
use object::{CompressedData, CompressionFormat, Endianness, Object, ObjectSection};
use std::borrow::Cow;

/// A reader of bytes. Programs that run here have the byte order of this machine.
pub(super) type Bytes<'a> = EndianSlice<'a, NativeEndian>;
pub(super) type Unit<'a> = gimli::Unit<Bytes<'a>>;
pub(super) type Value<'a> = gimli::AttributeValue<Bytes<'a>>;

/// The bytes of a section.
#[derive(Debug)]
pub(super) enum Section<'a> {
    /// In the file, or unpacked by its library.
    Plain(Cow<'a, [u8]>),
    /// Unpacked by us: the C library's debug info alone is some megabytes, at each pass.
    Unpacked(Scratch),
}

impl Section<'_> {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Plain(bytes) => bytes,
            Self::Unpacked(scratch) => scratch.bytes(),
        }
    }
}

/// The sections of the file that consists of `bytes`.
pub(super) fn sections(bytes: &[u8]) -> Result<DwarfSections<Section<'_>>, String> {
    let elf = ElfFile64::<Endianness>::parse(bytes).map_err(|error| error.to_string())?;
    if elf.is_little_endian() != cfg!(target_endian = "little") {
        return Err("its byte order is not that of this machine".to_owned());
    }
    DwarfSections::load(|id| match elf.section_by_name(id.name()) {
        Some(section) if is_needed(id) => {
            unpacked(section.compressed_data().map_err(|error| error.to_string())?)
        }
        _ => Ok(Section::Plain(Cow::Borrowed(&[][..]))),
    })
}

fn unpacked(data: CompressedData<'_>) -> Result<Section<'_>, String> {
    if data.format != CompressionFormat::Zlib {
        return data.decompress().map(Section::Plain).map_err(|error| error.to_string());
    }
    let length = usize::try_from(data.uncompressed_size).map_err(|error| error.to_string())?;
    let mut scratch = Scratch::new(length).map_err(|error| error.to_string())?;
    let mut zlib = Decompress::new(true);
    let status = zlib.decompress(data.data, scratch.bytes_mut(), FlushDecompress::Finish);
    match status {
        Ok(Status::StreamEnd) if zlib.total_out() == data.uncompressed_size => {
            Ok(Section::Unpacked(scratch))
        }
        Ok(_) => Err("a compressed section has not the length that it states".to_owned()),
        Err(error) => Err(format!("a compressed section cannot be unpacked: {error}")),
    }
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
