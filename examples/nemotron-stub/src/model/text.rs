//! From tokens' bytes to text that can be sent on at once.
//!
//! A token may end in the middle of a character. What is incomplete waits for the next one; what
//! can't become a character any more is replaced by U+FFFD, as decoders of UTF-8 do.

/// The text of a stream of bytes, piece by piece.
#[derive(Debug, Default)]
pub(crate) struct TextStream {
    /// The beginning of a character: at most three bytes.
    held: Vec<u8>,
}

impl TextStream {
    /// The text that is certain with these bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> String {
        self.held.extend_from_slice(bytes);
        let mut text = String::new();
        let mut rest = self.held.as_slice();
        loop {
            let error = match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => error,
            };
            let (valid, after) = rest.split_at(error.valid_up_to());
            text.push_str(&String::from_utf8_lossy(valid));
            rest = after;
            // Without a length, the error is only that the bytes end too early.
            let Some(length) = error.error_len() else { break };
            text.push(char::REPLACEMENT_CHARACTER);
            rest = &rest[length..];
        }
        self.held = rest.to_vec();
        text
    }

    /// What is left when nothing more will come.
    pub(crate) fn finish(self) -> String {
        String::from_utf8_lossy(&self.held).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_waits_until_it_is_whole() {
        let mut stream = TextStream::default();
        let [first, second, third] = "\u{20ac}".as_bytes() else { panic!("three bytes") };
        assert_eq!(stream.push(&[b'a', *first]), "a");
        assert_eq!(stream.push(&[*second]), "");
        assert_eq!(stream.push(&[*third, b'b']), "\u{20ac}b");
        assert_eq!(stream.finish(), "");
    }

    #[test]
    fn what_is_no_character_is_replaced() {
        let mut stream = TextStream::default();
        assert_eq!(stream.push(b"\xffa\xe2\x82b"), "\u{fffd}a\u{fffd}b");
        assert_eq!(stream.push(b"\xe2\x82"), "");
        assert_eq!(stream.finish(), "\u{fffd}");
    }

    #[test]
    fn pieces_of_any_size_make_the_same_text() {
        let bytes = b"\xc3\xa4 \xf0\x9f\xa6\x80 \xf0\x9f plain \xe2 \xe2\x82\xac\x80";
        let whole = String::from_utf8_lossy(bytes);
        for size in 1..bytes.len() {
            let mut stream = TextStream::default();
            let mut text: String = bytes.chunks(size).map(|piece| stream.push(piece)).collect();
            text.push_str(&stream.finish());
            assert_eq!(text, whole, "in pieces of {size}");
        }
    }
}
