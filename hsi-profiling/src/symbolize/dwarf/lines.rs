//! The line program of a unit, run once: of its rows those are kept that the wanted addresses need,
//! and of its files only those get a path that are named.

use super::sections::{Bytes, Unit};
use super::units::{Info, Root};
use crate::symbolize::names::{Names, Place};
use gimli::{IncompleteLineProgram, LineRows};

/// What a line program says of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) file: u64,
    pub(super) line: u32,
    /// Where the sequence begins and ends that the row is in.
    start: u64,
    pub(super) end: u64,
}

pub(super) struct Lines<'a> {
    rows: LineRows<Bytes<'a>, IncompleteLineProgram<Bytes<'a>>, usize>,
}

impl<'a> Lines<'a> {
    /// Opens the line program of a unit; `None` where it has none.
    pub(super) fn open(info: &Info<'a>, root: &Root<'a>) -> gimli::Result<Option<Self>> {
        let Some(offset) = root.lines else { return Ok(None) };
        let (size, dir) = (root.unit.header.address_size(), root.unit.comp_dir);
        let program = info.dwarf.debug_line.program(offset, size, dir, None)?;
        Ok(Some(Self { rows: program.rows() }))
    }

    /// Runs the program, and returns what it says of each of the sorted `addresses`.
    pub(super) fn run(&mut self, addresses: &[u64]) -> gimli::Result<Vec<Option<Row>>> {
        let mut found = Sequences::new(addresses);
        while let Some((_, row)) = self.rows.next_row()? {
            let line = row.line().map_or(0, |line| line.get() as u32);
            if row.end_sequence() {
                found.end(row.address());
                if found.complete() {
                    break;
                }
            } else {
                found.row(row.address(), row.file_index(), line);
            }
        }
        Ok(found.rows)
    }

    /// A line of a file by the file's number; `None` where there is no such file, and for line 0:
    /// code of it belongs to no line, and what file it names is chance.
    pub(super) fn place(
        &self,
        info: &Info<'a>,
        unit: &Unit<'a>,
        (file, line): (u64, u32),
        names: &mut Names,
    ) -> gimli::Result<Option<Place>> {
        if line == 0 {
            return Ok(None);
        }
        let header = self.rows.header();
        let Some(entry) = header.file(file) else {
            // Up to DWARF 4 the files are counted from one.
            return Ok((file == 0).then(|| names.place("", line)));
        };
        let text = |value| info.dwarf.attr_string(unit, value);
        let mut path = unit.comp_dir.map_or_else(String::new, |d| d.to_string_lossy().into_owned());
        // The first directory is that of the unit.
        if entry.directory_index() != 0
            && let Some(directory) = entry.directory(header)
        {
            append(&mut path, &text(directory)?.to_string_lossy());
        }
        append(&mut path, &text(entry.path_name())?.to_string_lossy());
        Ok(Some(names.place(&path, line)))
    }
}

/// Finds the rows of addresses among rows that come one by one.
struct Sequences<'w> {
    addresses: &'w [u64],
    rows: Vec<Option<Row>>,
    /// How many rows are sure not to be bettered.
    sure: usize,
    /// The present sequence: where it began, and the last row, as address, file and line.
    start: u64,
    last: Option<(u64, u64, u32)>,
    /// The addresses from here on are above the last row.
    next: usize,
    /// What the sequence says, which counts only if it ends.
    open: Vec<(usize, u64, u32)>,
}

impl<'w> Sequences<'w> {
    fn new(addresses: &'w [u64]) -> Self {
        let rows = vec![None; addresses.len()];
        Self { addresses, rows, sure: 0, start: 0, last: None, next: 0, open: Vec::new() }
    }

    fn complete(&self) -> bool {
        self.sure == self.addresses.len()
    }

    fn row(&mut self, address: u64, file: u64, line: u32) {
        match self.last {
            Some(last) => self.close(last, address),
            None => {
                self.start = address;
                self.next = self.addresses.partition_point(|wanted| *wanted < address);
            }
        }
        self.last = Some((address, file, line));
    }

    /// Gives the addresses below `end` that are left to the row before it.
    fn close(&mut self, (_, file, line): (u64, u64, u32), end: u64) {
        while self.addresses.get(self.next).is_some_and(|address| *address < end) {
            self.open.push((self.next, file, line));
            self.next += 1;
        }
    }

    fn end(&mut self, end: u64) {
        let Some(last) = self.last.take() else { return };
        self.close(last, end);
        let start = self.start;
        for (index, file, line) in self.open.drain(..).filter(|_| start < end) {
            let Some(row) = self.rows.get_mut(index) else { continue };
            // Sequences of code that the linker dropped may begin at 0.
            if row.is_none_or(|row| row.start < start) {
                self.sure += usize::from(start > 0 && row.is_none_or(|row| row.start == 0));
                *row = Some(Row { file, line, start, end });
            }
        }
    }
}

/// Appends to a path what may be a path of its own.
fn append(path: &mut String, part: &str) {
    let is_windows = |text: &str| text.starts_with('\\') || text.get(1..3) == Some(":\\");
    if part.starts_with('/') || part.get(1..3) == Some(":/") || is_windows(part) {
        path.clear();
    } else {
        let separator = if is_windows(path) { '\\' } else { '/' };
        if !path.is_empty() && !path.ends_with(separator) {
            path.push(separator);
        }
    }
    path.push_str(part);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_for_the_addresses_up_to_the_next() {
        let mut found = Sequences::new(&[0x08, 0x10, 0x1f, 0x20, 0x2f, 0x30, 0x48, u64::MAX]);
        // Dropped code is at 0, and counts where nothing else does.
        for (start, line) in [(0, 1), (0x10, 3)] {
            found.row(start, 1, 2);
            found.row(start, 1, line);
            found.row(start + 0x10, 2, line + 1);
            found.end(start + 0x20);
        }
        // What does not end, and what ends where it began, is nothing.
        found.row(0x40, 1, 9);
        found.end(0x40);
        found.row(0x40, 1, 9);
        found.row(0x50, 1, 9);
        let lines: Vec<_> = found.rows.iter().map(|r| r.map(|r| (r.file, r.line))).collect();
        let (a, b) = (Some((1, 3)), Some((2, 4)));
        assert_eq!(lines, [Some((1, 1)), a, a, b, b, None, None, None]);
        assert_eq!(found.sure, 4);
        assert!(!found.complete());
    }

    #[test]
    fn a_path_is_put_together_from_its_parts() {
        for (parts, want) in [
            (["/work", "src", "a.rs"], "/work/src/a.rs"),
            (["/work/", "/rustc/library", "a.rs"], "/rustc/library/a.rs"),
            (["", "src/", "a.rs"], "src/a.rs"),
            (["/work", "src", "/a.rs"], "/a.rs"),
            (["C:\\work", "src", "a.rs"], "C:\\work\\src\\a.rs"),
            (["/work", "C:/src", "a.rs"], "C:/src/a.rs"),
        ] {
            let mut path = String::new();
            for part in parts {
                append(&mut path, part);
            }
            assert_eq!(path, want);
        }
    }
}
