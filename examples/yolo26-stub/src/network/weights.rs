//! Weights without training: drawn from a seed, scaled so that signals neither fade nor explode.

use super::conv::Shape;
use crate::rng::Rng;

/// An endless supply of filters.
#[derive(Debug)]
pub(crate) struct Weights(Rng);

impl Weights {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Rng::new(seed))
    }

    /// A filter for each output, one after the other, in the order that [`Shape::depth`] counts.
    ///
    /// A filter sums to zero. It so answers to edges and textures, and not to brightness, to
    /// which it would otherwise answer most: one class would then win everywhere.
    pub(crate) fn filters(&mut self, shape: &Shape) -> Vec<f32> {
        // He's rule keeps the variance through a rectifier; SiLU passes on less of a small signal,
        // hence a little more than his 6.
        let bound = (9.0 / shape.depth() as f32).sqrt();
        let mut filters: Vec<f32> =
            (0..shape.depth() * shape.outputs).map(|_| self.0.between(-bound, bound)).collect();
        for filter in filters.chunks_exact_mut(shape.depth()) {
            let mean = filter.iter().sum::<f32>() / shape.depth() as f32;
            filter.iter_mut().for_each(|weight| *weight -= mean);
        }
        filters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_reproducible_and_centred() {
        let shape = Shape { kernel: 3, stride: 1, inputs: 8, outputs: 5 };
        let filters = Weights::new(9).filters(&shape);
        assert_eq!(filters, Weights::new(9).filters(&shape));
        assert_ne!(filters, Weights::new(10).filters(&shape));
        assert_eq!(filters.len(), 3 * 3 * 8 * 5);
        assert!(filters.chunks(72).all(|filter| filter.iter().sum::<f32>().abs() < 1e-4));
    }
}
