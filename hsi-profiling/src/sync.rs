//! Where shared state takes its atomics from, so that loom's can stand in for them: the model of the
//! ring in `tests/loom.rs` has a `sync` of its own.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
