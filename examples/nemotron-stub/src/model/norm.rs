//! Root-mean-square normalization: before each step a row is brought to unit size.

use super::rows::Rows;

/// Divides each row by the root of its mean square. The gains that training would have put behind
/// it are all one here.
pub(crate) fn rms_norm(input: &Rows) -> Rows {
    let mut output = input.clone();
    for row in output.iter_mut() {
        let mean = row.iter().map(|x| x * x).sum::<f32>() / row.len() as f32;
        let scale = 1.0 / (mean + EPSILON).sqrt();
        row.iter_mut().for_each(|x| *x *= scale);
    }
    output
}

/// Keeps a row of zeros from being divided by zero.
const EPSILON: f32 = 1e-6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_comes_to_unit_size() {
        let mut rows = Rows::zeros(3, 4);
        rows.values_mut()[..8].copy_from_slice(&[3.0, -3.0, 3.0, -3.0, 0.0, 0.0, 0.2, 0.0]);
        let normed = rms_norm(&rows);
        let expect = [1.0, -1.0, 1.0, -1.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        for (got, expect) in normed.values().iter().zip(expect) {
            assert!((got - expect).abs() < 1e-3, "{normed:?}");
        }
    }
}
