//! The pure model of a profile, in pprof's vocabulary.
//!
//! Everything here is a value: no clock, no input or output, no threads. A [`Profile`] is a bag of
//! samples, each a stack with labels and one value for every sample type; stacks and labels are
//! small numbers into tables that the profile owns. Names of functions are not part of it: they
//! live in [`Symbols`], a separate table that the symbolizer (or the pprof decoder) fills in.

mod algebra;
mod hash;
mod labels;
mod stack;
mod symbols;
mod tree;
mod types;

use hash::Map;
use std::time::Duration;

pub use labels::{LabelTable, Labels, LabelsId};
pub use stack::{Adopted, Location, LocationId, Module, ModuleId, StackId, StackTable};
pub use symbols::{Frame, Symbols};
pub use tree::{CallTree, FunctionTotals, Node};
pub use types::{ProfileType, Timestamp, Unit, ValueType};

/// Samples of one kind over one window of time.
///
/// Adding a sample whose stack and labels are already present adds to its values, so a profile
/// is always aggregated.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Profile {
    /// What each value of a sample counts, in pprof's order.
    pub types: Vec<ValueType>,
    /// Which of `types` a viewer shows first.
    pub default_type: usize,
    /// What `period` counts.
    pub period_type: ValueType,
    /// The distance between two samples, in units of `period_type` (nanoseconds of CPU, bytes).
    pub period: i64,
    /// When the window began.
    pub start: Timestamp,
    /// How long the window was.
    pub duration: Duration,
    /// The stacks that the samples point into.
    pub stacks: StackTable,
    /// The label sets that the samples point into.
    pub labels: LabelTable,
    /// Free text for the reader: what was lost, and why.
    pub comments: Vec<String>,
    samples: Vec<Sample>,
    values: Vec<i64>,
    index: Map<(StackId, LabelsId), u32>,
}

/// One stack with its labels; its values stand beside it, see [`Profile::samples`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Sample {
    /// The call stack.
    pub stack: StackId,
    /// The labels that were in force.
    pub labels: LabelsId,
}

impl Profile {
    /// An empty profile. An empty list of `types` is replaced by one `samples/count`, so that a
    /// sample always has a value.
    #[must_use]
    pub fn new(mut types: Vec<ValueType>, period_type: ValueType, period: i64) -> Self {
        if types.is_empty() {
            types.push(ValueType::new("samples", Unit::Count));
        }
        Self {
            default_type: types.len() - 1,
            types,
            period_type,
            period,
            start: Timestamp::default(),
            duration: Duration::ZERO,
            stacks: StackTable::new(),
            labels: LabelTable::new(),
            comments: Vec::new(),
            samples: Vec::new(),
            values: Vec::new(),
            index: Map::default(),
        }
    }

    /// An empty CPU profile: `samples/count` and `cpu/nanoseconds`, the second one shown.
    #[must_use]
    pub fn cpu(period: Duration) -> Self {
        let cpu = ValueType::new("cpu", Unit::Nanoseconds);
        Self::new(
            vec![ValueType::new("samples", Unit::Count), cpu.clone()],
            cpu,
            i64::try_from(period.as_nanos()).unwrap_or(i64::MAX),
        )
    }

    /// Adds `values` to the sample with this stack and these labels.
    ///
    /// Missing values count as zero, values beyond the profile's types are ignored, and sums
    /// saturate.
    pub fn add(&mut self, stack: StackId, labels: LabelsId, values: &[i64]) {
        let width = self.types.len();
        let at = match self.index.get(&(stack, labels)) {
            Some(at) => *at as usize * width,
            None => {
                let at = self.values.len();
                self.index.insert((stack, labels), self.samples.len() as u32);
                self.samples.push(Sample { stack, labels });
                self.values.resize(at + width, 0);
                at
            }
        };
        for (sum, value) in self.values[at..at + width].iter_mut().zip(values) {
            *sum = sum.saturating_add(*value);
        }
    }

    /// Each sample with its values, one for each of `types`.
    pub fn samples(&self) -> impl Iterator<Item = (Sample, &[i64])> {
        self.samples.iter().copied().zip(self.values.chunks_exact(self.types.len()))
    }

    /// Changes every value, given the position of its type.
    pub(crate) fn map_values(&mut self, mut change: impl FnMut(usize, i64) -> i64) {
        let width = self.types.len();
        for (i, value) in self.values.iter_mut().enumerate() {
            *value = change(i % width, *value);
        }
    }

    /// How many distinct samples there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether nothing was sampled.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// The sum of one value over all samples; 0 where there is no such type.
    #[must_use]
    pub fn total(&self, value_type: usize) -> i64 {
        self.samples()
            .filter_map(|(_, values)| values.get(value_type))
            .fold(0, |sum: i64, value| sum.saturating_add(*value))
    }

    /// The position of the type with this name, as in `cpu` or `inuse_space`.
    #[must_use]
    pub fn type_index(&self, name: &str) -> Option<usize> {
        self.types.iter().position(|t| t.name() == name)
    }

    /// About how many bytes this profile occupies.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.samples.capacity() * size_of::<Sample>()
            + self.values.capacity() * size_of::<i64>()
            + self.index.capacity() * (size_of::<(StackId, LabelsId)>() + 8)
            + self.stacks.bytes()
            + self.labels.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_samples_add_up() {
        let mut p = Profile::cpu(Duration::from_millis(10));
        let a = p.stacks.location(Location::new(0x10, None));
        let s = p.stacks.intern([a]);
        p.add(s, LabelsId::EMPTY, &[1, 10]);
        p.add(s, LabelsId::EMPTY, &[2, 20, 99]);
        assert_eq!(p.len(), 1);
        assert_eq!((p.total(0), p.total(1), p.total(2)), (3, 30, 0));
    }

    #[test]
    fn a_profile_without_types_still_counts() {
        let mut p = Profile::new(Vec::new(), ValueType::new("x", Unit::Count), 1);
        p.add(StackId::EMPTY, LabelsId::EMPTY, &[1]);
        assert_eq!(p.total(0), 1);
    }
}
