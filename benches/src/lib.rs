//! What the binaries and benches of this package share.

pub mod made_up;
pub mod raise;
pub mod seen;
pub mod sink;
pub mod times;
