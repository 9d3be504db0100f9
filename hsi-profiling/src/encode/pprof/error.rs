//! What can be wrong with a file.

use std::fmt;

/// Why a file is not a profile.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// There is more of something than is allowed.
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much of it is allowed.
        limit: usize,
    },
    /// The compressed data is damaged.
    Gzip {
        /// What the decompressor says.
        found: String,
    },
    /// These bytes are not protobuf, or not pprof's.
    Malformed {
        /// The message in which that is.
        field: &'static str,
        /// The position of the field, in bytes for `profile` and in entries for any other.
        at: usize,
        /// What is there.
        found: String,
    },
    /// A field holds something that is not allowed.
    Invalid {
        /// The field, as in `sample[3].location_id`.
        field: String,
        /// What it holds.
        value: String,
        /// What it may hold.
        allowed: String,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { what, limit } => write!(f, "over {limit} {what}; that is the most"),
            Self::Gzip { found } => write!(f, "the gzip data can't be unpacked: {found}"),
            Self::Malformed { field: "profile", at, found } => {
                write!(f, "not a pprof profile: {found} at byte {at}")
            }
            Self::Malformed { field, at, found } => {
                write!(f, "not a pprof profile: {found} in `{field}[{at}]`")
            }
            Self::Invalid { field, value, allowed } => {
                write!(f, "`{field}` is {value}; allowed: {allowed}")
            }
        }
    }
}

impl std::error::Error for DecodeError {}

pub(super) fn invalid(field: String, value: impl fmt::Display, allowed: &str) -> DecodeError {
    DecodeError::Invalid { field, value: value.to_string(), allowed: allowed.into() }
}
