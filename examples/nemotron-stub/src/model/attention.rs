//! Attention: each token gathers from those before it what resembles its query.
//!
//! Keys and values go to the cache first, so a prompt in one piece, a prompt in pieces, and tokens
//! one at a time are all the same computation.

use super::cache::LayerCache;
use super::matrix::Matrix;
use super::rotary::Rotary;
use super::rows::Rows;
use super::softmax::softmax;
use super::weights::Weights;
use super::{HEAD, HEADS, WIDTH};

/// One layer's attention, with several heads that each look at their part of the rows.
#[derive(Debug)]
pub(crate) struct Attention {
    query: Matrix,
    key: Matrix,
    value: Matrix,
    output: Matrix,
    rotary: Rotary,
}

impl Attention {
    pub(crate) fn new(weights: &mut Weights) -> Self {
        let mut square = || weights.matrix(WIDTH, WIDTH, 1.0);
        Self {
            query: square(),
            key: square(),
            value: square(),
            output: square(),
            rotary: Rotary::new(),
        }
    }

    /// Takes the tokens that follow those in the cache, and adds them to it.
    pub(crate) fn apply(&self, input: &Rows, cache: &mut LayerCache) -> Rows {
        let before = cache.tokens();
        let mut queries = self.query.multiply(input);
        let mut keys = self.key.multiply(input);
        let values = self.value.multiply(input);
        for (position, (query, key)) in (before..).zip(queries.iter_mut().zip(keys.iter_mut())) {
            self.rotary.turn(query, position);
            self.rotary.turn(key, position);
        }
        cache.append(keys.values(), values.values());

        let mut gathered = Rows::zeros(input.count(), WIDTH);
        let mut scores = Vec::new();
        for (position, (query, row)) in (before..).zip(queries.iter().zip(gathered.iter_mut())) {
            // A token sees itself and what came before, and nothing that came with it but later.
            attend(query, cache, position + 1, &mut scores, row);
        }
        self.output.multiply(&gathered)
    }
}

/// For each head, weighs the values of the first `visible` tokens by how well their keys go with
/// the query, and adds them up in `row`, which is zero. `scores` is room to work in.
fn attend(
    query: &[f32],
    cache: &LayerCache,
    visible: usize,
    scores: &mut Vec<f32>,
    row: &mut [f32],
) {
    let scale = 1.0 / (HEAD as f32).sqrt();
    let heads = heads_of(query).iter().zip(row.as_chunks_mut().0);
    for (head, (query, row)) in heads.enumerate() {
        let keys = heads_of(cache.keys()).iter().skip(head).step_by(HEADS);
        let values = heads_of(cache.values()).iter().skip(head).step_by(HEADS);
        scores.clear();
        scores.extend(keys.take(visible).map(|key| scale * dot(query, key)));
        softmax(scores);
        for (weight, value) in scores.iter().zip(values) {
            add_scaled(row, *weight, value);
        }
    }
}

/// Rows as what each head sees of them: [`HEADS`] pieces a row. A length that is known when this
/// is compiled leaves loops over a piece no bounds to check.
fn heads_of(rows: &[f32]) -> &[[f32; HEAD]] {
    rows.as_chunks().0
}

/// The sum of products, in as many sums as two vector registers hold: the compiler may not
/// reorder additions by itself.
fn dot(a: &[f32; HEAD], b: &[f32; HEAD]) -> f32 {
    let mut sums = [0.0; 8];
    for (a, b) in a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    sums.iter().sum()
}

fn add_scaled(row: &mut [f32; HEAD], weight: f32, value: &[f32; HEAD]) {
    for (sum, x) in row.iter_mut().zip(value) {
        *sum += weight * x;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn it_computes_what_the_definition_says() {
        let mut rng = Rng::new(4);
        let mut noise =
            |count: usize| -> Vec<f32> { (0..count).map(|_| rng.between(-2.0, 2.0)).collect() };
        for visible in [1, 2, 7] {
            let query = noise(WIDTH);
            let mut cache = LayerCache::default();
            // More tokens than the query may see.
            cache.append(&noise(9 * WIDTH), &noise(9 * WIDTH));
            let mut row = vec![0.0; WIDTH];
            attend(&query, &cache, visible, &mut Vec::new(), &mut row);

            for (got, expect) in row.iter().zip(naive(&query, &cache, visible)) {
                assert!((f64::from(*got) - expect).abs() < 1e-4, "{got} is not {expect}");
            }
        }
    }

    /// The textbook's formula, in numbers twice as long.
    fn naive(query: &[f32], cache: &LayerCache, visible: usize) -> Vec<f64> {
        let mut row = vec![0.0; WIDTH];
        for head in 0..HEADS {
            let at = |rows: &[f32], token: usize, index: usize| {
                f64::from(rows[token * WIDTH + head * HEAD + index])
            };
            let weights: Vec<f64> = (0..visible)
                .map(|token| {
                    let product: f64 = (0..HEAD)
                        .map(|index| at(query, 0, index) * at(cache.keys(), token, index))
                        .sum();
                    (product / (HEAD as f64).sqrt()).exp()
                })
                .collect();
            let sum: f64 = weights.iter().sum();
            for index in 0..HEAD {
                row[head * HEAD + index] = (0..visible)
                    .map(|token| weights[token] / sum * at(cache.values(), token, index))
                    .sum();
            }
        }
        row
    }

    #[test]
    fn the_cache_grows_by_the_tokens_it_is_given() {
        let attention = Attention::new(&mut Weights::new(1));
        let mut cache = LayerCache::default();
        attention.apply(&Rows::zeros(5, WIDTH), &mut cache);
        attention.apply(&Rows::zeros(1, WIDTH), &mut cache);
        assert_eq!(cache.tokens(), 6);
    }
}
