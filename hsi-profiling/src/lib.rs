//! Continuous CPU profiling inside a Rust service: always on, kept in memory, cheap enough to
//! forget about.
//!
//! ```no_run
//! let profiling = hsi_profiling::start("orders");
//! // … run the service; hand `profiling.handle()` to whoever shows it …
//! # drop(profiling.handle());
//! ```
//!
//! Bind the [`Session`] to a name for as long as the service runs: dropping it stops profiling.
//! [`start`] never fails, because a profiler must not stop a service; [`Config::builder`] is for
//! who wants the error. The crate `hsi-profiling-axum` shows the result at `/debug/profiling`.
//!
//! # What it does
//!
//! - Every thread that uses CPU is sampled by a timer on its own CPU clock; nobody registers
//!   threads, and threads that live for a millisecond count too.
//! - Samples carry weights: what the kernel merged is counted, so they add up to the CPU time
//!   that the kernel has for the process, at any rate from 1 to 4000 Hz.
//! - Stacks are walked in the signal handler by tables that were compiled ahead from the unwind
//!   information which every Rust program has: no frame pointers, no special build.
//! - Raw addresses are kept, so inlined functions and lines come out right. `debug = "limited"` in
//!   the release profile gives names, lines and inlined frames; without it
//!   [`Handle::symbol_status`] says what is missing and how to get it.
//! - The past is in memory, under a cap on bytes: 15 minutes by ten seconds, 2 hours by minutes,
//!   24 hours by ten minutes. [`Handle::query`] answers at once.
//! - What was lost is counted by reason, in [`Stats`].
//!
//! # What it does to the service
//!
//! One thread, one real-time signal, one POSIX timer for each busy thread. The handler takes
//! microseconds, runs on the alternate signal stack, and neither allocates, locks nor waits; once
//! installed it stays, so that no late signal meets the default disposition. A thread that waits
//! uses no CPU and so is seldom interrupted; but while the process's timer looks for new threads,
//! the kernel may hand its signal to one that sleeps, and a system call that it does not restart
//! (`nanosleep`, `poll`, …) then returns EINTR: 2 of 6000 waits at 1000 Hz beside busy threads. A
//! child that forks without exec is not profiled.
//!
//! `HSI_PROFILING_ENABLED=false` in the environment beats everything: nothing is armed, installed
//! or allocated. All variables are listed at [`Config`].
//!
//! # Platforms
//!
//! Linux 3.2 or newer on x86_64 and aarch64, glibc or musl. Before Linux 6.4 new threads are
//! looked for ten times a second, in /proc, instead of finding themselves. On musl, whose libc
//! has no unwind information, stacks whose innermost frames are in libc may end there; that is
//! counted.

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
compile_error!("hsi-profiling runs on Linux, on x86_64 and aarch64");

mod aggregate;
#[cfg(feature = "bench-internals")]
#[doc(hidden)]
pub mod bench;
mod capture;
mod cfi;
mod config;
pub mod encode;
mod error;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod governor;
mod label;
mod profile;
mod session;
mod stats;
mod store;
mod symbolize;
mod sync;
mod sys;

pub use config::{
    Config, ConfigBuilder, DEFAULT_BUDGET_PERCENT, DEFAULT_CPU_HZ, DEFAULT_HISTORY_BYTES,
    DEFAULT_MAX_STACK_DEPTH, DEFAULT_MAX_TIMERS,
};
pub use error::Error;
pub use label::{LabelGuard, label};
pub use profile::{
    Adopted, CallTree, Frame, FunctionTotals, LabelTable, Labels, LabelsId, Location, LocationId,
    Module, ModuleId, Node, Profile, ProfileType, Sample, StackId, StackTable, Symbols, Timestamp,
    Unit, ValueType,
};
pub use session::{Capture, Handle, Session, State, start};
pub use stats::Stats;
pub use store::{History, Query};
pub use symbolize::{DEFAULT_CACHE_BYTES, SymbolKind, SymbolStatus, Symbolizer, SymbolizerStats};
