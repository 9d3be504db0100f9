//! How much a leak has to lose by now. Pure arithmetic: it has no clock.

use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;

/// Megabytes a minute, from 0 to 1024. A megabyte is a million bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub(crate) struct LeakRate(u32);

impl LeakRate {
    /// What it may be.
    pub(crate) const ALLOWED: &str = "a whole number from 0 to 1024 is allowed";

    /// Whether nothing is to be lost.
    pub(crate) fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl FromStr for LeakRate {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(rate @ 0..=1024) => Ok(Self(rate)),
            _ => Err(Self::ALLOWED),
        }
    }
}

/// Turns time into blocks. What is no whole block yet is kept for later, to the last nanosecond,
/// so that a slow leak is as exact as a fast one.
#[derive(Debug)]
pub(crate) struct Pace {
    rate: LeakRate,
    /// In bytes a minute times nanoseconds, which no rounding touches.
    owed: u128,
}

impl Pace {
    pub(crate) fn new(rate: LeakRate) -> Self {
        Self { rate, owed: 0 }
    }

    /// How many blocks of [`BLOCK`] bytes are due after so much more time.
    pub(crate) fn blocks_after(&mut self, elapsed: Duration) -> u64 {
        const A_BLOCK: u128 = BLOCK as u128 * MINUTE.as_nanos();
        self.owed += u128::from(self.rate.0) * MEGABYTE * elapsed.as_nanos();
        let blocks = self.owed / A_BLOCK;
        self.owed %= A_BLOCK;
        u64::try_from(blocks).unwrap_or(u64::MAX)
    }
}

/// Bytes that are lost at a time.
pub(crate) const BLOCK: usize = 64 << 10;

const MEGABYTE: u128 = 1_000_000;
const MINUTE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_loses_what_was_asked_for() {
        for rate in ["1", "60", "1024"] {
            for ticks in [1, 7, 600] {
                check(rate, ticks);
            }
        }
        assert_eq!(Pace::new(rate("0")).blocks_after(Duration::MAX), 0);
    }

    #[track_caller]
    fn check(megabytes: &str, ticks: u32) {
        let mut pace = Pace::new(rate(megabytes));
        let tick = MINUTE / ticks;
        let blocks: u64 = (0..ticks).map(|_| pace.blocks_after(tick)).sum();
        let expect = megabytes.parse::<u64>().expect("a number") * 1_000_000;
        let lost = blocks * BLOCK as u64;
        // All but a block that is not whole yet, and one that a tick's lost fraction cost.
        assert!(lost <= expect && expect - lost < 2 * BLOCK as u64, "{lost} of {expect}");
    }

    #[test]
    fn nothing_is_rounded_away() {
        // A millisecond at the lowest rate owes 16 and two thirds of a byte.
        let mut pace = Pace::new(rate("1"));
        let blocks: u64 = (0..60_000).map(|_| pace.blocks_after(Duration::from_millis(1))).sum();
        assert_eq!(blocks, 1_000_000 / BLOCK as u64);
    }

    #[test]
    fn rates_are_whole_and_bounded() {
        assert!(rate("0").is_zero());
        for bad in ["", "-1", "1.5", "1025", "many"] {
            assert_eq!(bad.parse::<LeakRate>(), Err(LeakRate::ALLOWED), "{bad}");
        }
    }

    fn rate(text: &str) -> LeakRate {
        text.parse().expect("a rate")
    }
}
