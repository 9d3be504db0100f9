//! Sums, differences and parts of profiles.
//!
//! Values are matched by their type's name and unit, stacks by address and module, labels by text.
//! Names play no role here: [`Symbols::adopt`](super::Symbols::adopt) carries them over.

use super::{
    Profile,
    stack::Adopted,
    types::{Timestamp, ValueType},
};
use std::time::Duration;

/// How many comments a merged profile keeps; further ones are dropped.
const MAX_COMMENTS: usize = 64;

impl Profile {
    /// Adds the samples of `other`; the window grows until it covers both.
    ///
    /// A value type that only `other` has is appended to the types. What is returned tells which
    /// location became which, for [`Symbols::adopt`](super::Symbols::adopt).
    pub fn merge(&mut self, other: &Self) -> Adopted {
        let adopted = self.absorb(other, 1);
        self.cover(other);
        for comment in &other.comments {
            if self.comments.len() < MAX_COMMENTS && !self.comments.contains(comment) {
                self.comments.push(comment.clone());
            }
        }
        adopted
    }

    /// This profile less `base`, as pprof's `-diff_base` shows it: what became less is negative,
    /// what stayed the same is gone.
    ///
    /// Window and comments are this profile's. Its symbols fit the difference; what is returned
    /// beside it is for adopting the symbols of `base`.
    #[must_use]
    pub fn diff(&self, base: &Self) -> (Self, Adopted) {
        let mut difference = self.clone();
        let adopted = difference.absorb(base, -1);
        difference.drop_zeros();
        (difference, adopted)
    }

    /// The samples that have all these labels, given as key and value; an empty value asks for
    /// samples without the label. The symbols of this profile fit the result.
    #[must_use]
    pub fn filter_labels(&self, matchers: &[(String, String)]) -> Self {
        let mut part = self.without_samples();
        let wanted: Vec<bool> = self
            .labels
            .sets()
            .iter()
            .map(|set| matchers.iter().all(|(k, v)| set.get(k).unwrap_or_default() == v))
            .collect();
        for (sample, values) in self.samples() {
            if wanted.get(sample.labels.index()).copied().unwrap_or(matchers.is_empty()) {
                part.add(sample.stack, sample.labels, values);
            }
        }
        part
    }

    /// This profile with every value multiplied by `factor` and rounded to a whole number; for
    /// comparing windows of different lengths.
    #[must_use]
    pub fn scaled(&self, factor: f64) -> Self {
        let mut scaled = self.clone();
        scaled.map_values(|_, value| (value as f64 * factor).round() as i64);
        scaled
    }

    fn absorb(&mut self, other: &Self, sign: i64) -> Adopted {
        let columns: Vec<usize> = other.types.iter().map(|t| self.column(t)).collect();
        let mut label_sets = vec![None; other.labels.len()];
        let mut adopted = Adopted::default();
        let mut row = vec![0_i64; self.types.len()];
        for (sample, values) in other.samples() {
            row.fill(0);
            for (column, value) in columns.iter().zip(values) {
                row[*column] = row[*column].saturating_add(value.saturating_mul(sign));
            }
            let stack = self.stacks.adopt(&other.stacks, sample.stack, &mut adopted);
            let set = other.labels.get(sample.labels);
            let labels = match label_sets.get_mut(sample.labels.index()) {
                Some(known) => *known.get_or_insert_with(|| self.labels.intern(set)),
                None => self.labels.intern(set),
            };
            self.add(stack, labels, &row);
        }
        adopted
    }

    /// The position of a type, which is appended where it is missing.
    fn column(&mut self, wanted: &ValueType) -> usize {
        if let Some(at) = self.types.iter().position(|t| t == wanted) {
            return at;
        }
        let width = self.types.len();
        self.types.push(wanted.clone());
        let mut wider = Vec::with_capacity(self.samples.len() * (width + 1));
        for row in self.values.chunks_exact(width) {
            wider.extend_from_slice(row);
            wider.push(0);
        }
        self.values = wider;
        width
    }

    fn drop_zeros(&mut self) {
        let width = self.types.len();
        let samples = std::mem::take(&mut self.samples);
        let values = std::mem::take(&mut self.values);
        self.index.clear();
        for (sample, row) in samples.iter().zip(values.chunks_exact(width)) {
            if row.iter().any(|v| *v != 0) {
                self.add(sample.stack, sample.labels, row);
            }
        }
    }

    fn cover(&mut self, other: &Self) {
        let unset = |p: &Self| p.start == Timestamp::default() && p.duration == Duration::ZERO;
        if self.period_type == other.period_type {
            self.period = self.period.max(other.period);
        }
        if unset(other) {
            return;
        }
        if unset(self) {
            (self.start, self.duration) = (other.start, other.duration);
            return;
        }
        let end = self.start.after(self.duration).max(other.start.after(other.duration));
        self.start = self.start.min(other.start);
        self.duration = end.since(self.start);
    }

    /// An empty profile with everything else of this one, tables included.
    fn without_samples(&self) -> Self {
        Self {
            default_type: self.default_type,
            start: self.start,
            duration: self.duration,
            stacks: self.stacks.clone(),
            labels: self.labels.clone(),
            comments: self.comments.clone(),
            ..Self::new(self.types.clone(), self.period_type.clone(), self.period)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{Frame, Labels, Location, Symbols, Unit};

    fn cpu(samples: &[(&[u64], &str, i64)]) -> Profile {
        let mut p = Profile::cpu(Duration::from_millis(10));
        for (root_first, route, value) in samples {
            let path: Vec<_> =
                root_first.iter().map(|a| p.stacks.location(Location::new(*a, None))).collect();
            let stack = p.stacks.intern(path);
            let set =
                if route.is_empty() { Labels::EMPTY } else { Labels::EMPTY.with("route", route) };
            let labels = p.labels.intern(&set);
            p.add(stack, labels, &[1, *value]);
        }
        p
    }

    /// Addresses from the root, the route, and the values; sorted.
    fn rows(p: &Profile) -> Vec<(Vec<u64>, String, Vec<i64>)> {
        let mut rows: Vec<_> = p
            .samples()
            .map(|(s, values)| {
                let frames = p.stacks.frames(s.stack);
                let mut path: Vec<_> =
                    frames.map(|l| p.stacks.locations()[l.index()].address).collect();
                path.reverse();
                let route = p.labels.get(s.labels).get("route").unwrap_or_default().to_owned();
                (path, route, values.to_vec())
            })
            .collect();
        rows.sort();
        rows
    }

    #[test]
    fn merging_adds_equal_samples_and_keeps_the_others() {
        let mut a = cpu(&[(&[1, 2], "/a", 10), (&[1], "", 5)]);
        let b = cpu(&[(&[9], "/b", 7), (&[1, 2], "/a", 1), (&[1, 2], "/b", 2)]);
        a.merge(&b);
        let want = cpu(&[
            (&[1], "", 5),
            (&[1, 2], "/a", 10),
            (&[1, 2], "/a", 1),
            (&[1, 2], "/b", 2),
            (&[9], "/b", 7),
        ]);
        assert_eq!(rows(&a), rows(&want));
    }

    #[test]
    fn merging_matches_types_by_name_and_unit() {
        let mut a = cpu(&[(&[1], "", 5)]);
        let types = vec![
            ValueType::new("cpu", Unit::Nanoseconds),
            ValueType::new("wall", Unit::Nanoseconds),
            ValueType::new("samples", Unit::Bytes),
        ];
        let mut b = Profile::new(types, ValueType::new("cpu", Unit::Nanoseconds), 20_000_000);
        let l = b.stacks.location(Location::new(1, None));
        let s = b.stacks.intern([l]);
        b.add(s, crate::profile::LabelsId::EMPTY, &[7, 8, 9]);
        a.merge(&b);
        assert_eq!(rows(&a), [(vec![1], String::new(), vec![1, 12, 8, 9])]);
        assert_eq!((a.default_type, a.period), (1, 20_000_000));
    }

    #[test]
    fn merging_covers_both_windows() {
        let mut a = cpu(&[]);
        let mut b = cpu(&[]);
        (b.start, b.duration) = (Timestamp::from_unix_millis(5000), Duration::from_secs(10));
        b.comments = vec!["x".into(), "y".into()];
        a.merge(&b);
        assert_eq!((a.start, a.duration), (b.start, b.duration));
        (b.start, b.duration) = (Timestamp::from_unix_millis(2000), Duration::from_secs(1));
        a.merge(&b);
        assert_eq!(a.start, b.start);
        assert_eq!(a.duration, Duration::from_secs(13));
        assert_eq!(a.comments, ["x", "y"]);
        a.merge(&cpu(&[]));
        assert_eq!(a.duration, Duration::from_secs(13));
    }

    #[test]
    fn a_difference_is_negative_where_the_base_was_more() {
        let base = cpu(&[(&[1, 2], "", 10), (&[1, 3], "", 4), (&[7], "", 3)]);
        let now = cpu(&[(&[1, 2], "", 4), (&[1, 3], "", 4), (&[5], "", 1)]);
        let (d, adopted) = now.diff(&base);
        let cpu_only: Vec<_> = rows(&d).into_iter().map(|(path, _, v)| (path, v[1])).collect();
        assert_eq!(cpu_only, [(vec![1, 2], -6), (vec![5], 1), (vec![7], -3)]);

        let mut names = Symbols::new();
        let mut base_names = Symbols::new();
        let (seven, _) = base.samples().last().unwrap();
        base_names.set(base.stacks.split(seven.stack).unwrap().1, [Frame::new("gone")].into());
        names.adopt(&base_names, &adopted);
        let (sample, _) = d.samples().find(|(_, v)| v[1] == -3).unwrap();
        assert_eq!(&*names.get(d.stacks.split(sample.stack).unwrap().1)[0].function, "gone");
    }

    #[test]
    fn filters_ask_for_all_labels_and_for_their_absence() {
        let p = cpu(&[(&[1], "/a", 1), (&[2], "/b", 2), (&[3], "", 4)]);
        for (route, want) in [("/a", 1), ("/b", 2), ("", 4), ("/c", 0)] {
            let part = p.filter_labels(&[("route".into(), route.into())]);
            assert_eq!(part.total(1), want, "{route}");
        }
        let none = p.filter_labels(&[("route".into(), "/a".into()), ("x".into(), "y".into())]);
        assert!(none.is_empty());
        assert_eq!(p.filter_labels(&[]).total(1), 7);
    }

    #[test]
    fn scaling_rounds_and_saturates() {
        let p = cpu(&[(&[1], "", 5), (&[2], "", i64::MAX)]);
        let half: Vec<_> = p.scaled(0.5).samples().map(|(_, v)| v[1]).collect();
        assert_eq!(half[0], 3);
        assert_eq!(p.scaled(4.0).samples().nth(1).unwrap().1[1], i64::MAX);
    }
}
