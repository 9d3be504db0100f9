//! Names for the addresses of a profile, off the hot path.
//!
//! Debug info is large, names are few, and the same code is hot every time. So only an address
//! that was not seen before is looked up, in one pass over the file that keeps nothing but the
//! answers, and its frames stay in a cache with a bound in bytes. A pass over a program of fifty
//! megabytes takes one or two for a moment, the cache four at most.
//!
//! The cache and the pass have a lock each. Whoever needs only cached names never waits for the
//! files of another's pass; and there is one pass at a time, so that the peak is that of one.
//!
//! Not here: where addresses come from, which threads may block (a pass takes from ten
//! milliseconds to a second), and symbols from a server.

mod cache;
mod dwarf;
mod elf;
mod guard;
mod locate;
mod names;
mod resolve;
mod status;
mod symtab;

use crate::profile::{Frame, LocationId, Module, StackTable, Symbols};
use crate::sys;
use cache::{Cache, Key};
use resolve::{Answer, Outcome};
use rustc_hash::FxHashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use status::{SymbolKind, SymbolStatus};

/// How many bytes of names are kept unless [`Symbolizer::cache_bytes`] says otherwise: those of
/// several thousand addresses, where a busy service has some hundreds to a few thousand.
pub const DEFAULT_CACHE_BYTES: usize = 4 << 20;

/// More modules than this are forgotten at once; only a process that loads new code without end
/// has them.
const MAX_MODULES: usize = 4096;

/// Names addresses, and remembers the names.
///
/// It is shared by reference. [`symbolize`](Self::symbolize) reads files and so belongs on a
/// thread that may block.
pub struct Symbolizer {
    known: Mutex<Known>,
    pass: Mutex<()>,
    released: fn(),
}

/// What the symbolizer has done, and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SymbolizerStats {
    /// Lookups that the cache answered.
    pub hits: u64,
    /// Lookups that it did not.
    pub misses: u64,
    /// Addresses that were forgotten to make room.
    pub evictions: u64,
    /// Addresses that were not remembered for want of room; where this grows, the cache is
    /// smaller than the profiles, and files are read again and again.
    pub refused: u64,
    /// How many addresses are remembered.
    pub entries: usize,
    /// About how many bytes they occupy.
    pub bytes: usize,
    /// Passes over a module.
    pub passes: u64,
    /// How often debug info was opened, and closed again.
    pub readers: u64,
    /// Addresses that were looked up in files.
    pub resolved: u64,
    /// How many of these have a line.
    pub lines: u64,
    /// Lookups in debug info that failed; the symbol table answered instead.
    pub faults: u64,
    /// How many of the failures were panics of a parser.
    pub panics: u64,
    /// CPU time of the passes.
    pub cpu: Duration,
    /// Modules whose file is no longer the one that runs.
    pub replaced: u64,
    /// Modules whose file cannot be used.
    pub unreadable: u64,
}

#[derive(Debug)]
struct Known {
    cache: Cache,
    modules: FxHashMap<(Arc<str>, Arc<str>), Entry>,
    next: u32,
    stats: SymbolizerStats,
}

#[derive(Debug)]
struct Entry {
    number: u32,
    status: Option<SymbolStatus>,
}

/// Addresses that a pass has to look up, with the locations that wait for them.
type Missing = Vec<(Key, LocationId)>;

impl Default for Symbolizer {
    fn default() -> Self {
        Self::new()
    }
}

impl Symbolizer {
    /// A symbolizer with a cache of [`DEFAULT_CACHE_BYTES`].
    #[must_use]
    pub fn new() -> Self {
        let known = Known {
            cache: Cache::new(DEFAULT_CACHE_BYTES),
            modules: FxHashMap::default(),
            next: 0,
            stats: SymbolizerStats::default(),
        };
        Self { known: Mutex::new(known), pass: Mutex::new(()), released: || {} }
    }

    /// Sets how many bytes of names are kept. Less memory costs time: a profile that does not
    /// fit is looked up again in part each time, at some tens of microseconds an address.
    #[must_use]
    pub fn cache_bytes(mut self, bytes: usize) -> Self {
        self.known.get_mut().unwrap_or_else(PoisonError::into_inner).cache = Cache::new(bytes);
        self
    }

    /// Sets what is called after a pass: the place to give memory back to the system, as most
    /// allocators keep it otherwise. It is much where debug info is compressed, or split over
    /// files.
    #[must_use]
    pub fn on_release(mut self, released: fn()) -> Self {
        self.released = released;
        self
    }

    /// Names every location of `stacks`.
    ///
    /// Blocks to read files where an address is new. Each location gets a frame at least: where
    /// nothing has a name for it, that is the file's name and the offset in it.
    #[must_use]
    pub fn symbolize(&self, stacks: &StackTable) -> Symbols {
        self.known().cache.begin();
        let (mut symbols, missing) = self.cached_or_missing(stacks);
        if missing.is_empty() {
            return symbols;
        }
        let pass = self.pass.lock().unwrap_or_else(PoisonError::into_inner);
        // Another pass may have brought them while this one waited.
        let ids = missing.iter().map(|(_, id)| *id);
        let missing = self.known().look_up(stacks, ids, &mut symbols);
        if !missing.is_empty() {
            self.read_apart(stacks, missing, &mut symbols);
            (self.released)();
        }
        drop(pass);
        symbols
    }

    /// Names the locations of `stacks` that are in the cache, and returns how many are not. It
    /// reads no file and never waits for one that does.
    #[must_use]
    pub fn cached(&self, stacks: &StackTable) -> (Symbols, usize) {
        let (symbols, missing) = self.cached_or_missing(stacks);
        (symbols, missing.len())
    }

    /// What names `module` can have, by a look at the headers of its file.
    #[must_use]
    pub fn status(&self, module: &Module) -> SymbolStatus {
        let outcome = resolve::survey(module);
        let known = self.known();
        let before = known.modules.get(&identity(module)).and_then(|e| e.status.as_ref());
        status_of(module, outcome, before)
    }

    /// What is known of the modules that a pass has met so far, the program itself first.
    #[must_use]
    pub fn statuses(&self) -> Vec<SymbolStatus> {
        let mut all: Vec<_> =
            self.known().modules.values().filter_map(|e| e.status.clone()).collect();
        all.sort_by(|a, b| (!a.main, &a.path, &a.build_id).cmp(&(!b.main, &b.path, &b.build_id)));
        all
    }

    /// What was done so far.
    #[must_use]
    pub fn stats(&self) -> SymbolizerStats {
        let known = self.known();
        let count = |what: fn(&SymbolKind) -> bool| {
            let kinds = known.modules.values().filter_map(|e| e.status.as_ref());
            kinds.filter(|s| what(&s.kind)).count() as u64
        };
        let counts = known.cache.counts;
        SymbolizerStats {
            evictions: counts.evictions,
            refused: counts.refused,
            entries: known.cache.len(),
            bytes: known.cache.bytes(),
            replaced: count(|kind| *kind == SymbolKind::Replaced),
            unreadable: count(|kind| matches!(kind, SymbolKind::Unreadable { .. })),
            ..known.stats
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cached_or_missing(&self, stacks: &StackTable) -> (Symbols, Missing) {
        let mut symbols = Symbols::new();
        let mut known = self.known();
        let missing = known.look_up(stacks, stacks.location_ids(), &mut symbols);
        known.stats.hits += (stacks.locations().len() - missing.len()) as u64;
        known.stats.misses += missing.len() as u64;
        (symbols, missing)
    }

    /// Looks up what is missing on a thread that lives for this. C libraries keep what a thread
    /// has freed in an arena for it, of which some megabytes never go back: so there is one that
    /// passes on from pass to pass, instead of one for each thread that ever asked for names.
    fn read_apart(&self, stacks: &StackTable, missing: Missing, symbols: &mut Symbols) {
        let work = Mutex::new(Some((missing, symbols)));
        let read = || {
            let work = work.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some((missing, symbols)) = work {
                let begun = sys::own_cpu();
                self.read(stacks, missing, symbols);
                self.known().stats.cpu += sys::own_cpu().saturating_sub(begun);
            }
        };
        let apart = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("hsi-symbols".to_owned());
            // The parsers are guarded, so a panic here is one that we do not know of: it costs
            // this answer its names and the host nothing.
            let spawned = sys::without_signals(|| thread.spawn_scoped(scope, read));
            spawned.map(|thread| drop(thread.join()))
        });
        if apart.is_err() {
            read();
        }
    }

    /// Looks up what is missing, module by module.
    fn read(&self, stacks: &StackTable, mut missing: Missing, symbols: &mut Symbols) {
        missing.sort_unstable_by_key(|(key, id)| (key.module, key.address, *id));
        for of_module in missing.chunk_by(|(a, _), (b, _)| a.module == b.module) {
            let module = of_module.first().and_then(|(_, id)| stacks.resolve(*id)?.1);
            let Some(module) = module else { continue };
            let mut addresses: Vec<u64> = of_module.iter().map(|(key, _)| key.address).collect();
            addresses.dedup();
            let mut waiting = of_module.iter().peekable();
            let outcome =
                resolve::resolve(module, &addresses, |Answer { address, frames, keep }| {
                    let number = of_module[0].0.module;
                    let frames = self.keep(Key { module: number, address }, frames, keep);
                    while let Some((_, id)) = waiting.next_if(|(key, _)| key.address <= address) {
                        symbols.set(*id, Arc::clone(&frames));
                    }
                });
            self.known().note(module, outcome);
        }
    }

    fn keep(&self, key: Key, frames: Vec<Frame>, keep: bool) -> Arc<[Frame]> {
        if keep { self.known().cache.insert(key, frames) } else { frames.into() }
    }
}

impl Known {
    /// Names those locations that are in the cache, and returns the others.
    fn look_up(
        &mut self,
        stacks: &StackTable,
        ids: impl Iterator<Item = LocationId>,
        symbols: &mut Symbols,
    ) -> Missing {
        let mut missing = Missing::new();
        let numbers: Vec<(u32, u64)> =
            stacks.modules().iter().map(|m| (self.number(m), m.bias)).collect();
        for id in ids {
            let Some((location, _)) = stacks.resolve(id) else { continue };
            let module = location.module.and_then(|m| numbers.get(m.index()));
            let Some((module, bias)) = module.copied() else {
                symbols.set(id, Arc::new([Frame::new(resolve::bare(location.address))]));
                continue;
            };
            let key = Key { module, address: location.address.wrapping_sub(bias) };
            match self.cache.get(key) {
                Some(frames) => symbols.set(id, frames),
                None => missing.push((key, id)),
            }
        }
        missing
    }

    /// The number of `module` in the cache.
    fn number(&mut self, module: &Module) -> u32 {
        let identity = identity(module);
        if let Some(entry) = self.modules.get(&identity) {
            return entry.number;
        }
        if self.modules.len() >= MAX_MODULES {
            // Their numbers are never given again, so what the cache has of them ages out.
            self.modules.clear();
        }
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.modules.insert(identity, Entry { number, status: None });
        number
    }

    fn note(&mut self, module: &Module, outcome: Outcome) {
        self.stats.passes += 1;
        self.stats.readers += outcome.readers;
        self.stats.resolved += outcome.addresses;
        self.stats.lines += outcome.lines;
        self.stats.faults += outcome.faults;
        self.stats.panics += outcome.panics;
        if let Some(entry) = self.modules.get_mut(&identity(module)) {
            entry.status = Some(status_of(module, outcome, entry.status.as_ref()));
        }
    }
}

/// What tells one module's code from another's, wherever it is loaded.
fn identity(module: &Module) -> (Arc<str>, Arc<str>) {
    (Arc::clone(&module.path), Arc::clone(&module.build_id))
}

fn status_of(module: &Module, now: Outcome, before: Option<&SymbolStatus>) -> SymbolStatus {
    SymbolStatus {
        path: Arc::clone(&module.path),
        build_id: Arc::clone(&module.build_id),
        main: locate::is_main(&module.path),
        kind: now.kind,
        problem: now.problem.or_else(|| before?.problem.clone()),
        addresses: now.addresses + before.map_or(0, |b| b.addresses),
        lines: now.lines + before.map_or(0, |b| b.lines),
        short_names: now.short + before.map_or(0, |b| b.short_names),
    }
}

impl fmt::Debug for Symbolizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Symbolizer").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Location;

    fn stacks(addresses: std::ops::Range<u64>) -> StackTable {
        let mut stacks = StackTable::new();
        let module = Arc::new(Module { path: "/no/such/file".into(), ..Module::default() });
        let module = stacks.module(&module);
        for address in addresses {
            stacks.location(Location::new(address, Some(module)));
        }
        stacks
    }

    #[test]
    fn who_needs_cached_names_does_not_wait_for_a_pass() {
        let symbolizer = Symbolizer::new();
        let known = stacks(0..10);
        let _ = symbolizer.symbolize(&known);
        let pass = symbolizer.pass.lock().unwrap();
        let symbols = symbolizer.symbolize(&known);
        for (i, id) in known.location_ids().enumerate() {
            assert_eq!(symbols.get(id), [Frame::new(format!("file+{i:#x}"))]);
        }
        assert_eq!(symbolizer.cached(&known).1, 0);
        assert_eq!(symbolizer.cached(&stacks(0..15)).1, 5);
        drop(pass);
        assert_eq!((symbolizer.stats().passes, symbolizer.stats().hits), (1, 30));
    }

    #[test]
    fn who_waited_for_a_pass_takes_what_it_brought() {
        let symbolizer = Symbolizer::new();
        let wanted = stacks(0..10);
        let pass = symbolizer.pass.lock().unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| symbolizer.symbolize(&wanted));
            while symbolizer.stats().misses < 10 {
                std::thread::yield_now();
            }
            // What a pass would do.
            let number = symbolizer.known().number(&wanted.modules()[0]);
            for address in 0..10 {
                symbolizer.keep(Key { module: number, address }, vec![Frame::new("brought")], true);
            }
            drop(pass);
            let symbols = waiting.join().unwrap();
            assert!(wanted.location_ids().all(|id| symbols.get(id) == [Frame::new("brought")]));
        });
        assert_eq!(symbolizer.stats().passes, 0);
    }
}
