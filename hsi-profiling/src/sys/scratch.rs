//! Memory for something large that is soon done with: the system's own, so that it goes back there
//! at once. An allocator would keep it, for a thread that is soon gone.

use std::{io, ptr, slice};

/// A stretch of zeroes to work in.
#[derive(Debug)]
pub(crate) struct Scratch {
    start: *mut u8,
    length: usize,
}

impl Scratch {
    /// So many bytes.
    pub(crate) fn new(length: usize) -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // The kernel refuses a mapping of no bytes.
        let mapped = length.max(1);
        // SAFETY: the kernel chooses a place that is free, so nothing else is there.
        let start = unsafe { libc::mmap(ptr::null_mut(), mapped, access, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start: start.cast(), length })
    }

    /// What is in it.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: `start` and `length` are those of a mapping of zeroes, or of what was written over
        // them, which lives as long as `self`.
        unsafe { slice::from_raw_parts(self.start, self.length) }
    }

    /// The same, to write to.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and nobody else has the mapping while `self` is borrowed so.
        unsafe { slice::from_raw_parts_mut(self.start, self.length) }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `new` made, and nothing borrows from it any more.
        unsafe { libc::munmap(self.start.cast(), self.length.max(1)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_zeroes_until_it_is_written() {
        let mut scratch = Scratch::new(10_000).unwrap();
        assert!(scratch.bytes().iter().all(|byte| *byte == 0));
        scratch.bytes_mut()[9_999] = 7;
        assert_eq!((scratch.bytes().len(), scratch.bytes()[9_999]), (10_000, 7));
        assert!(Scratch::new(0).unwrap().bytes().is_empty());
        assert!(Scratch::new(usize::MAX).is_err());
    }
}
