//! What flows between layers: a row of numbers for each token.

/// Rows of one width, one after the other in memory, so that a row is one slice.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rows {
    width: usize,
    values: Vec<f32>,
}

impl Rows {
    pub(crate) fn zeros(count: usize, width: usize) -> Self {
        Self { width, values: vec![0.0; count * width] }
    }

    pub(crate) fn width(&self) -> usize {
        self.width
    }

    pub(crate) fn count(&self) -> usize {
        self.values.len() / self.width
    }

    /// All rows, one after the other.
    pub(crate) fn values(&self) -> &[f32] {
        &self.values
    }

    /// All rows, one after the other.
    pub(crate) fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.width)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        self.values.chunks_exact_mut(self.width)
    }

    /// The last row alone; none where there are no rows.
    pub(crate) fn last(&self) -> Self {
        let first = self.values.len().saturating_sub(self.width);
        Self { width: self.width, values: self.values[first..].to_vec() }
    }

    /// Adds rows of the same shape, number by number.
    pub(crate) fn add(&mut self, other: &Self) {
        debug_assert_eq!(self.values.len(), other.values.len());
        for (value, other) in self.values.iter_mut().zip(&other.values) {
            *value += other;
        }
    }
}
