//! Weights without training: drawn from a seed, scaled so that signals neither fade nor explode.

use super::matrix::Matrix;
use crate::rng::Rng;

/// An endless supply of weights.
#[derive(Debug)]
pub(crate) struct Weights(Rng);

impl Weights {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Rng::new(seed))
    }

    /// A matrix whose results vary `gain` times as much as what they are made of.
    pub(crate) fn matrix(&mut self, inputs: usize, outputs: usize, gain: f32) -> Matrix {
        Matrix::new(inputs, &self.numbers(inputs * outputs, gain / (inputs as f32).sqrt()))
    }

    /// Numbers around zero with this standard deviation.
    pub(crate) fn numbers(&mut self, count: usize, deviation: f32) -> Vec<f32> {
        // What is spread evenly over -bound..bound deviates by bound / sqrt(3).
        let bound = deviation * 3.0f32.sqrt();
        (0..count).map(|_| self.0.between(-bound, bound)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_reproducible_and_spread_as_asked() {
        let numbers = Weights::new(9).numbers(10_000, 0.5);
        assert_eq!(numbers, Weights::new(9).numbers(10_000, 0.5));
        assert_ne!(numbers, Weights::new(10).numbers(10_000, 0.5));
        let variance = numbers.iter().map(|x| x * x).sum::<f32>() / numbers.len() as f32;
        assert!((variance.sqrt() - 0.5).abs() < 0.01, "{variance}");
    }
}
