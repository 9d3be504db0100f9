//! Rotary positions: queries and keys are turned by an angle that grows with their position, so
//! that their product depends on how far apart they are, and not on where.

use super::HEAD;

/// Turns the pairs of numbers of each head, each pair at a speed of its own.
#[derive(Debug)]
pub(crate) struct Rotary {
    /// Radians from one position to the next, for each pair.
    speeds: [f32; HEAD / 2],
}

impl Rotary {
    pub(crate) fn new() -> Self {
        let speed = |pair: usize| SLOWEST.powf(-(pair as f32) / (HEAD / 2) as f32);
        Self { speeds: std::array::from_fn(speed) }
    }

    /// Turns all heads of one row. A pair is a number of a head's first half with the one at the
    /// same place in its second half.
    pub(crate) fn turn(&self, row: &mut [f32], position: usize) {
        let turns = self.speeds.map(|speed| (speed * position as f32).sin_cos());
        for head in row.chunks_exact_mut(HEAD) {
            let (first, second) = head.split_at_mut(HEAD / 2);
            for ((a, b), (sin, cos)) in first.iter_mut().zip(second).zip(turns) {
                (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
            }
        }
    }
}

/// The slowest pair takes about this many positions for a radian.
const SLOWEST: f32 = 10_000.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn products_depend_on_the_distance_alone() {
        let mut rng = Rng::new(8);
        let query: [f32; HEAD] = std::array::from_fn(|_| rng.between(-1.0, 1.0));
        let key: [f32; HEAD] = std::array::from_fn(|_| rng.between(-1.0, 1.0));
        let rotary = Rotary::new();
        let product = |at: usize, from: usize| -> f32 {
            let (mut query, mut key) = (query, key);
            rotary.turn(&mut query, at);
            rotary.turn(&mut key, from);
            query.iter().zip(key).map(|(a, b)| a * b).sum()
        };
        assert!((product(7, 3) - product(104, 100)).abs() < 1e-3);
        assert!((product(5, 5) - product(0, 0)).abs() < 1e-3);
        assert!((product(7, 3) - product(7, 4)).abs() > 1e-3);
    }
}
