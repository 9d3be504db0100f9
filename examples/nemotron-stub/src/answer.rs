//! A completion as its client reads it: the objects that text-completion APIs have in common, in
//! one piece or as server-sent events.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::response::sse;
use futures_core::Stream;
use serde::Serialize;

use crate::error::RequestError;
use crate::generator::{Completion, Event};

/// The only model there is.
pub(crate) const MODEL: &str = "nemotron-stub";

/// One completion, or one piece of it.
#[derive(Debug, Serialize)]
pub(crate) struct Answer {
    id: String,
    object: &'static str,
    /// Seconds since 1970.
    created: u64,
    model: &'static str,
    choices: [Choice; 1],
    /// Only at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

impl Answer {
    /// Waits for the end of a completion.
    pub(crate) async fn whole(mut completion: Completion) -> Result<Self, RequestError> {
        let header = Header::new(&completion);
        let mut usage = Usage::new(&completion);
        let mut text = String::new();
        while let Some(event) = completion.events.recv().await {
            match event {
                Event::Token(piece) => {
                    usage.count_token();
                    text.push_str(&piece);
                }
                Event::Done { rest } => {
                    text.push_str(&rest);
                    return Ok(header.last(text, usage));
                }
            }
        }
        Err(RequestError::Crashed)
    }
}

/// A completion as server-sent events: an [`Answer`] a token, one more with the usage, and the
/// word `[DONE]`. Dropping it, as the server does when its client is gone, stops the work.
#[derive(Debug)]
pub(crate) struct Pieces {
    completion: Completion,
    header: Header,
    usage: Usage,
    stage: Stage,
}

impl Pieces {
    pub(crate) fn new(completion: Completion) -> Self {
        let header = Header::new(&completion);
        let usage = Usage::new(&completion);
        Self { completion, header, usage, stage: Stage::Tokens }
    }

    fn event(&mut self, event: Option<Event>) -> Result<sse::Event, axum::Error> {
        match event {
            Some(Event::Token(text)) => {
                self.usage.count_token();
                sse::Event::default().json_data(self.header.piece(text))
            }
            Some(Event::Done { rest }) => {
                self.stage = Stage::Word;
                sse::Event::default().json_data(self.header.last(rest, self.usage))
            }
            None => {
                self.stage = Stage::End;
                sse::Event::default().json_data(Problem::from(&RequestError::Crashed))
            }
        }
    }
}

impl Stream for Pieces {
    type Item = Result<sse::Event, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.stage {
            Stage::Tokens => {
                self.completion.events.poll_recv(context).map(|event| Some(self.event(event)))
            }
            Stage::Word => {
                self.stage = Stage::End;
                Poll::Ready(Some(Ok(sse::Event::default().data("[DONE]"))))
            }
            Stage::End => Poll::Ready(None),
        }
    }
}

/// What went wrong, in one sentence.
#[derive(Debug, Serialize)]
pub(crate) struct Problem {
    error: String,
}

impl From<&RequestError> for Problem {
    fn from(error: &RequestError) -> Self {
        Self { error: error.to_string() }
    }
}

/// What comes next in a stream of events.
#[derive(Debug, Clone, Copy)]
enum Stage {
    /// Whatever the generator says.
    Tokens,
    /// The word that ends it.
    Word,
    /// Nothing.
    End,
}

/// What all pieces of a completion have in common.
#[derive(Debug)]
struct Header {
    id: String,
    created: u64,
}

impl Header {
    fn new(completion: &Completion) -> Self {
        // A clock before 1970 is nothing to fail a request for.
        let created = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Self { id: format!("cmpl-{}", completion.serial), created }
    }

    fn piece(&self, text: String) -> Answer {
        self.answer(text, None, None)
    }

    /// There is no token that means the end, so each completion ends because it is long enough.
    fn last(&self, text: String, usage: Usage) -> Answer {
        self.answer(text, Some("length"), Some(usage))
    }

    fn answer(
        &self,
        text: String,
        finish_reason: Option<&'static str>,
        usage: Option<Usage>,
    ) -> Answer {
        Answer {
            id: self.id.clone(),
            object: "text_completion",
            created: self.created,
            model: MODEL,
            choices: [Choice { index: 0, text, logprobs: None, finish_reason }],
            usage,
        }
    }
}

#[derive(Debug, Serialize)]
struct Choice {
    index: u32,
    text: String,
    /// Never any: clients expect the field.
    logprobs: Option<()>,
    finish_reason: Option<&'static str>,
}

/// How many tokens a completion took.
#[derive(Debug, Clone, Copy, Serialize)]
struct Usage {
    /// All that the model had before it: the session's and the prompt's.
    prompt_tokens: usize,
    completion_tokens: usize,
    total_tokens: usize,
    prompt_tokens_details: PromptTokens,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct PromptTokens {
    /// Those that the session had already.
    cached_tokens: usize,
}

impl Usage {
    fn new(completion: &Completion) -> Self {
        let Completion { prompt_tokens, cached_tokens, .. } = *completion;
        Self {
            prompt_tokens: cached_tokens + prompt_tokens,
            completion_tokens: 0,
            total_tokens: cached_tokens + prompt_tokens,
            prompt_tokens_details: PromptTokens { cached_tokens },
        }
    }

    fn count_token(&mut self) {
        self.completion_tokens += 1;
        self.total_tokens += 1;
    }
}
