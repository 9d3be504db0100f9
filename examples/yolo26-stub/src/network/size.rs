//! The side of the network's square input, as the operator may choose it.

use std::str::FromStr;

/// A multiple of 32 from 64 to 640: five stages halve it without a remainder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InputSize(usize);

impl InputSize {
    /// A few tens of milliseconds on one core.
    pub(crate) const DEFAULT: Self = Self(320);

    pub(crate) fn pixels(self) -> usize {
        self.0
    }
}

impl FromStr for InputSize {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(side @ 64..=640) if side % 32 == 0 => Ok(Self(side)),
            _ => Err("a multiple of 32 from 64 to 640 is allowed"),
        }
    }
}
