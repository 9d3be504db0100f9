//! Reading an ELF file: what is in it, and whether it is the one that runs.
//!
//! Until a file is known to be the one that runs, what is looked at is read into memory and freed
//! with the [`Image`], so a file that shrinks meanwhile is an error and not a signal. After that
//! its large parts are mapped: see [`Image::map`].

use crate::sys::FileMap;
use object::elf::SHF_EXECINSTR;
use object::read::ReadRef;
use object::read::elf::ElfFile64;
use object::{CompressionFormat, Endianness, Object, ObjectSection, ReadCache, SectionFlags};
use std::fs::File;
use std::io::{self, Cursor, Read, Seek};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// More compressed debug info than this is left alone: it would be unpacked into memory.
const MAX_UNPACKED: u64 = 512 << 20;

pub(super) type Elf<'a> = ElfFile64<'a, Endianness, &'a ReadCache<Box<dyn Source>>>;

pub(super) trait Source: Read + Seek {}

impl<T: Read + Seek> Source for T {}

/// An ELF file that is open, or one that was copied from memory.
pub(super) struct Image {
    bytes: ReadCache<Box<dyn Source>>,
    file: Option<File>,
    path: PathBuf,
}

/// What an ELF file has to offer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) debug_info: bool,
    pub(super) symbol_table: bool,
    pub(super) exports: bool,
    /// Debug info is there, but too much of it is compressed.
    pub(super) too_large: bool,
}

impl Image {
    /// Opens the file at `path`. Its name for humans, and for finding what stands beside it, is
    /// `real`.
    pub(super) fn open(path: &Path, real: PathBuf) -> io::Result<Self> {
        // Opening a pipe or a device could wait for ever.
        if !std::fs::metadata(path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        }
        let file = File::open(path)?;
        let source: Box<dyn Source> = Box::new(file.try_clone()?);
        Ok(Self { bytes: ReadCache::new(source), file: Some(file), path: real })
    }

    /// An image that was copied from memory.
    pub(super) fn from_memory(bytes: Vec<u8>, name: &str) -> Self {
        let source: Box<dyn Source> = Box::new(Cursor::new(bytes));
        Self { bytes: ReadCache::new(source), file: None, path: name.into() }
    }

    pub(super) fn parse(&self) -> Result<Elf<'_>, String> {
        ElfFile64::parse(&self.bytes)
            .map_err(|error| format!("it is not a sound ELF file: {error}"))
    }

    /// The file as memory; `None` for an image from memory. That is for the file of a module that
    /// is loaded, or for its debug info, which nobody cuts short in place.
    pub(super) fn map(&self) -> Option<FileMap> {
        FileMap::new(self.file.as_ref()?).ok()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A path under which this very file can be opened again, even if another one has taken its
    /// name; `None` for an image from memory.
    pub(super) fn reopen_path(&self) -> Option<PathBuf> {
        let file = self.file.as_ref()?;
        // The debug info package is looked for beside the path, so there the real one is needed.
        if package_of(&self.path).is_file() && self.is_still_at_its_path() {
            return Some(self.path.clone());
        }
        let by_number = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        Some(if by_number.exists() { by_number } else { self.path.clone() })
    }

    fn is_still_at_its_path(&self) -> bool {
        let open = self.file.as_ref().and_then(|f| f.metadata().ok());
        let named = std::fs::metadata(&self.path).ok();
        match (open, named) {
            (Some(a), Some(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
            _ => false,
        }
    }
}

/// The GNU build id in lower-case hex; empty where there is none.
pub(super) fn build_id(elf: &Elf<'_>) -> String {
    let id = elf.build_id().ok().flatten().unwrap_or_default();
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What `elf` has, told by its section headers alone.
pub(super) fn contents(elf: &Elf<'_>) -> Contents {
    let (mut info, mut line, mut unpacked) = (false, false, 0u64);
    for section in elf.sections() {
        // A section without bytes is what remains in a program of debug info that was cut out.
        let Ok(range) = section.compressed_file_range() else { continue };
        let Ok(name) = section.name() else { continue };
        if range.uncompressed_size == 0 || !name.contains("debug_") {
            continue;
        }
        info |= matches!(name, ".debug_info" | ".zdebug_info");
        line |= matches!(name, ".debug_line" | ".zdebug_line");
        if range.format != CompressionFormat::None {
            unpacked = unpacked.saturating_add(range.uncompressed_size);
        }
    }
    let (symbol_table, exports) = super::symtab::has_functions(elf);
    let too_large = unpacked > MAX_UNPACKED;
    Contents { debug_info: info && line, symbol_table, exports, too_large }
}

/// The address ranges of the sections that hold code.
pub(super) fn code_ranges<'a, R: ReadRef<'a>>(
    elf: &ElfFile64<'a, Endianness, R>,
) -> Vec<(u64, u64)> {
    let is_code = |flags| match flags {
        SectionFlags::Elf { sh_flags, .. } => sh_flags.0 & SHF_EXECINSTR.0 != 0,
        _ => false,
    };
    elf.sections()
        .filter(|section| is_code(section.flags()))
        .map(|section| (section.address(), section.address().saturating_add(section.size())))
        .collect()
}

/// Where the debug info package of the program at `path` would be.
fn package_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".dwp");
    name.into()
}
