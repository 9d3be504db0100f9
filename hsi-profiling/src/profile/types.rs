//! What a number counts, and when it was counted. Units are types here, never bare integers.

use std::{
    borrow::Cow,
    fmt,
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The unit of a value, with pprof's name for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unit {
    /// `nanoseconds`
    Nanoseconds,
    /// `bytes`
    Bytes,
    /// `count`
    Count,
    /// A unit of a profile that another program made.
    Other(Box<str>),
}

impl Unit {
    /// pprof's name of the unit.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Nanoseconds => "nanoseconds",
            Self::Bytes => "bytes",
            Self::Count => "count",
            Self::Other(name) => name,
        }
    }
}

impl From<&str> for Unit {
    fn from(name: &str) -> Self {
        match name {
            "nanoseconds" => Self::Nanoseconds,
            "bytes" => Self::Bytes,
            "count" => Self::Count,
            other => Self::Other(other.into()),
        }
    }
}

/// The name and the unit of a value: pprof's `ValueType`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ValueType {
    name: Cow<'static, str>,
    unit: Unit,
}

impl ValueType {
    /// A value type, such as `cpu` in nanoseconds.
    #[must_use]
    pub fn new(name: impl Into<Cow<'static, str>>, unit: Unit) -> Self {
        Self { name: name.into(), unit }
    }

    /// What is counted: `cpu`, `inuse_space`, …
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is counted in.
    #[must_use]
    pub fn unit(&self) -> &Unit {
        &self.unit
    }
}

/// A kind of profile that a person can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProfileType {
    /// CPU time, in nanoseconds.
    Cpu,
}

impl ProfileType {
    /// Every kind, in the order in which a menu shows them.
    pub const ALL: &'static [Self] = &[Self::Cpu];

    /// The name in a query: `cpu`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
        }
    }

    /// The name for a person.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Cpu => "CPU time",
        }
    }

    /// What its values are counted in.
    #[must_use]
    pub fn unit(self) -> Unit {
        match self {
            Self::Cpu => Unit::Nanoseconds,
        }
    }
}

impl fmt::Display for ProfileType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ProfileType {
    type Err = String;

    /// Parses [`ProfileType::name`]; the error lists what is allowed.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.iter().copied().find(|t| t.name() == text).ok_or_else(|| {
            let allowed: Vec<_> = Self::ALL.iter().map(|t| t.name()).collect();
            format!("`{text}` is not a profile type; allowed: {}", allowed.join(", "))
        })
    }
}

/// A moment, in nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From nanoseconds since the Unix epoch.
    #[must_use]
    pub const fn from_unix_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// From milliseconds since the Unix epoch; saturates.
    #[must_use]
    pub const fn from_unix_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// Nanoseconds since the Unix epoch.
    #[must_use]
    pub const fn unix_nanos(self) -> i64 {
        self.0
    }

    /// Milliseconds since the Unix epoch, rounded down.
    #[must_use]
    pub const fn unix_millis(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// The moment `duration` later; saturates.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)))
    }

    /// The moment `duration` earlier; saturates.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier` this is; zero when it is not after it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(since) => Self(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)),
            Err(before) => {
                Self(i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |n| -n))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_type_names_what_is_allowed() {
        assert_eq!("cpu".parse(), Ok(ProfileType::Cpu));
        let error = "gpu".parse::<ProfileType>().unwrap_err();
        assert!(error.contains("`gpu`") && error.contains("cpu"), "{error}");
    }

    #[test]
    fn timestamps_before_the_epoch_keep_their_order() {
        let before = Timestamp::from(UNIX_EPOCH - Duration::from_secs(1));
        assert_eq!(before.unix_millis(), -1000);
        assert!(before < Timestamp::default());
        assert_eq!(Timestamp::default().since(before), Duration::from_secs(1));
        assert_eq!(before.since(Timestamp::default()), Duration::ZERO);
    }
}
