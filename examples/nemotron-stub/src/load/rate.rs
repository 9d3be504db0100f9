//! How fast the load aims to be, as the operator may choose it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Completions a second, from 0.1 to 100.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rate(f64);

impl Rate {
    /// Enough for a full profile within a minute, little enough to leave a laptop cool.
    pub(crate) const DEFAULT: Self = Self(3.0);

    /// From the start of one request to the start of the next.
    pub(crate) fn period(self) -> Duration {
        Duration::from_secs_f64(1.0 / self.0)
    }
}

impl FromStr for Rate {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(rate) if (0.1..=100.0).contains(&rate) => Ok(Self(rate)),
            _ => Err("a number from 0.1 to 100 is allowed"),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
