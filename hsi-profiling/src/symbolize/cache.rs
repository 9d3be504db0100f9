//! The frames of addresses met before, under a bound in bytes.
//!
//! Two generations: what is asked for moves to the young one, and when both together outgrow the
//! bound, the old one is dropped and the young one takes its place. There is at most one such
//! turn in a call of the symbolizer, and what has no room then is not kept: a profile that is
//! larger than the cache finds a part of itself again the next time, where dropping the least
//! recently used would find nothing.

use crate::profile::Frame;
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;

/// An address in the file of a module; the module by the symbolizer's own number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) module: u32,
    pub(super) address: u64,
}

#[derive(Debug)]
pub(super) struct Cache {
    young: Generation,
    old: Generation,
    capacity: usize,
    turned: bool,
    pub(super) counts: Counts,
}

/// What the cache did since it was made.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) evictions: u64,
    pub(super) refused: u64,
}

/// Frames with the strings that they share, each string counted once.
#[derive(Debug, Default)]
struct Generation {
    frames: FxHashMap<Key, Arc<[Frame]>>,
    strings: FxHashSet<Arc<str>>,
    bytes: usize,
}

impl Cache {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            young: Generation::default(),
            old: Generation::default(),
            capacity,
            turned: false,
            counts: Counts::default(),
        }
    }

    /// Begins a call of the symbolizer: it may turn the generations once.
    pub(super) fn begin(&mut self) {
        self.turned = false;
    }

    pub(super) fn get(&mut self, key: Key) -> Option<Arc<[Frame]>> {
        match self.young.frames.get(&key) {
            Some(frames) => Some(Arc::clone(frames)),
            None => self.promote(key),
        }
    }

    /// Keeps `frames` where there is room, and returns them as a shared slice.
    pub(super) fn insert(&mut self, key: Key, mut frames: Vec<Frame>) -> Arc<[Frame]> {
        for frame in &mut frames {
            for text in [&mut frame.function, &mut frame.system_name, &mut frame.file] {
                if let Some(known) = self.known(text) {
                    *text = known;
                }
            }
        }
        let frames: Arc<[Frame]> = frames.into();
        if self.bytes() + self.new_bytes(&frames) > self.capacity && !self.make_room(&frames) {
            self.counts.refused += 1;
            return frames;
        }
        self.home_strings(&frames);
        self.young.insert(key, Arc::clone(&frames));
        frames
    }

    pub(super) fn bytes(&self) -> usize {
        self.young.bytes + self.old.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.young.frames.len() + self.old.frames.len()
    }

    /// Turns the generations if this call may; whether `frames` fit now.
    fn make_room(&mut self, frames: &[Frame]) -> bool {
        if !self.turned {
            self.turned = true;
            self.counts.evictions += self.old.frames.len() as u64;
            self.old = std::mem::take(&mut self.young);
        }
        self.bytes() + self.new_bytes(frames) <= self.capacity
    }

    fn promote(&mut self, key: Key) -> Option<Arc<[Frame]>> {
        let frames = self.old.remove(key)?;
        self.home_strings(&frames);
        self.young.insert(key, Arc::clone(&frames));
        Some(frames)
    }

    fn known(&self, text: &str) -> Option<Arc<str>> {
        self.young.strings.get(text).or_else(|| self.old.strings.get(text)).cloned()
    }

    /// Moves the strings of `frames` to the young generation, or adds them to it.
    fn home_strings(&mut self, frames: &[Frame]) {
        for text in strings(frames) {
            if self.young.strings.contains(text) {
                continue;
            }
            if self.old.strings.remove(text) {
                self.old.bytes -= string_bytes(text);
            }
            self.young.strings.insert(Arc::clone(text));
            self.young.bytes += string_bytes(text);
        }
    }

    /// What `frames` would add: an upper bound, as a string may occur in them twice.
    fn new_bytes(&self, frames: &[Frame]) -> usize {
        let strings: usize =
            strings(frames).filter(|s| self.known(s).is_none()).map(|s| string_bytes(s)).sum();
        entry_bytes(frames) + strings
    }
}

impl Generation {
    fn insert(&mut self, key: Key, frames: Arc<[Frame]>) {
        self.bytes += entry_bytes(&frames);
        if let Some(before) = self.frames.insert(key, frames) {
            self.bytes -= entry_bytes(&before);
        }
    }

    fn remove(&mut self, key: Key) -> Option<Arc<[Frame]>> {
        let frames = self.frames.remove(&key)?;
        self.bytes -= entry_bytes(&frames);
        Some(frames)
    }
}

fn strings(frames: &[Frame]) -> impl Iterator<Item = &Arc<str>> {
    frames.iter().flat_map(|f| [&f.function, &f.system_name, &f.file])
}

/// An entry of the table (which is between half and nearly full) and the slice behind it, with
/// its two reference counts and what the allocator adds.
fn entry_bytes(frames: &[Frame]) -> usize {
    2 * size_of::<(Key, Arc<[Frame]>)>() + 24 + size_of_val(frames)
}

fn string_bytes(text: &str) -> usize {
    2 * size_of::<Arc<str>>() + 24 + text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(address: u64) -> Key {
        Key { module: 0, address }
    }

    /// A frame whose name is its own and whose file is everyone's.
    fn frames(i: u64) -> Vec<Frame> {
        vec![Frame::new(format!("function number {i}")).at("src/lib.rs", i as u32)]
    }

    fn fill(cache: &mut Cache, range: std::ops::Range<u64>) -> usize {
        cache.begin();
        let mut missed = 0;
        for i in range {
            if cache.get(key(i)).is_none() {
                missed += 1;
                cache.insert(key(i), frames(i));
            }
        }
        missed
    }

    fn check(cache: &Cache) {
        for g in [&cache.young, &cache.old] {
            let entries: usize = g.frames.values().map(|f| entry_bytes(f)).sum();
            let strings: usize = g.strings.iter().map(|s| string_bytes(s)).sum();
            assert_eq!(g.bytes, entries + strings);
        }
        assert!(cache.bytes() <= cache.capacity);
    }

    #[test]
    fn what_was_kept_is_found_and_shares_strings() {
        let mut cache = Cache::new(1 << 20);
        assert_eq!(fill(&mut cache, 0..100), 100);
        assert_eq!(fill(&mut cache, 0..100), 0);
        let (a, b) = (cache.get(key(1)).unwrap(), cache.get(key(2)).unwrap());
        assert!(Arc::ptr_eq(&a[0].file, &b[0].file));
        assert_eq!(cache.len(), 100);
        check(&cache);
    }

    #[test]
    fn the_bound_holds_and_what_is_used_stays() {
        let mut cache = Cache::new(20_000);
        for round in 0..200 {
            fill(&mut cache, 0..10);
            fill(&mut cache, 1000 + round * 10..1010 + round * 10);
            check(&cache);
        }
        assert!(cache.counts.evictions > 1000);
        assert_eq!(fill(&mut cache, 0..10), 0);
    }

    #[test]
    fn a_profile_larger_than_the_cache_finds_a_part_of_itself() {
        let mut cache = Cache::new(20_000);
        fill(&mut cache, 0..1000);
        let kept = cache.len();
        assert!(kept > 50);
        for _ in 0..5 {
            assert_eq!(fill(&mut cache, 0..1000), 1000 - kept);
            check(&cache);
        }
        assert!(cache.counts.refused > 0);
        // Something else replaces it in two calls.
        fill(&mut cache, 5000..5040);
        fill(&mut cache, 5000..5040);
        assert_eq!(fill(&mut cache, 5000..5040), 0);
    }

    #[test]
    fn without_room_nothing_is_kept() {
        let mut cache = Cache::new(0);
        assert_eq!(fill(&mut cache, 0..3), 3);
        assert_eq!(&*cache.insert(key(1), frames(1)), &frames(1)[..]);
        assert_eq!((cache.len(), cache.bytes()), (0, 0));
    }
}
