//! Numbers for people. The script formats the same numbers in the same way, so that the table that
//! it draws over the server's says the same; a browser test compares the two.

/// A value with its unit: `1.23 ms`, `4.50 MiB`, `12,345`. `unit` is pprof's name of it.
pub(crate) fn value(value: u64, unit: &str) -> String {
    match unit {
        "nanoseconds" => scaled(
            value,
            &[(3.6e12, "h"), (6e10, "min"), (1e9, "s"), (1e6, "ms"), (1e3, "µs")],
            "ns",
        ),
        "bytes" => scaled(
            value,
            &[(KIB.powi(4), "TiB"), (KIB.powi(3), "GiB"), (KIB.powi(2), "MiB"), (KIB, "KiB")],
            "B",
        ),
        "count" => grouped(value),
        other => format!("{} {other}", grouped(value)),
    }
}

/// A share of a total: `12.3%`. What is there but rounds to nothing says so.
pub(crate) fn percent(part: u64, total: u64) -> String {
    if part == 0 || total == 0 {
        return "0%".to_owned();
    }
    let percent = part as f64 / total as f64 * 100.0;
    if part == total {
        "100%".to_owned()
    } else if percent < 0.01 {
        "<0.01%".to_owned()
    } else if percent < 9.995 {
        format!("{:.2}%", half_up(percent, 2))
    } else {
        format!("{:.1}%", half_up(percent, 1))
    }
}

const KIB: f64 = 1024.0;

/// Three digits that matter, in the largest unit that leaves at least one before the point.
fn scaled(value: u64, units: &[(f64, &str)], base: &str) -> String {
    let exact = value as f64;
    for (scale, unit) in units {
        let scaled = exact / scale;
        if scaled >= 1.0 {
            let digits = if scaled < 9.995 {
                2
            } else if scaled < 99.95 {
                1
            } else {
                0
            };
            return format!("{:.digits$} {unit}", half_up(scaled, digits));
        }
    }
    format!("{value} {base}")
}

/// A value so close above itself that it rounds as JavaScript rounds: a tie goes up there, and to
/// the even digit here. The fused product is exact, so that only a true tie is one.
fn half_up(value: f64, digits: usize) -> f64 {
    let scale = if digits == 2 {
        100.0
    } else if digits == 1 {
        10.0
    } else {
        1.0
    };
    let tie = (value * scale).floor() + 0.5;
    if value.mul_add(scale, -tie) == 0.0 { value.next_up() } else { value }
}

/// Digits in groups of three: `12,345`.
fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{percent, value};

    #[test]
    fn values_carry_a_unit_that_fits() {
        for (number, unit, expect) in [
            (0, "nanoseconds", "0 ns"),
            (999, "nanoseconds", "999 ns"),
            (1_500, "nanoseconds", "1.50 µs"),
            (12_345_678, "nanoseconds", "12.3 ms"),
            (51_250_000, "nanoseconds", "51.3 ms"),
            (1_545_000_000, "nanoseconds", "1.54 s"),
            (9_999_000_000, "nanoseconds", "10.0 s"),
            (90_000_000_000, "nanoseconds", "1.50 min"),
            (5_400_000_000_000, "nanoseconds", "1.50 h"),
            (1_023, "bytes", "1023 B"),
            (524_288, "bytes", "512 KiB"),
            (1_572_864, "bytes", "1.50 MiB"),
            (0, "count", "0"),
            (1_234_567, "count", "1,234,567"),
            (12_345, "frames", "12,345 frames"),
        ] {
            assert_eq!(value(number, unit), expect);
        }
    }

    #[test]
    fn a_share_is_never_rounded_to_nothing() {
        for (part, total, expect) in [
            (0, 0, "0%"),
            (0, 9, "0%"),
            (1, 1_000_000, "<0.01%"),
            (1, 400, "0.25%"),
            (1, 3, "33.3%"),
            (99_999, 100_000, "100.0%"),
            (7, 7, "100%"),
        ] {
            assert_eq!(percent(part, total), expect);
        }
    }
}
