//! Points in time and lengths of time, as people write them in an address.
//!
//! UTC alone: which zone a person is in is known to the browser. Leap seconds do not exist here,
//! as they do not in Unix time.

use crate::failure::Failure;
use hsi_profiling::Timestamp;
use std::{
    fmt,
    time::{Duration, SystemTime},
};

/// A point in time, still as it was written, so that `now` stays `now` in a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// `now`
    Now,
    /// `-5m`
    Ago(Duration),
    /// `1767225600`, `1767225600123`, `2026-01-31T03:04:05Z`
    At(Timestamp),
}

impl Moment {
    /// Parses the value of a field.
    pub(crate) fn parse(field: &str, text: &str) -> Result<Self, Failure> {
        if text == "now" {
            return Ok(Self::Now);
        }
        let moment = match text.strip_prefix('-') {
            Some(length) => span(length).map(Self::Ago),
            None => unix(text).or_else(|| date(text)).map(Self::At),
        };
        moment.ok_or_else(|| Failure::field(field, text, MOMENTS))
    }

    /// When that is, if it is `now` now.
    pub(crate) fn resolve(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Now => now,
            Self::Ago(length) => now.before(length),
            Self::At(at) => at,
        }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now => f.write_str("now"),
            Self::Ago(length) => write!(f, "-{}", Span(*length)),
            Self::At(at) => {
                write!(f, "{}.{:03}Z", date_and_time(*at), at.unix_millis().rem_euclid(1000))
            }
        }
    }
}

/// The present moment.
pub(crate) fn now() -> Timestamp {
    Timestamp::from(SystemTime::now())
}

/// What [`Moment::parse`] takes.
pub(crate) const MOMENTS: &str = "`now`, `-5m` (with s, m, h or d, at most 366d), seconds or \
    milliseconds since 1970, or `2026-01-31T03:04:05Z`";

/// A length of time: `15m`, `24h`; at most a year.
pub(crate) fn span(text: &str) -> Option<Duration> {
    let unit = text.chars().next_back()?;
    let seconds = UNITS.iter().find(|(name, _)| *name == unit)?.1;
    let length = Duration::from_secs(digits(&text[..text.len() - 1])?.checked_mul(seconds)?);
    (length <= LONGEST).then_some(length)
}

/// A length of whole seconds in the largest unit that fits: `15m`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span(pub(crate) Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.0.as_secs();
        let fits = UNITS.iter().find(|(_, seconds)| all > 0 && all.is_multiple_of(*seconds));
        let (unit, seconds) = fits.copied().unwrap_or(('s', 1));
        write!(f, "{}{unit}", all / seconds)
    }
}

/// A point in time as the date in a form: `2026-01-31T03:04:05`.
pub(crate) fn date_and_time(at: Timestamp) -> String {
    let seconds = at.unix_millis().div_euclid(1000);
    let (mut days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let mut year = 1970;
    while days < 0 {
        year -= 1;
        days += days_in_year(year);
    }
    while days >= days_in_year(year) {
        days -= days_in_year(year);
        year += 1;
    }
    let mut month = 1;
    while days >= days_in_month(year, month) {
        days -= days_in_month(year, month);
        month += 1;
    }
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{:02}", days + 1, second % 60)
}

const LONGEST: Duration = Duration::from_secs(366 * 86_400);
const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3600), ('m', 60), ('s', 1)];

fn unix(text: &str) -> Option<Timestamp> {
    let number = i64::try_from(digits(text)?).ok()?;
    match number {
        0..END_SECONDS => Some(Timestamp::from_unix_millis(number * 1000)),
        END_SECONDS..END_MILLIS => Some(Timestamp::from_unix_millis(number)),
        _ => None,
    }
}

/// Time ends with the year 2261: a timestamp holds nanoseconds, and overflows in the next.
const END_YEAR: i64 = 2262;
/// The same in seconds since 1970. As milliseconds that is the April of 1970, so a larger number
/// is milliseconds.
const END_SECONDS: i64 = 9_214_646_400;
const END_MILLIS: i64 = END_SECONDS * 1000;

/// `2026-01-31T03:04`, and where they are there, seconds, thousandths and `Z`.
fn date(text: &str) -> Option<Timestamp> {
    let (date, time) = text.strip_suffix('Z').unwrap_or(text).split_once('T')?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let (time, millis) = match time.split_once('.') {
        Some((time, fraction)) => {
            let millis = digits(fraction.get(..3).unwrap_or(fraction))?;
            digits(fraction)?;
            (time, millis * 10_u64.pow(3_u32.saturating_sub(fraction.len() as u32)))
        }
        None => (time, 0),
    };
    let [hour, minute, second] = match numbers(time, ':', [2, 2]) {
        Some([hour, minute]) => [hour, minute, 0],
        None => numbers(time, ':', [2, 2, 2])?,
    };
    let known = (1970..END_YEAR).contains(&year)
        && (1..=12).contains(&month)
        && (1..=days_in_month(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !known {
        return None;
    }
    let days = (1970..year).map(days_in_year).sum::<i64>()
        + (1..month).map(|month| days_in_month(year, month)).sum::<i64>()
        + (day - 1);
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second;
    Some(Timestamp::from_unix_millis(seconds * 1000 + i64::try_from(millis).ok()?))
}

fn days_in_year(year: i64) -> i64 {
    if is_leap(year) { 366 } else { 365 }
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// Numbers with so many digits each, and this between them.
fn numbers<const N: usize>(text: &str, between: char, lengths: [usize; N]) -> Option<[i64; N]> {
    let mut parts = text.split(between);
    let mut numbers = [0; N];
    for (number, length) in numbers.iter_mut().zip(lengths) {
        let part = parts.next().filter(|part| part.len() == length)?;
        *number = i64::try_from(digits(part)?).ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

/// A number without a sign, which `parse` would take.
fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_in_every_form() {
        let now = Timestamp::from_unix_millis(1_767_225_600_000);
        for (text, millis) in [
            ("now", 1_767_225_600_000),
            ("-0s", 1_767_225_600_000),
            ("-5m", 1_767_225_300_000),
            ("-2h", 1_767_218_400_000),
            ("-1d", 1_767_139_200_000),
            ("0", 0),
            ("1767225600", 1_767_225_600_000),
            ("1767225600123", 1_767_225_600_123),
            ("2026-01-01T00:00:00Z", 1_767_225_600_000),
            ("2026-01-01T00:00", 1_767_225_600_000),
            ("2026-01-01T00:00:00.5", 1_767_225_600_500),
            ("2026-01-01T00:00:00.123456789Z", 1_767_225_600_123),
            ("2024-02-29T23:59:59Z", 1_709_251_199_000),
            ("2000-03-01T00:00:00Z", 951_868_800_000),
            ("1970-01-01T00:00:00Z", 0),
            ("9214646399", 9_214_646_399_000),
            ("9214646400", 9_214_646_400),
            ("1970-01-01T00:00:09Z", 9_000),
            ("2100-03-01T00:00:00Z", 4_107_542_400_000),
        ] {
            let moment = Moment::parse("from", text).unwrap();
            assert_eq!(moment.resolve(now).unix_millis(), millis, "{text}");
            let again = Moment::parse("from", &moment.to_string()).unwrap();
            assert_eq!(again.resolve(now), moment.resolve(now), "{text}");
        }
    }

    #[test]
    fn what_is_no_moment_is_named() {
        for text in [
            "",
            "-",
            "yesterday",
            "-5",
            "-5w",
            "-5 m",
            "--5m",
            "-+5m",
            "5m",
            "-367d",
            "+1",
            "-1.5h",
            "-99999999999999999999s",
            "1.5",
            "9214646400000",
            "99999999999999999999",
            "2262-01-01T00:00",
            "2026-01-01",
            "2026-1-01T00:00",
            "2026-13-01T00:00",
            "2026-02-29T00:00",
            "2026-01-00T00:00",
            "2026-01-01T24:00",
            "2026-01-01T00:60",
            "2026-01-01T00:00:60",
            "2026-01-01T00",
            "2026-01-01T00:00:00+01:00",
            "2026-01-01T00:00:00.",
            "2026-01-01t00:00",
            "1969-12-31T23:59",
            "2026-01-01T00:00:00.1é",
            "é",
        ] {
            let error = Moment::parse("from", text).unwrap_err();
            assert_eq!(error, Failure::field("from", text, MOMENTS));
        }
    }

    #[test]
    fn dates_are_written_as_they_are_read() {
        for text in [
            "1970-01-01T00:00:00",
            "2024-02-29T12:34:56",
            "2026-12-31T23:59:59",
            "2261-12-31T23:59:59",
        ] {
            assert_eq!(date_and_time(date(text).unwrap()), text);
        }
        assert_eq!(date_and_time(Timestamp::from_unix_millis(-1)), "1969-12-31T23:59:59");
    }

    #[test]
    fn lengths_have_the_largest_unit_that_fits() {
        for (text, shown) in
            [("90s", "90s"), ("120s", "2m"), ("60m", "1h"), ("48h", "2d"), ("0m", "0s")]
        {
            assert_eq!(Span(span(text).unwrap()).to_string(), shown);
        }
        assert_eq!(span("é"), None);
    }
}
