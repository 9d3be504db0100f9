//! How long handlers took, from the histogram that the sampler keeps for benches.

use hsi_profiling::bench;
use std::time::Instant;

/// Measures the processor's counter against the clock, from when it was made.
#[derive(Debug)]
pub struct Times {
    begun: Instant,
    ticks: u64,
    before: Vec<(u64, u64)>,
}

impl Times {
    /// Begins an interval.
    #[must_use]
    pub fn start() -> Self {
        Self { begun: Instant::now(), ticks: bench::ticks(), before: bench::handler_times() }
    }

    /// The microseconds that this share of the interval's handlers did not exceed, for each of
    /// `shares`, and how many handlers there were.
    #[must_use]
    pub fn quantiles<const N: usize>(&self, shares: [f64; N]) -> ([f64; N], u64) {
        let per_micro =
            (bench::ticks() - self.ticks) as f64 / self.begun.elapsed().as_micros() as f64;
        let after = bench::handler_times();
        let counts: Vec<(u64, u64)> = after
            .iter()
            .zip(&self.before)
            .map(|((middle, after), (_, before))| (*middle, after - before))
            .collect();
        let all: u64 = counts.iter().map(|(_, count)| count).sum();
        let quantile = |share: f64| {
            let mut left = (all as f64 * share).ceil() as u64;
            let reached = counts.iter().find(|(_, count)| {
                left = left.saturating_sub(*count);
                left == 0
            });
            reached.map_or(0.0, |(middle, _)| *middle as f64 / per_micro)
        };
        (shares.map(quantile), all)
    }
}
