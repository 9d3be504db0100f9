//! Records in, a [`Profile`] out: interned and added up.
//!
//! Samples of threads without a timer of their own are kept apart until the account is settled:
//! what they stand for is known only then. Such a sample stands for what its thread is known to
//! have used since it was last seen, and for a share of what was used by threads that were born
//! and died unseen.

use crate::{
    capture::{End, Record},
    profile::{
        Adopted, Labels, LabelsId, Location, LocationId, Module, Profile, StackId, Unit, ValueType,
    },
    stats::{COUNTERS, Counter},
};
use rustc_hash::FxHashMap;
use std::{sync::Arc, time::Duration};

/// The window that is being filled.
#[derive(Debug)]
pub(crate) struct Aggregator {
    timed: Profile,
    untimed: Profile,
    modules: Vec<Arc<Module>>,
    /// The first module of every profile.
    program: Option<Arc<Module>>,
    locations: [FxHashMap<u64, LocationId>; 2],
    labels: [FxHashMap<(u32, [u64; 2]), LabelsId>; 2],
    ends: Vec<Arc<Module>>,
    /// CPU time that samples of threads with a timer stand for, by thread, since it was last
    /// taken; nanoseconds.
    by_thread: FxHashMap<u32, u64>,
    untimed_sums: UntimedSums,
    met_untimed: bool,
}

/// What samples of threads without a timer say, in nanoseconds of CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct UntimedSums {
    /// What the threads are known to have used.
    pub(crate) past: u64,
    /// The periods of the process's timer that fell on them.
    pub(crate) weight: u64,
}

impl Aggregator {
    /// An empty window.
    pub(crate) fn new(period: Duration) -> Self {
        let end = |name: &str| Arc::new(Module { path: name.into(), ..Module::default() });
        Self {
            timed: Profile::cpu(period),
            untimed: untimed(period),
            modules: Vec::new(),
            program: None,
            locations: Default::default(),
            labels: Default::default(),
            // By the number of the `End`; the first, a complete stack, has no marker.
            ends: vec![
                end(""),
                end("[stack cut]"),
                end("[no unwind information]"),
                end("[unsupported unwind rule]"),
                end("[address outside the stack]"),
            ],
            by_thread: FxHashMap::default(),
            untimed_sums: UntimedSums::default(),
            met_untimed: false,
        }
    }

    /// The modules that addresses lie in from now on, the program first.
    pub(crate) fn set_modules(&mut self, mut modules: Vec<Arc<Module>>) {
        self.program = modules.first().map(Arc::clone);
        for profile in [&mut self.timed, &mut self.untimed] {
            self.program.iter().for_each(|program| _ = profile.stacks.module(program));
        }
        modules.sort_by_key(|module| module.start);
        self.modules = modules;
        self.locations.iter_mut().for_each(FxHashMap::clear);
    }

    /// Adds a sample. `labels_of` gives the process's label sets; it is asked once for each set
    /// and thread in a window, so that whoever sets a label seldom has to wait for it.
    pub(crate) fn add(&mut self, record: &Record<'_>, labels_of: impl Fn(LabelsId) -> Labels) {
        let part = usize::from(record.untimed);
        let profile = if record.untimed { &mut self.untimed } else { &mut self.timed };
        let locations = &mut self.locations[part];
        let mut stack = StackId::EMPTY;
        if record.end != End::Complete {
            // A stack that is not whole hangs from a marker, so that it neither looks like a
            // thread's root nor hides among those that are.
            let module = profile.stacks.module(&self.ends[record.end as usize]);
            let marker = profile.stacks.location(Location::new(0, Some(module)));
            stack = profile.stacks.push(stack, marker);
        }
        for address in record.addresses.iter().rev() {
            let location = *locations.entry(*address).or_insert_with(|| {
                let module = module_of(&self.modules, *address);
                let module = module.map(|module| profile.stacks.module(module));
                profile.stacks.location(Location::new(*address, module))
            });
            stack = profile.stacks.push(stack, location);
        }
        let labels =
            *self.labels[part].entry((record.labels, record.thread.0)).or_insert_with(|| {
                let labels = labels_of(LabelsId::from_raw(record.labels));
                let thread = record.thread.to_text();
                profile.labels.intern(&labels.with(Labels::THREAD, &thread))
            });
        let nanos = u64::from(record.weight) * u64::from(record.period);
        let past = u64::from(record.past_micros) * 1000;
        let values = [i64::from(record.weight), nanos as i64, past as i64];
        if record.untimed {
            profile.add(stack, labels, &values);
            self.met_untimed = true;
            self.untimed_sums.weight += nanos;
            self.untimed_sums.past += past;
        } else {
            profile.add(stack, labels, &values[..2]);
            *self.by_thread.entry(record.tid).or_default() += nanos;
        }
    }

    /// What the samples of each thread with a timer stand for since this was last asked, and
    /// those of all threads without; nanoseconds.
    pub(crate) fn take_sums(&mut self) -> (FxHashMap<u32, u64>, UntimedSums) {
        (std::mem::take(&mut self.by_thread), std::mem::take(&mut self.untimed_sums))
    }

    /// Whether there was a sample of a thread without a timer since this was last asked.
    pub(crate) fn take_met_untimed(&mut self) -> bool {
        std::mem::take(&mut self.met_untimed)
    }

    /// Joins the samples of threads without a timer to the rest: each stands for the known past
    /// of its thread, and for `share` of the periods that fell on it.
    pub(crate) fn settle(&mut self, share: f64) {
        if self.untimed.is_empty() {
            return;
        }
        let period = Duration::from_nanos(self.timed.period.unsigned_abs());
        let untimed = std::mem::replace(&mut self.untimed, untimed(period));
        let mut adopted = Adopted::default();
        for (sample, values) in untimed.samples() {
            let [count, weight, past] = *values else { continue };
            let stack = self.timed.stacks.adopt(&untimed.stacks, sample.stack, &mut adopted);
            let labels = self.timed.labels.intern(untimed.labels.get(sample.labels));
            let nanos = past.saturating_add((weight as f64 * share).round() as i64);
            self.timed.add(stack, labels, &[count, nanos]);
        }
        self.locations[1].clear();
        self.labels[1].clear();
    }

    /// Takes what was settled.
    pub(crate) fn take(&mut self) -> Profile {
        let empty = self.empty();
        let profile = std::mem::replace(&mut self.timed, empty);
        self.locations[0].clear();
        self.labels[0].clear();
        COUNTERS.add(Counter::SampledNanos, u64::try_from(profile.total(NANOS)).unwrap_or(0));
        profile
    }

    /// About how many bytes the window occupies.
    pub(crate) fn bytes(&self) -> usize {
        self.timed.bytes() + self.untimed.bytes()
    }

    fn empty(&self) -> Profile {
        let mut profile = Profile::cpu(Duration::from_nanos(self.timed.period.unsigned_abs()));
        self.program.iter().for_each(|program| _ = profile.stacks.module(program));
        profile
    }

    /// Another period, for the windows to come.
    pub(crate) fn set_period(&mut self, period: Duration) {
        let nanos = i64::try_from(period.as_nanos()).unwrap_or(i64::MAX);
        (self.timed.period, self.untimed.period) = (nanos, nanos);
    }
}

/// The position of `cpu/nanoseconds` in [`Profile::cpu`].
const NANOS: usize = 1;

/// A profile that keeps the past of a sample's thread beside its weight.
fn untimed(period: Duration) -> Profile {
    let mut profile = Profile::cpu(period);
    profile.types.push(ValueType::new("past", Unit::Nanoseconds));
    profile
}

fn module_of(modules: &[Arc<Module>], address: u64) -> Option<&Arc<Module>> {
    let after = modules.partition_point(|module| module.start <= address);
    modules.get(after.checked_sub(1)?).filter(|module| address < module.end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::ThreadName;

    fn record(addresses: &[u64]) -> Record<'_> {
        let name = u64::from_ne_bytes(*b"worker\0\0");
        Record {
            end: End::Complete,
            untimed: false,
            weight: 2,
            period: 10,
            labels: 0,
            tid: 5,
            past_micros: 0,
            thread: ThreadName([name, 0]),
            addresses,
        }
    }

    fn names(profile: &Profile) -> Vec<(Vec<String>, i64)> {
        let name = |id| {
            let (location, module) = profile.stacks.resolve(id).unwrap();
            format!("{}{:x}", module.map_or("", |m| &m.path), location.address)
        };
        profile
            .samples()
            .map(|(s, v)| (profile.stacks.frames(s.stack).map(name).collect(), v[1]))
            .collect()
    }

    #[test]
    fn records_become_labelled_stacks_in_their_modules() {
        let mut aggregator = Aggregator::new(Duration::from_nanos(10));
        let module = Module { path: "m".into(), start: 0x100, end: 0x200, ..Module::default() };
        aggregator.set_modules(vec![Arc::new(module)]);
        aggregator.add(&record(&[0x110, 0x200]), |_| Labels::EMPTY);
        aggregator.add(&record(&[0x110, 0x200]), |_| Labels::EMPTY);
        assert_eq!(aggregator.take_sums().0[&5], 40);
        aggregator.settle(1.0);
        let profile = aggregator.take();
        assert_eq!(names(&profile), [(vec!["m110".to_owned(), "200".to_owned()], 40)]);
        let (sample, _) = profile.samples().next().unwrap();
        assert_eq!(profile.labels.get(sample.labels).get("thread"), Some("worker"));
        assert!(aggregator.take().is_empty());
    }

    #[test]
    fn a_stack_that_is_not_whole_hangs_from_a_marker() {
        let mut aggregator = Aggregator::new(Duration::from_nanos(10));
        aggregator.add(&Record { end: End::Cut, ..record(&[1, 2]) }, |_| Labels::EMPTY);
        aggregator.settle(1.0);
        let want = vec!["1".to_owned(), "2".to_owned(), "[stack cut]0".to_owned()];
        assert_eq!(names(&aggregator.take()), [(want, 20)]);
    }

    #[test]
    fn a_sample_without_a_timer_stands_for_its_past_and_a_share() {
        let mut aggregator = Aggregator::new(Duration::from_nanos(10));
        aggregator.add(&record(&[1]), |_| Labels::EMPTY);
        aggregator
            .add(&Record { untimed: true, past_micros: 3, ..record(&[2]) }, |_| Labels::EMPTY);
        assert_eq!(aggregator.take_sums().1, UntimedSums { past: 3000, weight: 20 });
        aggregator.settle(1.5);
        let mut got = names(&aggregator.take());
        got.sort();
        assert_eq!(got, [(vec!["1".to_owned()], 20), (vec!["2".to_owned()], 3030)]);
    }
}
