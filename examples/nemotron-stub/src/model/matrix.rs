//! Matrix products, where nearly all of the time goes.
//!
//! A prompt brings many rows at once and each panel of weights is read once for all of them; a
//! generated token brings one, and then the product is as fast as the weights come out of memory.
//! The inner loop keeps its sums in registers and is written so that the compiler turns it into
//! vector instructions; there are no intrinsics here, and no threads.

use super::rows::Rows;

/// A linear map of rows.
#[derive(Debug)]
pub(crate) struct Matrix {
    inputs: usize,
    outputs: usize,
    /// The weights of [`LANES`] outputs at a time, interleaved: what one step of the inner loop
    /// needs is one run of memory.
    panels: Vec<[f32; LANES]>,
}

impl Matrix {
    /// `weights` holds the weights of each output, one output after the other. The outputs are a
    /// multiple of [`LANES`].
    pub(crate) fn new(inputs: usize, weights: &[f32]) -> Self {
        let outputs = weights.len() / inputs;
        debug_assert_eq!(weights.len(), inputs * outputs);
        debug_assert_eq!(outputs % LANES, 0);
        let mut panels = vec![[0.0; LANES]; inputs * outputs / LANES];
        for (output, weights) in weights.chunks_exact(inputs).enumerate() {
            let panel = &mut panels[output / LANES * inputs..][..inputs];
            for (lanes, &weight) in panel.iter_mut().zip(weights) {
                lanes[output % LANES] = weight;
            }
        }
        Self { inputs, outputs, panels }
    }

    /// Maps each row. A row's result does not depend on the rows beside it, to the last bit: its
    /// sums are added up in the same order whether it comes alone or with others.
    pub(crate) fn multiply(&self, input: &Rows) -> Rows {
        debug_assert_eq!(input.width(), self.inputs);
        let mut output = Rows::zeros(input.count(), self.outputs);
        let panels = self.panels.chunks_exact(self.inputs);
        for (panel, first) in panels.zip((0..).step_by(LANES)) {
            let inputs = input.values().chunks(TILE * self.inputs);
            let outputs = output.values_mut().chunks_mut(TILE * self.outputs);
            for (inputs, outputs) in inputs.zip(outputs) {
                if inputs.len() == TILE * self.inputs {
                    let sums = multiply_tile::<TILE>(inputs, panel);
                    store(&sums, outputs, self.outputs, first);
                } else {
                    let sums = multiply_tile::<1>(inputs, panel);
                    store(&sums, outputs, self.outputs, first);
                }
            }
        }
        output
    }
}

/// Outputs computed together. Fewer would leave the adders of one row's product idle, since each
/// sum waits for its last addition.
const LANES: usize = 16;
/// Rows computed together: with [`LANES`], the sums fill half the vector registers that every
/// x86-64 has, and leave the other half for what is multiplied.
const TILE: usize = 2;

/// Multiplies the first `ROWS` rows with the weights of [`LANES`] outputs.
fn multiply_tile<const ROWS: usize>(
    inputs: &[f32],
    panel: &[[f32; LANES]],
) -> [[f32; LANES]; ROWS] {
    let mut sums = [[0.0; LANES]; ROWS];
    // Slices of the panel's own length: the loop then has no bounds left to check.
    let inputs: [&[f32]; ROWS] =
        std::array::from_fn(|row| &inputs[row * panel.len()..][..panel.len()]);
    for (step, weights) in panel.iter().enumerate() {
        for (sums, input) in sums.iter_mut().zip(&inputs) {
            let input = input[step];
            for (sum, weight) in sums.iter_mut().zip(weights) {
                *sum += input * weight;
            }
        }
    }
    sums
}

/// Puts the sums where they belong in rows of `width`.
fn store(sums: &[[f32; LANES]], rows: &mut [f32], width: usize, first: usize) {
    for (row, sums) in rows.chunks_exact_mut(width).zip(sums) {
        row[first..][..LANES].copy_from_slice(sums);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn it_computes_what_the_definition_says() {
        // Numbers of rows that do and do not fill a tile.
        for count in [1, 2, 3, 6] {
            for (inputs, outputs) in [(1, 16), (5, 32), (64, 48)] {
                check(count, inputs, outputs);
            }
        }
    }

    #[track_caller]
    fn check(count: usize, inputs: usize, outputs: usize) {
        let mut rng = Rng::new(5);
        let weights: Vec<f32> = (0..inputs * outputs).map(|_| rng.between(-1.0, 1.0)).collect();
        let mut input = Rows::zeros(count, inputs);
        input.values_mut().fill_with(|| rng.between(-1.0, 1.0));

        let output = Matrix::new(inputs, &weights).multiply(&input);

        assert_eq!((output.count(), output.width()), (count, outputs));
        for (row, result) in input.iter().zip(output.iter()) {
            for (weights, got) in weights.chunks_exact(inputs).zip(result) {
                let expect: f32 = row.iter().zip(weights).map(|(x, weight)| x * weight).sum();
                assert!((got - expect).abs() < 1e-4, "{count} x {inputs}: {got} is not {expect}");
            }
        }
    }

    #[test]
    fn a_row_has_the_same_result_alone_and_among_others() {
        let mut rng = Rng::new(6);
        let weights: Vec<f32> = (0..40 * 32).map(|_| rng.between(-1.0, 1.0)).collect();
        let matrix = Matrix::new(40, &weights);
        let mut input = Rows::zeros(5, 40);
        input.values_mut().fill_with(|| rng.between(-1.0, 1.0));

        let together = matrix.multiply(&input);
        for (row, expect) in input.iter().zip(together.iter()) {
            let mut alone = Rows::zeros(1, 40);
            alone.values_mut().copy_from_slice(row);
            assert_eq!(matrix.multiply(&alone).values(), expect);
        }
    }
}
