//! The far side: code that runs at someone else's instant, on someone else's thread.
//!
//! Nothing here allocates, locks, panics, logs or waits, except where a function is named as
//! being for the near side. It knows addresses and numbers; what a sample or a profile is, is
//! known on the other side of the ring.

pub(crate) mod cpu;
pub(crate) mod ring;
mod slot;
mod table;
mod unwind;

pub(crate) use cpu::{Sampler, Settings};
pub(crate) use slot::{Slot, Slots};
pub(crate) use table::{Base, Rule, UnwindTable};
pub(crate) use unwind::{End, Tables, walk};

use crate::sys::ThreadName;

/// One sample on its way through a ring: five words, then the addresses, innermost first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    /// How the walk ended.
    pub(crate) end: End,
    /// Whether the thread had no timer of its own: the sample then stands for a share of what
    /// all such threads used.
    pub(crate) untimed: bool,
    /// How many periods the sample stands for.
    pub(crate) weight: u32,
    /// The period, in nanoseconds of CPU.
    pub(crate) period: u32,
    /// A raw `LabelsId` of the process-wide table.
    pub(crate) labels: u32,
    /// The thread's number.
    pub(crate) tid: u32,
    /// For a thread without a timer: the CPU time that it used since it was last known, if that
    /// is known at all; microseconds.
    pub(crate) past_micros: u32,
    /// The thread's name.
    pub(crate) thread: ThreadName,
    /// The stack, innermost first; see [`walk`] for what an address is.
    pub(crate) addresses: &'a [u64],
}

/// The words before the addresses.
const HEAD: usize = 5;

impl<'a> Record<'a> {
    /// The words that precede the addresses; `end` and `untimed` are known only after the walk.
    #[inline]
    fn head(&self) -> [u64; HEAD] {
        [
            u64::from(self.weight) << 32 | u64::from(self.untimed) << 8 | self.end as u64,
            u64::from(self.period) << 32 | u64::from(self.labels),
            u64::from(self.past_micros) << 32 | u64::from(self.tid),
            self.thread.0[0],
            self.thread.0[1],
        ]
    }

    /// Reads a record; `None` if it is too short to be one.
    pub(crate) fn read(words: &'a [u64]) -> Option<Self> {
        let (head, addresses) = words.split_first_chunk::<HEAD>()?;
        Some(Self {
            end: End::from_number(head[0] as u8),
            untimed: head[0] >> 8 & 1 == 1,
            weight: (head[0] >> 32) as u32,
            period: (head[1] >> 32) as u32,
            labels: head[1] as u32,
            tid: head[2] as u32,
            past_micros: (head[2] >> 32) as u32,
            thread: ThreadName([head[3], head[4]]),
            addresses,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_the_ring() {
        let record = Record {
            end: End::NoInformation,
            untimed: true,
            weight: 7,
            period: 1_000_000_000,
            labels: 3,
            tid: u32::MAX - 1,
            past_micros: u32::MAX,
            thread: ThreadName([1, u64::MAX]),
            addresses: &[1, 2, 3],
        };
        let words: Vec<u64> = record.head().into_iter().chain([1, 2, 3]).collect();
        assert_eq!(Record::read(&words), Some(record));
        assert_eq!(Record::read(&words[..4]), None);
    }
}
