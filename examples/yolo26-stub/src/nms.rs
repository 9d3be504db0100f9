//! Boxes, and which of many overlapping ones to keep.
//!
//! Non-maximum suppression: the surest box of a class wins, and the boxes of its class that cover
//! much the same ground go. What a box's coordinates are relative to is the caller's business.

use std::cmp::Reverse;

use serde::Serialize;

/// A rectangle; `x` and `y` are its top left corner. In JSON it is `[x, y, width, height]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(into = "[f32; 4]")]
pub(crate) struct BoundingBox {
    pub(crate) x: f32,
    pub(crate) y: f32,
    pub(crate) width: f32,
    pub(crate) height: f32,
}

impl BoundingBox {
    /// The share of the ground that either covers which both cover: 0 is apart, 1 is the same.
    pub(crate) fn overlap(&self, other: &Self) -> f32 {
        let side = |a: f32, a_len: f32, b: f32, b_len: f32| {
            ((a + a_len).min(b + b_len) - a.max(b)).max(0.0)
        };
        let both = side(self.x, self.width, other.x, other.width)
            * side(self.y, self.height, other.y, other.height);
        let either = self.width * self.height + other.width * other.height - both;
        if either > 0.0 { both / either } else { 0.0 }
    }
}

impl From<BoundingBox> for [f32; 4] {
    /// To a tenth of a pixel; further digits would be noise on the wire.
    fn from(bounds: BoundingBox) -> Self {
        [bounds.x, bounds.y, bounds.width, bounds.height].map(|n| (n * 10.0).round() / 10.0)
    }
}

/// A thing that the network believes it sees.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Candidate {
    /// An index into the network's classes.
    pub(crate) class: usize,
    /// 0 to 1.
    pub(crate) confidence: f32,
    pub(crate) bounds: BoundingBox,
}

/// Keeps at most `limit` candidates, surest first, none of which covers more than `overlap` of
/// the same ground as a surer one of its class.
pub(crate) fn suppress(
    mut candidates: Vec<Candidate>,
    overlap: f32,
    limit: usize,
) -> Vec<Candidate> {
    // The sort is stable and no confidence is negative, so equal input gives equal output.
    candidates.sort_by_key(|candidate| Reverse(candidate.confidence.to_bits()));
    let mut kept: Vec<Candidate> = Vec::new();
    for candidate in candidates {
        if kept.len() == limit {
            break;
        }
        let beaten = |winner: &Candidate| {
            winner.class == candidate.class && winner.bounds.overlap(&candidate.bounds) > overlap
        };
        if !kept.iter().any(beaten) {
            kept.push(candidate);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlap_is_intersection_over_union() {
        #[track_caller]
        fn check(a: [f32; 4], b: [f32; 4], expect: f32) {
            assert!((bounds(a).overlap(&bounds(b)) - expect).abs() < 1e-6);
            assert!((bounds(b).overlap(&bounds(a)) - expect).abs() < 1e-6);
        }
        check([0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 10.0], 1.0);
        check([0.0, 0.0, 10.0, 10.0], [5.0, 0.0, 10.0, 10.0], 50.0 / 150.0);
        check([0.0, 0.0, 10.0, 10.0], [5.0, 5.0, 10.0, 10.0], 25.0 / 175.0);
        check([0.0, 0.0, 10.0, 10.0], [2.0, 2.0, 5.0, 5.0], 0.25);
        check([0.0, 0.0, 10.0, 10.0], [10.0, 0.0, 10.0, 10.0], 0.0);
        check([0.0, 0.0, 10.0, 10.0], [30.0, 30.0, 1.0, 1.0], 0.0);
        check([3.0, 3.0, 0.0, 0.0], [3.0, 3.0, 0.0, 0.0], 0.0);
    }

    #[test]
    fn the_surest_of_a_heap_stays() {
        let heap = [
            candidate(0, 0.6, [1.0, 1.0, 10.0, 10.0]),
            candidate(0, 0.9, [0.0, 0.0, 10.0, 10.0]),
            candidate(0, 0.7, [0.0, 1.0, 10.0, 10.0]),
            candidate(0, 0.5, [40.0, 0.0, 10.0, 10.0]),
        ];
        assert_eq!(suppress(heap.to_vec(), 0.5, 10), [heap[1], heap[3]]);
    }

    #[test]
    fn classes_do_not_compete() {
        let both =
            [candidate(0, 0.9, [0.0, 0.0, 10.0, 10.0]), candidate(1, 0.8, [0.0, 0.0, 10.0, 10.0])];
        assert_eq!(suppress(both.to_vec(), 0.5, 10), both);
    }

    #[test]
    fn a_beaten_box_beats_nobody() {
        // The middle one overlaps both ends; the ends do not overlap each other.
        let chain = [
            candidate(0, 0.9, [0.0, 0.0, 10.0, 10.0]),
            candidate(0, 0.8, [3.0, 0.0, 10.0, 10.0]),
            candidate(0, 0.7, [6.0, 0.0, 10.0, 10.0]),
        ];
        assert_eq!(suppress(chain.to_vec(), 0.5, 10), [chain[0], chain[2]]);
    }

    #[test]
    fn the_limit_keeps_the_surest() {
        let apart: Vec<_> = (0u8..20)
            .map(|n| candidate(0, f32::from(n) / 20.0, [f32::from(n) * 20.0, 0.0, 10.0, 10.0]))
            .collect();
        assert_eq!(suppress(apart.clone(), 0.5, 2), [apart[19], apart[18]]);
    }

    fn bounds([x, y, width, height]: [f32; 4]) -> BoundingBox {
        BoundingBox { x, y, width, height }
    }

    fn candidate(class: usize, confidence: f32, at: [f32; 4]) -> Candidate {
        Candidate { class, confidence, bounds: bounds(at) }
    }
}
