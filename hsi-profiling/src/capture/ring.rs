//! A bounded ring of words between the interrupted threads and ours. No `unsafe`: if a rule were
//! broken, a record would be garbled, memory never.
//!
//! A writer claims the whole ring for the length of one record, by trying: the length is known
//! only when the stack has been walked, and so the walk writes straight into the ring, without a
//! buffer on a stack that has no room for one. Whoever finds a ring claimed tries the next one;
//! nobody waits. One reader drains them all.

use crate::{
    sync::{AtomicBool, AtomicU64, Ordering},
    sys,
};

/// One ring.
#[derive(Debug)]
pub(crate) struct Ring {
    words: Box<[AtomicU64]>,
    claimed: AtomicBool,
    /// Words ever read.
    head: AtomicU64,
    /// Words ever committed.
    tail: AtomicU64,
}

impl Ring {
    /// A ring of `words` words; a power of two is wanted and the next one taken.
    pub(crate) fn new(words: usize) -> Self {
        Self {
            words: sys::zeroed_words(words.next_power_of_two()),
            claimed: AtomicBool::new(false),
            head: AtomicU64::new(0),
            tail: AtomicU64::new(0),
        }
    }

    /// Claims the ring for one record.
    #[inline]
    pub(crate) fn claim(&self) -> Option<Writer<'_>> {
        // Acquire: pairs with the Release in Writer's drop, so `tail` is the last writer's.
        if self.claimed.swap(true, Ordering::Acquire) {
            return None;
        }
        let start = self.tail.load(Ordering::Relaxed);
        // Acquire: pairs with the Release in `drain`; the words before `head` are read.
        let head = self.head.load(Ordering::Acquire);
        let end = head.wrapping_add(self.words.len() as u64);
        Some(Writer { ring: self, start, at: start.wrapping_add(1), end, full: start == end })
    }

    /// Hands every complete record to `sink`, and returns how much of the ring they filled, in
    /// hundredths. To be called by one thread at a time.
    pub(crate) fn drain(&self, record: &mut Vec<u64>, mut sink: impl FnMut(&[u64])) -> u64 {
        let mut head = self.head.load(Ordering::Relaxed);
        // Acquire: pairs with the Release in `commit`; the words before `tail` are written.
        let tail = self.tail.load(Ordering::Acquire);
        let filled = tail.wrapping_sub(head).min(self.words.len() as u64);
        while head != tail {
            let length = self.word(head).load(Ordering::Relaxed).min(self.words.len() as u64);
            record.clear();
            record.extend(
                (1..=length).map(|i| self.word(head.wrapping_add(i)).load(Ordering::Relaxed)),
            );
            sink(record);
            head = head.wrapping_add(length).wrapping_add(1);
            // Release: pairs with the Acquire in `claim`; a writer may now reuse the words.
            self.head.store(head, Ordering::Release);
        }
        filled * 100 / self.words.len() as u64
    }

    /// The memory of the ring, in bytes; its pages are touched only as it fills.
    pub(crate) fn bytes(&self) -> usize {
        self.words.len() * size_of::<u64>()
    }

    #[inline]
    fn word(&self, at: u64) -> &AtomicU64 {
        // The length is a power of two, so the index is below it.
        &self.words[at as usize & (self.words.len() - 1)]
    }
}

/// The one who writes a record. Dropping it without [`Writer::commit`] takes the record back.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    ring: &'a Ring,
    start: u64,
    at: u64,
    end: u64,
    full: bool,
}

impl Writer<'_> {
    /// Appends a word to the record. Once one did not fit, the record can't be committed.
    #[inline]
    pub(crate) fn push(&mut self, word: u64) {
        if self.at == self.end {
            self.full = true;
        }
        if !self.full {
            self.ring.word(self.at).store(word, Ordering::Relaxed);
            self.at = self.at.wrapping_add(1);
        }
    }

    /// Sets a word that was pushed before.
    #[inline]
    pub(crate) fn set(&mut self, position: u64, word: u64) {
        let at = self.start.wrapping_add(1).wrapping_add(position);
        if at.wrapping_sub(self.start) < self.at.wrapping_sub(self.start) {
            self.ring.word(at).store(word, Ordering::Relaxed);
        }
    }

    /// Whether a word did not fit.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.full
    }

    /// Hands the record to the reader; whether it fitted in.
    #[inline]
    #[must_use]
    pub(crate) fn commit(self) -> bool {
        if self.full {
            return false;
        }
        let length = self.at.wrapping_sub(self.start).wrapping_sub(1);
        self.ring.word(self.start).store(length, Ordering::Relaxed);
        // Release: pairs with the Acquire in `drain`; it sees every word of the record.
        self.ring.tail.store(self.at, Ordering::Release);
        true
    }
}

impl Drop for Writer<'_> {
    #[inline]
    fn drop(&mut self) {
        // Release: pairs with the Acquire in `claim`.
        self.ring.claimed.store(false, Ordering::Release);
    }
}

/// Claims one of `rings`, beginning with the one that `hint` falls on.
#[inline]
pub(crate) fn claim_any(rings: &[Ring], hint: u32) -> Option<Writer<'_>> {
    /// With twice as many rings as processors, a fourth refusal means that most writers were
    /// descheduled in the middle of a record; further tries would only lengthen the handler.
    const TRIES: usize = 4;
    let count = rings.len();
    if count == 0 {
        return None;
    }
    (0..TRIES.min(count)).find_map(|i| rings.get((hint as usize).wrapping_add(i) % count)?.claim())
}

#[cfg(all(test, not(hsi_loom)))]
mod tests {
    use super::*;

    fn write(ring: &Ring, record: &[u64]) -> bool {
        let mut writer = ring.claim().expect("there is one writer");
        record.iter().for_each(|word| writer.push(*word));
        writer.commit()
    }

    fn drained(ring: &Ring) -> Vec<Vec<u64>> {
        let mut all = Vec::new();
        ring.drain(&mut Vec::new(), |record| all.push(record.to_vec()));
        all
    }

    #[test]
    fn records_arrive_whole_and_in_order_while_the_ring_wraps() {
        let ring = Ring::new(16);
        let mut want = std::collections::VecDeque::new();
        let mut refused = 0;
        for i in 0..500u64 {
            let record: Vec<u64> = (0..i % 7).map(|k| i * 10 + k).collect();
            if write(&ring, &record) {
                want.push_back(record);
            } else {
                refused += 1;
            }
            if i % 3 == 0 {
                drained(&ring).into_iter().for_each(|r| assert_eq!(Some(r), want.pop_front()));
            }
        }
        drained(&ring).into_iter().for_each(|r| assert_eq!(Some(r), want.pop_front()));
        assert!(want.is_empty());
        assert!(refused > 0, "the ring was never full");
    }

    #[test]
    fn a_record_larger_than_the_ring_is_refused_and_the_ring_goes_on() {
        let ring = Ring::new(8);
        assert!(!write(&ring, &[1; 8]));
        assert!(write(&ring, &[2; 7]), "seven words and the length fill it");
        assert!(!write(&ring, &[]));
        assert_eq!(drained(&ring), [vec![2; 7]]);
    }

    #[test]
    fn an_interrupted_writer_makes_others_take_the_next_ring() {
        let rings = [Ring::new(8), Ring::new(8)];
        let first = claim_any(&rings, 0).unwrap();
        let second = claim_any(&rings, 0).unwrap();
        assert!(claim_any(&rings, 0).is_none());
        drop((first, second));
        assert!(claim_any(&rings, 1).is_some());
        assert!(drained(&rings[0]).is_empty(), "what was not committed is not seen");
    }

    #[test]
    fn a_word_can_be_set_after_it_was_pushed() {
        let ring = Ring::new(8);
        let mut writer = ring.claim().unwrap();
        writer.push(0);
        writer.push(2);
        writer.set(0, 1);
        writer.set(5, 9);
        assert!(writer.commit());
        assert_eq!(drained(&ring), [[1, 2]]);
    }

    #[test]
    fn many_writers_one_reader() {
        use std::sync::atomic::AtomicU64 as Count;
        let rings: Vec<_> = (0..4).map(|_| Ring::new(64)).collect();
        let (sent, refused, seen) = (Count::new(0), Count::new(0), Count::new(0));
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..4u32)
                .map(|t| {
                    let (rings, sent, refused) = (&rings, &sent, &refused);
                    scope.spawn(move || {
                        for i in 0..20_000u64 {
                            let record = [u64::from(t), i, i ^ u64::from(t)];
                            let written = claim_any(rings, t).is_some_and(|mut writer| {
                                record.iter().for_each(|w| writer.push(*w));
                                writer.commit()
                            });
                            (if written { sent } else { refused }).fetch_add(1, Ordering::Relaxed);
                        }
                    })
                })
                .collect();
            let check = |r: &[u64]| {
                assert_eq!(r.len(), 3);
                assert_eq!(r[2], r[0] ^ r[1]);
                seen.fetch_add(1, Ordering::Relaxed);
            };
            let mut buffer = Vec::new();
            while !writers.iter().all(|w| w.is_finished()) {
                rings.iter().for_each(|ring| _ = ring.drain(&mut buffer, check));
            }
            rings.iter().for_each(|ring| _ = ring.drain(&mut buffer, check));
        });
        assert_eq!(seen.load(Ordering::Relaxed), sent.load(Ordering::Relaxed));
        assert_eq!(sent.load(Ordering::Relaxed) + refused.load(Ordering::Relaxed), 80_000);
    }
}

#[cfg(all(test, hsi_loom))]
mod model {
    use super::*;
    use loom::sync::Arc;

    fn whole(record: &[u64]) {
        assert!(record == [7, 8] || record == [9, 10], "{record:?}");
    }

    fn write(ring: &Ring, record: [u64; 2]) -> bool {
        let Some(mut writer) = ring.claim() else { return false };
        record.iter().for_each(|w| writer.push(*w));
        writer.commit()
    }

    #[test]
    fn two_writers_and_a_reader_see_whole_records() {
        let explored = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = explored.clone();
        loom::model(move || {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let ring = Arc::new(Ring::new(4));
            let other = ring.clone();
            let reader = loom::thread::spawn(move || {
                let (mut seen, mut buffer) = (0, Vec::new());
                // Twice, so that one may fall before and one after a commit.
                for _ in 0..2 {
                    other.drain(&mut buffer, |record| {
                        whole(record);
                        seen += 1;
                    });
                }
                seen
            });
            let other = ring.clone();
            let writer = loom::thread::spawn(move || write(&other, [7, 8]));
            let mine = write(&ring, [9, 10]);
            let theirs = writer.join().unwrap();
            let mut seen = reader.join().unwrap();
            ring.drain(&mut Vec::new(), |record| {
                whole(record);
                seen += 1;
            });
            assert_eq!(seen, usize::from(mine) + usize::from(theirs));
        });
        let explored = explored.load(std::sync::atomic::Ordering::Relaxed);
        assert!(explored >= 50, "the model explored just {explored} interleavings");
    }
}
