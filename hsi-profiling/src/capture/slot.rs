//! What the sampler knows of each thread: its timer, its labels, its name, where its stack ends.
//!
//! Slots stand in one static table that is found by thread number, with a bounded search and no
//! lock, so that the handler needs no thread-local variable: in a shared library the first touch
//! of one may allocate. A slot is taken by its own thread and given back by ours once the thread
//! is dead.

use crate::{
    sync::{AtomicU32, AtomicU64, Ordering},
    sys::{StackBounds, ThreadName, Timer},
};

/// One thread.
#[derive(Debug)]
pub(crate) struct Slot {
    tid: AtomicU32,
    /// The number of the thread's timer plus [`FIRST_TIMER`], or [`NO_TIMER`].
    timer: AtomicU32,
    /// The label set in force: a raw `LabelsId` of the process-wide table.
    labels: AtomicU32,
    /// Whether `name` has been filled in.
    named: AtomicU32,
    name: [AtomicU64; 2],
    /// Where the thread's last sample was, for finding its stack in the memory map.
    stack_pointer: AtomicU64,
    thread_pointer: AtomicU64,
    bounds: StackBounds,
    /// The thread's CPU clock when it was last accounted for; nanoseconds.
    cpu_read: AtomicU64,
}

const NO_TIMER: u32 = 0;
const FIRST_TIMER: u32 = 2;

impl Slot {
    const fn new() -> Self {
        Self {
            tid: AtomicU32::new(FREE),
            timer: AtomicU32::new(NO_TIMER),
            labels: AtomicU32::new(0),
            named: AtomicU32::new(0),
            name: [AtomicU64::new(0), AtomicU64::new(0)],
            stack_pointer: AtomicU64::new(0),
            thread_pointer: AtomicU64::new(0),
            bounds: StackBounds::unknown(),
            cpu_read: AtomicU64::new(0),
        }
    }

    /// The thread that has the slot, if any.
    #[inline]
    pub(crate) fn tid(&self) -> Option<u32> {
        // Acquire: pairs with the Release in `Slots::release`, so that a new owner finds the slot
        // cleared.
        Some(self.tid.load(Ordering::Acquire)).filter(|tid| *tid != FREE && *tid != GONE)
    }

    /// The thread's timer, if it has one.
    #[inline]
    pub(crate) fn timer(&self) -> Option<Timer> {
        // SeqCst: see `set_timer`.
        let number = self.timer.load(Ordering::SeqCst).checked_sub(FIRST_TIMER)?;
        Some(Timer(number as i32))
    }

    /// Notes the thread's timer.
    pub(crate) fn set_timer(&self, timer: Timer) {
        // SeqCst, as every access to this and to the sampler's settings: either the near side,
        // which has changed a setting, sees this timer, or the thread, which has set it, sees
        // the setting when it looks again.
        self.timer.store((timer.0 as u32).wrapping_add(FIRST_TIMER), Ordering::SeqCst);
    }

    /// Takes the timer out, for deleting it.
    pub(crate) fn take_timer(&self) -> Option<Timer> {
        let number = self.timer.swap(NO_TIMER, Ordering::SeqCst).checked_sub(FIRST_TIMER)?;
        Some(Timer(number as i32))
    }

    /// The CPU time since this was last asked, given the thread's clock; nanoseconds. The first
    /// time that is all the thread's time: see [`Slots::know`] for threads that are not new.
    #[inline]
    pub(crate) fn cpu_since_read(&self, cpu_nanos: u64) -> u64 {
        let before = self.cpu_read.swap(cpu_nanos, Ordering::Relaxed);
        cpu_nanos.saturating_sub(before)
    }

    /// The labels in force.
    #[inline]
    pub(crate) fn labels(&self) -> u32 {
        self.labels.load(Ordering::Relaxed)
    }

    /// Puts other labels in force.
    #[inline]
    pub(crate) fn set_labels(&self, labels: u32) {
        self.labels.store(labels, Ordering::Relaxed);
    }

    /// The thread's name. `ask` gives it the first time: to be called on the thread itself.
    #[inline]
    pub(crate) fn name(&self, ask: impl FnOnce() -> ThreadName) -> ThreadName {
        if self.named.load(Ordering::Relaxed) == 0 {
            let name = ask();
            self.name[0].store(name.0[0], Ordering::Relaxed);
            self.name[1].store(name.0[1], Ordering::Relaxed);
            self.named.store(1, Ordering::Relaxed);
            return name;
        }
        ThreadName(self.name.each_ref().map(|word| word.load(Ordering::Relaxed)))
    }

    /// Lets the name be asked for again: threads are renamed after they start.
    pub(crate) fn forget_name(&self) {
        self.named.store(0, Ordering::Relaxed);
    }

    /// Where the thread's stack may be read.
    #[inline]
    pub(crate) fn bounds(&self) -> &StackBounds {
        &self.bounds
    }

    /// Notes where the thread's stack is, for whoever looks for its bounds.
    #[inline]
    pub(crate) fn note_stack(&self, stack_pointer: u64, thread_pointer: u64) {
        self.thread_pointer.store(thread_pointer, Ordering::Relaxed);
        // Release: pairs with the Acquire in `take_stack_note`.
        self.stack_pointer.store(stack_pointer, Ordering::Release);
    }

    /// Takes the note of [`Slot::note_stack`], if there is one.
    pub(crate) fn take_stack_note(&self) -> Option<(u64, u64)> {
        match self.stack_pointer.swap(0, Ordering::Acquire) {
            0 => None,
            stack_pointer => Some((stack_pointer, self.thread_pointer.load(Ordering::Relaxed))),
        }
    }

    fn clear(&self) {
        self.labels.store(0, Ordering::Relaxed);
        self.named.store(0, Ordering::Relaxed);
        self.stack_pointer.store(0, Ordering::Relaxed);
        self.thread_pointer.store(0, Ordering::Relaxed);
        self.cpu_read.store(0, Ordering::Relaxed);
        self.bounds.clear();
    }
}

/// All slots.
#[derive(Debug)]
pub(crate) struct Slots([Slot; SLOTS]);

/// Twice the most timers, so that a search seldom goes far.
const SLOTS: usize = 8192;
/// How far a search goes. At half load a run of so many taken slots does not happen in practice;
/// where it does, the thread goes without a slot of its own.
const REACH: usize = 64;
/// Never taken: a search ends here.
const FREE: u32 = 0;
/// Taken once and given back: a search goes on.
const GONE: u32 = u32::MAX;

static ALL: Slots = Slots([const { Slot::new() }; SLOTS]);

impl Slots {
    /// The most threads that can have a timer of their own.
    pub(crate) const MOST_TIMERS: u32 = (SLOTS / 2) as u32;

    /// The one table. Its pages are touched as threads come.
    pub(crate) fn all() -> &'static Self {
        &ALL
    }

    /// The slot numbered `number`, which may come from anywhere.
    #[inline]
    pub(crate) fn get(&self, number: u32) -> Option<&Slot> {
        self.0.get(number as usize)
    }

    /// The slot of a thread.
    #[inline]
    pub(crate) fn find(&self, tid: u32) -> Option<(u32, &Slot)> {
        for (number, slot) in self.near(tid) {
            match slot.tid.load(Ordering::Acquire) {
                found if found == tid => return Some((number, slot)),
                FREE => return None,
                _ => {}
            }
        }
        None
    }

    /// The slot of a thread, taken now if it had none; to be called on the thread itself.
    ///
    /// One look at the slots in order, so that what a handler that interrupts this takes for the
    /// same thread is either seen, or makes the exchange fail, after which the look begins again.
    pub(crate) fn take(&self, tid: u32) -> Option<(u32, &Slot)> {
        for _ in 0..REACH {
            let mut first = None;
            for (number, slot) in self.near(tid) {
                match slot.tid.load(Ordering::Acquire) {
                    found if found == tid => return Some((number, slot)),
                    GONE => _ = first.get_or_insert((number, slot, GONE)),
                    FREE => {
                        first.get_or_insert((number, slot, FREE));
                        break;
                    }
                    _ => {}
                }
            }
            let (number, slot, seen) = first?;
            let taken = slot.tid.compare_exchange(seen, tid, Ordering::AcqRel, Ordering::Relaxed);
            if taken.is_ok() {
                // A slot before this one may have been given back since it was looked at, and taken
                // by a handler that interrupted this: then the thread has that one.
                let first = self.find(tid).filter(|(found, _)| *found != number);
                if first.is_some() {
                    slot.tid.store(GONE, Ordering::Release);
                }
                return Some(first.unwrap_or((number, slot)));
            }
        }
        None
    }

    /// Takes a slot for a thread that is there already, whose CPU time until now is no matter.
    /// Whether there was one. For the near side, before timers are armed.
    pub(crate) fn know(&self, tid: u32, cpu_nanos: u64) -> bool {
        let Some((_, slot)) = self.take(tid) else { return false };
        // The number may have been another thread's when samples were last taken.
        slot.named.store(0, Ordering::Relaxed);
        slot.stack_pointer.store(0, Ordering::Relaxed);
        slot.bounds.clear();
        slot.cpu_read.store(cpu_nanos, Ordering::Relaxed);
        true
    }

    /// Gives a dead thread's slot back. Its timer must have been taken out.
    pub(crate) fn release(&self, slot: &Slot) {
        slot.clear();
        // Release: pairs with the Acquire of whoever takes or finds the slot next.
        slot.tid.store(GONE, Ordering::Release);
    }

    /// Every slot that a thread has.
    pub(crate) fn taken(&self) -> impl Iterator<Item = (u32, u32, &Slot)> {
        self.0
            .iter()
            .enumerate()
            .filter_map(|(number, slot)| Some((number as u32, slot.tid()?, slot)))
    }

    #[inline]
    fn near(&self, tid: u32) -> impl Iterator<Item = (u32, &Slot)> {
        // Thread numbers come in sequence, so neighbours don't collide; the multiplier spreads
        // the sequences of long-lived and of new threads.
        let start = (tid.wrapping_mul(0x9e37_79b1) >> 16) as usize ^ tid as usize;
        (0..REACH).filter_map(move |i| {
            let number = (start + i) & (SLOTS - 1);
            Some((number as u32, self.0.get(number)?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_found_again_and_its_successor_finds_it_clean() {
        let slots = Slots([const { Slot::new() }; SLOTS]);
        let (number, slot) = slots.take(77).unwrap();
        slot.set_labels(5);
        assert_eq!(slot.name(|| ThreadName([1, 2])), ThreadName([1, 2]));
        assert_eq!(slot.name(|| ThreadName([9, 9])), ThreadName([1, 2]));
        slot.set_timer(Timer(0));
        assert!(slots.know(77, 100));
        assert_eq!(slots.take(77).unwrap().0, number);
        assert_eq!((slot.timer(), slot.cpu_since_read(150)), (Some(Timer(0)), 50));
        assert_eq!((slot.take_timer(), slot.timer()), (Some(Timer(0)), None));
        slots.release(slot);
        assert!(slots.find(77).is_none());
        let (_, next) = slots.take(77).unwrap();
        assert_eq!((next.labels(), next.timer(), next.cpu_since_read(9)), (0, None, 9));
        assert_eq!(next.name(|| ThreadName([3, 4])), ThreadName([3, 4]));
    }

    #[test]
    fn thousands_of_threads_come_and_go() {
        let slots = Slots([const { Slot::new() }; SLOTS]);
        for round in 0..20u32 {
            let tids: Vec<u32> = (0..Slots::MOST_TIMERS).map(|i| 1 + i * 3 + round * 7).collect();
            for tid in &tids {
                assert!(slots.take(*tid).is_some(), "no slot for {tid} in round {round}");
            }
            assert_eq!(slots.taken().count(), tids.len());
            for tid in &tids {
                let (_, slot) = slots.find(*tid).unwrap();
                slots.release(slot);
            }
        }
    }

    #[test]
    fn a_full_table_refuses() {
        let slots = Slots([const { Slot::new() }; SLOTS]);
        let taken = (1..=2 * SLOTS as u32).filter(|tid| slots.take(*tid).is_some()).count();
        assert!((SLOTS * 9 / 10..=SLOTS).contains(&taken), "{taken}");
        assert!(slots.get(SLOTS as u32).is_none(), "a forged number is no slot");
    }
}
