//! What attention remembers: the keys and values of every token so far.
//!
//! This is the memory that a language model's service lives on. It grows by one row a layer with
//! each token, and how long it is kept is decided elsewhere.

use super::WIDTH;

/// The keys and values of all layers. A new one is empty, and gets its layers from the model that
/// first runs on it.
#[derive(Debug, Default)]
pub(crate) struct KvCache {
    layers: Vec<LayerCache>,
}

impl KvCache {
    /// How many tokens are remembered.
    pub(crate) fn tokens(&self) -> usize {
        self.layers.first().map_or(0, LayerCache::tokens)
    }

    /// What it takes of the heap, room for growth included.
    pub(crate) fn bytes(&self) -> usize {
        self.layers.iter().map(LayerCache::bytes).sum()
    }

    /// A cache for each of so many layers.
    pub(crate) fn layers_mut(&mut self, count: usize) -> &mut [LayerCache] {
        self.layers.resize_with(count, LayerCache::default);
        &mut self.layers
    }
}

/// The keys and values of one layer, a row a token.
#[derive(Debug, Default)]
pub(crate) struct LayerCache {
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl LayerCache {
    pub(crate) fn tokens(&self) -> usize {
        self.keys.len() / WIDTH
    }

    pub(crate) fn keys(&self) -> &[f32] {
        &self.keys
    }

    pub(crate) fn values(&self) -> &[f32] {
        &self.values
    }

    /// Remembers some tokens more. Not inlined, so that a heap profile has this name on what the
    /// cache holds, in every build.
    #[inline(never)]
    pub(crate) fn append(&mut self, keys: &[f32], values: &[f32]) {
        debug_assert_eq!(keys.len(), values.len());
        self.keys.extend_from_slice(keys);
        self.values.extend_from_slice(values);
    }

    fn bytes(&self) -> usize {
        (self.keys.capacity() + self.values.capacity()) * size_of::<f32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_tokens_and_bytes() {
        let mut cache = KvCache::default();
        assert_eq!((cache.tokens(), cache.bytes()), (0, 0));
        for layer in cache.layers_mut(3) {
            layer.append(&[0.0; 2 * WIDTH], &[0.0; 2 * WIDTH]);
        }
        assert_eq!(cache.tokens(), 2);
        assert!(cache.bytes() >= 3 * 2 * 2 * WIDTH * 4, "{cache:?}");
    }
}
