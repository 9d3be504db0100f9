//! How many layers the model has, as the operator may choose it.

use std::str::FromStr;

/// From 1 to 16 layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Depth(usize);

impl Depth {
    /// A couple of milliseconds a token on one core.
    pub(crate) const DEFAULT: Self = Self(4);

    pub(crate) fn layers(self) -> usize {
        self.0
    }
}

impl FromStr for Depth {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(layers @ 1..=16) => Ok(Self(layers)),
            _ => Err("a whole number from 1 to 16 is allowed"),
        }
    }
}
