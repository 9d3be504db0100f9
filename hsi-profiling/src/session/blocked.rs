//! Threads that block the signal: they can't be sampled, and that must be said. Their clocks make
//! them suspects, their masks in /proc are the proof.

use crate::{capture::Slots, sys};
use rustc_hash::FxHashMap;
use std::time::{Duration, Instant};

/// What is known of them.
#[derive(Debug)]
pub(super) struct Blocked {
    /// CPU time of threads with a timer since their last sample, in nanoseconds.
    unsampled: FxHashMap<u32, u64>,
    /// The threads that blocked the signal when they were last looked at.
    threads: FxHashMap<u32, Thread>,
    /// When all threads without a timer may be looked at again: there may be thousands.
    next_look: Instant,
    pause: Duration,
}

#[derive(Debug)]
struct Thread {
    /// Its CPU clock when it was last looked at, in nanoseconds.
    cpu: u64,
    /// Whether it is known to use CPU time so. Others block all signals for a moment, as the C
    /// library does in a thread that starts, ends or starts another, or only ever wait for some.
    proven: bool,
    /// Since when it has been looked at.
    since: Instant,
}

/// What a look at the threads has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Looked {
    /// Nothing new.
    Nothing,
    /// A thread without a timer may use CPU time with the signal blocked; the next look will tell.
    Suspect,
    /// A thread without a timer does.
    Found,
}

/// A thread with a timer is a suspect after so much CPU time without a sample, and some periods.
const SUSPICIOUS: Duration = Duration::from_millis(100);
/// A thread without a timer is one if it has used so much in its life, in nanoseconds.
const PLAUSIBLE: u64 = 5_000_000;
/// So much CPU time with the signal blocked is the proof, in nanoseconds.
const PROOF: u64 = 5_000_000;
/// A suspect that used none in this time only waits.
const TRIAL: Duration = Duration::from_secs(1);
/// The most masks that are read in one go.
const MOST_LOOKS: usize = 256;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

impl Blocked {
    pub(super) fn new() -> Self {
        Self {
            unsampled: FxHashMap::default(),
            threads: FxHashMap::default(),
            next_look: Instant::now(),
            pause: FIRST_PAUSE,
        }
    }

    /// How many threads used CPU time with the signal blocked when they were last looked at.
    pub(super) fn count(&self) -> usize {
        self.threads.values().filter(|thread| thread.proven).count()
    }

    /// Notes what a thread with a timer used since this was last called for it, in nanoseconds,
    /// and whether it was sampled meanwhile.
    pub(super) fn note(&mut self, tid: u32, used: u64, sampled: bool) {
        if sampled {
            self.unsampled.remove(&tid);
        } else if used > 0 {
            *self.unsampled.entry(tid).or_default() += used;
        }
    }

    /// Forgets a thread that is dead.
    pub(super) fn forget(&mut self, tid: u32) {
        self.unsampled.remove(&tid);
        self.threads.remove(&tid);
    }

    /// What the known ones without a timer used since this was last asked, in nanoseconds. It is
    /// accounted for by that: no later sample of theirs will stand for it.
    pub(super) fn used_without_timer(&mut self) -> u64 {
        let mut sum = 0;
        for (tid, thread) in self.threads.iter_mut().filter(|(_, thread)| thread.proven) {
            let Some(now) = cpu(*tid) else { continue };
            let used = now.saturating_sub(std::mem::replace(&mut thread.cpu, now));
            sum += match Slots::all().find(*tid) {
                Some((_, slot)) if slot.timer().is_some() => 0,
                Some((_, slot)) => slot.cpu_since_read(now),
                None => used,
            };
        }
        sum
    }

    /// Looks at the masks of all suspects; with `others`, at those of threads without a timer
    /// too, if that was not done just now.
    pub(super) fn look(&mut self, signal: i32, period: Duration, others: bool) -> Looked {
        let blocks = |tid: u32| sys::signal_blocked(tid, signal) == Some(true);
        let mut looked = Looked::Nothing;
        self.threads.retain(|tid, thread| {
            if !blocks(*tid) {
                return false;
            }
            if !thread.proven {
                let used = cpu(*tid).unwrap_or_default().saturating_sub(thread.cpu);
                thread.proven = used >= PROOF;
                looked = if thread.proven { Looked::Found } else { looked };
                return used > 0 || thread.since.elapsed() < TRIAL;
            }
            true
        });
        let threshold = (SUSPICIOUS + 3 * period).as_nanos() as u64;
        let suspects = self.unsampled.iter_mut().filter(|(_, unsampled)| **unsampled >= threshold);
        for (tid, unsampled) in suspects.take(MOST_LOOKS) {
            *unsampled = 0;
            if blocks(*tid) {
                let cpu = cpu(*tid).unwrap_or_default();
                self.threads.insert(*tid, Thread { cpu, proven: true, since: Instant::now() });
            }
        }
        if others && Instant::now() >= self.next_look {
            let mut unknown = sys::threads();
            unknown.retain(|tid| {
                let slot = Slots::all().find(*tid);
                let untimed = slot.is_none_or(|(_, slot)| slot.timer().is_none());
                untimed && !self.threads.contains_key(tid)
            });
            for tid in unknown.into_iter().take(MOST_LOOKS) {
                if let Some(cpu) = cpu(tid).filter(|cpu| *cpu >= PLAUSIBLE && blocks(tid)) {
                    self.threads.insert(tid, Thread { cpu, proven: false, since: Instant::now() });
                }
            }
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
            self.next_look = Instant::now() + self.pause;
        }
        if looked == Looked::Found {
            self.pause = SHORTEST_PAUSE;
        } else if self.threads.values().any(|thread| !thread.proven) {
            looked = Looked::Suspect;
        }
        looked
    }
}

fn cpu(tid: u32) -> Option<u64> {
    sys::thread_cpu(tid).map(|cpu| cpu.as_nanos() as u64)
}
