//! The CPU sampler: what a timer's signal does, and the state that it works on.
//!
//! Every thread that uses CPU gets a timer on its own CPU clock. Threads are not registered by
//! anyone: a timer on the process's CPU clock fires in whichever thread runs, and that thread,
//! in the handler, gives itself one. The process's timer goes on covering whoever has none.

use super::{
    End, Record, Slot, Slots, Tables,
    ring::{Ring, claim_any},
    walk,
};
use crate::{
    stats::{COUNTERS, Counter},
    sync::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence},
    sys::{self, CpuClock, Interrupt, Interrupted, Published, StackView, Timer, Token},
};
use std::{sync::OnceLock, time::Duration};

/// What a run of the sampler is set to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// Nanoseconds of CPU between two samples of a thread.
    pub(crate) period: u32,
    /// The signal of the timers.
    pub(crate) signal: i32,
    /// The most addresses of a stack that are kept.
    pub(crate) depth: u32,
    /// The most threads that get a timer of their own.
    pub(crate) timers: u32,
    /// Whether threads find themselves; otherwise [`Sampler::arm`] is called for each.
    pub(crate) lazy: bool,
}

/// The state that handlers share with the near side. There is one, made at the first start and
/// never freed: a late signal may always come.
#[derive(Debug)]
pub(crate) struct Sampler {
    rings: Box<[Ring]>,
    tables: Published<Tables>,
    run: AtomicU32,
    armed: AtomicBool,
    period: AtomicU32,
    /// How many periods pass between two expiries of the process's timer.
    sparse: AtomicU32,
    signal: AtomicU32,
    depth: AtomicU32,
    most_timers: AtomicU32,
    timers: AtomicU32,
    lazy: AtomicBool,
    /// Whether every thread that was there at the start has a slot: a thread without one is then
    /// new, and all its CPU time was used since.
    all_known: AtomicBool,
    /// A source of first expiries.
    random: AtomicU64,
    /// The most ticks that a handler is said to have taken.
    longest: AtomicU64,
    /// Whether some slot waits for its stack's bounds.
    unknown_stack: AtomicBool,
}

static SAMPLER: OnceLock<Sampler> = OnceLock::new();

/// The most CPU time that one signal may stand for. More means that the thread had the signal
/// blocked, and then this stack is not where the time went.
const MOST_MERGED: Duration = Duration::from_millis(100);
/// A thread's first signal stands for all that it used before, and may stand for so many periods of
/// the process's timer, which finds threads by chance…
const MOST_PAST_PERIODS: u64 = 10;
/// … but for no more than this, if that is more than a period.
const MOST_PAST: Duration = Duration::from_secs(1);

impl Sampler {
    /// The deepest stack that can be kept: a record must fit in a ring with room to spare.
    pub(crate) const MOST_DEPTH: u32 = 2048;
    const RING_WORDS: usize = 16 * 1024;

    /// The sampler of this process, made now if it was not there.
    pub(crate) fn shared(processors: usize) -> &'static Self {
        SAMPLER.get_or_init(|| {
            // Two for each processor: a writer that is descheduled in the middle of a record
            // leaves another ring for whoever runs next.
            let rings = (processors * 2).clamp(4, 64);
            Self {
                rings: (0..rings).map(|_| Ring::new(Self::RING_WORDS)).collect(),
                tables: Published::new(),
                run: AtomicU32::new(0),
                armed: AtomicBool::new(false),
                period: AtomicU32::new(0),
                sparse: AtomicU32::new(1),
                signal: AtomicU32::new(0),
                depth: AtomicU32::new(0),
                most_timers: AtomicU32::new(0),
                timers: AtomicU32::new(0),
                lazy: AtomicBool::new(true),
                all_known: AtomicBool::new(false),
                random: AtomicU64::new(sys::ticks()),
                // A third of a millisecond at 3 GHz, until the counter's rate is known.
                longest: AtomicU64::new(1 << 20),
                unknown_stack: AtomicBool::new(false),
            }
        })
    }

    /// Near side: begins a run and returns its process timer, armed. Errors are the kernel's.
    pub(crate) fn start(&self, settings: Settings) -> std::io::Result<Option<Timer>> {
        self.period.store(settings.period, Ordering::Relaxed);
        self.sparse.store(1, Ordering::Relaxed);
        self.signal.store(settings.signal as u32, Ordering::Relaxed);
        self.depth.store(settings.depth.clamp(1, Self::MOST_DEPTH), Ordering::Relaxed);
        self.most_timers.store(settings.timers.min(Slots::MOST_TIMERS), Ordering::Relaxed);
        self.lazy.store(settings.lazy, Ordering::Relaxed);
        self.know_threads();
        let run = self.run.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        // A thread that can't have a timer is found out now rather than by an empty profile.
        let token = Token::process(run as u16);
        let timer = Timer::create(CpuClock::Process, settings.signal, token)?;
        // Release: pairs with the Acquire in `on_interrupt`, which sees the settings above.
        self.armed.store(true, Ordering::Release);
        if !settings.lazy {
            timer.delete();
            return Ok(None);
        }
        if let Err(error) = self.arm_timer(timer, settings.period) {
            self.armed.store(false, Ordering::Release);
            timer.delete();
            return Err(error);
        }
        Ok(Some(timer))
    }

    /// Near side: ends a run. The handler stays installed and ignores what still comes.
    pub(crate) fn stop(&self, process: Option<Timer>) {
        // SeqCst: see `Slot::set_timer`.
        self.armed.store(false, Ordering::SeqCst);
        // The search for slots loads their owners, which must not be moved up before the store.
        fence(Ordering::SeqCst);
        if let Some(timer) = process {
            timer.delete();
        }
        for (_, _, slot) in Slots::all().taken() {
            self.delete_timer(slot);
        }
    }

    /// Near side: another period for all timers, in nanoseconds of CPU.
    pub(crate) fn set_period(&self, nanos: u32, process: Option<Timer>) {
        // SeqCst: see `Slot::set_timer`.
        self.period.store(nanos, Ordering::SeqCst);
        // As in `stop`.
        fence(Ordering::SeqCst);
        let timers = Slots::all().taken().filter_map(|(_, _, slot)| slot.timer());
        let process = process.map(|timer| (timer, self.process_period()));
        for (timer, nanos) in timers.map(|timer| (timer, nanos)).chain(process) {
            if self.arm_timer(timer, nanos).is_err() {
                COUNTERS.add(Counter::TimerErrors, 1);
            }
        }
    }

    /// Near side: lets the process's timer expire only every so many periods, from 1. It looks for
    /// new threads and stands in for those without a timer; a signal that finds neither is wasted.
    pub(crate) fn set_sparse(&self, periods: u32, process: Timer) {
        if self.sparse.swap(periods, Ordering::Relaxed) != periods
            && self.arm_timer(process, self.process_period()).is_err()
        {
            COUNTERS.add(Counter::TimerErrors, 1);
        }
    }

    /// The period of the process's timer, in nanoseconds of CPU.
    #[inline]
    fn process_period(&self) -> u32 {
        let sparse = self.sparse.load(Ordering::Relaxed).max(1);
        self.period.load(Ordering::Relaxed).saturating_mul(sparse)
    }

    /// Near side: gives a thread that did not find itself a timer.
    pub(crate) fn arm(&self, tid: u32) {
        if let Some((number, slot)) = Slots::all().take(tid)
            && slot.timer().is_none()
            && self.give_timer(number, slot, CpuClock::Thread(tid))
        {
            // No sample will stand for what it used before.
            slot.cpu_since_read(nanos(sys::thread_cpu(tid).unwrap_or_default()));
        }
    }

    /// Near side: takes a slot's timer away.
    pub(crate) fn delete_timer(&self, slot: &Slot) {
        if let Some(timer) = slot.take_timer() {
            timer.delete();
            self.timers.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Near side: gives a dead thread's slot back, and its timer. Looked for twice: the dead thread's
    /// number may be a new thread's by now, which may have made one meanwhile. That thread, should it
    /// lose its timer by this, makes itself another.
    pub(crate) fn give_back(&self, slot: &Slot) {
        self.delete_timer(slot);
        Slots::all().release(slot);
        self.delete_timer(slot);
    }

    /// Near side: hands every record to `sink`, and returns how full the fullest ring was, in
    /// hundredths.
    pub(crate) fn drain(&self, buffer: &mut Vec<u64>, mut sink: impl FnMut(Record<'_>)) -> u64 {
        let mut each = |words: &[u64]| {
            if let Some(record) = Record::read(words) {
                sink(record);
            }
        };
        self.rings.iter().map(|ring| ring.drain(buffer, &mut each)).max().unwrap_or(0)
    }

    /// Near side: replaces the unwind tables.
    pub(crate) fn publish(&self, tables: Tables) {
        self.tables.publish(Box::new(tables));
    }

    /// Near side: the most ticks that a handler can take. The counter goes on while a thread waits
    /// for a processor, so one that took more was interrupted itself, and its waiting is no cost.
    pub(crate) fn set_longest(&self, ticks: u64) {
        self.longest.store(ticks, Ordering::Relaxed);
    }

    /// Near side: frees replaced tables that no handler uses any more.
    pub(crate) fn reclaim(&self) {
        self.tables.reclaim();
    }

    /// Near side: whether a thread's stack is not known since this was last asked.
    pub(crate) fn met_unknown_stack(&self) -> bool {
        self.unknown_stack.swap(false, Ordering::Relaxed)
    }

    /// How many threads have a timer.
    pub(crate) fn timers(&self) -> u32 {
        self.timers.load(Ordering::Relaxed)
    }

    /// The signal and the value that the timer of a thread carries, for a bench that sends it.
    #[cfg(feature = "bench-internals")]
    pub(crate) fn signal_of(&self, tid: u32) -> Option<(i32, u64)> {
        let (number, slot) = Slots::all().find(tid)?;
        slot.timer()?;
        let token = Token { run: self.run.load(Ordering::Relaxed) as u16, slot: number };
        Some((self.signal.load(Ordering::Relaxed) as i32, token.to_bits()))
    }

    /// The memory of the rings, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.rings.iter().map(Ring::bytes).sum()
    }

    /// Notes the CPU clocks of the threads that are there, so that what they used before is not
    /// taken for what they use from now on.
    fn know_threads(&self) {
        let threads = sys::threads();
        let known = |tid: &u32| {
            let cpu = sys::thread_cpu(*tid).unwrap_or_default();
            Slots::all().know(*tid, nanos(cpu))
        };
        // Every thread is asked for, so this is no `all`, which ends at the first refusal.
        let unknown = threads.iter().filter(|tid| !known(tid)).count();
        self.all_known.store(!threads.is_empty() && unknown == 0, Ordering::Relaxed);
    }

    /// A first expiry, uniform in (0, period], so that a thread that lives shorter than a period
    /// is sampled as often as its CPU time says.
    fn first_expiry(&self, period: Duration) -> Duration {
        // SplitMix64: one addition between callers, the rest is a mix of its result.
        let mut x = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
        let nanos = period.as_nanos() as u64;
        Duration::from_nanos(1 + ((u128::from(x) * u128::from(nanos)) >> 64) as u64)
    }

    /// Makes and arms a timer for a slot; whether that worked.
    fn give_timer(&self, number: u32, slot: &Slot, clock: CpuClock) -> bool {
        if self.timers.fetch_add(1, Ordering::Relaxed) >= self.most_timers.load(Ordering::Relaxed) {
            self.timers.fetch_sub(1, Ordering::Relaxed);
            COUNTERS.add(Counter::TimerCap, 1);
            return false;
        }
        let run = self.run.load(Ordering::Relaxed);
        let period = self.period.load(Ordering::Relaxed);
        let signal = self.signal.load(Ordering::Relaxed) as i32;
        let token = Token { run: run as u16, slot: number };
        let made = Timer::create(clock, signal, token).and_then(|timer| {
            self.arm_timer(timer, period).inspect_err(|_| timer.delete())?;
            Ok(timer)
        });
        match made {
            Ok(timer) => {
                slot.set_timer(timer);
                self.catch_up(slot, timer, run, period)
            }
            Err(_) => {
                self.timers.fetch_sub(1, Ordering::Relaxed);
                COUNTERS.add(Counter::TimerErrors, 1);
                false
            }
        }
    }

    fn arm_timer(&self, timer: Timer, period: u32) -> std::io::Result<()> {
        let period = Duration::from_nanos(period.into());
        timer.arm(self.first_expiry(period), period)
    }

    /// Follows what the near side changed while a timer was made for this run and with this
    /// period, and could not do to a timer that it did not see. Whether there still is one.
    fn catch_up(&self, slot: &Slot, timer: Timer, run: u32, mut period: u32) -> bool {
        /// The near side changes the period at most once in the time of some system calls.
        const TRIES: usize = 4;
        // SeqCst: see `Slot::set_timer`.
        if !self.armed.load(Ordering::SeqCst) || self.run.load(Ordering::SeqCst) != run {
            self.delete_timer(slot);
            return false;
        }
        for _ in 0..TRIES {
            let now = self.period.load(Ordering::SeqCst);
            if now == period {
                break;
            }
            if self.arm_timer(timer, now).is_err() {
                COUNTERS.add(Counter::TimerErrors, 1);
            }
            period = now;
        }
        true
    }

    #[inline]
    fn on_timer(&self, at: &Interrupted) {
        let Interrupted { token, overrun, .. } = *at;
        // Acquire: pairs with the Release in `start`.
        let armed = self.armed.load(Ordering::Acquire);
        if !armed || token.run != self.run.load(Ordering::Relaxed) as u16 {
            return COUNTERS.add(Counter::Late, 1);
        }
        let tid = sys::tid();
        let slots = Slots::all();
        if token.slot != Token::PROCESS {
            return match slots.get(token.slot).filter(|slot| slot.tid() == Some(tid)) {
                Some(slot) => self.sample(at, tid, Some(slot), Clock::Timed, overrun),
                None => COUNTERS.add(Counter::Stale, 1),
            };
        }
        let Some((number, slot)) = slots.take(tid) else {
            return self.sample(at, tid, None, Clock::Untimed { past: 0 }, overrun);
        };
        if slot.timer().is_some() {
            return COUNTERS.add(Counter::Covered, 1);
        }
        // Read in any case: what the thread used before is not to be found in the next account.
        let used = slot.cpu_since_read(nanos(sys::own_cpu()));
        let past = if self.all_known.load(Ordering::Relaxed) { used } else { 0 };
        self.give_timer(number, slot, CpuClock::ThisThread);
        self.sample(at, tid, Some(slot), Clock::Untimed { past }, overrun);
    }

    #[inline]
    fn sample(&self, at: &Interrupted, tid: u32, slot: Option<&Slot>, clock: Clock, overrun: u32) {
        let period = match clock {
            Clock::Timed => self.period.load(Ordering::Relaxed),
            Clock::Untimed { .. } => self.process_period(),
        }
        .max(1);
        let most = (nanos(MOST_MERGED) as u32 / period).max(4);
        let asked = overrun.saturating_add(1);
        let weight = asked.min(most);
        let (untimed, past) = match clock {
            Clock::Timed => {
                let merged = u64::from(asked - weight) * u64::from(period);
                if merged > 0 {
                    COUNTERS.add(Counter::MergedNanos, merged);
                }
                (false, 0)
            }
            // The process's expiries are everybody's, so more of them say nothing of this thread.
            Clock::Untimed { past } => {
                let period = u64::from(period);
                let chance = (MOST_PAST_PERIODS * period).min(nanos(MOST_PAST)).max(period);
                let most = nanos(MOST_MERGED).max(chance);
                if past > most {
                    COUNTERS.add(Counter::MergedUntimedNanos, past - most);
                }
                (true, past.min(most))
            }
        };
        // What is lost if the sample is.
        let nanos = if untimed { past } else { u64::from(weight) * u64::from(period) };
        let Some(mut writer) = claim_any(&self.rings, tid) else {
            COUNTERS.add(Counter::RingBusy, 1);
            return COUNTERS.add(Counter::LostNanos, nanos);
        };
        let mut record = Record {
            end: End::Complete,
            untimed,
            weight,
            period,
            labels: slot.map_or(0, Slot::labels),
            tid,
            past_micros: (past / 1000) as u32,
            // A thread's first sample may come before it has named itself: that name is not kept.
            thread: match slot {
                Some(slot) if !untimed => slot.name(sys::thread_name),
                _ => sys::thread_name(),
            },
            addresses: &[],
        };
        record.head().into_iter().for_each(|word| writer.push(word));
        let registers = &at.registers;
        let view = |stack_pointer: u64| match slot {
            Some(slot) => slot.bounds().view(stack_pointer),
            None => StackView::probing(stack_pointer),
        };
        if let Some(slot) = slot
            && !slot.bounds().is_known()
        {
            slot.note_stack(registers.sp, sys::thread_pointer());
            self.unknown_stack.store(true, Ordering::Relaxed);
        }
        let mut room = self.depth.load(Ordering::Relaxed);
        record.end = self.tables.read(|tables| {
            let Some(tables) = tables else { return End::NoInformation };
            walk(tables, registers, view, |address| {
                if room == 0 || writer.is_full() {
                    return false;
                }
                writer.push(address);
                room -= 1;
                true
            })
        });
        writer.set(0, record.head()[0]);
        if writer.commit() {
            COUNTERS.add(Counter::Recorded, 1);
            COUNTERS.add_end(record.end as usize);
        } else {
            COUNTERS.add(Counter::RingFull, 1);
            COUNTERS.add(Counter::LostNanos, nanos);
        }
    }
}

/// What a sample's thread is timed by.
#[derive(Clone, Copy, Debug)]
enum Clock {
    /// Its own timer.
    Timed,
    /// The process's timer.
    Untimed {
        /// The CPU time that it used since it was last known; nanoseconds; 0 where not known.
        past: u64,
    },
}

#[inline]
fn nanos(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

/// What the signal does.
#[derive(Debug)]
pub(crate) struct Tick;

// SAFETY: all three read and write atomics of the static sampler and slots. `on_timer` makes raw
// system calls, reads this thread's own stack within known or probed bounds, and writes into a
// ring that was allocated before the handler was installed. Every index is checked with `get` or
// masked to a power of two; nothing in it allocates, locks, formats or can panic.
#[expect(unsafe_code, reason = "the promise that this may run in a signal handler")]
unsafe impl Interrupt for Tick {
    #[inline]
    fn on_timer(at: &Interrupted) {
        let begun = sys::ticks();
        COUNTERS.add(Counter::Signals, 1);
        match SAMPLER.get() {
            Some(sampler) => sampler.on_timer(at),
            None => COUNTERS.add(Counter::Late, 1),
        }
        // Counters of different processors may differ by more than a short handler takes.
        let took = sys::ticks().saturating_sub(begun);
        // What is beyond the longest handler is time in which the thread waited for a processor.
        let longest = SAMPLER.get().map_or(u64::MAX, |s| s.longest.load(Ordering::Relaxed));
        let took = took.min(longest);
        COUNTERS.add(Counter::HandlerTicks, took);
        if at.token.slot != Token::PROCESS {
            COUNTERS.note_time(took);
        }
    }

    #[inline]
    fn on_no_stack() {
        COUNTERS.add(Counter::Signals, 1);
        COUNTERS.add(Counter::RingBusy, 1);
        let period = SAMPLER.get().map_or(0, |s| s.period.load(Ordering::Relaxed));
        COUNTERS.add(Counter::LostNanos, period.into());
    }

    #[inline]
    fn on_foreign() {
        COUNTERS.add(Counter::Signals, 1);
        COUNTERS.add(Counter::Foreign, 1);
    }
}
