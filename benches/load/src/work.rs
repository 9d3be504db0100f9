//! The work: a deep chain of calls through trait objects, over what services really spend their
//! time in. Stacks are 28 to 50 frames deep, and the code under them is larger than the caches
//! next to a core, so that a handler runs as it does in a service: rarely, and cold.

use crate::clock;
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    hash::{DefaultHasher, Hasher},
    hint::black_box,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// What a unit of work reads and writes.
#[derive(Debug)]
pub struct Context {
    random: u64,
    numbers: Vec<u64>,
    bytes: Vec<u8>,
    text: String,
    map: BTreeMap<u64, u64>,
}

impl Context {
    /// A context that differs from others by its seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            numbers: vec![0; 64],
            // Larger than a second-level cache's share: what is copied pushes out other things.
            bytes: vec![1; 1 << 20],
            text: String::new(),
            map: BTreeMap::new(),
        }
    }

    fn next(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

/// One unit of work: a walk down the chain and one leaf, some ten microseconds.
pub fn unit(context: &mut Context) -> u64 {
    // 20 to 39 calls deep, with the leaf's own frames below and the thread's above.
    let depth = 20 + context.next() % 20;
    black_box(STAGES[depth as usize % STAGES.len()].run(context, depth))
}

trait Stage: Sync {
    fn run(&self, context: &mut Context, depth: u64) -> u64;
}

static STAGES: [&dyn Stage; 4] = [&Adds, &Mixes, &Keeps, &Branches];

#[inline]
fn next(context: &mut Context, depth: u64) -> u64 {
    match depth {
        0 => leaf(context),
        _ => STAGES[(depth as usize * 7 + 3) % STAGES.len()].run(context, depth - 1),
    }
}

/// Each stage saves other registers and has a frame of another size.
struct Adds;
impl Stage for Adds {
    #[inline(never)]
    fn run(&self, context: &mut Context, depth: u64) -> u64 {
        next(context, depth).wrapping_add(depth)
    }
}

struct Mixes;
impl Stage for Mixes {
    #[inline(never)]
    fn run(&self, context: &mut Context, depth: u64) -> u64 {
        let (a, b, c) = (depth * 3, depth ^ 5, context.numbers[depth as usize % 64]);
        let got = next(context, depth);
        (got ^ a).wrapping_mul(b | 1).rotate_left(c as u32 & 31)
    }
}

struct Keeps;
impl Stage for Keeps {
    #[inline(never)]
    fn run(&self, context: &mut Context, depth: u64) -> u64 {
        let kept = black_box([depth; 24]);
        next(context, depth) ^ kept[depth as usize % 24]
    }
}

struct Branches;
impl Stage for Branches {
    #[inline(never)]
    fn run(&self, context: &mut Context, depth: u64) -> u64 {
        if context.random & 1 == 0 {
            next(context, depth).wrapping_mul(3)
        } else {
            next(context, depth) | 1
        }
    }
}

#[inline(never)]
fn leaf(context: &mut Context) -> u64 {
    match context.next() % 5 {
        0 => sort(context),
        1 => hash(context),
        2 => tree(context),
        3 => format(context),
        _ => copy(context),
    }
}

#[inline(never)]
fn sort(context: &mut Context) -> u64 {
    for i in 0..context.numbers.len() {
        context.numbers[i] = context.next();
    }
    let key = context.random;
    context.numbers.sort_by_key(|n| n ^ key);
    context.numbers[0]
}

#[inline(never)]
fn hash(context: &mut Context) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(&context.bytes[..8 << 10]);
    hasher.finish()
}

#[inline(never)]
fn tree(context: &mut Context) -> u64 {
    for _ in 0..40 {
        let key = context.next() % 4096;
        *context.map.entry(key).or_default() += 1;
        context.map.remove(&(key ^ 77));
    }
    context.map.len() as u64
}

#[inline(never)]
fn format(context: &mut Context) -> u64 {
    context.text.clear();
    for i in 0..40 {
        let number = context.random ^ i;
        let _ = write!(context.text, "{number:>12} is {:.3}, ", number as f64 / 7.0);
    }
    context.text.len() as u64
}

#[inline(never)]
fn copy(context: &mut Context) -> u64 {
    let at = (context.next() as usize % 16) << 15;
    context.bytes.copy_within(at..at + (64 << 10), (512 << 10) - at / 2);
    u64::from(context.bytes[at])
}

/// Works until the calling thread has used this much more CPU time; returns how much it used.
pub fn burn(context: &mut Context, cpu: Duration) -> Duration {
    let begun = clock::thread_cpu();
    loop {
        // Reading the clock costs half a microsecond.
        (0..8).for_each(|_| _ = unit(context));
        let used = clock::thread_cpu() - begun;
        if used >= cpu {
            return used;
        }
    }
}

/// Threads that work until told to end, with counters that others can read while they do.
#[derive(Debug)]
pub struct Crew {
    workers: Vec<Arc<Worker>>,
    threads: Vec<JoinHandle<Duration>>,
    end: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Worker {
    tid: AtomicI32,
    units: AtomicU64,
}

impl Crew {
    /// Starts this many threads, named `w0`, `w1` and so on, and returns when all are at work.
    ///
    /// # Panics
    ///
    /// When the system gives no thread.
    #[must_use]
    pub fn start(threads: usize) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let ready = Arc::new(Barrier::new(threads + 1));
        let workers: Vec<_> = (0..threads)
            .map(|_| Arc::new(Worker { tid: AtomicI32::new(0), units: AtomicU64::new(0) }))
            .collect();
        let spawn = |(number, worker): (usize, &Arc<Worker>)| {
            let (worker, end, ready) = (Arc::clone(worker), Arc::clone(&end), Arc::clone(&ready));
            let named = thread::Builder::new().name(format!("w{number}"));
            let run = move || {
                worker.tid.store(clock::tid(), Ordering::Relaxed);
                ready.wait();
                let mut context = Context::new(number as u64 + 1);
                while !end.load(Ordering::Relaxed) {
                    unit(&mut context);
                    worker.units.fetch_add(1, Ordering::Relaxed);
                }
                clock::thread_cpu()
            };
            named.spawn(run).unwrap_or_else(|error| panic!("no thread: {error}"))
        };
        let threads = workers.iter().enumerate().map(spawn).collect();
        ready.wait();
        Self { workers, threads, end }
    }

    /// The CPU time that all have used, and the units that they have done.
    #[must_use]
    pub fn done(&self) -> (Duration, u64) {
        self.workers.iter().fold((Duration::ZERO, 0), |(cpu, units), worker| {
            let tid = worker.tid.load(Ordering::Relaxed);
            (cpu + clock::cpu_of(tid), units + worker.units.load(Ordering::Relaxed))
        })
    }

    /// Ends the work; returns the CPU time of each thread by its own clock.
    pub fn end(self) -> Vec<Duration> {
        self.end.store(true, Ordering::Relaxed);
        self.threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    }
}
