//! No profiler: what the comparison can't tell from zero.

use hsi_profiling_bench_load::compare::{self, Peer, Seen};

struct Nothing;

impl Peer for Nothing {
    fn start(_: u32) -> Self {
        Self
    }

    fn switch(&mut self, _: bool, _: u32) {}

    fn finish(self) -> Seen {
        Seen::default()
    }
}

fn main() {
    compare::main::<Nothing>("nothing");
}
