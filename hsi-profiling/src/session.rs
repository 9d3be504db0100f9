//! The only wiring: starts and stops the sampler, runs the thread that drains it, and hands out
//! what was sampled.

mod blocked;
mod modules;
mod near;

use crate::{
    capture::{Sampler, Settings, cpu::Tick},
    config::Config,
    error::Error,
    label,
    profile::{Profile, ProfileType, Symbols, Timestamp},
    stats::Stats,
    store::{History, Query},
    symbolize::{SymbolStatus, Symbolizer},
    sys,
};
use near::{CaptureId, Near};
use std::{
    fmt,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Starts profiling for the service with this name, with what the environment says beyond that.
///
/// This never fails: where profiling can't run, the service goes on without it, one line in the
/// log says why, and so does the page. [`Config::builder`] is for those who want the error.
pub fn start(service: impl Into<String>) -> Session {
    let service = service.into();
    match Config::builder(service.clone()).build() {
        Ok(config) => Session::start_or_off(config),
        Err(error) => Session::off(Config::off(service), error.to_string()),
    }
}

/// A running profiler. Dropping it stops profiling; handles then say so.
#[must_use = "profiling stops when this is dropped: bind it to `_profiling`, not to `_`"]
pub struct Session {
    inner: Arc<Inner>,
    thread: Option<JoinHandle<()>>,
}

impl Session {
    /// Starts profiling.
    ///
    /// Settings that say "off" give a session in which nothing is armed, installed or allocated.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyRunning`] for a second session in one process, and whatever the system
    /// refuses. The service can go on unprofiled.
    pub fn start(config: Config) -> Result<Self, Error> {
        if !config.enabled {
            let why = "switched off by configuration or HSI_PROFILING_ENABLED=false";
            return Ok(Self::off(config, why.to_owned()));
        }
        let inner = Arc::new(Inner::new(config, None));
        if sys::is_forked_child() {
            return Err(Error::NotRunning);
        }
        if RUNNING.swap(true, Ordering::AcqRel) {
            return Err(Error::AlreadyRunning);
        }
        Self::run(inner).inspect_err(|_| {
            label::deactivate();
            RUNNING.store(false, Ordering::Release);
        })
    }

    /// Starts profiling, or goes on without it: see [`start`].
    pub fn start_or_off(config: Config) -> Self {
        Self::start(config.clone()).unwrap_or_else(|error| Self::off(config, error.to_string()))
    }

    /// A handle for looking at what is sampled.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle { inner: Arc::clone(&self.inner) }
    }

    fn off(config: Config, why: String) -> Self {
        if sys::is_forked_child() {
            // A lock of the log's may be held for ever.
        } else if config.enabled {
            tracing::warn!(reason = why, "hsi-profiling: the service runs unprofiled");
        } else {
            tracing::info!(reason = why, "hsi-profiling: off");
        }
        Self { inner: Arc::new(Inner::new(config, Some(why))), thread: None }
    }

    fn run(inner: Arc<Inner>) -> Result<Self, Error> {
        sys::watch_forks();
        let signal = match inner.config.signal {
            Some(signal) => signal,
            None => sys::free_signal().ok_or(Error::NoFreeSignal)?,
        };
        let sampler = Sampler::shared(thread::available_parallelism().map_or(2, Into::into));
        sys::install::<Tick>(signal).map_err(|error| Error::Handler(error.to_string()))?;
        label::activate();
        let settings = Settings {
            period: period(inner.config.cpu_hz).as_nanos() as u32,
            signal,
            depth: inner.config.max_stack_depth,
            timers: inner.config.max_timers,
            // Before 6.4 the kernel hands a process's signal to the main thread, whoever ran.
            lazy: sys::kernel() >= sys::Kernel(6, 4) || sys::threads().is_empty(),
        };
        let mut near = Near::new(
            sampler,
            settings,
            inner.config.history_bytes,
            f64::from(inner.config.budget_percent) / 100.0,
        );
        near.start().map_err(Error::Timer)?;
        *inner.near() = Some(near);
        let shared = Arc::clone(&inner);
        let thread = thread::Builder::new().name("hsi-profiler".to_owned());
        let spawned = sys::without_signals(|| thread.spawn(move || shared.drain()));
        match spawned {
            Ok(thread) => {
                tracing::info!(
                    service = inner.config.service,
                    hz = inner.config.cpu_hz,
                    signal,
                    "hsi-profiling: sampling"
                );
                Ok(Self { inner, thread: Some(thread) })
            }
            Err(error) => {
                if let Some(mut near) = inner.near().take() {
                    near.stop();
                }
                Err(Error::Thread(error))
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // A forked child has none of the parent's threads to wait for.
        if self.thread.is_none() || sys::is_forked_child() {
            return;
        }
        // Under the lock: whoever waits has either seen this or waits already.
        let near = self.inner.near();
        self.inner.stop.store(true, Ordering::Release);
        drop(near);
        self.inner.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            // The thread's work has no panic that we know of; if it had one, the host lives on.
            let _ = thread.join();
        }
        if let Some(near) = self.inner.near().as_mut() {
            near.stop();
        }
        label::deactivate();
        RUNNING.store(false, Ordering::Release);
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("service", &self.inner.config.service)
            .finish_non_exhaustive()
    }
}

/// Whether, and why not, samples are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// Samples are taken.
    Running,
    /// Samples are not taken until [`Handle::resume`].
    Paused,
    /// Profiling did not start.
    Off {
        /// Why not.
        reason: String,
    },
    /// The session has ended; its history can still be looked at.
    Stopped,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running => f.write_str("running"),
            Self::Paused => f.write_str("paused"),
            Self::Off { reason } => write!(f, "off: {reason}"),
            Self::Stopped => f.write_str("stopped"),
        }
    }
}

/// Looks at what is sampled, and changes what can be changed at run time. Cheap to clone; may
/// outlive its [`Session`].
#[derive(Clone)]
pub struct Handle {
    inner: Arc<Inner>,
}

impl Handle {
    /// The service's name.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.inner.config.service
    }

    /// Whether samples are taken.
    #[must_use]
    pub fn state(&self) -> State {
        if let Some(reason) = &self.inner.off {
            return State::Off { reason: reason.clone() };
        }
        if self.inner.stop.load(Ordering::Acquire) || sys::is_forked_child() {
            return State::Stopped;
        }
        match &*self.inner.near() {
            Some(near) if near.is_sampling() => State::Running,
            _ => State::Paused,
        }
    }

    /// The profiler's own numbers.
    #[must_use]
    pub fn stats(&self) -> Stats {
        if sys::is_forked_child() {
            return Stats::default();
        }
        let names = self.inner.symbolizer.stats();
        let stats = self.inner.near().as_mut().map(Near::stats).unwrap_or_default();
        let own_cpu = stats.own_cpu + names.cpu;
        Stats { symbol_bytes: names.bytes as u64, own_cpu, ..stats }
    }

    /// Samples a second of CPU time, for each thread.
    #[must_use]
    pub fn cpu_hz(&self) -> u32 {
        self.inner.hz.load(Ordering::Relaxed)
    }

    /// Samples that many times a second of CPU time from now on, from 1 to 4000.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for a rate out of range, [`Error::NotRunning`] without a session.
    pub fn set_cpu_hz(&self, hz: u32) -> Result<(), Error> {
        let hz = Config::builder("rate").cpu_hz(hz).checked_cpu_hz()?;
        self.with_near(|near| near.set_period(period(hz)))?;
        self.inner.hz.store(hz, Ordering::Relaxed);
        Ok(())
    }

    /// Stops taking samples; what was taken stays.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`] without a session.
    pub fn pause(&self) -> Result<(), Error> {
        self.with_near(Near::stop)
    }

    /// Takes samples again after [`Handle::pause`]; does nothing if they are taken.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`] without a session, [`Error::Timer`] if the kernel refuses now,
    /// [`Error::Handler`] if somebody has replaced the signal's handler.
    pub fn resume(&self) -> Result<(), Error> {
        self.with_near(|near| {
            if !sys::is_in_place() {
                let why = "another part of this program has put its own in the place of ours";
                return Err(Error::Handler(why.to_owned()));
            }
            near.start().map_err(Error::Timer)
        })?
    }

    /// The kinds of profile that can be asked for.
    #[must_use]
    pub fn profile_types(&self) -> &'static [ProfileType] {
        ProfileType::ALL
    }

    /// What was sampled in a window of the past. Answers at once, and blocks for some
    /// milliseconds while it adds up. The answer says which window its buckets cover: ten seconds
    /// is the finest. Without a history it is empty.
    ///
    /// # Errors
    ///
    /// [`Error::Query`] for a window that ends before it begins.
    pub fn query(&self, query: &Query) -> Result<Profile, Error> {
        let mut guard = self.inner.near_unless_forked()?;
        let Some(near) = guard.as_mut() else { return Ok(Profile::cpu(period(self.cpu_hz()))) };
        near.query(query)
    }

    /// Begins to collect the coming `duration` of the running sampler, which goes on unchanged.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`] when no samples are taken; [`Error::Query`] for a duration over ten
    /// minutes.
    pub fn capture(&self, what: ProfileType, duration: Duration) -> Result<Capture, Error> {
        const LONGEST: Duration = Duration::from_secs(600);
        let ProfileType::Cpu = what;
        if duration > LONGEST {
            return Err(Error::Query {
                field: "duration",
                value: format!("{} s", duration.as_secs_f64()),
                allowed: format!("up to {} s", LONGEST.as_secs()),
            });
        }
        if self.state() != State::Running {
            return Err(Error::NotRunning);
        }
        let (id, begun) = self.with_near(Near::begin_capture)?;
        Ok(Capture { inner: Arc::clone(&self.inner), id, deadline: begun + duration })
    }

    /// The names of a profile's locations. Reads debug info the first time that an address is
    /// seen, which takes from milliseconds to a second: not for an async thread.
    #[must_use]
    pub fn symbolize(&self, profile: &Profile) -> Symbols {
        if sys::is_forked_child() {
            // The symbolizer has a lock too, which may be held for ever.
            return Symbols::new();
        }
        self.inner.symbolizer.symbolize(&profile.stacks)
    }

    /// For each module of the program, what names can be had and how to get better ones.
    #[must_use]
    pub fn symbol_status(&self) -> Vec<SymbolStatus> {
        let modules = match self.inner.near_unless_forked() {
            Ok(near) => near.as_ref().map(Near::modules).unwrap_or_default(),
            Err(_) => Vec::new(),
        };
        modules.iter().map(|module| self.inner.symbolizer.status(module)).collect()
    }

    /// Gives memory that was freed back to the system, where the C library would keep it: for who
    /// has just made something large of a profile, on the thread where that was made. It does
    /// nothing if that took more than one part in a hundred of the time lately.
    pub fn release_memory(&self) {
        trim();
    }

    /// What the history holds.
    #[must_use]
    pub fn history(&self) -> History {
        match self.inner.near_unless_forked() {
            Ok(near) => near.as_ref().map(Near::history).unwrap_or_default(),
            Err(_) => History::default(),
        }
    }

    /// The values that a label has in the history, sorted: `thread` gives the threads' names.
    #[must_use]
    pub fn label_values(&self, key: &str) -> Vec<String> {
        match self.inner.near_unless_forked() {
            Ok(near) => near.as_ref().map(|near| near.label_values(key)).unwrap_or_default(),
            Err(_) => Vec::new(),
        }
    }

    /// Where Grafana is, if that was configured.
    #[must_use]
    pub fn grafana_url(&self) -> Option<&str> {
        self.inner.config.grafana_url.as_deref()
    }

    /// Where Pyroscope is, if that was configured.
    #[must_use]
    pub fn pyroscope_url(&self) -> Option<&str> {
        self.inner.config.pyroscope_url.as_deref()
    }

    fn with_near<R>(&self, act: impl FnOnce(&mut Near) -> R) -> Result<R, Error> {
        let mut near = self.inner.near_unless_forked()?;
        // Asked under the lock: what has ended must not begin again.
        if self.inner.stop.load(Ordering::Acquire) {
            return Err(Error::NotRunning);
        }
        near.as_mut().map(act).ok_or(Error::NotRunning)
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("service", &self.inner.config.service)
            .finish_non_exhaustive()
    }
}

/// Samples that are being collected, see [`Handle::capture`]. Dropping it ends that.
#[derive(Debug)]
#[must_use = "samples are collected until this is waited for or dropped"]
pub struct Capture {
    inner: Arc<Inner>,
    id: CaptureId,
    deadline: Instant,
}

impl Capture {
    /// When it will be complete.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Blocks until the time is over, and gives what was sampled. Ends early, with what there
    /// is, when the session ends.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`] in a forked child.
    pub fn wait(self) -> Result<Profile, Error> {
        let mut guard = self.inner.near_unless_forked()?;
        while !self.inner.stop.load(Ordering::Acquire) {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            guard = match self.inner.wake.wait_timeout(guard, left) {
                Ok((guard, _)) => guard,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        guard.as_mut().and_then(|near| near.end_capture(self.id)).ok_or(Error::NotRunning)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        if let Ok(mut near) = self.inner.near_unless_forked()
            && let Some(near) = near.as_mut()
        {
            near.drop_capture(self.id);
        }
    }
}

/// One profiler in a process.
static RUNNING: AtomicBool = AtomicBool::new(false);

#[derive(Debug)]
struct Inner {
    config: Config,
    off: Option<String>,
    near: Mutex<Option<Near>>,
    symbolizer: Symbolizer,
    hz: AtomicU32,
    stop: AtomicBool,
    wake: Condvar,
}

impl Inner {
    fn new(config: Config, off: Option<String>) -> Self {
        Self {
            hz: AtomicU32::new(config.cpu_hz),
            config,
            off,
            near: Mutex::new(None),
            symbolizer: Symbolizer::new().on_release(trim),
            stop: AtomicBool::new(false),
            wake: Condvar::new(),
        }
    }

    fn near(&self) -> MutexGuard<'_, Option<Near>> {
        self.near.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// In a forked child a lock of the parent's may be held by nobody, for ever.
    fn near_unless_forked(&self) -> Result<MutexGuard<'_, Option<Near>>, Error> {
        if sys::is_forked_child() { Err(Error::NotRunning) } else { Ok(self.near()) }
    }

    /// What the profiler's thread does.
    fn drain(&self) {
        let mut guard = self.near();
        while !self.stop.load(Ordering::Acquire) {
            let Some(near) = guard.as_mut() else { return };
            let pause = near.tick();
            let messages = near.take_messages();
            if !messages.is_empty() {
                // A subscriber is the host's code: it may wait, or ask a handle.
                drop(guard);
                // It may panic, too, and that is no reason to stop.
                let log = || {
                    messages.iter().for_each(|text| tracing::warn!("hsi-profiling: {text}"));
                };
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(log));
                guard = self.near();
                continue;
            }
            guard = match self.wake.wait_timeout(guard, pause) {
                Ok((guard, _)) => guard,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }
}

/// Gives freed memory back after names were read, or a page was made. That goes through all that the C library keeps,
/// the host's too, and holds up who allocates meanwhile: so it may take one part in a hundred of
/// the time, and no more.
fn trim() {
    static LAST: Mutex<Option<(Instant, Duration)>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if last.is_none_or(|(end, cost)| end.elapsed() >= cost * 100) {
        let begun = Instant::now();
        sys::trim();
        *last = Some((Instant::now(), begun.elapsed()));
    }
}

fn period(hz: u32) -> Duration {
    Duration::from_nanos(1_000_000_000 / u64::from(hz.max(1)))
}

/// The present moment.
fn now() -> Timestamp {
    Timestamp::from(std::time::SystemTime::now())
}
