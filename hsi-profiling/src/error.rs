//! What a caller can act on. Everything else is a counter and a log line.

use std::{fmt, io};

/// Why profiling could not do what was asked.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A setting is not valid. Names the setting (or the environment variable), its value and
    /// what is allowed.
    Setting {
        /// The builder's method or the environment variable.
        name: &'static str,
        /// What it was set to.
        value: String,
        /// What it may be.
        allowed: String,
    },
    /// A session runs in this process already; there is one profiler in a process.
    AlreadyRunning,
    /// No session runs: it was stopped, was never started, or this is a forked child.
    NotRunning,
    /// Every real-time signal is in use by the program; name one with `Config::signal`.
    NoFreeSignal,
    /// The signal's handler could not be installed.
    Handler(String),
    /// The kernel refused the process's CPU timer.
    Timer(io::Error),
    /// A thread of the profiler could not be started.
    Thread(io::Error),
    /// This build runs on something other than Linux on x86_64 or aarch64.
    UnsupportedPlatform,
    /// A query asks for something that can't be had. Names the field, its value and what is
    /// allowed.
    Query {
        /// The field of the query.
        field: &'static str,
        /// What it was.
        value: String,
        /// What it may be.
        allowed: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setting { name, value, allowed } => {
                write!(f, "{name}: `{value}` is not valid; allowed: {allowed}")
            }
            Self::AlreadyRunning => f.write_str(
                "profiling runs already in this process; keep one Session and clone its handle",
            ),
            Self::NotRunning => f.write_str("profiling does not run in this process"),
            Self::NoFreeSignal => f.write_str(
                "every real-time signal is in use or blocked; name the one to share with Config::signal",
            ),
            Self::Handler(why) => write!(f, "the signal handler could not be installed: {why}"),
            Self::Timer(error) => write!(
                f,
                "the kernel refused a CPU timer ({error}); a seccomp profile must allow \
                 timer_create, and RLIMIT_SIGPENDING must leave room"
            ),
            Self::Thread(error) => write!(f, "the profiler's thread could not start: {error}"),
            Self::UnsupportedPlatform => {
                f.write_str("CPU profiling needs Linux on x86_64 or aarch64")
            }
            Self::Query { field, value, allowed } => {
                write!(f, "{field}: `{value}` is not valid; allowed: {allowed}")
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Timer(error) | Self::Thread(error) => Some(error),
            _ => None,
        }
    }
}
