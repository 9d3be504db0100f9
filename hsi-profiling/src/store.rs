//! The history: buckets of samples, fine for the recent past and coarse for the older, under a
//! hard cap on bytes.
//!
//! Buckets hold numbers into one table of stacks and one of labels. What no bucket uses any more
//! is forgotten when the tables take up their share of the cap.

use crate::{
    error::Error,
    profile::{
        Adopted, LabelTable, Labels, LabelsId, Location, Module, Profile, ProfileType, StackId,
        StackTable, Timestamp,
    },
    stats::{COUNTERS, Counter},
};
use rustc_hash::FxHashMap;
use std::{collections::VecDeque, sync::Arc, time::Duration};

/// What to look at: a kind of profile, a window, and labels that samples must have.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Query {
    /// The kind of profile.
    pub profile_type: ProfileType,
    /// The beginning of the window.
    pub from: Timestamp,
    /// The end of the window.
    pub to: Timestamp,
    /// Labels that a sample must have, all of them.
    pub labels: Vec<(String, String)>,
}

impl Query {
    /// Everything of this kind that is kept.
    #[must_use]
    pub fn new(profile_type: ProfileType) -> Self {
        Self {
            profile_type,
            from: Timestamp::from_unix_nanos(i64::MIN),
            to: Timestamp::from_unix_nanos(i64::MAX),
            labels: Vec::new(),
        }
    }

    /// Only from this moment on.
    #[must_use]
    pub fn from(mut self, from: Timestamp) -> Self {
        self.from = from;
        self
    }

    /// Only until this moment.
    #[must_use]
    pub fn to(mut self, to: Timestamp) -> Self {
        self.to = to;
        self
    }

    /// Only samples that have this label.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.push((key.into(), value.into()));
        self
    }
}

/// What the history holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct History {
    /// The beginning of the oldest bucket; `None` while there is none.
    pub start: Option<Timestamp>,
    /// The end of the newest bucket.
    pub end: Option<Timestamp>,
    /// How many buckets there are.
    pub buckets: usize,
    /// The memory in use, in bytes.
    pub bytes: usize,
    /// The most memory that may be in use, in bytes.
    pub cap_bytes: usize,
    /// Begin, length and total of every bucket, oldest first; totals in the unit of the type.
    pub totals: Vec<(Timestamp, Duration, i64)>,
}

/// The finest buckets: what Grafana and a person can make use of.
pub(crate) const FINE: Duration = Duration::from_secs(10);

/// The history of one process.
#[derive(Debug)]
pub(crate) struct Store {
    cap: usize,
    period: Duration,
    stacks: StackTable,
    labels: LabelTable,
    tiers: [Tier; 3],
    /// The stack of samples that there was no room for.
    other: Option<StackId>,
}

#[derive(Debug)]
struct Tier {
    /// The length of a bucket.
    length: Duration,
    /// How long a bucket stays here before it goes on to the next tier.
    keep: Duration,
    /// Oldest first.
    buckets: VecDeque<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    start: Timestamp,
    /// Until when it was filled; buckets of a coarse tier begin and end with their first and
    /// last fine ones.
    end: Timestamp,
    rows: Vec<Row>,
}

/// A sample: stack, labels, weight in samples and in nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Row {
    stack: StackId,
    labels: LabelsId,
    count: i64,
    nanos: i64,
}

impl Store {
    /// An empty history of at most `cap` bytes.
    pub(crate) fn new(cap: usize, period: Duration) -> Self {
        let tier =
            |length: Duration, keep: Duration| Tier { length, keep, buckets: VecDeque::new() };
        let minutes = |n: u64| Duration::from_secs(n * 60);
        Self {
            cap,
            period,
            stacks: StackTable::new(),
            labels: LabelTable::new(),
            tiers: [
                tier(FINE, minutes(15)),
                tier(minutes(1), minutes(2 * 60)),
                tier(minutes(10), minutes(24 * 60)),
            ],
            other: None,
        }
    }

    /// Another period, for the profiles to come.
    pub(crate) fn set_period(&mut self, period: Duration) {
        self.period = period;
    }

    /// Adds what was sampled from `start` to `end`. The bucket is that of `start`: a window that
    /// is pushed may not cross from one bucket into the next.
    pub(crate) fn push(&mut self, profile: &Profile, start: Timestamp, end: Timestamp) {
        let rows = self.adopt(profile);
        let bucket = self.tiers[0].bucket_at(start, end);
        merge_rows(&mut bucket.rows, rows);
        self.age(end);
        self.fit();
    }

    /// What was sampled in the buckets that touch the window, and the true window of these.
    pub(crate) fn query(&self, query: &Query) -> Result<Profile, Error> {
        if query.from > query.to {
            return Err(Error::Query {
                field: "from",
                value: query.from.unix_millis().to_string(),
                allowed: format!("a moment not after `to` ({} ms)", query.to.unix_millis()),
            });
        }
        let mut profile = Profile::cpu(self.period);
        let mut adopted = Adopted::default();
        let mut labels: FxHashMap<LabelsId, Option<LabelsId>> = FxHashMap::default();
        let mut window: Option<(Timestamp, Timestamp)> = None;
        for bucket in self.buckets().filter(|b| b.start < query.to && b.end > query.from) {
            let (start, end) = window.unwrap_or((bucket.start, bucket.end));
            window = Some((start.min(bucket.start), end.max(bucket.end)));
            for row in &bucket.rows {
                let wanted = *labels.entry(row.labels).or_insert_with(|| {
                    let set = self.labels.get(row.labels);
                    matches(set, &query.labels).then(|| profile.labels.intern(set))
                });
                let Some(labels) = wanted else { continue };
                let stack = profile.stacks.adopt(&self.stacks, row.stack, &mut adopted);
                profile.add(stack, labels, &[row.count, row.nanos]);
            }
        }
        if let Some((start, end)) = window {
            (profile.start, profile.duration) = (start, end.since(start));
        }
        Ok(profile)
    }

    /// The values that a label has had, sorted.
    pub(crate) fn label_values(&self, key: &str) -> Vec<String> {
        let used: std::collections::BTreeSet<&str> = self
            .buckets()
            .flat_map(|bucket| &bucket.rows)
            .filter_map(|row| self.labels.get(row.labels).get(key))
            .collect();
        used.into_iter().map(str::to_owned).collect()
    }

    /// What is held.
    pub(crate) fn history(&self) -> History {
        let mut totals: Vec<_> = self
            .buckets()
            .map(|b| {
                let total = b.rows.iter().fold(0i64, |sum, row| sum.saturating_add(row.nanos));
                (b.start, b.end.since(b.start), total)
            })
            .collect();
        totals.sort();
        History {
            start: totals.first().map(|t| t.0),
            end: totals.last().map(|t| t.0.after(t.1)),
            buckets: totals.len(),
            bytes: self.bytes(),
            cap_bytes: self.cap,
            totals,
        }
    }

    /// The memory in use, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let rows: usize = self
            .buckets()
            .map(|b| b.rows.capacity() * size_of::<Row>() + size_of::<Bucket>())
            .sum();
        rows + self.stacks.bytes() + self.labels.bytes()
    }

    fn buckets(&self) -> impl Iterator<Item = &Bucket> {
        self.tiers.iter().rev().flat_map(|tier| &tier.buckets)
    }

    /// A profile's samples as rows of this store.
    fn adopt(&mut self, profile: &Profile) -> Vec<Row> {
        let mut adopted = Adopted::default();
        let mut rows = Vec::with_capacity(profile.len());
        for (sample, values) in profile.samples() {
            let (count, nanos) = (values.first().copied(), values.get(1).copied());
            // A burst of new stacks must not take more than their share before anything can be
            // forgotten: what is beyond it keeps its time and its labels, not its stack.
            let stack = if self.stacks.bytes() > self.cap / 2 {
                COUNTERS.add(Counter::StacksRefused, 1);
                self.other_stack()
            } else {
                self.stacks.adopt(&profile.stacks, sample.stack, &mut adopted)
            };
            rows.push(Row {
                stack,
                labels: self.labels.intern(profile.labels.get(sample.labels)),
                count: count.unwrap_or(0),
                nanos: nanos.unwrap_or(0),
            });
        }
        rows
    }

    fn other_stack(&mut self) -> StackId {
        if let Some(other) = self.other {
            return other;
        }
        let module = Module { path: "[other stacks]".into(), ..Module::default() };
        let module = self.stacks.module(&Arc::new(module));
        let location = self.stacks.location(Location::new(0, Some(module)));
        let other = self.stacks.push(StackId::EMPTY, location);
        self.other = Some(other);
        other
    }

    /// Hands what is old on to the next tier, and drops what is older than the last one keeps.
    fn age(&mut self, now: Timestamp) {
        for tier in 0..self.tiers.len() {
            let oldest = now.before(self.tiers[tier].keep);
            while let Some(bucket) = self.tiers[tier].buckets.pop_front_if_before(oldest) {
                if let Some(next) = self.tiers.get_mut(tier + 1) {
                    let into = next.bucket_at(bucket.start, bucket.end);
                    merge_rows(&mut into.rows, bucket.rows);
                }
            }
        }
    }

    /// Gets back under the cap: forgets unused stacks, then drops the oldest buckets.
    fn fit(&mut self) {
        if self.bytes() <= self.cap && self.stacks.bytes() <= self.cap / 2 {
            return;
        }
        self.compact();
        // Down to three quarters, so that the next bucket does not end here again.
        while self.bytes() > self.cap / 4 * 3 || self.stacks.bytes() > self.cap / 8 * 3 {
            let last = self.buckets().count() <= 1;
            let oldest = self.tiers.iter_mut().rev().find(|tier| !tier.buckets.is_empty());
            let Some(tier) = oldest else { break };
            if last {
                if !self.coarsen() {
                    break;
                }
            } else {
                // Half of a tier at a time: each compaction copies what is left.
                let drop = (tier.buckets.len() / 2).max(1);
                tier.buckets.drain(..drop);
                COUNTERS.add(Counter::HistoryEvicted, drop as u64);
            }
            self.compact();
        }
    }

    /// Takes the stacks from the lighter half of the only bucket's samples; whether there were any.
    fn coarsen(&mut self) -> bool {
        let other = self.other_stack();
        let Some(bucket) = self.tiers.iter_mut().find_map(|tier| tier.buckets.back_mut()) else {
            return false;
        };
        let mut rows = std::mem::take(&mut bucket.rows);
        rows.sort_by_key(|row| std::cmp::Reverse(row.nanos));
        let mut light = rows.split_off(rows.len() / 2);
        light.iter_mut().for_each(|row| row.stack = other);
        let refused = light.len();
        bucket.rows = rows;
        merge_rows(&mut bucket.rows, light);
        COUNTERS.add(Counter::StacksRefused, refused as u64);
        bucket.rows.len() > 1
    }

    /// Rebuilds the tables with just what the buckets use.
    fn compact(&mut self) {
        let (mut stacks, mut labels) = (StackTable::new(), LabelTable::new());
        let mut adopted = Adopted::default();
        for tier in &mut self.tiers {
            tier.buckets.shrink_to_fit();
            for bucket in &mut tier.buckets {
                bucket.rows.shrink_to_fit();
                for row in &mut bucket.rows {
                    row.stack = stacks.adopt(&self.stacks, row.stack, &mut adopted);
                    row.labels = labels.intern(self.labels.get(row.labels));
                }
            }
        }
        (self.stacks, self.labels, self.other) = (stacks, labels, None);
        COUNTERS.add(Counter::HistoryCompacted, 1);
    }
}

impl Tier {
    /// The bucket that a window belongs to, made if it is new. Windows come in order; a clock
    /// that was set back goes on filling the newest bucket.
    fn bucket_at(&mut self, start: Timestamp, end: Timestamp) -> &mut Bucket {
        let number = |at: Timestamp| at.unix_nanos().div_euclid(self.length.as_nanos() as i64);
        let same = self.buckets.back().is_some_and(|last| number(last.start) >= number(start));
        if !same {
            self.buckets.push_back(Bucket { start, end, rows: Vec::new() });
        }
        // There is at least the one that was pushed.
        let last = self.buckets.len() - 1;
        let bucket = &mut self.buckets[last];
        bucket.end = bucket.end.max(end);
        bucket
    }
}

trait PopIfBefore {
    fn pop_front_if_before(&mut self, moment: Timestamp) -> Option<Bucket>;
}

impl PopIfBefore for VecDeque<Bucket> {
    fn pop_front_if_before(&mut self, moment: Timestamp) -> Option<Bucket> {
        if self.front()?.end <= moment { self.pop_front() } else { None }
    }
}

fn matches(labels: &Labels, wanted: &[(String, String)]) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Adds rows to a bucket, summing those of the same stack and labels.
fn merge_rows(into: &mut Vec<Row>, rows: Vec<Row>) {
    let mut index: FxHashMap<(StackId, LabelsId), usize> =
        into.iter().enumerate().map(|(i, row)| ((row.stack, row.labels), i)).collect();
    for row in rows {
        match index.get(&(row.stack, row.labels)) {
            Some(i) => {
                into[*i].count = into[*i].count.saturating_add(row.count);
                into[*i].nanos = into[*i].nanos.saturating_add(row.nanos);
            }
            None => {
                index.insert((row.stack, row.labels), into.len());
                into.push(row);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_millis(seconds * 1000)
    }

    fn profile(stacks: &[(&[u64], i64)]) -> Profile {
        let mut p = Profile::cpu(Duration::from_millis(10));
        for (addresses, nanos) in stacks {
            let ids: Vec<_> =
                addresses.iter().map(|a| p.stacks.location(Location::new(*a, None))).collect();
            let stack = p.stacks.intern(ids);
            let labels = p.labels.intern(&Labels::EMPTY.with("thread", &format!("t{nanos}")));
            p.add(stack, labels, &[1, *nanos]);
        }
        p
    }

    fn push(store: &mut Store, second: i64, stacks: &[(&[u64], i64)]) {
        store.push(&profile(stacks), at(second), at(second + 10));
    }

    fn total(store: &Store, from: i64, to: i64) -> i64 {
        store.query(&Query::new(ProfileType::Cpu).from(at(from)).to(at(to))).unwrap().total(1)
    }

    #[test]
    fn any_window_can_be_asked_for_and_the_answer_says_which_it_is() {
        let mut store = Store::new(1 << 20, FINE);
        for i in 0..6 {
            push(&mut store, i * 10, &[(&[1, 2], 1 << i)]);
        }
        assert_eq!(total(&store, 0, 60), 63);
        assert_eq!(total(&store, 10, 30), 2 + 4);
        let touched = store.query(&Query::new(ProfileType::Cpu).from(at(15)).to(at(25))).unwrap();
        assert_eq!((touched.total(1), touched.start, touched.duration.as_secs()), (6, at(10), 20));
        assert_eq!(total(&store, 100, 200), 0);
        let error = store.query(&Query::new(ProfileType::Cpu).from(at(9)).to(at(5))).unwrap_err();
        assert!(error.to_string().contains("from"), "{error}");
    }

    #[test]
    fn labels_filter() {
        let mut store = Store::new(1 << 20, FINE);
        push(&mut store, 0, &[(&[1], 3), (&[1], 4)]);
        let only = store.query(&Query::new(ProfileType::Cpu).label("thread", "t4")).unwrap();
        assert_eq!((only.len(), only.total(1)), (1, 4));
        assert_eq!(store.label_values("thread"), ["t3", "t4"]);
        assert!(store.query(&Query::new(ProfileType::Cpu).label("x", "t4")).unwrap().is_empty());
    }

    #[test]
    fn a_day_keeps_its_sums_while_buckets_coarsen() {
        let mut store = Store::new(16 << 20, FINE);
        let day = 24 * 3600;
        for second in (0..day).step_by(10) {
            push(&mut store, second, &[(&[1, (second % 100) as u64], 10)]);
        }
        assert_eq!(total(&store, 0, day), day);
        let history = store.history();
        assert!(history.buckets <= 90 + 121 + 146, "{}", history.buckets);
        assert_eq!((history.start, history.end), (Some(at(0)), Some(at(day))));
        // The last fifteen minutes are still there by ten seconds.
        assert_eq!(total(&store, day - 600, day - 590), 10);
        push(&mut store, 2 * day, &[(&[1], 7)]);
        assert_eq!(total(&store, 0, 3 * day), 7, "a day later the old is gone");
    }

    #[test]
    fn a_million_distinct_stacks_stay_under_the_cap() {
        let cap = 1 << 20;
        let mut store = Store::new(cap, FINE);
        let mut state = 7u64;
        for bucket in 0..50 {
            let mut p = Profile::cpu(FINE);
            for _ in 0..20_000 {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
                let ids: Vec<_> = (0..3)
                    .map(|i| p.stacks.location(Location::new(state >> (i * 16), None)))
                    .collect();
                let stack = p.stacks.intern(ids);
                p.add(stack, LabelsId::EMPTY, &[1, 10]);
            }
            store.push(&p, at(bucket * 10), at(bucket * 10 + 10));
            assert!(store.bytes() <= cap, "{} bytes after bucket {bucket}", store.bytes());
        }
        assert!(total(&store, 490, 500) > 0, "the newest bucket is kept");
    }

    #[test]
    fn a_clock_that_is_set_back_loses_nothing() {
        let mut store = Store::new(1 << 20, FINE);
        push(&mut store, 1000, &[(&[1], 5)]);
        push(&mut store, 500, &[(&[1], 6)]);
        assert_eq!(total(&store, 0, 2000), 11);
    }
}
