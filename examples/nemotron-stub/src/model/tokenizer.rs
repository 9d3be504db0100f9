//! Text to tokens and back, by byte pairs.
//!
//! The first 256 tokens are the bytes, so any text can be told in tokens. The others are learnt
//! when the service starts: again and again, the pair of tokens that stands side by side most
//! often in a small text of ours becomes a token of its own. The same text makes the same
//! vocabulary on every machine, and no file has to be fetched.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use super::VOCABULARY;

/// A token's number.
pub(crate) type Token = u16;

/// The vocabulary, and the merges that lead to it.
#[derive(Debug)]
pub(crate) struct Tokenizer {
    /// What two tokens side by side become. An earlier merge made a smaller token.
    merges: HashMap<(Token, Token), Token>,
    /// What each token stands for.
    bytes: Vec<Vec<u8>>,
}

impl Tokenizer {
    /// Learns the vocabulary.
    pub(crate) fn new() -> Self {
        Self::learn(CORPUS)
    }

    /// The tokens of a text.
    pub(crate) fn encode(&self, text: &str) -> Vec<Token> {
        words(text.as_bytes()).flat_map(|word| self.encode_word(word)).collect()
    }

    /// What a token stands for: not always whole characters.
    pub(crate) fn bytes(&self, token: Token) -> &[u8] {
        self.bytes.get(usize::from(token)).map_or(&[], Vec::as_slice)
    }

    /// For each token, the logarithm of how often it is met in our text. A model that was trained
    /// would have learnt at least that much.
    pub(crate) fn log_frequencies(&self) -> Vec<f32> {
        let tokens = self.encode(CORPUS);
        let mut counts = vec![UNSEEN; self.bytes.len()];
        for &token in &tokens {
            counts[usize::from(token)] += 1.0;
        }
        counts.into_iter().map(|count| (count / tokens.len() as f32).ln()).collect()
    }

    fn learn(corpus: &str) -> Self {
        let mut tokenizer =
            Self { merges: HashMap::new(), bytes: (0..=u8::MAX).map(|byte| vec![byte]).collect() };
        let mut counts: BTreeMap<&[u8], usize> = BTreeMap::new();
        for word in words(corpus.as_bytes()) {
            *counts.entry(word).or_default() += 1;
        }
        let mut words: Vec<(Vec<Token>, usize)> =
            counts.into_iter().map(|(word, count)| (singles(word), count)).collect();

        for merged in FIRST_MERGED..VOCABULARY as Token {
            let Some(pair) = most_frequent_pair(&words) else { break };
            for (word, _) in &mut words {
                merge(word, pair, merged);
            }
            let both = [tokenizer.bytes(pair.0), tokenizer.bytes(pair.1)].concat();
            tokenizer.bytes.push(both);
            tokenizer.merges.insert(pair, merged);
        }
        tokenizer
    }

    /// Repeats the merges in the order in which they were learnt.
    fn encode_word(&self, word: &[u8]) -> Vec<Token> {
        let mut tokens = singles(word);
        loop {
            let known = tokens.windows(2).filter_map(|pair| {
                let pair = (pair[0], pair[1]);
                self.merges.get(&pair).map(|&merged| (merged, pair))
            });
            let Some((merged, pair)) = known.min() else { return tokens };
            merge(&mut tokens, pair, merged);
        }
    }
}

/// What the vocabulary is learnt from.
const CORPUS: &str = include_str!("corpus.txt");
/// The tokens before this are single bytes.
const FIRST_MERGED: Token = 256;
/// A token that our text lacks counts as this much of one occurrence.
const UNSEEN: f32 = 0.01;

fn singles(word: &[u8]) -> Vec<Token> {
    word.iter().copied().map(Token::from).collect()
}

/// The pair that occurs most often, and the smallest among equals; none that occurs but once.
fn most_frequent_pair(words: &[(Vec<Token>, usize)]) -> Option<(Token, Token)> {
    let mut counts: HashMap<(Token, Token), usize> = HashMap::new();
    for (word, count) in words {
        for pair in word.windows(2) {
            *counts.entry((pair[0], pair[1])).or_default() += count;
        }
    }
    let (pair, count) = counts.into_iter().max_by_key(|&(pair, count)| (count, Reverse(pair)))?;
    (count > 1).then_some(pair)
}

/// Replaces each occurrence of the pair, from left to right.
fn merge(tokens: &mut Vec<Token>, pair: (Token, Token), merged: Token) {
    let mut kept = 0;
    let mut next = 0;
    while next < tokens.len() {
        let is_pair = tokens[next] == pair.0 && tokens.get(next + 1) == Some(&pair.1);
        tokens[kept] = if is_pair { merged } else { tokens[next] };
        next += if is_pair { 2 } else { 1 };
        kept += 1;
    }
    tokens.truncate(kept);
}

/// Cuts a text where letters, spaces and other bytes meet. Spaces stay with what follows them, so
/// that a word is mostly one token, the space before it included. No merge reaches across a cut.
fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.chunk_by(|&before, &after| {
        let (before, after) = (Kind::of(before), Kind::of(after));
        before == after || before == Kind::Space
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Or a digit, or part of a character beyond ASCII.
    Letter,
    Space,
    Other,
}

impl Kind {
    fn of(byte: u8) -> Self {
        match byte {
            _ if byte.is_ascii_alphanumeric() || !byte.is_ascii() => Self::Letter,
            _ if byte.is_ascii_whitespace() => Self::Space,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_comes_back() {
        let tokenizer = Tokenizer::new();
        let awkward =
            "  two  spaces\n\tand a tab, \u{e4}\u{20ac}\u{1f980} \0 ... 1234 aaaaaaaaaaaaaaaa ";
        for text in ["", " ", "The cache grows.", awkward, CORPUS] {
            let tokens = tokenizer.encode(text);
            let bytes: Vec<u8> =
                tokens.iter().flat_map(|&token| tokenizer.bytes(token)).copied().collect();
            assert_eq!(String::from_utf8(bytes).as_deref(), Ok(text));
        }
    }

    #[test]
    fn the_vocabulary_is_full_and_always_the_same() {
        let (one, other) = (Tokenizer::new(), Tokenizer::new());
        assert_eq!(one.bytes.len(), VOCABULARY);
        assert_eq!(one.bytes, other.bytes);
        assert_eq!(one.merges, other.merges);
    }

    #[test]
    fn merges_are_made_in_the_order_in_which_they_were_learnt() {
        // "ab" occurs five times and is merged first, then "abc", which occurs three times.
        let tokenizer = Tokenizer::learn("abc,abc,abc,ab,ab,bc");
        let tokens = |text: &str| -> Vec<String> {
            let tokens = tokenizer.encode(text).into_iter();
            tokens.map(|token| String::from_utf8_lossy(tokenizer.bytes(token)).into()).collect()
        };
        assert_eq!(tokens("abcb"), ["abc", "b"]);
        assert_eq!(tokens("bca"), ["b", "c", "a"]);
    }

    #[test]
    fn familiar_words_are_one_token() {
        let tokenizer = Tokenizer::new();
        assert_eq!(tokenizer.encode(" the").len(), 1);
        assert_eq!(tokenizer.encode(" the the the").len(), 3);
        // A byte more is a token more, and no merge reaches from one word into the next.
        assert_eq!(tokenizer.encode(" the,").len(), 2);
    }

    #[test]
    fn a_pair_that_overlaps_itself_is_merged_from_the_left() {
        let mut tokens = vec![1, 1, 1, 2];
        merge(&mut tokens, (1, 1), 9);
        assert_eq!(tokens, [9, 1, 2]);
    }

    #[test]
    fn frequent_tokens_have_higher_frequencies() {
        let tokenizer = Tokenizer::new();
        let frequencies = tokenizer.log_frequencies();
        let of = |text: &str| frequencies[usize::from(tokenizer.encode(text)[0])];
        assert!(of(" the") > of(" memory") && of(" memory") > of("\u{1}"));
    }
}
