//! The model: a decoder-only transformer, small enough for one core and otherwise as they are.
//!
//! Training is not here: the weights come from a seed, and what is said means nothing. Sessions,
//! queues and HTTP are not here either; a cache is handed in, and grows.

mod attention;
mod cache;
mod depth;
mod feed_forward;
mod layer;
mod matrix;
mod norm;
mod rotary;
mod rows;
mod sampler;
mod softmax;
mod text;
mod tokenizer;
mod weights;

use self::layer::Layer;
use self::matrix::Matrix;
use self::norm::rms_norm;
use self::rows::Rows;
use self::weights::Weights;

pub(crate) use self::cache::KvCache;
pub(crate) use self::depth::Depth;
pub(crate) use self::sampler::Sampler;
pub(crate) use self::text::TextStream;
pub(crate) use self::tokenizer::{Token, Tokenizer};

/// Most tokens that a cache may hold: what is asked and what is answered, in all turns.
pub(crate) const CONTEXT: usize = 2048;

/// A model with its weights and its vocabulary in memory, ready to run.
#[derive(Debug)]
pub(crate) struct Model {
    tokenizer: Tokenizer,
    /// A row for each token.
    embedding: Vec<f32>,
    layers: Vec<Layer>,
    /// From the last layer to a score for each token.
    output: Matrix,
    /// What each score starts from.
    biases: Vec<f32>,
}

impl Model {
    /// The same seed makes the same model.
    pub(crate) fn new(seed: u64, depth: Depth) -> Self {
        let mut weights = Weights::new(seed);
        let tokenizer = Tokenizer::new();
        let biases = tokenizer.log_frequencies();
        Self {
            tokenizer,
            embedding: weights.numbers(VOCABULARY * WIDTH, 1.0),
            layers: (0..depth.layers()).map(|_| Layer::new(&mut weights)).collect(),
            output: weights.matrix(WIDTH, VOCABULARY, CERTAINTY),
            biases,
        }
    }

    pub(crate) fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Reads the tokens that follow those in the cache, at least one, adds them to it, and gives
    /// each token of the vocabulary a score for coming next.
    ///
    /// All of it runs on the calling thread, in a fixed order: how a text is cut into calls does
    /// not change a bit of the scores.
    pub(crate) fn forward(&self, tokens: &[Token], cache: &mut KvCache) -> Vec<f32> {
        let mut rows = self.embed(tokens);
        for (layer, cache) in self.layers.iter().zip(cache.layers_mut(self.layers.len())) {
            layer.apply(&mut rows, cache);
        }
        self.score(&rows.last())
    }

    fn embed(&self, tokens: &[Token]) -> Rows {
        let mut rows = Rows::zeros(tokens.len(), WIDTH);
        for (row, &token) in rows.iter_mut().zip(tokens) {
            row.copy_from_slice(&self.embedding[usize::from(token) * WIDTH..][..WIDTH]);
        }
        rows
    }

    fn score(&self, row: &Rows) -> Vec<f32> {
        let scores = self.output.multiply(&rms_norm(row));
        scores.values().iter().zip(&self.biases).map(|(score, bias)| score + bias).collect()
    }
}

/// Numbers in a row between layers.
const WIDTH: usize = 256;
/// Heads of attention in a layer.
const HEADS: usize = 8;
/// Numbers in a row that one head looks at.
const HEAD: usize = WIDTH / HEADS;
/// Numbers in a row inside the feed-forward half of a layer.
const HIDDEN: usize = 1024;
/// How many tokens there are.
const VOCABULARY: usize = 512;
/// How far the scores lie apart, beside the frequencies that they start from. Much more, and the
/// same few tokens come again and again; much less, and the prompt has no say.
const CERTAINTY: f32 = 1.5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_in_pieces_scores_as_the_text_in_one() {
        let model = Model::new(3, depth(2));
        let tokens = model.tokenizer().encode("The cache grows with every token of the text.");
        assert!(tokens.len() > 6);
        let mut whole = KvCache::default();
        let expect = model.forward(&tokens, &mut whole);

        for size in [1, 2, 5] {
            let mut cache = KvCache::default();
            let mut scores = Vec::new();
            for piece in tokens.chunks(size) {
                scores = model.forward(piece, &mut cache);
            }
            assert_eq!(cache.tokens(), tokens.len());
            assert_eq!(scores, expect, "in pieces of {size}");
        }
    }

    #[test]
    fn what_comes_first_matters_and_so_does_its_place() {
        let model = Model::new(3, depth(1));
        let score = |tokens: &[Token]| model.forward(tokens, &mut KvCache::default());
        assert_eq!(score(&[300, 301, 302]), score(&[300, 301, 302]));
        assert_ne!(score(&[300, 301, 302]), score(&[299, 301, 302]));
        assert_ne!(score(&[300, 301, 302]), score(&[301, 300, 302]));
    }

    #[test]
    fn scores_stay_within_reason_over_a_long_text() {
        let model = Model::new(3, depth(4));
        let mut cache = KvCache::default();
        let mut scores = Vec::new();
        for start in 0..8 {
            let tokens: Vec<Token> = (start * 8..start * 8 + 8).collect();
            scores = model.forward(&tokens, &mut cache);
        }
        assert_eq!(scores.len(), VOCABULARY);
        assert!(scores.iter().all(|score| score.abs() < 30.0), "{scores:?}");
    }

    fn depth(layers: usize) -> Depth {
        layers.to_string().parse().expect("a depth")
    }
}
