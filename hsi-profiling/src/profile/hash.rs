//! Hashing for the interning tables.
//!
//! They take millions of small keys, and some of the keys come from files that anyone may have
//! written. So a hash is one multiplication, and it depends on a secret of the table: without it,
//! nobody can choose keys that all fall into one bucket and make the table quadratic.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::{BuildHasher, Hasher},
};

/// A map that is only ever used as an index: its order is random.
pub(crate) type Map<K, V> = HashMap<K, V, Seeds>;

/// The secret of a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seeds {
    start: u64,
    factor: u64,
}

impl Default for Seeds {
    fn default() -> Self {
        let source = RandomState::new();
        Self { start: source.hash_one(0), factor: source.hash_one(1) | 1 }
    }
}

impl BuildHasher for Seeds {
    type Hasher = FoldHasher;

    fn build_hasher(&self) -> FoldHasher {
        FoldHasher { state: self.start, factor: self.factor }
    }
}

/// Multiplies to 128 bits and folds the halves onto each other, word by word.
#[derive(Clone, Debug)]
pub(crate) struct FoldHasher {
    state: u64,
    factor: u64,
}

impl Hasher for FoldHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.write_u64(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(value.into());
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(value.into());
    }

    fn write_u64(&mut self, value: u64) {
        let product = u128::from(self.state ^ value) * u128::from(self.factor);
        self.state = product as u64 ^ (product >> 64) as u64;
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn finish(&self) -> u64 {
        // The last word has only been multiplied once, so its high bits reach the low ones, which
        // choose the bucket, by a second multiplication.
        let product = u128::from(self.state) * u128::from(self.factor);
        product as u64 ^ (product >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_regular_keys_spread_over_the_buckets() {
        for step in [1, 16, 4096, 1 << 32, 1 << 44] {
            let seeds = Seeds::default();
            let mut filled = vec![0; 1024];
            for key in 0..4096_u64 {
                filled[seeds.hash_one(key * step) as usize % 1024] += 1;
            }
            let worst = filled.iter().max().unwrap();
            assert!(*worst < 30, "step {step}: {worst} of 4096 keys in one of 1024 buckets");
        }
    }

    #[test]
    fn texts_differ_by_length_and_content() {
        let seeds = Seeds::default();
        let hashes =
            ["", "\0", "\0\0", "a", "b", "abcdefgh", "abcdefgh\0"].map(|t| seeds.hash_one(t));
        for (i, a) in hashes.iter().enumerate() {
            assert!(hashes[..i].iter().all(|b| a != b), "{i}");
        }
    }
}
