//! Convolution as matrix multiplication: gather each pixel's neighbourhood into a row of a
//! matrix, multiply by the filters, apply the activation.
//!
//! An output row is computed by one thread, from gathering to activation, in a buffer that fits
//! its cache. The inner loop keeps four pixels by eight outputs in registers and is written so
//! that the compiler turns it into vector instructions; there are no intrinsics here.

use rayon::prelude::*;

use super::feature_map::FeatureMap;

/// The extent of a convolution. The border is padded with zeros, so that with a stride of one the
/// output has the input's size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// Side of the square of neighbours; odd.
    pub(crate) kernel: usize,
    /// Pixels from one output to the next.
    pub(crate) stride: usize,
    /// Channels in.
    pub(crate) inputs: usize,
    /// Channels out.
    pub(crate) outputs: usize,
}

impl Shape {
    /// Numbers in one filter: down the kernel's rows, along each, and through the channels.
    pub(crate) fn depth(&self) -> usize {
        self.kernel * self.kernel * self.inputs
    }

    fn padding(&self) -> usize {
        self.kernel / 2
    }

    fn output_side(&self, side: usize) -> usize {
        (side + 2 * self.padding() - self.kernel) / self.stride + 1
    }
}

/// What is done to each number at the end.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Activation {
    /// Nothing: a head's answers are read as they are.
    Linear,
    /// `x * sigmoid(x)`.
    Silu,
}

impl Activation {
    fn apply(self, values: &mut [f32]) {
        match self {
            Self::Linear => {}
            Self::Silu => values.iter_mut().for_each(|x| *x /= 1.0 + (-*x).exp()),
        }
    }
}

/// A convolution with its filters.
#[derive(Debug)]
pub(crate) struct Conv {
    shape: Shape,
    activation: Activation,
    /// What each output starts from, [`LANES`] at a time.
    biases: Vec<[f32; LANES]>,
    /// The filters of [`LANES`] outputs at a time, interleaved: what one step of the inner loop
    /// needs is one vector. The last panel is filled up with zeros.
    panels: Vec<[f32; LANES]>,
}

impl Conv {
    /// `filters` holds one filter an output, in the order that [`Shape::depth`] counts, and
    /// `biases` one number an output.
    pub(crate) fn new(
        shape: Shape,
        activation: Activation,
        filters: &[f32],
        biases: &[f32],
    ) -> Self {
        debug_assert_eq!(filters.len(), shape.depth() * shape.outputs);
        debug_assert_eq!(biases.len(), shape.outputs);
        let depth = shape.depth();
        let mut panels = vec![[0.0; LANES]; depth * shape.outputs.div_ceil(LANES)];
        for (output, filter) in filters.chunks_exact(depth).enumerate() {
            let panel = &mut panels[output / LANES * depth..][..depth];
            for (weights, &weight) in panel.iter_mut().zip(filter) {
                weights[output % LANES] = weight;
            }
        }
        let biases = biases
            .chunks(LANES)
            .map(|some| std::array::from_fn(|lane| some.get(lane).copied().unwrap_or(0.0)))
            .collect();
        Self { shape, activation, biases, panels }
    }

    /// Computes all rows of the output, in parallel.
    pub(crate) fn apply(&self, input: &FeatureMap) -> FeatureMap {
        debug_assert_eq!(input.channels(), self.shape.inputs);
        let width = self.shape.output_side(input.width());
        let height = self.shape.output_side(input.height());
        let mut output = FeatureMap::filled(width, height, self.shape.outputs, 0.0);
        // A row may run on a thread that was never told what it is working on.
        let worker = || (hsi_profiling::label("stage", "infer"), Vec::new());
        output
            .values_mut()
            .par_chunks_exact_mut(width * self.shape.outputs)
            .enumerate()
            .for_each_init(worker, |(_label, patches), (y, row)| {
                self.gather(input, y, width, patches);
                self.multiply(patches, row);
                self.activation.apply(row);
            });
        output
    }

    /// Lines up the neighbourhoods of the output row `y`, one after the other, and fills the
    /// number of pixels up to a multiple of [`PIXELS`].
    fn gather(&self, input: &FeatureMap, y: usize, width: usize, patches: &mut Vec<f32>) {
        let Shape { kernel, stride, inputs, .. } = self.shape;
        let padding = self.shape.padding();
        patches.clear();
        patches.resize(width.next_multiple_of(PIXELS) * self.shape.depth(), 0.0);
        for (x, patch) in patches.chunks_exact_mut(self.shape.depth()).take(width).enumerate() {
            // The columns of the input that the kernel covers, as far as there are any.
            let left = (x * stride).saturating_sub(padding);
            let right = (x * stride + kernel - padding).min(input.width());
            let cut = padding.saturating_sub(x * stride);
            for (line, taps) in patch.chunks_exact_mut(kernel * inputs).enumerate() {
                let above = (y * stride + line).checked_sub(padding);
                let Some(y) = above.filter(|&y| y < input.height()) else { continue };
                let run = &input.row(y)[left * inputs..right * inputs];
                taps[cut * inputs..][..run.len()].copy_from_slice(run);
            }
        }
    }

    fn multiply(&self, patches: &[f32], row: &mut [f32]) {
        let Shape { outputs, .. } = self.shape;
        let depth = self.shape.depth();
        let panels = self.panels.chunks_exact(depth).zip(&self.biases);
        for ((panel, biases), first) in panels.zip((0..).step_by(LANES)) {
            let lanes = LANES.min(outputs - first);
            let groups = patches.chunks_exact(PIXELS * depth);
            for (group, pixels) in groups.zip(row.chunks_mut(PIXELS * outputs)) {
                let sums = multiply_tile(group, panel, biases);
                for (pixel, sums) in pixels.chunks_exact_mut(outputs).zip(&sums) {
                    pixel[first..][..lanes].copy_from_slice(&sums[..lanes]);
                }
            }
        }
    }
}

/// Outputs computed together.
const LANES: usize = 8;
/// Pixels computed together: with [`LANES`], the sums fill half the vector registers that every
/// x86-64 has, and leave the other half for what is multiplied.
const PIXELS: usize = 4;

/// Multiplies the neighbourhoods of [`PIXELS`] pixels with [`LANES`] filters.
fn multiply_tile(
    patches: &[f32],
    panel: &[[f32; LANES]],
    biases: &[f32; LANES],
) -> [[f32; LANES]; PIXELS] {
    let mut sums = [*biases; PIXELS];
    // Slices of the panel's own length: the loop then has no bounds left to check.
    let patches: [&[f32]; PIXELS] =
        std::array::from_fn(|pixel| &patches[pixel * panel.len()..][..panel.len()]);
    for (step, weights) in panel.iter().enumerate() {
        for (sums, patch) in sums.iter_mut().zip(&patches) {
            let input = patch[step];
            for (sum, weight) in sums.iter_mut().zip(weights) {
                *sum += input * weight;
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn it_computes_what_the_definition_says() {
        // Widths and channels that fill neither a group of pixels nor a panel of outputs, too.
        for (width, height) in [(8, 8), (7, 5), (1, 1), (2, 3)] {
            for (kernel, stride) in [(1, 1), (3, 1), (3, 2), (5, 2)] {
                for (inputs, outputs) in [(3, 16), (5, 11), (8, 3)] {
                    let shape = Shape { kernel, stride, inputs, outputs };
                    check(shape, width, height);
                }
            }
        }
    }

    #[track_caller]
    fn check(shape: Shape, width: usize, height: usize) {
        let mut rng = Rng::new(5);
        let mut input = FeatureMap::filled(width, height, shape.inputs, 0.0);
        input.values_mut().fill_with(|| rng.between(-1.0, 1.0));
        let filters: Vec<f32> =
            (0..shape.depth() * shape.outputs).map(|_| rng.between(-1.0, 1.0)).collect();
        let biases: Vec<f32> = (0..shape.outputs).map(|_| rng.between(-1.0, 1.0)).collect();

        let output = Conv::new(shape, Activation::Silu, &filters, &biases).apply(&input);

        for y in 0..output.height() {
            for x in 0..output.width() {
                for channel in 0..shape.outputs {
                    let filter = &filters[channel * shape.depth()..][..shape.depth()];
                    let sum = biases[channel] + naive(&shape, &input, filter, x, y);
                    let expect = sum * (1.0 / (1.0 + (-sum).exp()));
                    let got = output.row(y)[x * shape.outputs + channel];
                    assert!(
                        (got - expect).abs() < 1e-4,
                        "{shape:?} at {x}, {y}, {channel}: {got} is not {expect}"
                    );
                }
            }
        }
    }

    fn naive(shape: &Shape, input: &FeatureMap, filter: &[f32], x: usize, y: usize) -> f32 {
        let mut sum = 0.0;
        for line in 0..shape.kernel {
            for column in 0..shape.kernel {
                let sy = (y * shape.stride + line).wrapping_sub(shape.kernel / 2);
                let sx = (x * shape.stride + column).wrapping_sub(shape.kernel / 2);
                if sy >= input.height() || sx >= input.width() {
                    continue;
                }
                for channel in 0..shape.inputs {
                    let tap = (line * shape.kernel + column) * shape.inputs + channel;
                    sum += filter[tap] * input.row(sy)[sx * shape.inputs + channel];
                }
            }
        }
        sum
    }
}
