//! What is loaded: the program, its libraries, the vDSO, with their unwind information.
//!
//! The bytes of `.eh_frame` are copied while the loader holds its lock, so that a `dlclose` on
//! another thread can't take them away from whoever parses them.

use super::process;
use std::{ffi::CStr, slice};

/// One loaded object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LoadedModule {
    /// The file, or a name in brackets.
    pub(crate) path: String,
    /// The GNU build id in lower-case hex; empty where there is none.
    pub(crate) build_id: String,
    /// What was added to the addresses in the file.
    pub(crate) bias: u64,
    /// The executable part in memory: from the first to the last such segment.
    pub(crate) text: std::ops::Range<u64>,
    /// The offset in the file of the first executable segment.
    pub(crate) file_offset: u64,
    /// The address of `.eh_frame` in memory and its bytes; `None` when it was not asked for or
    /// there is none.
    pub(crate) eh_frame: Option<(u64, Vec<u8>)>,
}

/// Lists the loaded objects. `wanted` says for which of them the unwind information is copied.
pub(crate) fn loaded_modules(mut wanted: impl FnMut(&LoadedModule) -> bool) -> Vec<LoadedModule> {
    let mut found = Vec::new();
    let mut each = |info: &libc::dl_phdr_info| {
        // SAFETY: the loader calls us with its lock held, so what `info` describes stays mapped.
        if let Some(mut module) = unsafe { describe(info) } {
            if wanted(&module) {
                // SAFETY: as above.
                module.eh_frame = unsafe { copy_eh_frame(info) };
            }
            found.push(module);
        }
        0
    };
    iterate(&mut each);
    found
}

/// How many objects the loader has ever added and removed: equal pairs mean that nothing changed.
pub(crate) fn loader_changes() -> (u64, u64) {
    let mut changes = (0, 0);
    let mut first = |info: &libc::dl_phdr_info| {
        changes = (info.dlpi_adds, info.dlpi_subs);
        1
    };
    iterate(&mut first);
    changes
}

type Each<'a> = &'a mut dyn FnMut(&libc::dl_phdr_info) -> libc::c_int;

fn iterate(mut each: Each<'_>) {
    unsafe extern "C" fn call(
        info: *mut libc::dl_phdr_info,
        _size: libc::size_t,
        data: *mut libc::c_void,
    ) -> libc::c_int {
        // SAFETY: `data` is the address of `each` below, which outlives the iteration, and the
        // loader hands a valid info.
        let (each, info) = unsafe { (&mut *data.cast::<Each<'_>>(), &*info) };
        each(info)
    }
    // SAFETY: `call` has the type that dl_iterate_phdr(3) asks for and `each` lives until it
    // returns.
    unsafe { libc::dl_iterate_phdr(Some(call), (&raw mut each).cast()) };
}

/// # Safety
///
/// The object must stay mapped for the call.
unsafe fn describe(info: &libc::dl_phdr_info) -> Option<LoadedModule> {
    // SAFETY: the caller's promise.
    let headers = unsafe { headers(info) };
    let text =
        || headers.iter().filter(|h| h.p_type == libc::PT_LOAD && h.p_flags & libc::PF_X != 0);
    let first = text().min_by_key(|h| h.p_vaddr)?;
    let end = text().map(|h| h.p_vaddr.saturating_add(h.p_memsz)).max()?;
    // SAFETY: the caller's promise.
    let (path, build_id) = unsafe { (path(info), build_id(info, headers)) };
    Some(LoadedModule {
        path,
        build_id,
        bias: info.dlpi_addr,
        text: info.dlpi_addr.wrapping_add(first.p_vaddr)..info.dlpi_addr.wrapping_add(end),
        file_offset: first.p_offset,
        eh_frame: None,
    })
}

/// # Safety
///
/// The object must stay mapped for the call.
unsafe fn headers(info: &libc::dl_phdr_info) -> &[libc::Elf64_Phdr] {
    if info.dlpi_phdr.is_null() {
        return &[];
    }
    // SAFETY: the loader gives the object's program headers and their count.
    unsafe { slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) }
}

/// # Safety
///
/// The object must stay mapped for the call.
unsafe fn path(info: &libc::dl_phdr_info) -> String {
    let name = if info.dlpi_name.is_null() {
        String::new()
    } else {
        // SAFETY: the loader gives a string with its zero.
        unsafe { CStr::from_ptr(info.dlpi_name) }.to_string_lossy().into_owned()
    };
    if name.is_empty() {
        // Only the program itself has no name.
        let path = process::executable().to_string_lossy().into_owned();
        return path.strip_suffix(" (deleted)").map_or(path.clone(), str::to_owned);
    }
    if name.starts_with("linux-vdso") || name.starts_with("linux-gate") {
        return "[vdso]".to_owned();
    }
    name
}

/// # Safety
///
/// The object must stay mapped for the call.
unsafe fn build_id(info: &libc::dl_phdr_info, headers: &[libc::Elf64_Phdr]) -> String {
    const NT_GNU_BUILD_ID: u32 = 3;
    for note in headers.iter().filter(|h| h.p_type == libc::PT_NOTE) {
        // SAFETY: the caller's promise; `memory` checks that a loaded segment holds the notes.
        let Some(mut bytes) = (unsafe { memory(info, note.p_vaddr, note.p_filesz) }) else {
            continue;
        };
        while let Some((head, rest)) = bytes.split_first_chunk::<12>() {
            let word =
                |i: usize| u32::from_ne_bytes([head[i], head[i + 1], head[i + 2], head[i + 3]]);
            let (name_size, size, kind) = (word(0) as usize, word(4) as usize, word(8));
            let padded = |n: usize| n.checked_next_multiple_of(4);
            let (Some(name_end), Some(size_end)) = (padded(name_size), padded(size)) else { break };
            let Some((name, rest)) = rest.split_at_checked(name_end) else { break };
            let Some(id) = rest.get(..size) else { break };
            if kind == NT_GNU_BUILD_ID && name.starts_with(b"GNU\0") {
                return id.iter().map(|byte| format!("{byte:02x}")).collect();
            }
            bytes = rest.get(size_end..).unwrap_or_default();
        }
    }
    String::new()
}

/// # Safety
///
/// The object must stay mapped for the call.
unsafe fn copy_eh_frame(info: &libc::dl_phdr_info) -> Option<(u64, Vec<u8>)> {
    /// Version 1, and a pointer to .eh_frame of four signed bytes relative to its own place: what
    /// every linker writes (Linux Standard Base, "The .eh_frame_hdr section").
    const HEADER: [u8; 2] = [1, 0x1b];
    // SAFETY: the caller's promise.
    let headers = unsafe { headers(info) };
    let header = headers.iter().find(|h| h.p_type == libc::PT_GNU_EH_FRAME)?;
    // SAFETY: the caller's promise.
    let bytes = unsafe { memory(info, header.p_vaddr, header.p_memsz) }?;
    if bytes.get(..2)? != HEADER {
        return None;
    }
    let relative = i32::from_ne_bytes(bytes.get(4..8)?.try_into().ok()?);
    let start = header.p_vaddr.wrapping_add(4).wrapping_add(i64::from(relative) as u64);
    let segment = headers.iter().find(|h| {
        h.p_type == libc::PT_LOAD
            && (h.p_vaddr..h.p_vaddr.saturating_add(h.p_filesz)).contains(&start)
    })?;
    let length = segment.p_vaddr + segment.p_filesz - start;
    // SAFETY: the caller's promise.
    let bytes = unsafe { memory(info, start, length) }?;
    Some((info.dlpi_addr.wrapping_add(start), bytes[..eh_frame_length(bytes)].to_vec()))
}

/// Where the section ends: at the entry of length zero, or where the segment does.
fn eh_frame_length(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(length) = bytes[at..].first_chunk::<4>() {
        match u32::from_ne_bytes(*length) {
            0 => return at,
            // The 64-bit form: rare, and the parser copes with what follows.
            u32::MAX => return bytes.len(),
            length => match at.checked_add(4 + length as usize) {
                Some(next) if next <= bytes.len() => at = next,
                _ => return at,
            },
        }
    }
    at
}

/// The bytes of an object at an address of its file's, if a readable segment of it holds them all.
///
/// # Safety
///
/// The object must stay mapped while the slice is used.
unsafe fn memory(info: &libc::dl_phdr_info, address: u64, length: u64) -> Option<&[u8]> {
    let end = address.checked_add(length)?;
    // SAFETY: the caller's promise.
    let holds = unsafe { headers(info) }.iter().any(|h| {
        h.p_type == libc::PT_LOAD
            && h.p_flags & libc::PF_R != 0
            && h.p_vaddr <= address
            && end <= h.p_vaddr.saturating_add(h.p_filesz)
    });
    if !holds {
        return None;
    }
    let start = info.dlpi_addr.wrapping_add(address) as usize;
    // SAFETY: the bytes lie in a segment that the loader mapped readable and that holds constant
    // data (headers, notes, unwind information), and the object stays mapped.
    Some(unsafe {
        slice::from_raw_parts(
            std::ptr::with_exposed_provenance(start),
            usize::try_from(length).ok()?,
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_is_loaded_and_has_unwind_information() {
        let here = this_program_is_loaded_and_has_unwind_information as *const () as u64;
        let all = loaded_modules(|m| m.text.contains(&here));
        let me = all.iter().find(|m| m.text.contains(&here)).expect("the test program");
        assert!(std::path::Path::new(&me.path).exists(), "{}", me.path);
        let (address, bytes) = me.eh_frame.as_ref().expect("every Rust program has .eh_frame");
        assert!(*address != 0 && bytes.len() > 1000);
        assert!(all.iter().filter(|m| !m.text.contains(&here)).all(|m| m.eh_frame.is_none()));
        assert_eq!(loader_changes(), loader_changes());
    }

    #[test]
    fn a_torn_section_ends_where_it_tears() {
        assert_eq!(eh_frame_length(&[]), 0);
        assert_eq!(eh_frame_length(&[0, 0, 0, 0, 9]), 0);
        assert_eq!(eh_frame_length(&[1, 0, 0, 0, 9, 0, 0, 0, 0]), 5);
        assert_eq!(eh_frame_length(&[200, 0, 0, 0, 9]), 0);
    }
}
