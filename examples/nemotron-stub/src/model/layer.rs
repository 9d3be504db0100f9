//! One layer: attention, then feed-forward, each of which adds to what came in.

use super::attention::Attention;
use super::cache::LayerCache;
use super::feed_forward::FeedForward;
use super::norm::rms_norm;
use super::rows::Rows;
use super::weights::Weights;

/// A layer with its weights.
#[derive(Debug)]
pub(crate) struct Layer {
    attention: Attention,
    feed_forward: FeedForward,
}

impl Layer {
    pub(crate) fn new(weights: &mut Weights) -> Self {
        Self { attention: Attention::new(weights), feed_forward: FeedForward::new(weights) }
    }

    /// Adds what this layer finds to the rows of the tokens that follow those in the cache.
    pub(crate) fn apply(&self, rows: &mut Rows, cache: &mut LayerCache) {
        rows.add(&self.attention.apply(&rms_norm(rows), cache));
        rows.add(&self.feed_forward.apply(&rms_norm(rows)));
    }
}
