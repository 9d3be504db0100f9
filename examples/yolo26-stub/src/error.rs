//! Why a picture got no answer, in words for whoever sent it.
//!
//! What each error means in HTTP is the routes' business.

use std::fmt;

use crate::picture::{MAX_PIXELS, MAX_SIDE};

/// Why a request was turned down.
#[derive(Debug)]
pub(crate) enum DetectError {
    /// Nothing was sent.
    Empty,
    /// The body did not arrive whole; the sender's connection failed or lied about its length.
    Unreadable(String),
    /// More bytes than [`crate::routes::MAX_BODY`].
    TooManyBytes,
    /// Something other than JPEG or PNG; the name of what it looks like, where it looks like
    /// anything.
    Format(Option<String>),
    /// More pixels than we care to decode.
    TooManyPixels {
        /// As the picture's own header says.
        width: u32,
        /// As the picture's own header says.
        height: u32,
    },
    /// It began as a picture and did not go on as one.
    Damaged(String),
    /// As much work is admitted as we want to owe.
    Overloaded,
    /// The computation panicked; the log has more.
    Crashed,
}

impl fmt::Display for DetectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "the body is empty; send the bytes of a JPEG or PNG picture"),
            Self::Unreadable(why) => write!(f, "the body could not be read: {why}"),
            Self::TooManyBytes => {
                let allowed = crate::routes::MAX_BODY >> 20;
                write!(f, "the body is too large; at most {allowed} MiB are allowed")
            }
            Self::Format(Some(name)) => {
                write!(f, "the body looks like {name}; JPEG and PNG are allowed")
            }
            Self::Format(None) => {
                write!(f, "the body is no known picture format; JPEG and PNG are allowed")
            }
            Self::TooManyPixels { width, height } => write!(
                f,
                "the picture has {width} x {height} pixels; at most {MAX_SIDE} a side and \
                 {} million in all are allowed",
                MAX_PIXELS / 1_000_000
            ),
            Self::Damaged(why) => write!(f, "the picture is damaged: {why}"),
            Self::Overloaded => write!(f, "too many pictures are waiting; try again in a second"),
            Self::Crashed => write!(f, "the computation failed; this is our fault"),
        }
    }
}
