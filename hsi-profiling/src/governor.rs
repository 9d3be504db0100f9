//! Keeps our own measured cost under a budget, by lowering the rate. Weights stay right at any
//! rate, so a profile gets coarser and never wrong.
//!
//! The budget is a share of the CPU time that the process uses, and of one core where it uses
//! less: tied to what an idle process uses, a governor would starve just before the spike that is
//! wanted. The rate goes down at once, and up slowly.
//!
//! Pure arithmetic: the readings come in, the rate comes out.

use std::time::Duration;

/// What was measured over one interval.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reading {
    /// How long the interval was.
    pub(crate) wall: Duration,
    /// CPU time that the process used, ours included.
    pub(crate) process: Duration,
    /// Time in the handler.
    pub(crate) handler: Duration,
    /// Signals that reached the handler.
    pub(crate) signals: u64,
    /// CPU time of our thread.
    pub(crate) own: Duration,
}

/// What the kernel takes to deliver a signal and to return from it: about 2.3 µs where it was
/// measured (see `benches/README.md`), and not part of the handler's own time.
const DELIVERY: Duration = Duration::from_nanos(2300);
/// The rate never goes below this share of what was asked for.
const FLOOR: f64 = 0.1;
/// The most by which the rate rises in one interval.
const RISE: f64 = 1.25;

impl Reading {
    /// Our cost, as a share of what the process used or of one core, whichever is more.
    pub(crate) fn cost(&self) -> f64 {
        let delivery = DELIVERY.as_secs_f64() * self.signals as f64;
        let ours = self.handler.as_secs_f64() + self.own.as_secs_f64() + delivery;
        let allotted = self.process.max(self.wall).as_secs_f64();
        if allotted > 0.0 { ours / allotted } else { 0.0 }
    }

    /// The rate for the next interval, given the present one, the one that was asked for and the
    /// budget as a share.
    pub(crate) fn next_hz(&self, present: u32, asked: u32, budget: f64) -> u32 {
        let factor = match self.cost() {
            cost if cost > budget => budget / cost,
            // Room for the rise and some more, so that the rate does not swing.
            cost if cost * RISE < budget * 0.8 => RISE,
            _ => 1.0,
        };
        let asked_hz = f64::from(asked);
        let lowest = (asked_hz * FLOOR).max(1.0);
        (f64::from(present) * factor).ceil().clamp(lowest, asked_hz.max(lowest)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(cost_percent: f64) -> Reading {
        let seconds = Duration::from_secs_f64;
        Reading {
            wall: seconds(10.0),
            process: seconds(10.0),
            handler: seconds(cost_percent / 10.0),
            ..Reading::default()
        }
    }

    #[test]
    fn the_rate_falls_at_once_to_the_budget_and_rises_slowly() {
        assert_eq!(reading(4.0).next_hz(1000, 1000, 0.01), 250);
        assert_eq!(reading(400.0).next_hz(1000, 1000, 0.01), 100, "not below a tenth");
        assert_eq!(reading(0.1).next_hz(250, 1000, 0.01), 313);
        assert_eq!(reading(0.1).next_hz(900, 1000, 0.01), 1000, "not above what was asked for");
        assert_eq!(reading(0.9).next_hz(250, 1000, 0.01), 250, "a rise would pass the budget");
        assert_eq!(reading(9.0).next_hz(1, 1, 0.01), 1);
    }

    #[test]
    fn an_idle_process_is_measured_by_a_core() {
        let mut idle = reading(0.05);
        idle.process = Duration::from_millis(20);
        assert!(idle.cost() < 0.001);
        assert_eq!(Reading::default().cost(), 0.0);
    }

    #[test]
    fn delivery_and_our_thread_count() {
        let mut r = reading(0.0);
        r.signals = 10_000;
        r.own = Duration::from_millis(77);
        assert!((r.cost() - 0.01).abs() < 1e-9, "{}", r.cost());
    }
}
