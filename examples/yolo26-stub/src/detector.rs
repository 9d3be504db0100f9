//! One picture from bytes to boxes, on a pool of threads that do nothing else.
//!
//! Decoding and inference never run on the threads that serve HTTP, and no more is admitted than
//! a bounded number of pictures: beyond it a request is refused at once, rather than late.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::body::Bytes;
use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};
use serde::Serialize;
use tokio::sync::{Semaphore, oneshot};

use crate::error::DetectError;
use crate::letterbox::Letterbox;
use crate::network::{CLASSES, InputSize, Network};
use crate::nms::{self, BoundingBox, Candidate};
use crate::picture;

/// What was found in one picture, and what it cost.
#[derive(Debug, Serialize)]
pub(crate) struct Answer {
    width: u32,
    height: u32,
    detections: Vec<Detection>,
    timings_ms: Timings,
}

/// One thing found.
#[derive(Debug, Serialize)]
struct Detection {
    class: &'static str,
    confidence: f32,
    /// In the picture's own pixels.
    #[serde(rename = "box")]
    bounds: BoundingBox,
}

/// Where the time went, in milliseconds.
#[derive(Debug, Serialize)]
struct Timings {
    /// Waiting for a thread.
    queue: f64,
    /// JPEG or PNG to pixels.
    decode: f64,
    /// Pixels to the network's square.
    letterbox: f64,
    /// The network, from the square to candidates.
    infer: f64,
    /// Choosing among the candidates.
    nms: f64,
    /// All of these, and the little between them.
    total: f64,
}

/// What became of the bodies that arrived whole and whose senders waited for the answer.
#[derive(Debug, Serialize)]
pub(crate) struct Counts {
    /// Pictures answered with detections, be there any or none.
    detected: u64,
    /// Bodies that were no acceptable picture.
    rejected: u64,
    /// Pictures refused because too many were waiting.
    refused: u64,
    /// Pictures whose computation panicked.
    failed: u64,
}

/// The pool and the network. A clone is another handle to the same.
#[derive(Debug, Clone)]
pub(crate) struct Detector(Arc<Inner>);

impl Detector {
    /// Starts the pool, a thread a core.
    pub(crate) fn new(size: InputSize) -> Result<Self, ThreadPoolBuildError> {
        let pool = ThreadPoolBuilder::new()
            .thread_name(|index| format!("infer-{index}"))
            // A panic ends one request; without a handler it would end the process.
            .panic_handler(|_| tracing::error!("a picture's computation panicked"))
            .build()?;
        Ok(Self(Arc::new(Inner {
            admission: Arc::new(Semaphore::new(PICTURES_PER_THREAD * pool.current_num_threads())),
            pool,
            pipeline: Pipeline { network: Network::new(SEED), size: size.pixels() },
            detected: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        })))
    }

    /// Finds what there is in the bytes of a JPEG or PNG.
    pub(crate) async fn detect(&self, bytes: Bytes) -> Result<Answer, DetectError> {
        let result = self.run(bytes).await;
        let count = match result {
            Ok(_) => &self.0.detected,
            Err(DetectError::Overloaded) => &self.0.refused,
            Err(DetectError::Crashed) => &self.0.failed,
            Err(_) => &self.0.rejected,
        };
        count.fetch_add(1, Ordering::Relaxed);
        result
    }

    /// What became of all requests so far; see [`Counts`].
    pub(crate) fn counts(&self) -> Counts {
        Counts {
            detected: self.0.detected.load(Ordering::Relaxed),
            rejected: self.0.rejected.load(Ordering::Relaxed),
            refused: self.0.refused.load(Ordering::Relaxed),
            failed: self.0.failed.load(Ordering::Relaxed),
        }
    }

    async fn run(&self, bytes: Bytes) -> Result<Answer, DetectError> {
        let admission = Arc::clone(&self.0.admission);
        let permit = admission.try_acquire_owned().map_err(|_| DetectError::Overloaded)?;
        let (reply, answer) = oneshot::channel();
        let inner = Arc::clone(&self.0);
        let admitted = Instant::now();
        self.0.pool.spawn(move || {
            // The permit is given back with the work done, not with the client gone.
            let _permit = permit;
            // Nobody waits any more: the client has hung up.
            if reply.is_closed() {
                return;
            }
            let _ = reply.send(inner.pipeline.run(&bytes, admitted));
        });
        answer.await.unwrap_or(Err(DetectError::Crashed))
    }
}

/// Pictures admitted at a time, for each thread of the pool: enough to keep it busy, few enough
/// that the last one does not wait for long.
const PICTURES_PER_THREAD: usize = 4;
/// Any number: it only must not change, or the answers would.
const SEED: u64 = 26;
/// Two boxes of a class that share more ground than this are one thing.
const OVERLAP: f32 = 0.5;
/// Most detections in an answer.
const DETECTIONS: usize = 100;

#[derive(Debug)]
struct Inner {
    pool: ThreadPool,
    admission: Arc<Semaphore>,
    pipeline: Pipeline,
    detected: AtomicU64,
    rejected: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
}

/// The work itself, with no idea of threads or HTTP.
#[derive(Debug)]
struct Pipeline {
    network: Network,
    size: usize,
}

impl Pipeline {
    fn run(&self, bytes: &[u8], admitted: Instant) -> Result<Answer, DetectError> {
        let queue = milliseconds(admitted);
        let (picture, decode) = stage("decode", || picture::decode(bytes));
        let picture = picture?;
        let (width, height) = picture.dimensions();

        let place = Letterbox::new(width, height, self.size);
        let (square, letterbox) = stage("letterbox", || place.draw(&picture));
        // The largest buffer of all has done its part.
        drop(picture);

        let (candidates, infer) = stage("infer", || self.network.detect(&square));
        let (kept, nms) = stage("nms", || nms::suppress(candidates, OVERLAP, DETECTIONS));

        let detections = kept.iter().map(|candidate| Detection::new(candidate, &place)).collect();
        let total = milliseconds(admitted);
        let timings_ms = Timings { queue, decode, letterbox, infer, nms, total };
        Ok(Answer { width, height, detections, timings_ms })
    }
}

/// Runs a stage with its name on this thread's samples, and says how many milliseconds it took.
fn stage<T>(name: &str, work: impl FnOnce() -> T) -> (T, f64) {
    let _stage = hsi_profiling::label("stage", name);
    let started = Instant::now();
    let result = work();
    (result, milliseconds(started))
}

impl Detection {
    fn new(candidate: &Candidate, letterbox: &Letterbox) -> Self {
        Self {
            class: CLASSES.get(candidate.class).copied().unwrap_or("unknown"),
            confidence: (candidate.confidence * 1000.0).round() / 1000.0,
            bounds: letterbox.to_picture(candidate.bounds),
        }
    }
}

/// To a microsecond: what is beyond is noise.
fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_micros() as f64 / 1000.0
}
