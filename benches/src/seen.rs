//! What a profile says about single threads.

use hsi_profiling::{Handle, ProfileType, Query};
use std::{collections::HashMap, time::Duration};

/// What the samples of one thread name stand for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// The sum of the weights: how many expiries of a timer.
    pub periods: i64,
    /// The CPU time that they stand for. For a thread's first sample, which the process's timer
    /// gave, that is what the thread had used until then.
    pub cpu: Duration,
}

/// What the session's history holds, by the name of the thread.
///
/// # Panics
///
/// When there is no session.
#[must_use]
pub fn by_thread(handle: &Handle) -> HashMap<String, Seen> {
    let profile = match handle.query(&Query::new(ProfileType::Cpu)) {
        Ok(profile) => profile,
        Err(error) => panic!("no profile: {error}"),
    };
    let mut threads: HashMap<String, Seen> = HashMap::new();
    for (sample, values) in profile.samples() {
        let name = profile.labels.get(sample.labels).get("thread").unwrap_or("").to_owned();
        let seen = threads.entry(name).or_default();
        seen.periods += values[0];
        seen.cpu += Duration::from_nanos(u64::try_from(values[1]).unwrap_or(0));
    }
    threads
}
