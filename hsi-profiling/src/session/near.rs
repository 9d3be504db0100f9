//! The near side's state, and its turns: drain, settle the account, keep.

use super::{
    blocked::{Blocked, Looked},
    modules::Modules,
    now,
};
use crate::{
    aggregate::Aggregator,
    capture::{Sampler, Settings, Slots},
    error::Error,
    governor::Reading,
    label,
    profile::{Module, Profile, Timestamp},
    stats::{COUNTERS, Counter, Stats},
    store::{FINE, History, Query, Store},
    sys::{self, TickRate, Timer},
};
use std::{
    collections::HashMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Everything that is worked on under the session's lock.
#[derive(Debug)]
pub(super) struct Near {
    sampler: &'static Sampler,
    settings: Settings,
    run: Option<Run>,
    aggregator: Aggregator,
    modules: Modules,
    store: Store,
    captures: HashMap<CaptureId, Collected>,
    next_capture: u64,
    buffer: Vec<u64>,
    rate: TickRate,
    /// How long to sleep until the next turn.
    pause: Duration,
    /// The CPU clock of the profiler's thread when it was last accounted for.
    own_seen: Duration,
    /// CPU time that threads without a timer used and that no sample of theirs stands for yet,
    /// in nanoseconds; negative where samples stand for more.
    debt: f64,
    /// CPU time that was in no account, before it was charged to anyone, and CPU time of the
    /// process, both over about the last second of it; nanoseconds.
    unexplained: (f64, f64),
    /// The counter of merged time when it was last read.
    merged: u64,
    /// Since when every sample has been of a thread with a timer, and all CPU time explained.
    all_timed: Instant,
    blocked: Blocked,
    /// The period that was asked for; the governor may have set a longer one.
    asked: Duration,
    /// What our cost may be, as a share of what the process uses.
    budget: f64,
    /// The sums that the governor last looked at, and when.
    governed: (Instant, Reading),
    /// Lines for the log, written when the lock is given back: a subscriber is the host's code.
    messages: Vec<String>,
    scan_cost: Duration,
    scanned: Instant,
    flushed: Timestamp,
    settled: Instant,
    renamed: Instant,
    maps_read: Instant,
    maps_cost: Duration,
}

/// A time during which samples are taken.
#[derive(Debug)]
struct Run {
    process: Option<Timer>,
    /// The process's CPU clock when it was last read.
    cpu: Duration,
}

/// A capture that is not complete yet.
#[derive(Debug)]
struct Collected {
    profile: Profile,
    /// The profiler's numbers when it began.
    before: Stats,
    /// When it began. The clock on the wall may be set meanwhile, and is not what a length is
    /// measured by.
    begun: Instant,
}

/// Names a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct CaptureId(u64);

/// The pause between turns: short enough for rings that fill, long enough to cost nothing.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// Before 6.4 threads are looked for, and this is how often.
const SCAN_PAUSE: Duration = Duration::from_millis(100);
/// How often the account is settled: reading a thread's CPU clock costs some 600 ns.
const SETTLE_EVERY: Duration = Duration::from_secs(1);
/// More than any walk takes. What a handler's clock shows beyond this is time in which its thread
/// waited for a processor: with more threads than processors that would be most of it.
const LONGEST_HANDLER: Duration = Duration::from_micros(200);
/// After so long without a thread that has no timer the process's timer slows down…
const CALM: Duration = Duration::from_secs(2);
/// … to every so many periods: a new thread is then found, on average, when it and the others have
/// used that much CPU time.
const SPARSE: u32 = 4;
/// How often the governor looks at our cost.
const GOVERN_EVERY: Duration = Duration::from_secs(10);
/// The window is handed to the history early when it takes more than this, in bytes.
const MOST_WINDOW: usize = 2 << 20;
/// How much of the periods that fell on threads without a timer may be charged to their samples,
/// for threads that lived and died unseen: all of it, and the error of a small number of samples.
/// What is more stays a residual: it may be a thread that blocks the signal and is not found yet.
const MOST_SHARE: f64 = 1.5;

impl Near {
    pub(super) fn new(
        sampler: &'static Sampler,
        settings: Settings,
        history: usize,
        budget: f64,
    ) -> Self {
        let period = Duration::from_nanos(settings.period.into());
        let now_instant = Instant::now();
        Self {
            sampler,
            settings,
            run: None,
            aggregator: Aggregator::new(period),
            modules: Modules::default(),
            store: Store::new(history, period),
            captures: HashMap::new(),
            next_capture: 0,
            buffer: Vec::new(),
            rate: TickRate::start(),
            pause: LONGEST_PAUSE,
            own_seen: Duration::ZERO,
            debt: 0.0,
            unexplained: (0.0, 0.0),
            merged: COUNTERS.get(Counter::MergedUntimedNanos),
            all_timed: now_instant,
            blocked: Blocked::new(),
            asked: period,
            budget,
            governed: (now_instant, Reading::default()),
            messages: Vec::new(),
            scan_cost: Duration::ZERO,
            scanned: now_instant,
            flushed: now(),
            settled: now_instant,
            renamed: now_instant,
            maps_read: now_instant,
            maps_cost: Duration::ZERO,
        }
    }

    /// Begins to take samples; does nothing if they are taken.
    pub(super) fn start(&mut self) -> io::Result<()> {
        if self.run.is_some() {
            return Ok(());
        }
        self.refresh_modules();
        // What a former session's last handlers left behind is not this one's.
        self.sampler.drain(&mut self.buffer, |record| {
            let nanos = u64::from(record.weight) * u64::from(record.period);
            COUNTERS.add(Counter::LostNanos, nanos);
        });
        Self::release_dead();
        let cpu = sys::process_cpu();
        let process = self.sampler.start(self.settings)?;
        self.run = Some(Run { process, cpu });
        self.governed = (Instant::now(), self.sums());
        self.all_timed = Instant::now();
        self.flushed = now();
        if !self.settings.lazy {
            self.scan_threads();
        }
        Ok(())
    }

    /// Stops taking samples, and keeps what was taken.
    pub(super) fn stop(&mut self) {
        if self.run.is_none() {
            return;
        }
        // Settled while the clocks of the timers' threads can still be read…
        self.flush();
        let Some(run) = self.run.take() else { return };
        self.sampler.stop(run.process);
        // …and then what was sampled until the last timer was gone.
        self.drain();
        let process = sys::process_cpu().saturating_sub(run.cpu);
        COUNTERS.add(Counter::ProcessNanos, process.as_nanos() as u64);
        let (_, untimed) = self.aggregator.take_sums();
        self.aggregator.settle(if untimed.past == 0 { 1.0 } else { 0.0 });
        self.keep();
        Self::release_dead();
    }

    /// Gives back the slots of threads that died without a timer.
    fn release_dead() {
        let pid = sys::pid();
        for (_, tid, slot) in Slots::all().taken() {
            if slot.timer().is_none() && !sys::is_alive(pid, tid) {
                Slots::all().release(slot);
            }
        }
    }

    pub(super) fn is_sampling(&self) -> bool {
        self.run.is_some()
    }

    /// Another period, asked for.
    pub(super) fn set_period(&mut self, period: Duration) {
        self.asked = period;
        self.change_period(period);
    }

    fn change_period(&mut self, period: Duration) {
        self.flush();
        self.settings.period = period.as_nanos() as u32;
        self.aggregator.set_period(period);
        self.store.set_period(period);
        if let Some(run) = &self.run {
            self.sampler.set_period(self.settings.period, run.process);
        }
    }

    /// One turn of the profiler's thread; returns how long it may sleep.
    pub(super) fn tick(&mut self) -> Duration {
        let own = sys::own_cpu();
        let used = own.saturating_sub(std::mem::replace(&mut self.own_seen, own));
        COUNTERS.add(Counter::OwnNanos, used.as_nanos() as u64);
        if self.run.is_none() {
            // Labels take slots for threads that nobody else looks after meanwhile.
            Self::release_dead();
            return LONGEST_PAUSE;
        }
        if !sys::is_in_place() {
            self.stop();
            self.messages.push(format!(
                "the handler of signal {} was replaced by somebody: sampling has ended, because a \
                 timer's signal might now end the process",
                self.settings.signal
            ));
            return LONGEST_PAUSE;
        }
        let filled = self.drain();
        self.refresh_modules();
        self.sampler.reclaim();
        self.find_stacks();
        if !self.settings.lazy {
            self.scan_threads();
        }
        if self.settled.elapsed() >= SETTLE_EVERY {
            self.settle();
        }
        self.pace_process_timer();
        if self.governed.0.elapsed() >= GOVERN_EVERY {
            self.govern();
        }
        if bucket(now()) != bucket(self.flushed) || self.aggregator.bytes() > MOST_WINDOW {
            self.flush();
        }
        self.pause = match filled {
            25.. => (self.pause / 2).max(SHORTEST_PAUSE),
            10..25 => self.pause,
            _ => (self.pause * 2).min(LONGEST_PAUSE),
        };
        if self.settings.lazy { self.pause } else { self.pause.min(SCAN_PAUSE) }
    }

    pub(super) fn query(&mut self, query: &Query) -> Result<Profile, Error> {
        self.flush();
        let mut profile = self.store.query(query)?;
        profile.comments =
            comments(&Stats::default(), &self.counted(), "since the process began to be profiled");
        Ok(profile)
    }

    pub(super) fn history(&self) -> History {
        self.store.history()
    }

    pub(super) fn label_values(&self, key: &str) -> Vec<String> {
        self.store.label_values(key)
    }

    pub(super) fn modules(&self) -> Vec<Arc<Module>> {
        self.modules.list()
    }

    /// Begins to collect, and says since when: what came before this moment is not in it.
    pub(super) fn begin_capture(&mut self) -> (CaptureId, Instant) {
        self.flush();
        let begun = Instant::now();
        let id = CaptureId(self.next_capture);
        self.next_capture += 1;
        let mut profile = Profile::cpu(Duration::from_nanos(self.settings.period.into()));
        profile.start = self.flushed;
        let before = self.counted();
        self.captures.insert(id, Collected { profile, before, begun });
        (id, begun)
    }

    pub(super) fn end_capture(&mut self, id: CaptureId) -> Option<Profile> {
        let start = self.captures.get(&id)?.profile.start;
        self.flush();
        let Collected { mut profile, before, begun } = self.captures.remove(&id)?;
        (profile.start, profile.duration) = (start, begun.elapsed());
        profile.comments = comments(&before, &self.counted(), "in this window");
        Some(profile)
    }

    pub(super) fn drop_capture(&mut self, id: CaptureId) {
        self.captures.remove(&id);
    }

    pub(super) fn stats(&mut self) -> Stats {
        self.flush();
        self.counted()
    }

    /// The profiler's numbers, without settling anything first.
    fn counted(&self) -> Stats {
        Stats {
            cpu_hz: self.hz().into(),
            timers: self.sampler.timers().into(),
            blocked_threads: self.blocked.count() as u64,
            process_cpu: Duration::from_nanos(COUNTERS.get(Counter::ProcessNanos)),
            handler_time: self.handler_time(),
            history_bytes: self.store.bytes() as u64,
            table_bytes: self.modules.bytes() as u64,
            ring_bytes: self.sampler.bytes() as u64,
            ..Stats::of(&COUNTERS)
        }
    }

    /// Time in the handler. The rate of the processor's counter is known better from reading to
    /// reading; what was said before must not be taken back, because readings are subtracted.
    fn handler_time(&self) -> Duration {
        static SAID: AtomicU64 = AtomicU64::new(0);
        let nanos = self.rate.nanos(COUNTERS.get(Counter::HandlerTicks));
        Duration::from_nanos(SAID.fetch_max(nanos, Ordering::Relaxed).max(nanos))
    }

    /// Everything that was sampled until now goes into the history and to the captures.
    fn flush(&mut self) {
        if self.run.is_some() {
            self.drain();
            self.settle();
        }
        self.keep();
    }

    /// The window goes into the history and to the captures.
    fn keep(&mut self) {
        let profile = self.aggregator.take();
        let (start, end) = (self.flushed, now());
        self.flushed = end;
        for capture in self.captures.values_mut() {
            capture.profile.merge(&profile);
        }
        if self.run.is_some() || !profile.is_empty() {
            self.store.push(&profile, start, end.max(start));
        }
    }

    /// Moves the records from the rings into the window; how full the fullest ring was, in
    /// hundredths.
    fn drain(&mut self) -> u64 {
        let (sampler, aggregator, buffer) = (self.sampler, &mut self.aggregator, &mut self.buffer);
        sampler.drain(buffer, |record| aggregator.add(&record, label::labels))
    }

    fn refresh_modules(&mut self) {
        // The loader's count says all there is to know; an address in no module may be code that
        // was made at run time, and asking the loader again would not name it.
        if self.modules.refresh() {
            self.sampler.publish(self.modules.tables());
            self.aggregator.set_modules(self.modules.list());
        }
    }

    /// Finds the stacks of threads that were sampled for the first time.
    fn find_stacks(&mut self) {
        // Where there are thousands of mappings, reading them must not become a cost.
        if self.maps_read.elapsed() < self.maps_cost * 200 || !self.sampler.met_unknown_stack() {
            return;
        }
        let begun = Instant::now();
        // The notes first: a stack that is noted is then in the map that is read.
        let notes: Vec<_> = Slots::all()
            .taken()
            .filter_map(|(_, tid, slot)| Some((tid, slot, slot.take_stack_note()?)))
            .collect();
        let maps = sys::mappings();
        for (tid, slot, (stack_pointer, thread_pointer)) in notes {
            let thread_pointer = (tid != sys::pid()).then_some(thread_pointer);
            slot.bounds().find(stack_pointer, thread_pointer, &maps);
        }
        (self.maps_read, self.maps_cost) = (Instant::now(), begun.elapsed());
    }

    fn scan_threads(&mut self) {
        // Where there are thousands of threads, listing them must not become a cost.
        if self.scanned.elapsed() < self.scan_cost * 200 {
            return;
        }
        let begun = Instant::now();
        for tid in sys::threads() {
            if Slots::all().find(tid).is_none_or(|(_, slot)| slot.timer().is_none()) {
                self.sampler.arm(tid);
            }
        }
        (self.scanned, self.scan_cost) = (Instant::now(), begun.elapsed());
    }

    /// Settles the account between samples and CPU clocks, and gives back what dead threads had.
    fn settle(&mut self) {
        if let Some(ticks) = self.rate.ticks_in(LONGEST_HANDLER) {
            self.sampler.set_longest(ticks);
        }
        let Some(run) = &mut self.run else { return };
        self.settled = Instant::now();
        let cpu = sys::process_cpu();
        let process = cpu.saturating_sub(run.cpu).as_nanos() as u64;
        run.cpu = cpu;
        COUNTERS.add(Counter::ProcessNanos, process);
        let (mut sums, untimed) = self.aggregator.take_sums();
        let merged = COUNTERS.get(Counter::MergedUntimedNanos);
        let merged = merged - std::mem::replace(&mut self.merged, merged);
        let pid = sys::pid();
        let mut timed = 0;
        let rename = self.renamed.elapsed() > Duration::from_secs(30);
        for (_, tid, slot) in Slots::all().taken() {
            if rename {
                slot.forget_name();
            }
            // Read once: the thread may give itself a timer at any moment.
            let timer = slot.timer();
            let clock = timer.filter(|timer| timer.is_live()).and_then(|_| sys::thread_cpu(tid));
            match (clock, timer) {
                (Some(clock), _) => {
                    let used = slot.cpu_since_read(clock.as_nanos() as u64);
                    timed += used;
                    self.blocked.note(tid, used, sums.remove(&tid).is_some());
                }
                // What a thread used between the last reading and its death is known only by its
                // samples: those stay in `sums`.
                (None, Some(_)) => {
                    self.blocked.forget(tid);
                    self.sampler.give_back(slot);
                }
                (None, None) if !sys::is_alive(pid, tid) => {
                    self.blocked.forget(tid);
                    self.sampler.give_back(slot);
                }
                (None, None) => {}
            }
        }
        if rename {
            self.renamed = Instant::now();
        }
        timed += sums.values().sum::<u64>();
        timed += self.blocked.used_without_timer();
        // Half of an old debt is forgiven: what no sample stood for within seconds, none will.
        let known = timed as f64 + untimed.past as f64 + merged as f64;
        self.debt = self.debt / 2.0 + process as f64 - known;
        self.unexplained.0 += process as f64 - known;
        self.unexplained.1 += process as f64;
        let looked = self.look_for_blocked();
        let share = match untimed.weight {
            0 => 0.0,
            // Nobody is charged for what may be the time of such a thread.
            _ if looked != Looked::Nothing => 0.0,
            weight => (self.debt / weight as f64).clamp(0.0, MOST_SHARE),
        };
        self.debt -= share * untimed.weight as f64;
        self.aggregator.settle(share);
    }

    /// Half of all signals are the process's timer hitting threads that have their own: it slows
    /// down while that is all it does, and looks closely again when a thread without one shows up.
    fn pace_process_timer(&mut self) {
        let Some(timer) = self.run.as_ref().and_then(|run| run.process) else { return };
        if self.aggregator.take_met_untimed() {
            self.all_timed = Instant::now();
        }
        let calm = self.all_timed.elapsed() >= CALM && self.blocked.count() == 0;
        self.sampler.set_sparse(if calm { SPARSE } else { 1 }, timer);
    }

    /// Lowers or raises the rate by what we have cost since this was last done.
    fn govern(&mut self) {
        let sums = self.sums();
        let (at, before) = std::mem::replace(&mut self.governed, (Instant::now(), sums));
        let reading = Reading {
            wall: at.elapsed(),
            process: sums.process.saturating_sub(before.process),
            handler: sums.handler.saturating_sub(before.handler),
            signals: sums.signals.saturating_sub(before.signals),
            own: sums.own.saturating_sub(before.own),
        };
        let (present, asked) = (self.hz(), hz(self.asked));
        let next = reading.next_hz(present, asked, self.budget);
        if next < present && present == asked {
            self.messages.push(format!(
                "over the budget of {} % with {:.2} %, sampling at {next} Hz instead of {asked}",
                self.budget * 100.0,
                reading.cost() * 100.0,
            ));
        }
        if next < present {
            COUNTERS.add(Counter::Governed, 1);
        }
        if next != present {
            self.change_period(Duration::from_nanos(1_000_000_000 / u64::from(next)));
        }
    }

    /// Takes the lines that are for the log.
    pub(super) fn take_messages(&mut self) -> Vec<String> {
        std::mem::take(&mut self.messages)
    }

    /// What the governor looks at, since the process began.
    fn sums(&self) -> Reading {
        let stats = self.counted();
        Reading {
            wall: Duration::ZERO,
            process: stats.process_cpu,
            handler: stats.handler_time,
            signals: stats.signals,
            own: stats.own_cpu,
        }
    }

    /// The present rate.
    fn hz(&self) -> u32 {
        hz(Duration::from_nanos(self.settings.period.into()))
    }

    /// Where much CPU time goes unsampled, some thread may block the signal.
    fn look_for_blocked(&mut self) -> Looked {
        const SECOND: f64 = 1e9;
        let before = self.blocked.count();
        let (unexplained, process) = self.unexplained;
        let much = unexplained > 20e6 && unexplained > process * 0.05;
        if process > SECOND {
            self.unexplained = (unexplained / 2.0, process / 2.0);
        }
        let period = Duration::from_nanos(self.settings.period.into());
        let looked = self.blocked.look(self.settings.signal, period, much);
        if looked == Looked::Found {
            // So that is where it went.
            self.debt = 0.0;
            self.unexplained = (0.0, 0.0);
        }
        let blocked = self.blocked.count();
        if blocked > 0 && before == 0 {
            self.messages.push(format!(
                "threads that block signal {} can't be sampled: {}",
                self.settings.signal,
                self.blocked.count()
            ));
        }
        looked
    }
}

fn hz(period: Duration) -> u32 {
    (1_000_000_000.0 / period.as_nanos().max(1) as f64).round() as u32
}

fn bucket(at: Timestamp) -> i64 {
    at.unix_nanos().div_euclid(FINE.as_nanos() as i64)
}

/// What was lost between two readings, for a profile's reader.
fn comments(before: &Stats, after: &Stats, when: &str) -> Vec<String> {
    let losses = before.losses().into_iter().zip(after.losses());
    let mut comments: Vec<String> = losses
        .filter_map(|((name, before), (_, after))| {
            let count = after.saturating_sub(before);
            (count > 0).then(|| format!("hsi-profiling: {name}: {count} {when}"))
        })
        .collect();
    let residual = after.residual_nanos().saturating_sub(before.residual_nanos());
    let process = after.process_cpu.saturating_sub(before.process_cpu);
    comments.push(format!(
        "hsi-profiling: CPU time of the process {:.3} s, not in any sample {:.3} s, {when}",
        process.as_secs_f64(),
        residual as f64 / 1e9
    ));
    comments
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{capture::cpu::Tick, profile::ProfileType};
    use std::hint::black_box;

    fn burn(cpu: Duration) {
        let end = sys::own_cpu() + cpu;
        while sys::own_cpu() < end {
            (0..1000u64).for_each(|i| _ = black_box(i));
        }
    }

    /// What kernels before 6.4 need, on any kernel.
    #[test]
    fn threads_are_looked_for_where_they_cannot_find_themselves() {
        let signal = sys::free_signal().expect("a free signal");
        sys::install::<Tick>(signal).expect("the handler");
        label::activate();
        let settings = Settings { period: 1_000_000, signal, depth: 64, timers: 64, lazy: false };
        let mut near = Near::new(Sampler::shared(2), settings, 1 << 20, 1.0);
        near.start().expect("a timer");
        let (send, receive) = std::sync::mpsc::channel();
        let (told, tell) = std::sync::mpsc::channel();
        let worker = std::thread::Builder::new()
            .name("looked-for".into())
            .spawn(move || {
                told.send(sys::tid()).expect("the test listens");
                receive.recv().expect("the go");
                burn(Duration::from_millis(1000));
            })
            .expect("a thread");
        let tid = tell.recv().expect("the worker's number");
        let deadline = Instant::now() + Duration::from_secs(20);
        while Slots::all().find(tid).is_none_or(|(_, slot)| slot.timer().is_none()) {
            assert!(near.tick() <= SCAN_PAUSE);
            assert!(Instant::now() < deadline, "the worker was not found");
            std::thread::yield_now();
        }
        send.send(()).expect("the worker waits");
        worker.join().expect("the worker ends");
        let only = Query::new(ProfileType::Cpu).label("thread", "looked-for");
        let profile = near.query(&only).expect("a window");
        // On a machine whose processors are taken away for long, that time counts as used, and is
        // more than one sample may stand for. And what comes after the kernel's last tick in the
        // thread is not seen: on a busy machine that may be a tenth of a second.
        let merged = COUNTERS.get(Counter::MergedNanos) as i64;
        let millis = (profile.total(1) + merged) / 1_000_000;
        assert!((850..=1050).contains(&millis), "{millis} ms of 1000, {merged} ns merged");
        assert_eq!(near.run.as_ref().and_then(|run| run.process), None, "no process timer");
        near.stop();
    }
}
