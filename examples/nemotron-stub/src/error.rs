//! Why a request was turned down, in words for whoever sent it.
//!
//! What each error means in HTTP is the routes' business.

use std::fmt;

use crate::model::CONTEXT;
use crate::sessions::SessionId;

/// Why a request was turned down.
#[derive(Debug)]
pub(crate) enum RequestError {
    /// The body did not arrive whole; the sender's connection failed or lied about its length.
    Unreadable(String),
    /// More bytes than [`crate::routes::MAX_BODY`].
    TooManyBytes,
    /// The body is no JSON object.
    NotJson(String),
    /// A field has a value that it can't have, or none where it must have one.
    Field {
        /// As the request spells it.
        name: &'static str,
        /// What it is; shortened where it is long.
        value: String,
        /// What it may be.
        allowed: &'static str,
    },
    /// A field that means nothing to us. Passed over in silence, a misspelt one would be missed.
    UnknownField(String),
    /// The prompt does not fit behind what the session has already.
    TooManyTokens {
        /// The prompt's own.
        prompt: usize,
        /// What is in the session's cache.
        cached: usize,
    },
    /// Another completion is under way in the session.
    SessionBusy(SessionId),
    /// There is no such session, or not any more.
    NoSession(SessionId),
    /// As much work is admitted as we want to owe.
    Overloaded,
    /// The computation panicked; the log has more.
    Crashed,
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(why) => write!(f, "the body could not be read: {why}"),
            Self::TooManyBytes => {
                let allowed = crate::routes::MAX_BODY >> 10;
                write!(f, "the body is too large; at most {allowed} KiB are allowed")
            }
            Self::NotJson(why) => write!(f, "the body is not a JSON object: {why}"),
            Self::Field { name, value, allowed } => write!(f, "{name} is {value}; {allowed}"),
            Self::UnknownField(name) => write!(
                f,
                "unknown field {name:?}; \
                 prompt, max_tokens, session, temperature, stream and model are allowed"
            ),
            Self::TooManyTokens { prompt, cached } => write!(
                f,
                "prompt has {prompt} tokens and the session has {cached}; {} together are \
                 allowed; shorten the prompt, or begin another session",
                // One more is needed to answer with.
                CONTEXT - 1
            ),
            Self::SessionBusy(id) => {
                write!(f, "session {id} is busy with another completion; wait for its end")
            }
            Self::NoSession(id) => write!(
                f,
                "there is no session {id}; those there are, GET /v1/sessions lists; \
                 the ones unused for longest are dropped where memory is short"
            ),
            Self::Overloaded => {
                write!(f, "too many completions are waiting; try again in a second")
            }
            Self::Crashed => write!(f, "the computation failed; this is our fault"),
        }
    }
}
