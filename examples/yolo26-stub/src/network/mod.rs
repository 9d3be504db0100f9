//! The network: five stages that halve the picture, and two heads that look for things in it.
//!
//! Each stage is a 3x3 convolution with stride 2, then a 3x3 convolution whose result is added to
//! its input. The heads are 1x1 convolutions over the last two stages. Training is not here: the
//! weights come from a seed. Nothing here knows of HTTP, pictures or pixels' coordinates beyond
//! the network's own square.

mod conv;
mod feature_map;
mod head;
mod size;
mod weights;

use self::conv::{Activation, Conv, Shape};
use self::head::Head;
use self::weights::Weights;
use crate::nms::Candidate;

pub(crate) use self::feature_map::FeatureMap;
pub(crate) use self::head::CLASSES;
pub(crate) use self::size::InputSize;

/// A detector with its weights in memory, ready to run.
#[derive(Debug)]
pub(crate) struct Network {
    stages: Vec<Stage>,
    heads: Vec<Head>,
}

impl Network {
    /// The same seed makes the same network.
    pub(crate) fn new(seed: u64) -> Self {
        let mut weights = Weights::new(seed);
        let mut inputs = 3;
        let stages: Vec<_> = CHANNELS
            .into_iter()
            .map(|outputs| {
                let stage = Stage::new(inputs, outputs, &mut weights);
                inputs = outputs;
                stage
            })
            .collect();
        let heads = (HEADS_FROM..CHANNELS.len())
            .map(|stage| Head::new(stage, CHANNELS[stage], &mut weights))
            .collect();
        Self { stages, heads }
    }

    /// Everything the network believes it sees in a square of RGB, in the square's pixels. The
    /// rows of a layer are computed in parallel on the pool that this is called on, each by one
    /// thread in a fixed order, so the answer does not depend on how many there are.
    pub(crate) fn detect(&self, square: &FeatureMap) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        let mut features: Option<FeatureMap> = None;
        for (index, stage) in self.stages.iter().enumerate() {
            let next = stage.apply(features.as_ref().unwrap_or(square));
            for head in self.heads.iter().filter(|head| head.stage() == index) {
                head.detect(&next, &mut candidates);
            }
            features = Some(next);
        }
        candidates
    }
}

/// Channels after each stage. Every stage has a quarter of the pixels of the one before, so the
/// doubling spends about the same time on each.
const CHANNELS: [usize; 5] = [16, 32, 64, 96, 128];
/// The first stage with a head: each of its cells stands for 16 x 16 pixels.
const HEADS_FROM: usize = 3;

/// Halves the picture, then looks at it once more.
#[derive(Debug)]
struct Stage {
    halve: Conv,
    refine: Conv,
}

impl Stage {
    fn new(inputs: usize, outputs: usize, weights: &mut Weights) -> Self {
        let halve = Shape { kernel: 3, stride: 2, inputs, outputs };
        let refine = Shape { kernel: 3, stride: 1, inputs: outputs, outputs };
        let [halve, refine] = [halve, refine].map(|shape| {
            Conv::new(shape, Activation::Silu, &weights.filters(&shape), &vec![0.0; outputs])
        });
        Self { halve, refine }
    }

    fn apply(&self, input: &FeatureMap) -> FeatureMap {
        let halved = self.halve.apply(input);
        let mut refined = self.refine.apply(&halved);
        refined.add(&halved);
        refined
    }
}

#[cfg(test)]
mod tests {
    use rayon::ThreadPoolBuilder;

    use super::*;
    use crate::rng::Rng;

    #[test]
    fn the_answer_does_not_depend_on_the_threads() {
        let mut noise = Rng::new(3);
        let mut square = FeatureMap::filled(64, 64, 3, 0.0);
        for y in 0..64 {
            square.row_mut(y).fill_with(|| noise.between(-0.5, 0.5));
        }
        let network = Network::new(1);
        let [one, three] = [1, 3].map(|threads| {
            let pool = ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(|| network.detect(&square))
        });
        assert!(!one.is_empty());
        assert_eq!(one, three);
    }
}
