//! What flows between layers: a picture with any number of channels.

/// Numbers in rows of pixels, with the channels of a pixel side by side. A row is one slice, so
/// rows can be computed apart; and the neighbours that a convolution wants from one row are one
/// run of memory.
#[derive(Debug)]
pub(crate) struct FeatureMap {
    width: usize,
    height: usize,
    channels: usize,
    values: Vec<f32>,
}

impl FeatureMap {
    pub(crate) fn filled(width: usize, height: usize, channels: usize, value: f32) -> Self {
        Self { width, height, channels, values: vec![value; width * height * channels] }
    }

    pub(crate) fn width(&self) -> usize {
        self.width
    }

    pub(crate) fn height(&self) -> usize {
        self.height
    }

    pub(crate) fn channels(&self) -> usize {
        self.channels
    }

    /// All rows, one after the other.
    pub(crate) fn values(&self) -> &[f32] {
        &self.values
    }

    /// All rows, one after the other.
    pub(crate) fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    pub(crate) fn row(&self, y: usize) -> &[f32] {
        let length = self.width * self.channels;
        &self.values[y * length..][..length]
    }

    pub(crate) fn row_mut(&mut self, y: usize) -> &mut [f32] {
        let length = self.width * self.channels;
        &mut self.values[y * length..][..length]
    }

    /// Adds a map of the same shape, number by number.
    pub(crate) fn add(&mut self, other: &Self) {
        debug_assert_eq!(self.values.len(), other.values.len());
        for (value, other) in self.values.iter_mut().zip(&other.values) {
            *value += other;
        }
    }
}
