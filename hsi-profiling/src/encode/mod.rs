//! Profiles as files: what leaves the process, and what comes back in.
//!
//! Everything here turns values into bytes, in memory; nothing writes to a disk or a socket.

pub mod flame;
pub mod folded;
pub mod pprof;
pub mod svg;
