//! Labels without tracing: `let _stage = hsi_profiling::label("stage", "decode");`.
//!
//! Label sets are interned in one process-wide table, so that what a thread publishes, and the
//! handler copies, is a number. The lock of that table is taken here, in normal code, and never
//! in the handler.

use crate::{
    capture::Slots,
    profile::{LabelTable, Labels, LabelsId},
    stats::{COUNTERS, Counter},
    sys,
};
use std::{
    cell::Cell,
    marker::PhantomData,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// Labels the calling thread's samples until the guard is dropped.
///
/// Guards nest, and an inner one with the same key hides the outer one's value. The key must be a
/// letter or `_` followed by letters, digits, `_` or `.`, at most 64 bytes, and not `thread`; a
/// value is cut at 200 bytes. A label that is not valid, or one more than the process can keep
/// (16384 sets), is not set and is counted in [`Stats::labels_refused`](crate::Stats). Costs some
/// hundred nanoseconds; nothing while profiling is off. A guard made before profiling starts
/// labels nothing.
#[must_use = "the label is in force until this is dropped: bind it to `_label`, not to `_`"]
pub fn label(key: &str, value: &str) -> LabelGuard {
    LabelGuard { restore: enter(key, value), not_send: PhantomData }
}

/// Takes its label away when dropped. Stays on the thread that made it.
#[derive(Debug)]
pub struct LabelGuard {
    /// The slot, the thread in it, and the labels that were in force before.
    restore: Option<(u32, u32, u32)>,
    not_send: PhantomData<*const ()>,
}

impl Drop for LabelGuard {
    fn drop(&mut self) {
        if let Some((number, tid, before)) = self.restore
            && let Some(slot) = Slots::all().get(number).filter(|slot| slot.tid() == Some(tid))
        {
            slot.set_labels(before);
        }
    }
}

/// Whether labels are kept: from the first start of profiling on.
pub(crate) fn activate() {
    ACTIVE.store(true, Ordering::Relaxed);
}

/// Labels are not kept any more: profiling has ended.
pub(crate) fn deactivate() {
    ACTIVE.store(false, Ordering::Relaxed);
}

/// The label set with a number that came through the sampler.
pub(crate) fn labels(id: LabelsId) -> Labels {
    let table = TABLE.lock().unwrap_or_else(PoisonError::into_inner);
    table.as_ref().map(|table| table.get(id).clone()).unwrap_or_default()
}

static ACTIVE: AtomicBool = AtomicBool::new(false);
static TABLE: Mutex<Option<LabelTable>> = Mutex::new(None);

/// A set is a number for as long as the process lives, so there is a bound on them.
const MOST_SETS: usize = 16 * 1024;
const MOST_KEY_BYTES: usize = 64;
const MOST_VALUE_BYTES: usize = 200;

thread_local! {
    /// This thread's number and slot. Never touched in the handler.
    static SLOT: Cell<(u32, u32)> = const { Cell::new((0, 0)) };
}

fn enter(key: &str, value: &str) -> Option<(u32, u32, u32)> {
    if !ACTIVE.load(Ordering::Relaxed) || sys::is_forked_child() {
        return None;
    }
    let Some((number, tid)) = is_key(key).then(slot).flatten() else {
        COUNTERS.add(Counter::LabelsRefused, 1);
        return None;
    };
    let slot = Slots::all().get(number)?;
    let before = slot.labels();
    let Some(after) = intern(LabelsId::from_raw(before), key, cut(value)) else {
        COUNTERS.add(Counter::LabelsRefused, 1);
        return None;
    };
    slot.set_labels(after.raw());
    Some((number, tid, before))
}

/// The calling thread's slot and number.
fn slot() -> Option<(u32, u32)> {
    let slots = Slots::all();
    let (mut tid, mut number) = SLOT.get();
    if tid == 0 || slots.get(number).and_then(super::capture::Slot::tid) != Some(tid) {
        tid = sys::tid();
        number = slots.take(tid)?.0;
        SLOT.set((tid, number));
    }
    Some((number, tid))
}

fn intern(before: LabelsId, key: &str, value: &str) -> Option<LabelsId> {
    let mut table = TABLE.lock().unwrap_or_else(PoisonError::into_inner);
    let table = table.get_or_insert_default();
    let labels = table.get(before).with(key, value);
    if table.len() >= MOST_SETS {
        return table.find(&labels);
    }
    Some(table.intern(&labels))
}

fn is_key(key: &str) -> bool {
    let mut bytes = key.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    first
        && key.len() <= MOST_KEY_BYTES
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.')
        && key != Labels::THREAD
}

fn cut(value: &str) -> &str {
    &value[..value.floor_char_boundary_at(MOST_VALUE_BYTES)]
}

trait FloorCharBoundary {
    fn floor_char_boundary_at(&self, index: usize) -> usize;
}

impl FloorCharBoundary for str {
    /// `str::floor_char_boundary` came to Rust after the version that this crate needs.
    fn floor_char_boundary_at(&self, index: usize) -> usize {
        if index >= self.len() {
            return self.len();
        }
        (0..=index).rev().find(|i| self.is_char_boundary(*i)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Labels {
        let (number, _) = slot().unwrap();
        let raw = Slots::all().get(number).unwrap().labels();
        labels(LabelsId::from_raw(raw))
    }

    #[test]
    fn guards_nest_and_restore() {
        activate();
        let outer = label("stage", "a");
        assert_eq!(now().get("stage"), Some("a"));
        {
            let _inner = label("stage", "b");
            let _other = label("kind", "x");
            assert_eq!((now().get("stage"), now().get("kind")), (Some("b"), Some("x")));
        }
        assert_eq!((now().get("stage"), now().get("kind")), (Some("a"), None));
        drop(outer);
        assert!(now().is_empty());
    }

    #[test]
    fn what_is_not_valid_is_refused_and_counted() {
        activate();
        let long = "k".repeat(MOST_KEY_BYTES + 1);
        for key in ["", "1a", "a-b", "a b", "thread", "ключ", &long] {
            let before = COUNTERS.get(Counter::LabelsRefused);
            let guard = label(key, "v");
            assert!(guard.restore.is_none(), "{key}");
            assert!(COUNTERS.get(Counter::LabelsRefused) > before, "{key}");
        }
        let _long = label("v", &"é".repeat(MOST_VALUE_BYTES));
        assert_eq!(now().get("v").unwrap().len(), MOST_VALUE_BYTES);
    }
}
