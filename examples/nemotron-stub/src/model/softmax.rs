//! From scores to shares of one.

/// Turns scores into weights that are positive and add up to one, in place.
pub(crate) fn softmax(scores: &mut [f32]) {
    // Only differences matter; without the largest no power can overflow.
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        *score = (*score - largest).exp();
        sum += *score;
    }
    scores.iter_mut().for_each(|score| *score /= sum);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_follow_the_scores() {
        let mut scores = [2.0f32.ln(), 0.0, 1.0f32.ln()];
        softmax(&mut scores);
        for (got, expect) in scores.iter().zip([0.5, 0.25, 0.25]) {
            assert!((got - expect).abs() < 1e-6, "{scores:?}");
        }
        let mut large = [1000.0, 1000.0];
        softmax(&mut large);
        assert_eq!(large, [0.5, 0.5]);
    }
}
