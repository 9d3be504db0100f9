//! What the benches profile, and the clocks that judge the profilers.
//!
//! No profiler is in here: each peer is linked into a binary of its own, because several of them
//! export the same symbols, and all of these binaries do the same work.

pub mod clock;
pub mod compare;
pub mod figures;
pub mod inlined;
pub mod itimer;
pub mod toggle;
pub mod work;
