//! pprof-rs with its framehop unwinder.

use hsi_profiling_bench_load::{
    compare::{self, Peer, Seen},
    itimer,
};

struct Guard(pprof::ProfilerGuard<'static>);

impl Peer for Guard {
    fn start(hz: u32) -> Self {
        let hz = i32::try_from(hz).unwrap_or(100);
        let built = pprof::ProfilerGuardBuilder::default().frequency(hz).build();
        Self(built.unwrap_or_else(|error| panic!("{error}")))
    }

    fn switch(&mut self, on: bool, hz: u32) {
        itimer::switch(on, hz);
    }

    fn finish(self) -> Seen {
        let report = self.0.report().build().unwrap_or_else(|error| panic!("{error}"));
        let mut seen = Seen::default();
        for (stack, count) in &report.data {
            let names: Vec<String> =
                stack.frames.iter().flatten().map(|symbol| symbol.name()).collect();
            seen.add(*count as f64, names.iter().map(String::as_str));
        }
        seen
    }
}

fn main() {
    compare::main::<Guard>("pprof-framehop");
}
