//! The ring under every interleaving that loom finds: `RUSTFLAGS="--cfg hsi_loom" cargo test --test
//! loom`. The ring's own source is compiled here against loom's atomics; its model stands beside it.
#![cfg(hsi_loom)]
#![allow(dead_code, reason = "the model uses a part of the ring")]

mod sync {
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
}

mod sys {
    use crate::sync::AtomicU64;

    pub(crate) fn zeroed_words(count: usize) -> Box<[AtomicU64]> {
        (0..count).map(|_| AtomicU64::new(0)).collect()
    }
}

#[path = "../src/capture/ring.rs"]
mod ring;
