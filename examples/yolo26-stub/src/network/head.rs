//! From features to boxes: each cell of a map says what it sees and how far it reaches.
//!
//! A cell answers with four distances, from its centre to the box's sides, and a score for each
//! class. Which of the many boxes to keep is not decided here.

use super::conv::{Activation, Conv, Shape};
use super::feature_map::FeatureMap;
use super::weights::Weights;
use crate::nms::{BoundingBox, Candidate};

/// What the network has names for.
pub(crate) const CLASSES: [&str; 12] = [
    "person",
    "bicycle",
    "car",
    "motorcycle",
    "airplane",
    "bus",
    "train",
    "truck",
    "boat",
    "traffic light",
    "fire hydrant",
    "stop sign",
];

/// The surest answers of one stage's cells.
#[derive(Debug)]
pub(crate) struct Head {
    stage: usize,
    answers: Conv,
}

impl Head {
    pub(crate) fn new(stage: usize, inputs: usize, weights: &mut Weights) -> Self {
        let shape = Shape { kernel: 1, stride: 1, inputs, outputs: SIDES + CLASSES.len() };
        let filters = weights.filters(&shape);
        let biases: Vec<f32> =
            (0..shape.outputs).map(|output| if output < SIDES { REACH } else { PRIOR }).collect();
        Self { stage, answers: Conv::new(shape, Activation::Linear, &filters, &biases) }
    }

    /// Whose features it looks at.
    pub(crate) fn stage(&self) -> usize {
        self.stage
    }

    /// Adds a candidate for each cell that is sure enough of what it sees.
    pub(crate) fn detect(&self, features: &FeatureMap, candidates: &mut Vec<Candidate>) {
        let answers = self.answers.apply(features);
        // Each stage up to this one has halved the square.
        let cell = (2 << self.stage) as f32;
        for (index, answer) in answers.values().chunks_exact(answers.channels()).enumerate() {
            let (sides, scores) = answer.split_at(SIDES);
            let (class, score) = highest(scores);
            let confidence = sigmoid(score);
            if confidence >= THRESHOLD {
                let x = ((index % answers.width()) as f32 + 0.5) * cell;
                let y = ((index / answers.width()) as f32 + 0.5) * cell;
                candidates.push(Candidate { class, confidence, bounds: around(x, y, sides, cell) });
            }
        }
    }
}

/// Left, top, right, bottom.
const SIDES: usize = 4;
/// Where a side's distance starts from: about two cells, so that neighbours contend for one thing
/// and suppression has something to do.
const REACH: f32 = 2.0;
/// Where a class's score starts from: most cells show nothing.
const PRIOR: f32 = -2.5;
/// Below this a cell is taken to see nothing.
const THRESHOLD: f32 = 0.25;

fn highest(scores: &[f32]) -> (usize, f32) {
    scores
        .iter()
        .copied()
        .enumerate()
        .fold((0, f32::NEG_INFINITY), |best, next| if next.1 > best.1 { next } else { best })
}

/// The box around a centre, whose sides are some cells away.
fn around(x: f32, y: f32, sides: &[f32], cell: f32) -> BoundingBox {
    // A smooth way to make any number a positive distance.
    let reach = |side: usize| (1.0 + sides[side].min(20.0).exp()).ln() * cell;
    let [left, top, right, bottom] = [0, 1, 2, 3].map(reach);
    BoundingBox { x: x - left, y: y - top, width: left + right, height: top + bottom }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_reaches_from_its_centre() {
        // ln(1 + e^x) is 1 where x is ln(e - 1), and 2 where x is ln(e^2 - 1).
        let one = (1.0f32.exp() - 1.0).ln();
        let two = (2.0f32.exp() - 1.0).ln();
        let bounds = around(80.0, 48.0, &[one, two, two, one], 16.0);
        let expect = BoundingBox { x: 64.0, y: 16.0, width: 48.0, height: 48.0 };
        assert!(bounds.overlap(&expect) > 0.999, "{bounds:?}");
    }

    #[test]
    fn a_cell_names_the_class_it_scores_highest() {
        assert_eq!(highest(&[-3.0, 2.0, 1.0]), (1, 2.0));
        assert_eq!(highest(&[-3.0]), (0, -3.0));
    }
}
