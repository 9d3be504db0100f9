//! One honest leak, for demonstration: memory that nobody will ever give back, at a rate that the
//! operator chooses. It is off until somebody asks for it.
//!
//! A heap profile should name [`leak_block`] within a minute or two, and show it growing.

mod pace;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{self, Instant, MissedTickBehavior};

pub(crate) use self::pace::LeakRate;
use self::pace::{BLOCK, Pace};

/// The leak. A clone is another handle to the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Leak(Arc<Inner>);

impl Leak {
    /// Leaks at this rate from now on. What was lost stays lost.
    pub(crate) async fn set(&self, rate: LeakRate) -> Lost {
        let mut running = self.0.running.lock().await;
        if let Some(task) = running.task.take() {
            task.abort();
            // Once this is answered, nothing more is lost at the old rate.
            let _ = task.await;
        }
        running.rate = rate;
        if !rate.is_zero() {
            let inner = Arc::clone(&self.0);
            running.task = Some(tokio::spawn(async move { leak_at(rate, &inner.blocks).await }));
        }
        self.lost(rate)
    }

    /// The rate, and what has been lost so far.
    pub(crate) async fn get(&self) -> Lost {
        let rate = self.0.running.lock().await.rate;
        self.lost(rate)
    }

    fn lost(&self, mb_per_min: LeakRate) -> Lost {
        let blocks = self.0.blocks.load(Ordering::Relaxed);
        Lost { mb_per_min, leaked_bytes: blocks * BLOCK as u64 }
    }
}

/// The state of the leak, as it is shown.
#[derive(Debug, Serialize)]
pub(crate) struct Lost {
    mb_per_min: LeakRate,
    leaked_bytes: u64,
}

#[derive(Debug, Default)]
struct Inner {
    running: Mutex<Running>,
    blocks: AtomicU64,
}

#[derive(Debug, Default)]
struct Running {
    rate: LeakRate,
    /// None where the rate is zero.
    task: Option<JoinHandle<()>>,
}

/// How often the leak is brought up to date.
const TICK: Duration = Duration::from_millis(100);

async fn leak_at(rate: LeakRate, blocks: &AtomicU64) {
    let mut pace = Pace::new(rate);
    let mut before = Instant::now();
    let mut ticks = time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let now = Instant::now();
        for _ in 0..pace.blocks_after(now - before) {
            leak_block();
            blocks.fetch_add(1, Ordering::Relaxed);
        }
        before = now;
    }
}

/// Loses [`BLOCK`] bytes. Not inlined, so that a heap profile has this name on them, in every
/// build.
#[inline(never)]
fn leak_block() {
    // Written to, not only reserved: pages that were never touched take no memory.
    std::hint::black_box(vec![0xa5u8; BLOCK].leak());
}
