//! Off, on, on, off: the cost of a profiler by switching it inside one process.
//!
//! Two processes on a shared machine differ by several percent for reasons of their own. Windows
//! of one process that follow each other within a second do not, and a slow drift cancels within
//! the four. What is compared is CPU time of the working threads for each unit of work.

use crate::{
    clock,
    figures::{median, median_error},
    work::Crew,
};
use std::{
    thread,
    time::{Duration, Instant},
};

/// What switching has shown.
#[derive(Clone, Debug)]
pub struct Toggled {
    /// How much more CPU time a unit took with the profiler on, for each group of four windows.
    pub ratios: Vec<f64>,
    /// CPU time of the working threads while it was on.
    pub busy_on: Duration,
    /// CPU time of all other threads while it was on.
    pub others_on: Duration,
    /// CPU time of the working threads while it was off.
    pub busy_off: Duration,
    /// CPU time of all other threads while it was off.
    pub others_off: Duration,
}

impl Toggled {
    /// The profiler's cost in the working threads, in percent, and its error.
    #[must_use]
    pub fn percent(&self) -> (f64, f64) {
        let percents: Vec<f64> = self.ratios.iter().map(|r| (r - 1.0) * 100.0).collect();
        (median(&percents), median_error(&percents))
    }

    /// What the other threads used more while it was on, in percent of the work.
    #[must_use]
    pub fn others_percent(&self) -> f64 {
        let share = |others: Duration, busy: Duration| others.as_secs_f64() / busy.as_secs_f64();
        100.0 * (share(self.others_on, self.busy_on) - share(self.others_off, self.busy_off))
    }
}

/// Switches the profiler off, on, on, off while `crew` works, in windows of this length, for so
/// long. It is on when this returns.
pub fn toggle(
    crew: &Crew,
    window: Duration,
    length: Duration,
    mut switch: impl FnMut(bool),
) -> Toggled {
    let deadline = Instant::now() + length;
    let mut toggled = Toggled {
        ratios: Vec::new(),
        busy_on: Duration::ZERO,
        others_on: Duration::ZERO,
        busy_off: Duration::ZERO,
        others_off: Duration::ZERO,
    };
    while Instant::now() < deadline {
        let mut per_unit = [0.0, 0.0];
        for (on, twice) in [(false, false), (true, false), (true, true), (false, false)] {
            if !twice {
                switch(on);
            }
            let (cpu, units, process) = reading(crew);
            thread::sleep(window);
            let (cpu_after, units_after, process_after) = reading(crew);
            let busy = cpu_after.saturating_sub(cpu);
            let others = process_after.saturating_sub(process).saturating_sub(busy);
            per_unit[usize::from(on)] +=
                busy.as_secs_f64() / (units_after.saturating_sub(units)).max(1) as f64;
            if on {
                toggled.busy_on += busy;
                toggled.others_on += others;
            } else {
                toggled.busy_off += busy;
                toggled.others_off += others;
            }
        }
        toggled.ratios.push(per_unit[1] / per_unit[0]);
    }
    switch(true);
    toggled
}

fn reading(crew: &Crew) -> (Duration, u64, Duration) {
    let (cpu, units) = crew.done();
    (cpu, units, clock::process_cpu())
}
