//! Inside parts for benches and for the tests that judge them. Not part of the API: it may change
//! in any release, and a service has no use for it.

use crate::{
    aggregate::Aggregator,
    capture::{self, End, Record, Sampler, Tables},
    cfi,
    error::Error,
    profile::{LabelTable, Module, Profile, Timestamp},
    stats::COUNTERS,
    store::{Query, Store},
    sys::{self, Registers, StackView, ThreadName},
};
use std::{sync::Arc, time::Duration};

/// The walker over the tables of the modules that are loaded now.
#[derive(Debug)]
pub struct Walker(Tables);

impl Walker {
    /// Compiles the tables.
    #[must_use]
    pub fn new() -> Self {
        let tables = sys::loaded_modules(|_| true)
            .into_iter()
            .filter_map(|module| {
                let (address, bytes) = module.eh_frame?;
                Some(Arc::new(cfi::compile(module.text, address, &bytes).table))
            })
            .collect();
        Self(Tables::new(tables))
    }

    /// Walks the calling thread's stack from these registers; writes the addresses, innermost
    /// first, and returns how many there are and the number of the way in which the walk ended.
    /// Safe in a signal handler.
    pub fn walk(&self, pc: u64, sp: u64, fp: u64, lr: u64, out: &mut [u64]) -> (usize, u8) {
        let mut length = 0;
        let end =
            capture::walk(&self.0, &Registers { pc, sp, fp, lr }, StackView::probing, |address| {
                match out.get_mut(length) {
                    Some(place) => {
                        *place = address;
                        length += 1;
                        true
                    }
                    None => false,
                }
            });
        (length, end as u8)
    }
}

impl Default for Walker {
    fn default() -> Self {
        Self::new()
    }
}

/// The signal and the value that the calling thread's timer carries; `None` while it has none.
/// Whoever sends itself this signal with the code `SI_TIMER` runs the handler as a timer would.
#[must_use]
pub fn own_signal() -> Option<(i32, u64)> {
    Sampler::shared(2).signal_of(sys::tid())
}

/// The processor's counter, in which [`handler_times`] are.
#[must_use]
pub fn ticks() -> u64 {
    sys::ticks()
}

/// How long the handler took when it recorded a sample, since the process began: for each bucket
/// its middle, in ticks, and how many. A bucket is a twentieth wide.
#[must_use]
pub fn handler_times() -> Vec<(u64, u64)> {
    COUNTERS.times()
}

/// A window that is being filled, fed with made-up records.
#[derive(Debug)]
pub struct Window {
    aggregator: Aggregator,
    known: LabelTable,
}

impl Window {
    /// An empty window over these modules.
    #[must_use]
    pub fn new(modules: Vec<Arc<Module>>) -> Self {
        let mut aggregator = Aggregator::new(Duration::from_millis(10));
        aggregator.set_modules(modules);
        Self { aggregator, known: LabelTable::new() }
    }

    /// Adds a sample of the thread numbered `tid`; `addresses` are innermost first.
    pub fn add(&mut self, tid: u32, addresses: &[u64]) {
        let record = Record {
            end: End::Complete,
            untimed: false,
            weight: 1,
            period: 10_000_000,
            labels: 0,
            tid,
            past_micros: 0,
            thread: ThreadName([u64::from(tid), 0]),
            addresses,
        };
        self.aggregator.add(&record, |id| self.known.get(id).clone());
    }

    /// Takes what was added.
    pub fn take(&mut self) -> Profile {
        self.aggregator.take_sums();
        self.aggregator.settle(1.0);
        self.aggregator.take()
    }
}

/// A history that is filled by hand.
#[derive(Debug)]
pub struct Buckets(Store);

impl Buckets {
    /// An empty history of at most so many bytes.
    #[must_use]
    pub fn new(cap: usize) -> Self {
        Self(Store::new(cap, Duration::from_millis(10)))
    }

    /// Adds what was sampled in a window.
    pub fn push(&mut self, profile: &Profile, start: Timestamp, end: Timestamp) {
        self.0.push(profile, start, end);
    }

    /// What was sampled in a window.
    ///
    /// # Errors
    ///
    /// A window that ends before it begins.
    pub fn query(&self, query: &Query) -> Result<Profile, Error> {
        self.0.query(query)
    }

    /// The memory in use, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.bytes()
    }
}
