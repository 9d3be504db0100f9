//! From the model's scores to the next token.

use super::softmax::softmax;
use super::tokenizer::Token;
use crate::rng::Rng;

/// Chooses tokens, reproducibly for a seed.
#[derive(Debug)]
pub(crate) struct Sampler {
    temperature: f32,
    rng: Rng,
}

impl Sampler {
    /// At a temperature of zero the highest score wins; the hotter, the less scores matter.
    pub(crate) fn new(temperature: f32, seed: u64) -> Self {
        Self { temperature, rng: Rng::new(seed) }
    }

    /// The next token, given a score for each.
    pub(crate) fn choose(&mut self, mut scores: Vec<f32>) -> Token {
        if self.temperature < COLDEST {
            return highest(&scores);
        }
        scores.iter_mut().for_each(|score| *score /= self.temperature);
        softmax(&mut scores);
        draw(&scores, self.rng.unit())
    }
}

/// Below this the highest score all but always wins anyway, and a division could overflow.
const COLDEST: f32 = 0.01;

fn highest(scores: &[f32]) -> Token {
    let pairs = (0..).zip(scores.iter().copied());
    let first = (0, f32::NEG_INFINITY);
    pairs.fold(first, |best, next| if next.1 > best.1 { next } else { best }).0
}

/// The token in whose share of 0..1 the point lies. Rounding may leave the shares' sum a little
/// short of a point near one; that is the last token's.
fn draw(shares: &[f32], point: f32) -> Token {
    let mut sum = 0.0;
    for (token, share) in (0..).zip(shares) {
        sum += share;
        if point < sum {
            return token;
        }
    }
    shares.len().saturating_sub(1) as Token
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_temperature_the_highest_score_wins() {
        let mut sampler = Sampler::new(0.0, 1);
        assert_eq!(sampler.choose(vec![-3.0, 2.0, 1.0]), 1);
        assert_eq!(sampler.choose(vec![-3.0, -3.0]), 0);
    }

    #[test]
    fn a_point_falls_to_the_token_whose_share_it_is_in() {
        let shares = [0.25, 0.5, 0.25];
        let drawn = [0.0, 0.24, 0.25, 0.74, 0.75, 0.99, 1.0].map(|point| draw(&shares, point));
        assert_eq!(drawn, [0, 0, 1, 1, 2, 2, 2]);
    }

    #[test]
    fn with_temperature_tokens_come_as_often_as_they_should() {
        let mut sampler = Sampler::new(1.0, 2);
        // Three times as likely as the other.
        let scores = vec![3.0f32.ln(), 0.0];
        let firsts = (0..4000).filter(|_| sampler.choose(scores.clone()) == 0).count();
        assert!((2850..3150).contains(&firsts), "{firsts}");
        let again: Vec<_> = (0..9).map(|_| Sampler::new(0.7, 5).choose(scores.clone())).collect();
        assert!(again.windows(2).all(|pair| pair[0] == pair[1]));
    }
}
