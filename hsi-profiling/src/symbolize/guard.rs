//! The last resort against a fault in a parser of files that nobody vouches for.
//!
//! The parsers return errors, and are fuzzed for it; this is for the fault that is left. In a
//! program built with `panic = "abort"` it guards nothing, so nothing here relies on it.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Calls a parser; `None` where it panicked. What it was working on may then be in disorder, and
/// must be dropped.
pub(super) fn guarded<T>(call: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(call)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_answer() {
        assert_eq!(guarded(|| 1), Some(1));
        assert_eq!(guarded(|| [1][std::hint::black_box(1)]), None);
    }
}
