//! One completion from prompt to tokens, on a pool of threads that do nothing else.
//!
//! The model never runs on the threads that serve HTTP, and no more is admitted than a bounded
//! number of completions: beyond it a request is refused at once, rather than late. A completion
//! runs on one thread from beginning to end. Parallel loops inside it would finish one sooner, but
//! a thread that waits in such a loop takes up other work of its pool, and here that is another
//! completion, whole.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};
use serde::Serialize;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::error::RequestError;
use crate::model::{CONTEXT, Depth, Model, Sampler, TextStream, Token};
use crate::request::Request;
use crate::sessions::{Conversation, Lease, Sessions};

/// A completion that has begun. Dropping it stops the work at the next token.
#[derive(Debug)]
pub(crate) struct Completion {
    /// Different for each.
    pub(crate) serial: u64,
    /// How many tokens the prompt came to.
    pub(crate) prompt_tokens: usize,
    /// How many the session had before it.
    pub(crate) cached_tokens: usize,
    /// What is said, as it is said. It ends after [`Event::Done`]; without one, the computation
    /// panicked.
    pub(crate) events: Receiver<Event>,
}

/// What happens in a completion.
#[derive(Debug)]
pub(crate) enum Event {
    /// One token. Its text may be empty, where it ends within a character.
    Token(String),
    /// There will be no more.
    Done {
        /// What the last token left incomplete.
        rest: String,
    },
}

/// What became of the requests for completions.
#[derive(Debug, Serialize)]
pub(crate) struct Counts {
    /// Answered to the last token.
    completed: u64,
    /// Stopped because nobody was listening any more.
    cancelled: u64,
    /// Requests that can't be answered as they are.
    rejected: u64,
    /// Requests refused because too many were waiting.
    refused: u64,
    /// Completions whose computation panicked.
    failed: u64,
    /// Tokens read: those of prompts, and the last one of each answer that a session went on from.
    read_tokens: u64,
    /// Tokens said.
    generated_tokens: u64,
}

/// The pool and the model. A clone is another handle to the same.
#[derive(Debug, Clone)]
pub(crate) struct Generator(Arc<Inner>);

impl Generator {
    /// Starts the pool, a thread a core.
    pub(crate) fn new(depth: Depth, sessions: Sessions) -> Result<Self, ThreadPoolBuildError> {
        let pool = ThreadPoolBuilder::new()
            .thread_name(|index| format!("infer-{index}"))
            // A panic ends one request; without a handler it would end the process.
            .panic_handler(|_| tracing::error!("what a completion left behind panicked"))
            .build()?;
        let permits = COMPLETIONS_PER_THREAD * pool.current_num_threads();
        Ok(Self(Arc::new(Inner {
            admission: Arc::new(Semaphore::new(permits)),
            pool,
            engine: Arc::new(Engine {
                model: Model::new(SEED, depth),
                counters: Counters::default(),
            }),
            sessions,
            serial: AtomicU64::new(0),
        })))
    }

    /// Begins a completion, as soon as a thread has time for it.
    pub(crate) async fn complete(&self, request: Request) -> Result<Completion, RequestError> {
        let result = self.start(request).await;
        if let Err(error) = &result {
            self.count_error(error);
        }
        result
    }

    /// Counts a request that came to nothing. A crash was counted where it happened.
    pub(crate) fn count_error(&self, error: &RequestError) {
        let counters = &self.0.engine.counters;
        match error {
            RequestError::Crashed => {}
            RequestError::Overloaded => add(&counters.refused, 1),
            _ => add(&counters.rejected, 1),
        }
    }

    /// What became of all requests so far; see [`Counts`].
    pub(crate) fn counts(&self) -> Counts {
        let counters = &self.0.engine.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            completed: read(&counters.completed),
            cancelled: read(&counters.cancelled),
            rejected: read(&counters.rejected),
            refused: read(&counters.refused),
            failed: read(&counters.failed),
            read_tokens: read(&counters.read_tokens),
            generated_tokens: read(&counters.generated_tokens),
        }
    }

    async fn start(&self, request: Request) -> Result<Completion, RequestError> {
        let admission = Arc::clone(&self.0.admission);
        let permit = admission.try_acquire_owned().map_err(|_| RequestError::Overloaded)?;
        let lease = match &request.session {
            Some(id) => self.0.sessions.take(id.clone())?,
            None => Lease::default(),
        };
        let serial = self.0.serial.fetch_add(1, Ordering::Relaxed);
        // Room for all that can come: a client that reads slowly holds up no thread.
        let (events, receiver) = mpsc::channel(request.max_tokens + 1);
        let (begun, beginning) = oneshot::channel();
        let job = Job { request, lease, serial, begun, events, permit };
        let engine = Arc::clone(&self.0.engine);
        self.0.pool.spawn(move || engine.run(job));

        let Begun { prompt_tokens, cached_tokens } =
            beginning.await.unwrap_or(Err(RequestError::Crashed))?;
        Ok(Completion { serial, prompt_tokens, cached_tokens, events: receiver })
    }
}

/// Completions admitted at a time, for each thread of the pool: enough to keep it busy, few enough
/// that the last one does not wait for long.
const COMPLETIONS_PER_THREAD: usize = 4;
/// Any number: it only must not change, or the answers would.
const SEED: u64 = 8027;
/// How many tokens of a prompt are read in one go: enough to read each weight seldom, few enough
/// to notice soon that nobody waits any more.
const PIECE: usize = 32;

#[derive(Debug)]
struct Inner {
    pool: ThreadPool,
    admission: Arc<Semaphore>,
    engine: Arc<Engine>,
    sessions: Sessions,
    serial: AtomicU64,
}

/// All that one completion needs on its way through the pool.
#[derive(Debug)]
struct Job {
    request: Request,
    lease: Lease,
    serial: u64,
    begun: oneshot::Sender<Result<Begun, RequestError>>,
    events: Sender<Event>,
    /// Given back with the work done, not with the client gone.
    permit: OwnedSemaphorePermit,
}

/// What is known once the prompt has become tokens.
#[derive(Debug)]
struct Begun {
    prompt_tokens: usize,
    cached_tokens: usize,
}

/// Nobody was listening any more.
#[derive(Debug)]
struct Cancelled;

#[derive(Debug, Default)]
struct Counters {
    completed: AtomicU64,
    cancelled: AtomicU64,
    rejected: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    read_tokens: AtomicU64,
    generated_tokens: AtomicU64,
}

/// The work itself, with no idea of threads or HTTP. It is apart from [`Inner`], lest a thread of
/// the pool be the last to hold the pool.
#[derive(Debug)]
struct Engine {
    model: Model,
    counters: Counters,
}

impl Engine {
    fn run(&self, job: Job) {
        // The model is never changed, and what the job had is dropped with it.
        if panic::catch_unwind(AssertUnwindSafe(|| self.complete(job))).is_err() {
            tracing::error!("a completion panicked");
            add(&self.counters.failed, 1);
        }
    }

    fn complete(&self, job: Job) {
        let Job { request, mut lease, serial, begun, events, permit } = job;
        let prompt = {
            let _stage = hsi_profiling::label("stage", "tokenize");
            self.model.tokenizer().encode(&request.prompt)
        };
        let (prompt_tokens, cached_tokens) = (prompt.len(), lease.conversation.tokens());
        // At least one more is needed to answer with.
        let fits = prompt_tokens + cached_tokens < CONTEXT;
        let said = if fits {
            // Where the client has hung up meanwhile, the channel for events is closed as well.
            let _ = begun.send(Ok(Begun { prompt_tokens, cached_tokens }));
            self.converse(&request, &prompt, &mut lease.conversation, serial, &events)
        } else {
            let error =
                RequestError::TooManyTokens { prompt: prompt_tokens, cached: cached_tokens };
            lease.give_back();
            drop(permit);
            let _ = begun.send(Err(error));
            return;
        };

        // All is in order before the client hears of the end: its next request may come at once.
        // Where nobody listened to the end the conversation is kept too, as far as it went.
        lease.give_back();
        drop(permit);
        match said {
            Ok(rest) => {
                add(&self.counters.completed, 1);
                let _ = events.try_send(Event::Done { rest });
            }
            Err(Cancelled) => add(&self.counters.cancelled, 1),
        }
    }

    /// Reads the prompt, then says one token after the other. What comes back is the text that the
    /// last token left incomplete.
    fn converse(
        &self,
        request: &Request,
        prompt: &[Token],
        conversation: &mut Conversation,
        serial: u64,
        events: &Sender<Event>,
    ) -> Result<String, Cancelled> {
        let mut scores = self.read(prompt, conversation, events)?;
        let _stage = hsi_profiling::label("stage", "decode");
        let Conversation { cache, unread } = conversation;
        let mut sampler = Sampler::new(request.temperature, serial);
        let mut text = TextStream::default();
        for said in 1.. {
            let token = sampler.choose(scores);
            *unread = Some(token);
            add(&self.counters.generated_tokens, 1);
            let piece = text.push(self.model.tokenizer().bytes(token));
            events.try_send(Event::Token(piece)).map_err(|_| Cancelled)?;
            if said == request.max_tokens || cache.tokens() == CONTEXT {
                break;
            }
            scores = self.model.forward(&[token], cache);
            *unread = None;
        }
        Ok(text.finish())
    }

    /// Reads what was said last and the prompt after it. What comes back are the scores for the
    /// first token of the answer.
    fn read(
        &self,
        prompt: &[Token],
        conversation: &mut Conversation,
        events: &Sender<Event>,
    ) -> Result<Vec<f32>, Cancelled> {
        let _stage = hsi_profiling::label("stage", "prefill");
        let Conversation { cache, unread } = conversation;
        let tokens: Vec<_> = unread.iter().chain(prompt).copied().collect();
        let mut scores = Vec::new();
        for piece in tokens.chunks(PIECE) {
            if events.is_closed() {
                return Err(Cancelled);
            }
            *unread = None;
            scores = self.model.forward(piece, cache);
            add(&self.counters.read_tokens, piece.len() as u64);
        }
        Ok(scores)
    }
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}
