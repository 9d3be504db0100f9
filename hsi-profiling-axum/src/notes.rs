//! The status line: how far the numbers on the page can be trusted, what they cost, and what
//! would make them better.

use crate::{
    moment::date_and_time,
    pages::{
        Level, Note,
        format::{percent, value},
    },
    shown::Shown,
    view::View,
};
use hsi_profiling::{Handle, History, State, Stats, SymbolStatus};
use std::time::Duration;

/// All there is to say about what is shown.
pub(crate) fn notes(handle: &Handle, view: &View, shown: &Shown) -> Vec<Note> {
    let (state, stats) = (handle.state(), handle.stats());
    let mut notes: Vec<_> = self::state(&state).into_iter().collect();
    if matches!(state, State::Off { .. }) {
        return notes;
    }
    let hz = handle.cpu_hz();
    let samples = value(shown.samples(), "count");
    notes.push(info("Samples", format!("{samples} at {hz} Hz of CPU time")));
    notes.push(window(&handle.history(), view));
    notes.push(sampled(&stats));
    notes.extend(lost(&stats));
    notes.push(overhead(&stats));
    notes.extend(symbols(&handle.symbol_status()));
    notes
}

/// Why there may be nothing new to see.
pub(crate) fn state(state: &State) -> Option<Note> {
    match state {
        State::Running => None,
        State::Paused => Some(warning("Profiling", state.to_string())),
        _ => Some(note("Profiling", state.to_string(), Level::Error)),
    }
}

fn window(history: &History, view: &View) -> Note {
    let Some(held) = history.start else {
        return warning("History", "empty: the first samples come within seconds");
    };
    let memory = format!(
        "{} of {}",
        value(history.bytes as u64, "bytes"),
        value(history.cap_bytes as u64, "bytes")
    );
    let since = date_and_time(held).replace('T', " ");
    let text = format!("since {since} UTC, {memory}");
    let short = view.window.from < held;
    if short { info("History", format!("only {text}")) } else { info("History", text) }
}

fn sampled(stats: &Stats) -> Note {
    let share = percent(nanos(stats.sampled_cpu), nanos(stats.process_cpu));
    let residual = stats.residual_nanos();
    let sign = if residual < 0 { "-" } else { "" };
    let text = format!(
        "{} used since start, {share} sampled, {sign}{} neither sampled nor lost",
        value(nanos(stats.process_cpu), "nanoseconds"),
        value(residual.unsigned_abs(), "nanoseconds"),
    );
    info("CPU", text)
}

fn lost(stats: &Stats) -> Vec<Note> {
    let reasons: Vec<_> = stats
        .losses()
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(reason, count)| format!("{} {reason}", value(count, "count")))
        .collect();
    let lost = nanos(stats.lost_cpu);
    let mut notes = Vec::new();
    let text = if reasons.is_empty() { "nothing".to_owned() } else { reasons.join(", ") };
    let level = if lost > nanos(stats.process_cpu) / 100 { Level::Warn } else { Level::Info };
    notes.push(note("Lost or cut", text, level));
    if stats.blocked_threads > 0 {
        let text = format!("{} threads block the sampler's signal", stats.blocked_threads);
        notes.push(warning("Unsampled", text));
    }
    notes
}

fn overhead(stats: &Stats) -> Note {
    let time = nanos(stats.handler_time).saturating_add(nanos(stats.own_cpu));
    let memory = stats.history_bytes + stats.symbol_bytes + stats.table_bytes;
    let text = format!(
        "{} of the CPU time used, {}",
        percent(time, nanos(stats.process_cpu)),
        value(memory, "bytes")
    );
    info("Overhead", text)
}

fn symbols(modules: &[SymbolStatus]) -> Vec<Note> {
    let mut notes = Vec::new();
    for module in modules {
        let name = module.path.rsplit('/').next().unwrap_or_default();
        if let Some(fix) = module.fix() {
            notes.push(warning("Symbols", format!("{name} has {}. {fix}", module.kind)));
        } else if let Some(problem) = &module.problem {
            notes.push(info("Symbols", format!("{name}: {problem}")));
        } else if module.main {
            notes.push(info("Symbols", format!("{name}: {}", module.kind)));
        }
    }
    notes
}

fn info(label: &str, value: impl Into<String>) -> Note {
    note(label, value, Level::Info)
}

fn warning(label: &str, value: impl Into<String>) -> Note {
    note(label, value, Level::Warn)
}

fn note(label: &str, value: impl Into<String>, level: Level) -> Note {
    Note { label: label.to_owned(), value: value.into(), level }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
