//! Which of the wanted addresses a unit covers, by the ranges of its root entry, or by its lines
//! where it has none.

use super::lines::Lines;
use super::units::{Info, Root};

/// Which of the wanted addresses a unit covers.
pub(super) struct Cover<'w> {
    /// Sorted.
    addresses: &'w [u64],
    /// For each address where the range ends that it is in.
    ends: Vec<Option<u64>>,
    /// Which ones are in a range; sorted.
    indexes: Vec<usize>,
}

impl<'w> Cover<'w> {
    pub(super) fn new(addresses: &'w [u64]) -> Self {
        Self { addresses, ends: vec![None; addresses.len()], indexes: Vec::new() }
    }

    /// Finds those that the unit covers.
    pub(super) fn find<'a>(&mut self, info: &Info<'a>, root: &Root<'a>) -> gimli::Result<()> {
        let any = root.extent.each(&info.dwarf, &root.unit, |range| {
            let first = self.addresses.partition_point(|address| *address < range.begin);
            let covered = self.addresses.get(first..).unwrap_or_default().iter();
            let count = covered.take_while(|address| **address < range.end).count();
            (first..first + count).for_each(|index| self.add(index, range.end));
        });
        // A unit that has lines may not say where its code is.
        if any == Ok(false)
            && let Ok(Some(mut lines)) = Lines::open(info, root)
            && let Ok(rows) = lines.run(self.addresses)
        {
            for (index, row) in rows.into_iter().enumerate() {
                if let Some(row) = row {
                    self.add(index, row.end);
                }
            }
        }
        self.indexes.sort_unstable();
        any.map(|_| ())
    }

    /// Which ones were found; sorted.
    pub(super) fn indexes(&self) -> &[usize] {
        &self.indexes
    }

    /// Where the range ends that has the address with this index.
    pub(super) fn end(&self, index: usize) -> u64 {
        self.ends.get(index).copied().flatten().unwrap_or(u64::MAX)
    }

    /// Forgets the unit.
    pub(super) fn clear(&mut self) {
        for index in self.indexes.drain(..) {
            if let Some(end) = self.ends.get_mut(index) {
                *end = None;
            }
        }
    }

    fn add(&mut self, index: usize, end: u64) {
        if let Some(known) = self.ends.get_mut(index) {
            if known.is_none() {
                self.indexes.push(index);
            }
            *known = Some(known.map_or(end, |known| known.min(end)));
        }
    }
}
