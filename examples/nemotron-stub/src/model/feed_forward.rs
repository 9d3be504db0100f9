//! The feed-forward half of a layer: SwiGLU, a gate that lets through what it finds relevant.

use super::matrix::Matrix;
use super::rows::Rows;
use super::weights::Weights;
use super::{HIDDEN, WIDTH};

/// Each row by itself: to a wider one, through the gate, and back.
#[derive(Debug)]
pub(crate) struct FeedForward {
    gate: Matrix,
    up: Matrix,
    down: Matrix,
}

impl FeedForward {
    pub(crate) fn new(weights: &mut Weights) -> Self {
        Self {
            gate: weights.matrix(WIDTH, HIDDEN, 1.0),
            up: weights.matrix(WIDTH, HIDDEN, 1.0),
            // The gate halves what passes it.
            down: weights.matrix(HIDDEN, WIDTH, 2.0),
        }
    }

    pub(crate) fn apply(&self, input: &Rows) -> Rows {
        let gate = self.gate.multiply(input);
        let mut wide = self.up.multiply(input);
        for (x, gate) in wide.values_mut().iter_mut().zip(gate.values()) {
            *x *= silu(*gate);
        }
        self.down.multiply(&wide)
    }
}

/// `x * sigmoid(x)`.
fn silu(x: f32) -> f32 {
    x / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_opens_with_its_input() {
        assert_eq!(silu(0.0), 0.0);
        assert!((silu(20.0) - 20.0).abs() < 1e-4);
        assert!(silu(-20.0).abs() < 1e-4);
        // Far out, where the power overflows.
        assert_eq!(silu(-1000.0), 0.0);
    }
}
