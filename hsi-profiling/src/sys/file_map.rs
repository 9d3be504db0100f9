//! A file as memory: its pages come from the page cache and go back to it, so reading a large file
//! here and there costs no memory of the process's own.

use std::{fs::File, io, os::fd::AsRawFd, ptr, slice};

/// A whole file, mapped for reading.
///
/// Safe code cannot remove one hazard: a file that is cut short in place while it is read raises
/// SIGBUS. Who maps a file says why nobody does that to it.
#[derive(Debug)]
pub(crate) struct FileMap {
    start: *const u8,
    length: usize,
}

impl FileMap {
    /// Maps `file` as long as it is now.
    pub(crate) fn new(file: &File) -> io::Result<Self> {
        let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        if length == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is empty"));
        }
        let (fd, protection) = (file.as_raw_fd(), libc::PROT_READ);
        // SAFETY: the kernel chooses a place that is free, so nothing else is there.
        let start =
            unsafe { libc::mmap(ptr::null_mut(), length, protection, libc::MAP_PRIVATE, fd, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start: start.cast_const().cast(), length })
    }

    /// What is in the file.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: `start` and `length` are those of a readable mapping, which lives as long as
        // `self` and which nobody in this process writes to. Another process that writes to the
        // file changes bytes, all of whose values are valid.
        unsafe { slice::from_raw_parts(self.start, self.length) }
    }
}

impl Drop for FileMap {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `new` made, and nothing borrows from it any more.
        unsafe { libc::munmap(self.start.cast_mut().cast(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_has_the_bytes_of_the_file() {
        let path = "/proc/self/exe";
        let map = FileMap::new(&File::open(path).unwrap()).unwrap();
        assert_eq!(map.bytes().get(..4), Some(&b"\x7fELF"[..]));
        assert_eq!(map.bytes().len() as u64, std::fs::metadata(path).unwrap().len());
    }

    #[test]
    fn what_cannot_be_mapped_is_an_error() {
        assert!(FileMap::new(&File::open("/dev/null").unwrap()).is_err());
        assert!(FileMap::new(&File::open("/").unwrap()).is_err());
    }
}
