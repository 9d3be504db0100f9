//! The router as its users meet it: over a socket, with the real profiler in the same process.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of a test may fail it, and say why it is skipped"
)]

mod access;
mod client;
mod flame;
mod off;
mod page;
mod pprof;
mod service;
