//! Medians and their errors, and arguments of the form `name=value`.

use std::str::FromStr;

/// The middle of the values; 0 without any.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// The standard error of the median, from the spread of the middle half of the values: outliers
/// of a noisy machine do not count. 1.2533 is the ratio of the errors of median and mean of a
/// normal distribution, 1.349 the ratio of its quartile distance and standard deviation.
#[must_use]
pub fn median_error(values: &[f64]) -> f64 {
    if values.len() < 4 {
        return f64::NAN;
    }
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let quartiles = sorted[sorted.len() * 3 / 4] - sorted[sorted.len() / 4];
    1.2533 * quartiles / 1.349 / (sorted.len() as f64).sqrt()
}

/// The value of the argument `name=value`, or `default`.
///
/// # Panics
///
/// When the value can't be read: a bench that runs with something else than was asked for is
/// worse than one that does not run.
#[must_use]
pub fn argument<T: FromStr>(name: &str, default: T) -> T {
    let found = std::env::args().skip(1).find_map(|argument| {
        let (key, value) = argument.split_once('=')?;
        (key == name).then(|| value.to_owned())
    });
    match found {
        None => default,
        Some(value) => match value.parse() {
            Ok(parsed) => parsed,
            Err(_) => panic!("{name}={value} can't be read"),
        },
    }
}

/// The numbers of the argument `name=1,2,3`, or `default`.
///
/// # Panics
///
/// As [`argument`].
#[must_use]
pub fn list<T: FromStr + Clone>(name: &str, default: &[T]) -> Vec<T> {
    let text = argument(name, String::new());
    if text.is_empty() {
        return default.to_vec();
    }
    let parse = |item: &str| item.parse().unwrap_or_else(|_| panic!("{name}={text} can't be read"));
    text.split(',').map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_has_an_error_and_no_outliers() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[1.0, 2.0, 3.0, 1000.0]), 2.5);
        assert_eq!(median(&[]), 0.0);
        let values: Vec<f64> = (0..100).map(f64::from).collect();
        let error = median_error(&values);
        assert!((4.0..6.0).contains(&error), "{error}");
        assert!(median_error(&[1.0]).is_nan());
    }
}
