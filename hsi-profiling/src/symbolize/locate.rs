//! Which file has the names of a module: the one that runs, and no other.
//!
//! A deploy replaces the program while it runs, and a package upgrade its libraries. The names in
//! the new file are wrong for the old code, so a file counts only if its build id is that of the
//! module. The program itself is opened through `/proc/self/exe`, which leads to the running one
//! even after it was deleted. A module without a build id cannot be told from its successor and
//! is taken at its word, unless the system says that its file is gone.

use super::elf::{Elf, Image, build_id, contents};
use crate::profile::Module;
use object::Object;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const EXE: &str = "/proc/self/exe";
const VDSO: &str = "[vdso]";
const DELETED: &str = " (deleted)";
/// Where distributions keep debug info, by build id and by path.
const DEBUG_ROOT: &str = "/usr/lib/debug";
/// It has a page or two; its section headers may lie beyond what its own headers declare.
const MAX_VDSO: usize = 64 << 10;
const PAGE: usize = 4096;

/// Why a module has no file.
#[derive(Debug)]
pub(super) enum Missing {
    Replaced,
    /// There is none, or it cannot be used.
    Unreadable(String),
    /// It may be usable another time: no file descriptor, no memory.
    Passing(String),
}

/// Debug info in a file of its own, and the one that it shares strings with.
pub(super) struct Separate {
    pub(super) image: Image,
    pub(super) supplement: Option<PathBuf>,
}

/// Opens the file of `module`.
pub(super) fn open(module: &Module) -> Result<Image, Missing> {
    let path: &str = &module.path;
    if path == VDSO {
        return vdso(module).map_err(|error| Missing::Unreadable(error.to_string()));
    }
    if !path.contains('/') {
        return Err(Missing::Unreadable("it has no file".to_owned()));
    }
    let gone = path.ends_with(DELETED);
    let named = PathBuf::from(path.trim_end_matches(DELETED));
    let mut missing = gone.then_some(Missing::Replaced);
    let main = is_main(path).then(|| Path::new(EXE));
    for candidate in main.into_iter().chain([named.as_path()]) {
        let real = if candidate == Path::new(EXE) { exe_path() } else { Some(named.clone()) };
        match Image::open(candidate, real.unwrap_or_else(|| named.clone())) {
            Ok(image) => match image.parse().map(|elf| build_id(&elf)) {
                Ok(id) if fits(module, &id, gone && main.is_none()) => return Ok(image),
                Ok(_) => missing = Some(Missing::Replaced),
                Err(why) => missing = missing.or(Some(Missing::Unreadable(why))),
            },
            Err(error) => missing = missing.or(Some(unreadable(&error))),
        }
    }
    Err(missing.unwrap_or_else(|| Missing::Unreadable("it has no file".to_owned())))
}

/// Whether `path` is that of the program itself.
pub(super) fn is_main(path: &str) -> bool {
    path == EXE || exe_path().is_some_and(|exe| exe.as_os_str() == path.trim_end_matches(DELETED))
}

/// The file with the debug info of `elf`, if it was split off: by build id, or by the name that
/// `elf` gives for it.
pub(super) fn separate(elf: &Elf<'_>, path: &Path) -> Option<Separate> {
    let id = build_id(elf);
    let (first, rest) = id.split_at_checked(2).filter(|(_, rest)| !rest.is_empty())?;
    let mut candidates =
        vec![PathBuf::from(format!("{DEBUG_ROOT}/.build-id/{first}/{rest}.debug"))];
    if let Ok(Some((link, _))) = elf.gnu_debuglink()
        && let Some(dir) = path.parent()
    {
        let link = OsStr::from_bytes(link);
        candidates.push(dir.join(link));
        candidates.push(dir.join(".debug").join(link));
        candidates
            .push(Path::new(DEBUG_ROOT).join(dir.strip_prefix("/").unwrap_or(dir)).join(link));
    }
    candidates.into_iter().find_map(|candidate| {
        let image = Image::open(&candidate, candidate.canonicalize().ok()?).ok()?;
        let elf = image.parse().ok()?;
        let good = build_id(&elf) == id && contents(&elf).debug_info;
        let supplement = supplement(&elf, image.path());
        good.then_some(Separate { image, supplement })
    })
}

/// The file that the debug info of `elf`, at `path`, shares strings with.
pub(super) fn supplement(elf: &Elf<'_>, path: &Path) -> Option<PathBuf> {
    let (name, id) = elf.gnu_debugaltlink().ok()??;
    let candidate = path.parent()?.join(OsStr::from_bytes(name));
    let image = Image::open(&candidate, candidate.clone()).ok()?;
    let found = image.parse().ok()?.build_id().ok()?? == id;
    found.then_some(candidate)
}

fn fits(module: &Module, file_id: &str, gone: bool) -> bool {
    if module.build_id.is_empty() { !gone } else { module.build_id.eq_ignore_ascii_case(file_id) }
}

fn exe_path() -> Option<PathBuf> {
    let exe = std::fs::read_link(EXE).ok()?;
    let bytes = exe.as_os_str().as_bytes();
    Some(match bytes.strip_suffix(DELETED.as_bytes()) {
        Some(path) => OsStr::from_bytes(path).into(),
        None => exe,
    })
}

fn unreadable(error: &io::Error) -> Missing {
    use io::ErrorKind::{InvalidInput, NotADirectory, NotFound, PermissionDenied};
    match error.kind() {
        NotFound | NotADirectory | PermissionDenied | InvalidInput => {
            Missing::Unreadable(error.to_string())
        }
        _ => Missing::Passing(error.to_string()),
    }
}

/// The kernel's own library is in memory only.
fn vdso(module: &Module) -> io::Result<Image> {
    let memory = std::fs::File::open("/proc/self/mem")?;
    let mut bytes = Vec::new();
    let mut page = [0; PAGE];
    while bytes.len() < MAX_VDSO {
        match memory.read_exact_at(&mut page, module.bias.wrapping_add(bytes.len() as u64)) {
            Ok(()) => bytes.extend_from_slice(&page),
            Err(error) if bytes.is_empty() => return Err(error),
            Err(_) => break,
        }
    }
    Ok(Image::from_memory(bytes, VDSO))
}
