//! The only door to the operating system, and the only place with `unsafe`.
//!
//! Every function here is safe to call; what makes it sound is stated at each block. Nothing here
//! knows what a sample or a profile is.
#![allow(unsafe_code, reason = "this module is where the unsafe code lives")]

mod clock;
mod entry;
mod file_map;
mod memory;
mod modules;
mod process;
mod scratch;
mod signal;
mod thread;
mod timer;

pub(crate) use clock::{TickRate, own_cpu, process_cpu, ticks};
pub(crate) use file_map::FileMap;
pub(crate) use memory::{Published, StackBounds, StackView, mappings, trim, zeroed_words};
pub(crate) use modules::{LoadedModule, loaded_modules, loader_changes};
pub(crate) use process::{Kernel, is_forked_child, kernel, pid, watch_forks};
pub(crate) use scratch::Scratch;
pub(crate) use signal::{
    Interrupt, Interrupted, Registers, Token, free_signal, install, is_in_place,
};
pub(crate) use thread::{
    ThreadName, is_alive, signal_blocked, thread_cpu, thread_name, thread_pointer, threads, tid,
    without_signals,
};
pub(crate) use timer::{CpuClock, Timer};
