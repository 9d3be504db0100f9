//! Protobuf's outermost level, one field at a time.
//!
//! Decoding a whole file at once would turn two bytes of a hostile one into seventy in memory.
//! Here its messages stay slices until somebody has counted them.

use super::error::DecodeError;

/// A field of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// Four or eight bytes; no field of pprof's is of this kind.
    Fixed,
}

/// The fields of a message with their numbers, in the order of the file.
#[derive(Clone, Debug)]
pub(super) struct Fields<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    pub(super) fn new(message: &'a [u8]) -> Self {
        Self { message, at: 0 }
    }

    fn field(&mut self) -> Result<(u64, Value<'a>), &'static str> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            _ => return Err("a field of a kind that profiles don't have"),
        };
        match key >> 3 {
            0 => Err("a field with the number 0"),
            number => Ok((number, value)),
        }
    }

    fn varint(&mut self) -> Result<u64, &'static str> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.message.get(self.at).ok_or(CUT)?;
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err("a number of more than ten bytes")
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], &'static str> {
        let length = usize::try_from(length).map_err(|_| CUT)?;
        let bytes = self.message[self.at..].get(..length).ok_or(CUT)?;
        self.at += length;
        Ok(bytes)
    }
}

const CUT: &str = "the end of the file in the middle of a field";

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.message.len() {
            return None;
        }
        let start = self.at;
        Some(self.field().map_err(|found| {
            self.at = self.message.len();
            DecodeError::Malformed { field: "profile", at: start, found: found.into() }
        }))
    }
}

/// The numbers of a repeated integer field, packed or not.
pub(super) fn integers(value: Value<'_>) -> Vec<Result<u64, &'static str>> {
    match value {
        Value::Varint(number) => vec![Ok(number)],
        Value::Fixed => Vec::new(),
        Value::Bytes(packed) => {
            let mut fields = Fields::new(packed);
            let mut numbers = Vec::new();
            while fields.at < packed.len() && numbers.last().is_none_or(Result::is_ok) {
                numbers.push(fields.varint());
            }
            numbers
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_one_by_one() {
        let bytes = [0x48, 0xac, 0x02, 0x32, 2, b'h', b'i', 0x0d, 1, 2, 3, 4];
        let fields: Result<Vec<_>, _> = Fields::new(&bytes).collect();
        let want = [(9, Value::Varint(300)), (6, Value::Bytes(b"hi")), (1, Value::Fixed)];
        assert_eq!(fields.unwrap(), want);
    }

    #[test]
    fn what_is_cut_or_wrong_ends_the_list() {
        for (bytes, word) in [
            (&[0x48][..], "end of the file"),
            (&[0x32, 5, 1][..], "end of the file"),
            (&[0x32, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f][..], "end of the file"),
            (&[0x48, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255][..], "ten bytes"),
            (&[0x0b][..], "kind"),
            (&[0x02, 0][..], "number 0"),
        ] {
            let all: Vec<_> = Fields::new(bytes).collect();
            assert_eq!(all.len(), 1, "{bytes:?}");
            let error = all[0].as_ref().unwrap_err().to_string();
            assert!(error.contains(word), "{bytes:?}: {error}");
        }
    }
}
