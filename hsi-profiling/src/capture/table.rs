//! Unwind tables: for every address of a module's text, how to find the caller's registers.
//!
//! A table is made ahead by `cfi` and never changes. A lookup touches one cache line of rows and
//! one rule, which most lookups share: a search over the whole module would touch seventeen. Rows
//! are three bytes, because there are some hundred thousand.

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
    /// One for each granule of text.
    blocks: Box<[Block]>,
    /// The rows of granules that have too many for a block: their count, then each as in a block.
    spilled: Box<[u32]>,
    /// The commonest first, so that most walks make do with the same few cache lines.
    rules: Box<[Packed]>,
}

/// The rows of a granule, in one cache line: a handler finds none of this in the processor's
/// caches, and waits for memory a line at a time.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Block {
    /// How many rows there are, or [`SPILLED`] and where they begin in the table's `spilled`.
    head: u32,
    /// Each a number of [`row`], the lowest byte first.
    rows: [[u8; 3]; BLOCK_ROWS],
}

/// Bytes of text that share a block. Rows are 60 to 70 bytes apart on average.
const GRANULE: u64 = 512;
/// How many rows fit in a block: about twice the average, since functions begin and end in a
/// flurry of them.
const BLOCK_ROWS: usize = 20;
const SPILLED: u32 = 1 << 31;
/// Bits of a row for the number of its rule; those above are the offset in the granule.
const NUMBER_BITS: u32 = 15;
/// The number of all rules that have none of their own; no rule stands there.
const LAST_NUMBER: u16 = (1 << NUMBER_BITS) - 1;
/// The most text that a module may have, in bytes: the blocks of 4 GiB are 512 MiB.
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
    #[inline]
    pub(crate) fn rule(&self, address: u64) -> Rule {
        self.find(address).unwrap_or(Rule::Missing)
    }

    #[inline]
    fn find(&self, address: u64) -> Option<Rule> {
        let from_start = address.checked_sub(self.text.start)?;
        let block = self.blocks.get((from_start / GRANULE) as usize)?;
        let offset = (from_start % GRANULE) as u32;
        let number = if block.head & SPILLED == 0 {
            let rows = block.rows.get(..block.head as usize)?;
            in_force(rows.iter().map(|[a, b, c]| u32::from_le_bytes([*a, *b, *c, 0])), offset)?
        } else {
            let (count, rows) =
                self.spilled.get((block.head & !SPILLED) as usize..)?.split_first()?;
            in_force(rows.get(..*count as usize)?.iter().copied(), offset)?
        };
        // A number without a rule is that of all rules that could not be kept.
        Some(self.rules.get(number as usize).map_or(Rule::Unsupported, |rule| rule.rule()))
    }

    /// How many rows there are, with one more for each granule that begins under a rule.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        let spilled = |head: u32| self.spilled[(head & !SPILLED) as usize];
        let rows = |b: &Block| if b.head & SPILLED == 0 { b.head } else { spilled(b.head) };
        self.blocks.iter().map(|block| rows(block) as usize).sum()
    }

    /// The memory of the table, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.blocks) + size_of_val(&*self.spilled) + size_of_val(&*self.rules)
    }
}

impl fmt::Debug for UnwindTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnwindTable")
            .field("text", &self.text)
            .field("blocks", &self.blocks.len())
            .field("spilled", &self.spilled.len())
            .field("rules", &self.rules.len())
            .finish_non_exhaustive()
    }
}

/// The number of the rule that the last row up to `offset` brings into force.
#[inline]
fn in_force(rows: impl Iterator<Item = u32>, offset: u32) -> Option<u32> {
    let last = rows.take_while(|row| *row >> NUMBER_BITS <= offset).last()?;
    Some(last & u32::from(LAST_NUMBER))
}

fn row(offset: u32, number: u16) -> u32 {
    offset << NUMBER_BITS | u32::from(number)
}

/// A rule in eight bytes: what kind it is, and its numbers, from the lowest: kind (8 bits), frame
/// pointer and return address (16 each), offset (24).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Packed(u64);

/// Where there is no number.
const NONE: i16 = i16::MIN;

impl Packed {
    /// `None` where a number is larger than any that a compiler writes for a frame of its own.
    fn new(rule: Rule) -> Option<Self> {
        let short = |value: Option<i32>| match value {
            Some(value) => i16::try_from(value).ok().filter(|value| *value != NONE),
            None => Some(NONE),
        };
        let pack = |kind: u8, offset: i32, fp: Option<i32>, ra: Option<i32>| {
            let fits = offset << 8 >> 8 == offset;
            let (fp, ra) = (short(fp)? as u16, short(ra)? as u16);
            fits.then_some(Self(
                u64::from(offset as u32) << 40
                    | u64::from(ra) << 24
                    | u64::from(fp) << 8
                    | u64::from(kind),
            ))
        };
        match rule {
            Rule::Missing => pack(0, 0, None, None),
            Rule::Unsupported => pack(1, 0, None, None),
            Rule::Outermost => pack(2, 0, None, None),
            Rule::SignalFrame => pack(3, 0, None, None),
            Rule::Frame { base: Base::Sp, offset, fp, ra } => pack(4, offset, fp, ra),
            Rule::Frame { base: Base::Fp, offset, fp, ra } => pack(5, offset, fp, ra),
            Rule::Realigned { offset } => pack(6, offset, None, None),
            Rule::LinkageStub { pushed_at } => pack(7, pushed_at.into(), None, None),
        }
    }

    #[inline]
    fn rule(self) -> Rule {
        let short = |bits: u64| match bits as i16 {
            NONE => None,
            value => Some(i32::from(value)),
        };
        let offset = (self.0 as i64 >> 40) as i32;
        let frame =
            |base| Rule::Frame { base, offset, fp: short(self.0 >> 8), ra: short(self.0 >> 24) };
        match self.0 as u8 {
            0 => Rule::Missing,
            2 => Rule::Outermost,
            3 => Rule::SignalFrame,
            4 => frame(Base::Sp),
            5 => frame(Base::Fp),
            6 => Rule::Realigned { offset },
            7 => Rule::LinkageStub { pushed_at: offset as u8 },
            _ => Rule::Unsupported,
        }
    }
}

struct Builder {
    text: Range<u64>,
    /// Where each begins, from the start of the text, and the number of its rule.
    rows: Vec<(u32, u16)>,
    rules: Vec<Packed>,
    numbers: rustc_hash::FxHashMap<Rule, u16>,
    last: Option<(u64, Rule)>,
}

impl Builder {
    fn new(mut text: Range<u64>) -> Self {
        // Forged sizes must not turn into blocks for that size.
        if text.end.saturating_sub(text.start) > MOST_TEXT {
            text.end = text.start;
        }
        Self {
            text,
            rows: Vec::new(),
            rules: Vec::new(),
            numbers: rustc_hash::FxHashMap::default(),
            last: None,
        }
    }

    fn add(&mut self, start: u64, rule: Rule) {
        if !self.text.contains(&start) || self.rows.len() >= (SPILLED / 4) as usize {
            return;
        }
        match self.last {
            Some((last, _)) if start < last => return,
            Some((last, _)) if start == last => _ = self.rows.pop(),
            Some((_, in_force)) if in_force == rule => return,
            _ => {}
        }
        self.last = Some((start, rule));
        let number = self.number(rule);
        self.rows.push(((start - self.text.start) as u32, number));
    }

    fn number(&mut self, rule: Rule) -> u16 {
        if let Some(number) = self.numbers.get(&rule) {
            return *number;
        }
        let packed = Packed::new(rule);
        let number = match (u16::try_from(self.rules.len()), packed) {
            (Ok(number), Some(packed)) if number < LAST_NUMBER => {
                self.rules.push(packed);
                number
            }
            _ => LAST_NUMBER,
        };
        self.numbers.insert(rule, number);
        number
    }

    fn finish(mut self) -> UnwindTable {
        self.sort_rules();
        let length = self.text.end.saturating_sub(self.text.start);
        let count = if self.rows.is_empty() { 0 } else { length.div_ceil(GRANULE) as usize };
        let mut blocks = Vec::with_capacity(count);
        let (mut spilled, mut here) = (Vec::new(), Vec::new());
        let mut rows = self.rows.iter().peekable();
        let mut before = None;
        for granule in 0..count as u64 {
            here.clear();
            // A row stays in force until the next one, in another granule or not.
            here.extend(before.map(|number| row(0, number)));
            while let Some((start, number)) =
                rows.next_if(|(start, _)| u64::from(*start) / GRANULE == granule)
            {
                let offset = (u64::from(*start) % GRANULE) as u32;
                if offset == 0 {
                    here.clear();
                }
                here.push(row(offset, *number));
                before = Some(*number);
            }
            blocks.push(Block::new(&here, &mut spilled));
        }
        UnwindTable {
            text: self.text,
            blocks: blocks.into(),
            spilled: spilled.into(),
            rules: self.rules.into(),
        }
    }

    /// Gives the commonest rules the lowest numbers.
    fn sort_rules(&mut self) {
        let mut counts = vec![0u32; self.rules.len()];
        for (_, number) in &self.rows {
            if let Some(count) = counts.get_mut(usize::from(*number)) {
                *count += 1;
            }
        }
        let mut order: Vec<usize> = (0..self.rules.len()).collect();
        order.sort_by_key(|number| std::cmp::Reverse(counts[*number]));
        let mut renumbered = vec![LAST_NUMBER; self.rules.len()];
        for (new, old) in order.iter().enumerate() {
            renumbered[*old] = new as u16;
        }
        for (_, number) in &mut self.rows {
            *number = renumbered.get(usize::from(*number)).copied().unwrap_or(LAST_NUMBER);
        }
        self.rules = order.into_iter().map(|old| self.rules[old]).collect();
    }
}

impl Block {
    fn new(rows: &[u32], spilled: &mut Vec<u32>) -> Self {
        let mut block = Self { head: rows.len() as u32, rows: [[0; 3]; BLOCK_ROWS] };
        if rows.len() > BLOCK_ROWS {
            block.head = SPILLED | spilled.len() as u32;
            spilled.push(rows.len() as u32);
            spilled.extend(rows);
            return block;
        }
        for (place, row) in block.rows.iter_mut().zip(rows) {
            let [a, b, c, _] = row.to_le_bytes();
            *place = [a, b, c];
        }
        block
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
            assert_eq!(table.rule(address), want, "{address:#x}");
        }
    }

    #[test]
    fn equal_neighbours_are_one_row_and_the_last_of_equal_starts_wins() {
        let rows = [(16, sp(8)), (20, sp(8)), (24, sp(8)), (24, sp(16)), (10, sp(99))];
        let table = UnwindTable::new(0..64, rows);
        assert_eq!((table.len(), table.rule(23), table.rule(24)), (2, sp(8), sp(16)));
        assert_eq!(table.rule(9), Rule::Missing);
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
            let got = if inside { table.rule(address) } else { Rule::Missing };
            assert_eq!(got, want, "{address:#x}");
        }
    }

    #[test]
    fn a_rule_is_kept_whole_or_not_at_all() {
        let frame = |base, offset, fp, ra| Rule::Frame { base, offset, fp, ra };
        for rule in [
            Rule::Missing,
            Rule::Unsupported,
            Rule::Outermost,
            Rule::SignalFrame,
            frame(Base::Sp, 8, None, Some(-8)),
            frame(Base::Fp, 16, Some(-16), Some(-8)),
            frame(Base::Sp, (1 << 23) - 1, Some(i16::MAX.into()), None),
            frame(Base::Sp, -(1 << 23), Some(-32_767), Some(-32_767)),
            Rule::Realigned { offset: -8 },
            Rule::LinkageStub { pushed_at: 11 },
        ] {
            assert_eq!(Packed::new(rule).map(Packed::rule), Some(rule));
        }
        for rule in [
            frame(Base::Sp, 1 << 23, None, None),
            frame(Base::Sp, 8, Some(-32_768), None),
            frame(Base::Sp, 8, None, Some(40_000)),
            Rule::Realigned { offset: i32::MIN },
        ] {
            assert_eq!(Packed::new(rule), None);
            assert_eq!(UnwindTable::new(0..64, [(0, rule)]).rule(5), Rule::Unsupported);
        }
        assert_eq!(size_of::<Block>(), 64);
    }

    #[test]
    fn more_rules_than_numbers_end_as_unsupported() {
        let rows = (0..70_000u64).map(|i| (i * 16, sp(i as i32 * 8)));
        let table = UnwindTable::new(0..70_000 * 16, rows);
        assert_eq!(table.rule(32_766 * 16), sp(32_766 * 8));
        assert_eq!(table.rule(32_767 * 16), Rule::Unsupported);
        assert_eq!(table.rule(69_999 * 16), Rule::Unsupported);
        assert_eq!(UnwindTable::empty(0..100).rule(5), Rule::Missing);
    }
}
