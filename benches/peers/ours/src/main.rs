//! hsi-profiling, with its defaults but for the rate.

use hsi_profiling::{Config, ProfileType, Query, Session};
use hsi_profiling_bench_load::compare::{self, Peer, Seen};
use std::time::Duration;

struct Ours {
    session: Session,
    hz: u32,
}

impl Peer for Ours {
    fn start(hz: u32) -> Self {
        let started = Config::builder("ours").cpu_hz(hz).start();
        Self { session: started.unwrap_or_else(|error| panic!("{error}")), hz }
    }

    fn switch(&mut self, on: bool, _: u32) {
        let handle = self.session.handle();
        let switched = if on { handle.resume() } else { handle.pause() };
        switched.unwrap_or_else(|error| panic!("{error}"));
    }

    fn handlers(&self) -> (Duration, u64) {
        let stats = self.session.handle().stats();
        (stats.handler_time, stats.signals)
    }

    fn finish(self) -> Seen {
        let handle = self.session.handle();
        let profile = handle.query(&Query::new(ProfileType::Cpu));
        let profile = profile.unwrap_or_else(|error| panic!("{error}"));
        let symbols = handle.symbolize(&profile);
        let mut seen = Seen::default();
        for (sample, values) in profile.samples() {
            // What the samples stand for, in periods.
            let count = values[1] as f64 / 1e9 * f64::from(self.hz);
            let locations: Vec<_> = profile.stacks.frames(sample.stack).collect();
            let frames = locations.iter().flat_map(|location| symbols.get(*location));
            seen.add(count, frames.map(|frame| &*frame.function));
        }
        seen
    }
}

fn main() {
    compare::main::<Ours>("ours");
}
