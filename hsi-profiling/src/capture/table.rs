//! Unwind tables: for every address of a module's text, how to find the caller's registers.
//!
//! A table is made ahead by `cfi` and never changes. A lookup touches an index entry, a few
//! neighbouring rows and one rule: three or four cache lines, where a search over the whole
//! module would touch seventeen. Rows are four bytes, because there are some hundred thousand.

use std::{fmt, ops::Range};

/// How to find the caller of a function at some instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Rule {
    /// No unwind information covers the address.
    Missing,
    /// What the object says is more than this walker does.
    Unsupported,
    /// The outermost frame: it has no caller.
    Outermost,
    /// The kernel's frame around a signal handler: the interrupted registers stand on the stack.
    SignalFrame,
    /// CFA = base + offset.
    Frame {
        /// What the canonical frame address is counted from.
        base: Base,
        /// What is added to it, in bytes.
        offset: i32,
        /// Where the caller's frame pointer was saved, from the CFA.
        fp: Option<i32>,
        /// Where the return address was saved, from the CFA; `None`: still in the link register.
        ra: Option<i32>,
    },
    /// A realigned frame: the CFA is the word at frame pointer + offset, and the caller's frame
    /// pointer is the word at the frame pointer. (GCC, for functions with over-aligned locals.)
    Realigned {
        /// What is added to the frame pointer, in bytes.
        offset: i32,
    },
    /// A stub of the procedure linkage table: 8 bytes more are on the stack once the instruction
    /// is `pushed_at` bytes or further into its 16-byte stub. (x86_64 linkers.)
    LinkageStub {
        /// Where in the stub the push has happened.
        pushed_at: u8,
    },
}

/// The register that a CFA is counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Base {
    /// The stack pointer.
    Sp,
    /// The frame pointer.
    Fp,
}

/// The rules of one module's text.
pub(crate) struct UnwindTable {
    text: Range<u64>,
    /// For each granule of text the number of its first row; one more at the end.
    granules: Box<[u32]>,
    /// Offset in the granule in the upper half, number of the rule in the lower.
    rows: Box<[u32]>,
    rules: Box<[Rule]>,
}

/// Bytes of text that share an index entry. Rows are 60 to 70 bytes apart on average, so there are two
/// to look through, half a cache line, for a third of their memory once more.
const GRANULE: u64 = 128;
/// The most text that a module may have, in bytes: the index of 4 GiB is 128 MiB.
const MOST_TEXT: u64 = 1 << 32;

impl UnwindTable {
    /// A table for `text` from rows in ascending order of their start, the last of equal starts
    /// winning. What starts outside the text is left out, and more rules than a row can number
    /// count as unsupported.
    pub(crate) fn new(text: Range<u64>, sorted: impl IntoIterator<Item = (u64, Rule)>) -> Self {
        let mut builder = Builder::new(text);
        for (start, rule) in sorted {
            builder.add(start, rule);
        }
        builder.finish()
    }

    /// A table that knows nothing of `text`.
    pub(crate) fn empty(text: Range<u64>) -> Self {
        Self::new(text, [])
    }

    /// The addresses that this table is for.
    pub(crate) fn text(&self) -> &Range<u64> {
        &self.text
    }

    /// The rule at an address.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn rule(&self, address: u64) -> &Rule {
        self.find(address).unwrap_or(&Rule::Missing)
    }

    /// The rule at an address; `None` where no row rules, as in another module. What lies less than a
    /// granule behind the text may be taken for its last function.
    #[inline]
    pub(crate) fn find(&self, address: u64) -> Option<&Rule> {
        let from_start = address.checked_sub(self.text.start)?;
        let (granule, offset) = ((from_start / GRANULE) as usize, (from_start % GRANULE) as u32);
        let [first, after] = self.granules.get(granule..)?.first_chunk::<2>()?;
        // A row is greater than this if it starts after the offset, whatever its rule.
        let beyond = (offset + 1) << 16;
        let Some(before) = (*first as usize).checked_sub(1) else {
            return self.find_at_the_start(*after as usize, beyond);
        };
        // A row stays in force until the next one, so the one before this granule may rule here.
        let (mut row, rows) = self.rows.get(before..*after as usize)?.split_first()?;
        for next in rows {
            if *next >= beyond {
                break;
            }
            row = next;
        }
        self.rules.get((*row & 0xffff) as usize)
    }

    /// The same where there is no row before the granule.
    #[cold]
    fn find_at_the_start(&self, after: usize, beyond: u32) -> Option<&Rule> {
        let rows = self.rows.get(..after)?;
        let row = rows.iter().take_while(|row| **row < beyond).last()?;
        self.rules.get((*row & 0xffff) as usize)
    }

    /// How many rows there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The memory of the table, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.granules) + size_of_val(&*self.rows) + size_of_val(&*self.rules)
    }
}

impl fmt::Debug for UnwindTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnwindTable")
            .field("text", &self.text)
            .field("rows", &self.rows.len())
            .field("rules", &self.rules.len())
            .finish_non_exhaustive()
    }
}

struct Builder {
    text: Range<u64>,
    granules: Vec<u32>,
    rows: Vec<u32>,
    rules: Vec<Rule>,
    numbers: rustc_hash::FxHashMap<Rule, u16>,
    last: Option<(u64, Rule)>,
}

impl Builder {
    fn new(mut text: Range<u64>) -> Self {
        // Forged sizes must not turn into an index of that size.
        if text.end.saturating_sub(text.start) > MOST_TEXT {
            text.end = text.start;
        }
        Self {
            text,
            granules: Vec::new(),
            rows: Vec::new(),
            rules: Vec::new(),
            numbers: rustc_hash::FxHashMap::default(),
            last: None,
        }
    }

    fn add(&mut self, start: u64, rule: Rule) {
        if !self.text.contains(&start) || self.rows.len() >= u32::MAX as usize {
            return;
        }
        match self.last {
            Some((last, _)) if start < last => return,
            Some((last, _)) if start == last => _ = self.rows.pop(),
            Some((_, in_force)) if in_force == rule => return,
            _ => {}
        }
        self.last = Some((start, rule));
        let from_start = start - self.text.start;
        let granule = (from_start / GRANULE) as usize;
        while self.granules.len() <= granule {
            self.granules.push(self.rows.len() as u32);
        }
        let number = self.number(rule);
        self.rows.push(((from_start % GRANULE) as u32) << 16 | u32::from(number));
    }

    fn number(&mut self, rule: Rule) -> u16 {
        if let Some(number) = self.numbers.get(&rule) {
            return *number;
        }
        match u16::try_from(self.rules.len()) {
            // The last number is kept for what has no number of its own.
            Ok(number) if number < u16::MAX => {
                self.rules.push(rule);
                self.numbers.insert(rule, number);
                number
            }
            _ => {
                if self.rules.len() == usize::from(u16::MAX) {
                    self.rules.push(Rule::Unsupported);
                }
                u16::MAX
            }
        }
    }

    fn finish(mut self) -> UnwindTable {
        let length = self.text.end.saturating_sub(self.text.start);
        let count = if self.rows.is_empty() { 0 } else { length.div_ceil(GRANULE) as usize + 1 };
        self.granules.resize(count, self.rows.len() as u32);
        UnwindTable {
            text: self.text,
            granules: self.granules.into(),
            rows: self.rows.into(),
            rules: self.rules.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sp(offset: i32) -> Rule {
        Rule::Frame { base: Base::Sp, offset, fp: None, ra: Some(-8) }
    }

    #[test]
    fn a_row_rules_until_the_next_one() {
        let rows = [(0x1000, sp(8)), (0x1004, sp(16)), (0x1300, Rule::Missing), (0x1301, sp(24))];
        let table = UnwindTable::new(0x1000..0x2000, rows);
        for (address, want) in [
            (0xfff, Rule::Missing),
            (0x1000, sp(8)),
            (0x1003, sp(8)),
            (0x1004, sp(16)),
            (0x1100, sp(16)),
            (0x12ff, sp(16)),
            (0x1300, Rule::Missing),
            (0x1301, sp(24)),
            (0x1fff, sp(24)),
            (0x2000, Rule::Missing),
            (u64::MAX, Rule::Missing),
        ] {
            assert_eq!(*table.rule(address), want, "{address:#x}");
        }
    }

    #[test]
    fn equal_neighbours_are_one_row_and_the_last_of_equal_starts_wins() {
        let rows = [(16, sp(8)), (20, sp(8)), (24, sp(8)), (24, sp(16)), (10, sp(99))];
        let table = UnwindTable::new(0..64, rows);
        assert_eq!((table.len(), *table.rule(23), *table.rule(24)), (2, sp(8), sp(16)));
        assert_eq!(*table.rule(9), Rule::Missing);
    }

    #[test]
    fn a_search_of_all_rows_gives_the_same_answers() {
        let mut state = 1u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % below
        };
        let mut rows: Vec<_> =
            (0..2000).map(|_| (0x5000 + random(50_000), sp(random(300) as i32 * 8))).collect();
        rows.sort_by_key(|row| row.0);
        rows.dedup_by_key(|row| row.0);
        let table = UnwindTable::new(0x5000..0x5000 + 50_000, rows.iter().copied());
        for address in 0x4ff0..0x5000 + 50_010 {
            let at = rows.partition_point(|row| row.0 <= address);
            let inside = table.text().contains(&address);
            let want = if at == 0 || !inside { Rule::Missing } else { rows[at - 1].1 };
            let got = if inside { *table.rule(address) } else { Rule::Missing };
            assert_eq!(got, want, "{address:#x}");
        }
    }

    #[test]
    fn more_rules_than_numbers_end_as_unsupported() {
        let rows = (0..70_000u64).map(|i| (i * 16, sp(i as i32 * 8)));
        let table = UnwindTable::new(0..70_000 * 16, rows);
        assert_eq!(*table.rule(65_534 * 16), sp(65_534 * 8));
        assert_eq!(*table.rule(65_535 * 16), Rule::Unsupported);
        assert_eq!(*table.rule(69_999 * 16), Rule::Unsupported);
        assert_eq!(*UnwindTable::empty(0..100).rule(5), Rule::Missing);
    }
}
