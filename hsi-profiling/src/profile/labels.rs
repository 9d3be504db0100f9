//! Label sets: sorted key-value pairs, interned to small numbers.

use super::hash::Map;
use std::sync::Arc;

/// A set of labels, sorted by key, each key once. Cloning is cheap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Labels(Option<Arc<[Pair]>>);

/// Key and value.
type Pair = (Arc<str>, Arc<str>);

impl Labels {
    /// The set without a label.
    pub const EMPTY: Self = Self(None);
    /// The key of the thread's name, which every sample of the CPU carries.
    pub const THREAD: &'static str = "thread";

    /// This set with `key` set to `value`, in place of an older value of `key`.
    #[must_use]
    pub fn with(&self, key: &str, value: &str) -> Self {
        let mut pairs: Vec<Pair> =
            self.pairs().iter().filter(|(k, _)| **k != *key).cloned().collect();
        let at = pairs.partition_point(|(k, _)| **k < *key);
        pairs.insert(at, (key.into(), value.into()));
        Self(Some(pairs.into()))
    }

    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        let pairs = self.pairs();
        let at = pairs.binary_search_by(|(k, _)| (**k).cmp(key)).ok()?;
        Some(&pairs[at].1)
    }

    /// Key and value of each label, sorted by key.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.pairs().iter().map(|(k, v)| (&**k, &**v))
    }

    /// Whether there is no label.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pairs().is_empty()
    }

    fn pairs(&self) -> &[Pair] {
        self.0.as_deref().unwrap_or_default()
    }

    fn bytes(&self) -> usize {
        // Two reference counts for each text and for the slice.
        self.iter().map(|(k, v)| k.len() + v.len() + 64).sum::<usize>() + 16
    }
}

impl FromIterator<Pair> for Labels {
    /// The set of these labels; of a key that comes several times, the last value counts.
    fn from_iter<I: IntoIterator<Item = Pair>>(pairs: I) -> Self {
        let mut pairs: Vec<_> = pairs.into_iter().collect();
        if pairs.is_empty() {
            return Self::EMPTY;
        }
        pairs.reverse();
        pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
        pairs.dedup_by(|(a, _), (b, _)| a == b);
        Self(Some(pairs.into()))
    }
}

/// A label set of a [`LabelTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LabelsId(u32);

impl LabelsId {
    /// The set without a label, in every table.
    pub const EMPTY: Self = Self(0);

    /// The number as it travels through the sampler.
    #[must_use]
    pub(crate) fn raw(self) -> u32 {
        self.0
    }

    /// A number that came through the sampler; an unknown one reads as no labels.
    #[must_use]
    pub(crate) fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// The position in the table.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Interned label sets.
#[derive(Clone, Debug)]
pub struct LabelTable {
    sets: Vec<Labels>,
    index: Map<Labels, LabelsId>,
    bytes: usize,
}

impl Default for LabelTable {
    fn default() -> Self {
        Self::new()
    }
}

impl LabelTable {
    /// A table with just the empty set.
    #[must_use]
    pub fn new() -> Self {
        let index = Map::from_iter([(Labels::EMPTY, LabelsId::EMPTY)]);
        Self { sets: vec![Labels::EMPTY], index, bytes: 0 }
    }

    /// The number of `labels`, which are added if they are new.
    pub fn intern(&mut self, labels: &Labels) -> LabelsId {
        if let Some(id) = self.index.get(labels) {
            return *id;
        }
        let id = LabelsId(self.sets.len() as u32);
        self.bytes += labels.bytes();
        self.sets.push(labels.clone());
        self.index.insert(labels.clone(), id);
        id
    }

    /// The number of `labels`, if they are in the table.
    #[must_use]
    pub fn find(&self, labels: &Labels) -> Option<LabelsId> {
        self.index.get(labels).copied()
    }

    /// The set numbered `id`; an unknown number is the empty set.
    #[must_use]
    pub fn get(&self, id: LabelsId) -> &Labels {
        self.sets.get(id.index()).unwrap_or(&Labels::EMPTY)
    }

    /// All sets, by [`LabelsId::index`].
    #[must_use]
    pub fn sets(&self) -> &[Labels] {
        &self.sets
    }

    /// How many sets there are, the empty one included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sets.len()
    }

    /// Whether there is no set but the empty one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sets.len() == 1
    }

    /// About how many bytes this table occupies.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes + self.sets.capacity() * 16 + self.index.capacity() * 32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_of_a_key_counts() {
        let pairs = [("b", "1"), ("a", "2"), ("b", "3")].map(|(k, v)| (k.into(), v.into()));
        let want = Labels::EMPTY.with("a", "2").with("b", "3");
        assert_eq!(pairs.into_iter().collect::<Labels>(), want);
        assert_eq!(Labels::from_iter([]), Labels::EMPTY);
    }

    #[test]
    fn a_key_is_there_once_and_order_does_not_matter() {
        let a = Labels::EMPTY.with("b", "1").with("a", "2");
        let b = Labels::EMPTY.with("a", "0").with("b", "1").with("a", "2");
        assert_eq!(a, b);
        assert_eq!(a.iter().collect::<Vec<_>>(), [("a", "2"), ("b", "1")]);
        assert_eq!((a.get("a"), a.get("c")), (Some("2"), None));
        let mut t = LabelTable::new();
        assert_eq!(t.intern(&a), t.intern(&b));
        assert_eq!(t.intern(&Labels::EMPTY), LabelsId::EMPTY);
        assert!(t.get(LabelsId(9)).is_empty());
    }
}
