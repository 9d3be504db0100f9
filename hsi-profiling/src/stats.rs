//! What was taken, and every loss by its reason.
//!
//! The counters are process-wide and never reset, so that a reader can subtract two readings.
//! Handlers add to them; nothing here is read by the sampler to make a decision.

use crate::sync::{AtomicU64, Ordering};
use std::time::Duration;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Counter {
    // The first three are added to by nearly every handler, and share a cache line; see `Counters`.
    /// Signals that reached the handler.
    Signals,
    /// Records that were committed to a ring.
    Recorded,
    /// Time in the handler, in ticks of the processor's counter.
    HandlerTicks,
    /// Signals that were not from a timer of ours.
    Foreign,
    /// Signals after the run that armed their timer had ended.
    Late,
    /// Signals of the process's timer in a thread that has its own.
    Covered,
    /// Signals of a thread's timer that reached another thread, or none we know.
    Stale,
    /// Samples for which every ring that was tried was claimed.
    RingBusy,
    /// Samples for which the ring had no room.
    RingFull,
    /// CPU time of the two above, in nanoseconds.
    LostNanos,
    /// CPU time that was merged into a sample beyond what one may stand for, in nanoseconds.
    MergedNanos,
    /// The same, of threads without a timer of their own.
    MergedUntimedNanos,
    /// Threads that got no timer because there were as many as allowed.
    TimerCap,
    /// Timers that the kernel refused.
    TimerErrors,
    /// Label sets that were not kept because there were as many as allowed, or were not valid.
    LabelsRefused,
    /// Samples that kept their time but not their stack, because the history had no room for it.
    StacksRefused,
    /// Weighted CPU time that was handed on, in nanoseconds.
    SampledNanos,
    /// CPU time of the process while samples were taken, in nanoseconds.
    ProcessNanos,
    /// CPU time of the profiler's thread, in nanoseconds.
    OwnNanos,
    /// Functions whose unwind information could not be parsed.
    BrokenCfi,
    /// Times that the rate was lowered to stay under the budget.
    Governed,
    /// Times that the list of modules was read anew.
    ModuleScans,
    /// Buckets of the history that were dropped early to stay under the cap on bytes.
    HistoryEvicted,
    /// Times that the store forgot stacks and labels that nothing used any more.
    HistoryCompacted,
}

const COUNTERS_LENGTH: usize = Counter::HistoryCompacted as usize + 1;
const ENDS: usize = 5;

/// The process's counters.
///
/// What every handler adds to is in one cache line, which travels between the processors: the five
/// ends and the first three counts.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Counters {
    ends: [AtomicU64; ENDS],
    counts: [AtomicU64; COUNTERS_LENGTH],
    #[cfg(feature = "bench-internals")]
    times: [AtomicU64; TIMES],
}

/// Sixteen buckets for each power of two.
#[cfg(feature = "bench-internals")]
const TIMES: usize = 64 * 16;

/// The process's counters.
pub(crate) static COUNTERS: Counters = Counters {
    counts: [const { AtomicU64::new(0) }; COUNTERS_LENGTH],
    ends: [const { AtomicU64::new(0) }; ENDS],
    #[cfg(feature = "bench-internals")]
    times: [const { AtomicU64::new(0) }; TIMES],
};

impl Counters {
    /// Adds to a counter. Safe in a signal handler.
    #[inline]
    pub(crate) fn add(&self, counter: Counter, count: u64) {
        if let Some(sum) = self.counts.get(counter as usize) {
            sum.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Counts a walk by how it ended. Safe in a signal handler.
    #[inline]
    pub(crate) fn add_end(&self, end: usize) {
        if let Some(sum) = self.ends.get(end) {
            sum.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes how many ticks a handler took that recorded a sample; for benches, else nothing.
    /// Safe in a signal handler.
    #[inline]
    pub(crate) fn note_time(&self, ticks: u64) {
        #[cfg(feature = "bench-internals")]
        if let Some(sum) = self.times.get(bucket_of(ticks)) {
            sum.fetch_add(1, Ordering::Relaxed);
        }
        #[cfg(not(feature = "bench-internals"))]
        let _ = ticks;
    }

    /// What [`Counters::note_time`] has noted: for each bucket its middle, in ticks, and how many.
    #[cfg(feature = "bench-internals")]
    pub(crate) fn times(&self) -> Vec<(u64, u64)> {
        let middle = |bucket: usize| (33 + 2 * (bucket as u64 % 16)) << (bucket / 16) >> 5;
        let read =
            |(bucket, sum): (usize, &AtomicU64)| (middle(bucket), sum.load(Ordering::Relaxed));
        self.times.iter().enumerate().map(read).collect()
    }

    /// Reads a counter.
    pub(crate) fn get(&self, counter: Counter) -> u64 {
        self.counts.get(counter as usize).map_or(0, |sum| sum.load(Ordering::Relaxed))
    }

    /// How many walks ended so.
    pub(crate) fn end(&self, end: usize) -> u64 {
        self.ends.get(end).map_or(0, |sum| sum.load(Ordering::Relaxed))
    }
}

/// The power of two, and the four bits after the first.
#[cfg(feature = "bench-internals")]
#[inline]
fn bucket_of(ticks: u64) -> usize {
    let ticks = ticks.max(16);
    let power = 63 - ticks.leading_zeros();
    power as usize * 16 + (ticks >> (power - 4) & 15) as usize
}

/// A reading of the profiler's own numbers.
///
/// Counts and times are totals since the process began to be profiled, and never become less; subtract
/// two readings to get those of an interval. `recorded + lost_ring_full + lost_ring_busy + foreign + late +
/// covered + stale = signals`, exactly, when no handler is at work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Samples a second of CPU time that are taken now, for each thread: what was asked for, or
    /// less where the budget wants it.
    pub cpu_hz: u64,
    /// Times that the rate was lowered to stay under the budget.
    pub governed: u64,
    /// Signals that reached the handler.
    pub signals: u64,
    /// Samples that were taken.
    pub recorded: u64,
    /// Signals that were not from a timer of ours; they went to the handler that was there
    /// before, or were swallowed.
    pub foreign: u64,
    /// Signals that came after sampling had stopped.
    pub late: u64,
    /// Signals of the process's timer in threads that have their own timer. No loss.
    pub covered: u64,
    /// Signals of a thread's timer that reached another thread.
    pub stale: u64,
    /// Samples lost because their ring was full.
    pub lost_ring_full: u64,
    /// Samples lost because other threads were writing to every ring that was tried.
    pub lost_ring_busy: u64,
    /// Walks that reached the outermost frame.
    pub unwound: u64,
    /// Walks that were cut at the deepest frame that is kept.
    pub stack_cut: u64,
    /// Walks that ended in code without unwind information.
    pub no_unwind_info: u64,
    /// Walks that ended at a rule that the walker does not do.
    pub unsupported_rule: u64,
    /// Walks that ended at an address outside the stack.
    pub bad_address: u64,
    /// Threads that have a timer of their own now.
    pub timers: u64,
    /// Times that a thread got no timer of its own because there were as many as allowed; the
    /// process's timer goes on covering it.
    pub timer_cap: u64,
    /// Timers that the kernel refused.
    pub timer_errors: u64,
    /// Threads that were last seen with the signal blocked: they can't be sampled.
    pub blocked_threads: u64,
    /// Label sets that were refused: too many, or not valid.
    pub labels_refused: u64,
    /// Samples that kept their time but not their stack, because the history had no room for it.
    pub stacks_refused: u64,
    /// Functions whose unwind information could not be parsed.
    pub broken_cfi: u64,
    /// CPU time of the process while sampling was on.
    pub process_cpu: Duration,
    /// CPU time that samples stand for.
    pub sampled_cpu: Duration,
    /// CPU time of samples that were lost, for any of the reasons above.
    pub lost_cpu: Duration,
    /// CPU time that threads used with the signal blocked, found when they let it through.
    pub merged_cpu: Duration,
    /// Time in the handler.
    pub handler_time: Duration,
    /// CPU time of the profiler's own threads.
    pub own_cpu: Duration,
    /// Memory of the history, with its stacks and labels, in bytes.
    pub history_bytes: u64,
    /// Memory of the symbol cache, in bytes.
    pub symbol_bytes: u64,
    /// Memory of the unwind tables, in bytes.
    pub table_bytes: u64,
    /// Memory set aside for the rings, in bytes; touched only as they fill.
    pub ring_bytes: u64,
    /// Buckets of the history that were dropped early to stay under the cap on bytes.
    pub history_evicted: u64,
}

impl Stats {
    /// What is left of the process's CPU time when what was sampled and what was lost are taken
    /// away, in nanoseconds: threads that block the signal, and the chance of sampling (which may
    /// make it negative).
    #[must_use]
    pub fn residual_nanos(&self) -> i64 {
        let nanos = |d: Duration| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX);
        nanos(self.process_cpu)
            .saturating_sub(nanos(self.sampled_cpu))
            .saturating_sub(nanos(self.lost_cpu))
            .saturating_sub(nanos(self.merged_cpu))
    }

    /// Every reason for which samples or time were lost or cut, with its count; zeroes included.
    #[must_use]
    pub fn losses(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("ring full", self.lost_ring_full),
            ("ring busy", self.lost_ring_busy),
            ("after stop", self.late),
            ("wrong thread", self.stale),
            ("stack cut", self.stack_cut),
            ("no unwind information", self.no_unwind_info),
            ("unsupported unwind rule", self.unsupported_rule),
            ("address outside the stack", self.bad_address),
            ("timer cap", self.timer_cap),
            ("timer refused", self.timer_errors),
            ("signal blocked (threads)", self.blocked_threads),
            ("labels refused", self.labels_refused),
            ("stacks refused", self.stacks_refused),
            ("history evicted early (buckets)", self.history_evicted),
        ]
    }

    /// Fills in what the counters know.
    pub(crate) fn of(counters: &Counters) -> Self {
        let nanos = |counter| Duration::from_nanos(counters.get(counter));
        Self {
            governed: counters.get(Counter::Governed),
            signals: counters.get(Counter::Signals),
            recorded: counters.get(Counter::Recorded),
            foreign: counters.get(Counter::Foreign),
            late: counters.get(Counter::Late),
            covered: counters.get(Counter::Covered),
            stale: counters.get(Counter::Stale),
            lost_ring_full: counters.get(Counter::RingFull),
            lost_ring_busy: counters.get(Counter::RingBusy),
            unwound: counters.end(0),
            stack_cut: counters.end(1),
            no_unwind_info: counters.end(2),
            unsupported_rule: counters.end(3),
            bad_address: counters.end(4),
            timer_cap: counters.get(Counter::TimerCap),
            timer_errors: counters.get(Counter::TimerErrors),
            labels_refused: counters.get(Counter::LabelsRefused),
            stacks_refused: counters.get(Counter::StacksRefused),
            broken_cfi: counters.get(Counter::BrokenCfi),
            sampled_cpu: nanos(Counter::SampledNanos),
            lost_cpu: nanos(Counter::LostNanos),
            own_cpu: nanos(Counter::OwnNanos),
            merged_cpu: nanos(Counter::MergedNanos) + nanos(Counter::MergedUntimedNanos),
            history_evicted: counters.get(Counter::HistoryEvicted),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "bench-internals")]
    #[test]
    fn times_fall_into_buckets_that_say_how_long_they_were() {
        let counters = Counters {
            counts: [const { AtomicU64::new(0) }; COUNTERS_LENGTH],
            ends: [const { AtomicU64::new(0) }; ENDS],
            times: [const { AtomicU64::new(0) }; TIMES],
        };
        for ticks in [16, 1000, 12_345, 1 << 40] {
            counters.note_time(ticks);
            let (middle, _) = counters.times().into_iter().rfind(|(_, count)| *count > 0).unwrap();
            assert!(middle.abs_diff(ticks) * 30 <= ticks, "{ticks} is counted as {middle}");
        }
        counters.note_time(0);
        counters.note_time(u64::MAX);
        assert_eq!(counters.times().iter().map(|(_, count)| count).sum::<u64>(), 6);
    }

    #[test]
    fn what_is_left_is_stated_with_its_sign() {
        let mut stats = Stats { process_cpu: Duration::from_nanos(100), ..Stats::default() };
        stats.sampled_cpu = Duration::from_nanos(70);
        stats.lost_cpu = Duration::from_nanos(10);
        assert_eq!(stats.residual_nanos(), 20);
        stats.sampled_cpu = Duration::from_nanos(120);
        assert_eq!(stats.residual_nanos(), -30);
    }
}
