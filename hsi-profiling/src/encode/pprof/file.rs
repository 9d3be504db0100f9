//! A file taken apart and counted, before anything in it is decoded.

use super::{
    error::{DecodeError, invalid},
    wire::{Fields, Value, integers},
};
use flate2::read::MultiGzDecoder;
use prost::Message;
use std::{borrow::Cow, io::Read, sync::Arc};

/// The largest file that [`decode`](super::decode) looks at, in bytes.
pub const MAX_COMPRESSED_BYTES: usize = 32 << 20;

/// The largest profile that [`decode`](super::decode) unpacks, in bytes.
pub const MAX_PROFILE_BYTES: usize = 64 << 20;

/// What a file may hold. Each is well over what profilers write, and low enough that the memory
/// for all of them together stays below a gigabyte.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    pub(super) compressed: usize,
    pub(super) bytes: usize,
    pub(super) types: usize,
    pub(super) strings: usize,
    pub(super) string_bytes: usize,
    pub(super) mappings: usize,
    pub(super) locations: usize,
    pub(super) functions: usize,
    pub(super) samples: usize,
    pub(super) values: usize,
    pub(super) depth: usize,
    pub(super) lines: usize,
    pub(super) all_lines: usize,
    /// Frames of all stacks with the inlined ones: the size of the call tree.
    pub(super) frames: usize,
    pub(super) labels: usize,
    pub(super) label_pairs: usize,
    pub(super) comments: usize,
    /// One sample, location or other entry, in bytes.
    pub(super) message: usize,
    /// Texts that are made here rather than shared, in bytes.
    pub(super) copied: usize,
}

impl Limits {
    pub(super) const DEFAULT: Self = Self {
        compressed: MAX_COMPRESSED_BYTES,
        bytes: MAX_PROFILE_BYTES,
        types: 32,
        strings: 1 << 20,
        string_bytes: 256 << 10,
        mappings: 1 << 16,
        locations: 1 << 19,
        functions: 1 << 19,
        samples: 1 << 20,
        values: 1 << 23,
        depth: 4096,
        lines: 512,
        all_lines: 1 << 20,
        frames: 1 << 22,
        labels: 128,
        label_pairs: 1 << 21,
        comments: 1000,
        message: 64 << 10,
        copied: 16 << 20,
    };
}

pub(super) fn within(count: usize, limit: usize, what: &'static str) -> Result<(), DecodeError> {
    if count > limit { Err(DecodeError::TooLarge { what, limit }) } else { Ok(()) }
}

pub(super) fn unpack<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Cow<'a, [u8]>, DecodeError> {
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        within(bytes.len(), limits.bytes, "bytes of profile")?;
        return Ok(Cow::Borrowed(bytes));
    }
    within(bytes.len(), limits.compressed, "bytes of compressed profile")?;
    let mut raw = Vec::new();
    MultiGzDecoder::new(bytes)
        .take(limits.bytes as u64 + 1)
        .read_to_end(&mut raw)
        .map_err(|e| DecodeError::Gzip { found: e.to_string() })?;
    within(raw.len(), limits.bytes, "bytes of profile")?;
    Ok(Cow::Owned(raw))
}

/// The parts of a file, counted but not yet decoded.
#[derive(Default)]
pub(super) struct File<'a> {
    pub(super) types: Vec<&'a [u8]>,
    pub(super) samples: Vec<&'a [u8]>,
    pub(super) mappings: Vec<&'a [u8]>,
    pub(super) locations: Vec<&'a [u8]>,
    pub(super) functions: Vec<&'a [u8]>,
    pub(super) strings: Vec<Arc<str>>,
    pub(super) period_type: Option<&'a [u8]>,
    pub(super) comments: Vec<i64>,
    pub(super) time_nanos: i64,
    pub(super) duration_nanos: i64,
    pub(super) period: i64,
    pub(super) default_type: i64,
}

impl<'a> File<'a> {
    pub(super) fn new(raw: &'a [u8], limits: &Limits) -> Result<Self, DecodeError> {
        let mut file = Self::default();
        for field in Fields::new(raw) {
            let (number, value) = field?;
            match (number, value) {
                (1, Value::Bytes(m)) => {
                    keep(&mut file.types, m, limits.types, limits, "value types")?;
                }
                (2, Value::Bytes(m)) => {
                    keep(&mut file.samples, m, limits.samples, limits, "samples")?;
                }
                (3, Value::Bytes(m)) => {
                    keep(&mut file.mappings, m, limits.mappings, limits, "mappings")?;
                }
                (4, Value::Bytes(m)) => {
                    keep(&mut file.locations, m, limits.locations, limits, "locations")?;
                }
                (5, Value::Bytes(m)) => {
                    keep(&mut file.functions, m, limits.functions, limits, "functions")?;
                }
                (6, Value::Bytes(text)) => file.string(text, limits)?,
                (9, Value::Varint(v)) => file.time_nanos = v as i64,
                (10, Value::Varint(v)) => file.duration_nanos = v as i64,
                (11, Value::Bytes(m)) => file.period_type = Some(m),
                (12, Value::Varint(v)) => file.period = v as i64,
                (13, value) => file.comments(value, limits)?,
                (14, Value::Varint(v)) => file.default_type = v as i64,
                // Frames to drop or keep, the address of a document, and what is yet to come.
                (7 | 8 | 15.., _) => {}
                (number, _) => {
                    let found = format!("{value:.20?}");
                    return Err(invalid(format!("field {number}"), found, "pprof's type for it"));
                }
            }
        }
        Ok(file)
    }

    fn string(&mut self, text: &[u8], limits: &Limits) -> Result<(), DecodeError> {
        let at = self.strings.len();
        within(at + 1, limits.strings, "strings")?;
        within(text.len(), limits.string_bytes, "bytes in one string")?;
        let field = || format!("string_table[{at}]");
        let text = std::str::from_utf8(text)
            .map_err(|e| invalid(field(), format!("bytes with {e}"), "UTF-8"))?;
        if at == 0 && !text.is_empty() {
            return Err(invalid(field(), format!("{text:.40?}"), "the empty string"));
        }
        self.strings.push(text.into());
        Ok(())
    }

    fn comments(&mut self, value: Value<'_>, limits: &Limits) -> Result<(), DecodeError> {
        if let Value::Bytes(packed) = value {
            within(packed.len(), limits.message, "bytes of comments")?;
        }
        for number in integers(value) {
            let at = self.comments.len();
            within(at + 1, limits.comments, "comments")?;
            self.comments.push(number.map_err(|found| DecodeError::Malformed {
                field: "comment",
                at,
                found: found.into(),
            })? as i64);
        }
        Ok(())
    }
}

fn keep<'a>(
    messages: &mut Vec<&'a [u8]>,
    message: &'a [u8],
    limit: usize,
    limits: &Limits,
    what: &'static str,
) -> Result<(), DecodeError> {
    within(messages.len() + 1, limit, what)?;
    within(message.len(), limits.message, "bytes in one entry")?;
    messages.push(message);
    Ok(())
}

pub(super) fn message<M: Message + Default>(
    bytes: &[u8],
    field: &'static str,
    at: usize,
) -> Result<M, DecodeError> {
    M::decode(bytes).map_err(|e| malformed(field, at, &e))
}

pub(super) fn malformed(field: &'static str, at: usize, error: &prost::DecodeError) -> DecodeError {
    DecodeError::Malformed { field, at, found: error.to_string() }
}
