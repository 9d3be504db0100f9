//! The pyroscope agent with its pprof-rs backend, pushing to whoever listens at `PYROSCOPE_SINK`.

use hsi_profiling_bench_load::{
    compare::{self, Peer, Seen},
    itimer,
};
use pyroscope::{
    backend::{BackendConfig, PprofConfig, Report, pprof_backend},
    pyroscope::{PyroscopeAgent, PyroscopeAgentBuilder, PyroscopeAgentRunning},
};
use std::sync::{Mutex, PoisonError};

static SEEN: Mutex<Seen> = Mutex::new(Seen { all: 0.0, hot_a: 0.0, hot_b: 0.0 });

/// The agent hands every report to this before it is encoded and sent.
fn look(report: Report) -> Report {
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    for (stack, count) in &report.data {
        let names = stack.frames.iter().filter_map(|frame| frame.name.as_deref());
        seen.add(*count as f64, names);
    }
    report
}

struct Agent(PyroscopeAgent<PyroscopeAgentRunning>);

impl Peer for Agent {
    fn start(hz: u32) -> Self {
        let sink = std::env::var("PYROSCOPE_SINK").unwrap_or("http://127.0.0.1:4999".to_owned());
        let backend = pprof_backend(PprofConfig { sample_rate: hz }, BackendConfig::default());
        let agent = PyroscopeAgentBuilder::new(sink, "peer", hz, "pyroscope-rs", "2.1", backend)
            .func(look)
            .build()
            .unwrap_or_else(|error| panic!("{error}"));
        Self(agent.start().unwrap_or_else(|error| panic!("{error}")))
    }

    fn switch(&mut self, on: bool, hz: u32) {
        itimer::switch(on, hz);
    }

    fn finish(self) -> Seen {
        // Ending the agent sends what is left.
        self.0.stop().unwrap_or_else(|error| panic!("{error}")).shutdown();
        *SEEN.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn main() {
    compare::main::<Agent>("pyroscope");
}
