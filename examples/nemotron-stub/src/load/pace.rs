//! How long the load pauses between two requests. A pure state machine: it has no clock.

use std::time::Duration;

use super::rate::Rate;

/// The rhythm of the load.
#[derive(Debug)]
pub(crate) struct Pace {
    period: Duration,
    /// Zero in good times.
    back_off: Duration,
}

impl Pace {
    pub(crate) fn new(rate: Rate) -> Self {
        Self { period: rate.period(), back_off: Duration::ZERO }
    }

    /// Whether the last request went wrong, or the ones before it still have an effect.
    pub(crate) fn is_backing_off(&self) -> bool {
        !self.back_off.is_zero()
    }

    /// The pause after a request that took so long. A failure doubles the pause, up to a bound,
    /// and a success halves it, so that a service that just recovered is not run over again.
    pub(crate) fn pause_after(&mut self, answered: bool, took: Duration) -> Duration {
        self.back_off = match answered {
            false => (self.back_off * 2).clamp(FIRST.max(self.period), LONGEST),
            true if self.back_off > FIRST => self.back_off / 2,
            true => Duration::ZERO,
        };
        self.period.saturating_sub(took).max(self.back_off)
    }
}

/// The first pause after a failure, unless the period itself is longer.
const FIRST: Duration = Duration::from_millis(500);
/// The longest, and no less than the longest period.
const LONGEST: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_millis(50);

    #[test]
    fn it_keeps_the_rate_when_all_is_well() {
        let mut pace = Pace::new("4".parse().expect("a rate"));
        assert_eq!(pace.pause_after(true, QUICK), Duration::from_millis(200));
        // Too slow for the rate: no pause, and no catching up later.
        assert_eq!(pace.pause_after(true, Duration::from_secs(3)), Duration::ZERO);
        assert_eq!(pace.pause_after(true, QUICK), Duration::from_millis(200));
    }

    #[test]
    fn failures_double_the_pause_up_to_a_bound_and_successes_halve_it() {
        let mut pace = Pace::new("4".parse().expect("a rate"));
        let mut pauses = |answered, count| -> Vec<f64> {
            (0..count).map(|_| pace.pause_after(answered, QUICK).as_secs_f64()).collect()
        };
        assert_eq!(pauses(false, 8), [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]);
        assert_eq!(pauses(true, 3), [15.0, 7.5, 3.75]);
        assert_eq!(pauses(true, 5).last(), Some(&0.2));
        assert!(!pace.is_backing_off());
    }

    #[test]
    fn every_rate_backs_off() {
        for rate in ["0.1", "1", "100"] {
            let mut pace = Pace::new(rate.parse().expect("a rate"));
            let well = pace.pause_after(true, QUICK);
            pace.pause_after(false, QUICK);
            assert!(pace.pause_after(false, QUICK) > well, "{rate}");
        }
    }
}
