//! What a view shows: the profile out of the history, its names, and its call tree. Making one
//! blocks, from milliseconds to a second.

use crate::{
    failure::Failure,
    moment::date_and_time,
    pages::format::{percent, value},
    view::View,
};
use hsi_profiling::{CallTree, FunctionTotals, Handle, Profile, Timestamp};

/// A view, filled in.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) profile: Profile,
    pub(crate) tree: CallTree,
    /// The window that the samples are from: the history's buckets, or what was asked for where
    /// it has none.
    pub(crate) from: Timestamp,
    pub(crate) to: Timestamp,
}

impl Shown {
    pub(crate) fn load(handle: &Handle, view: &View) -> Result<Self, Failure> {
        let profile = handle.query(&view.query())?;
        let symbols = handle.symbolize(&profile);
        let shown = profile.type_index(view.profile_type.name()).unwrap_or(profile.default_type);
        let tree = CallTree::new(&profile, &symbols, shown);
        let (from, to) = if profile.duration.is_zero() {
            (view.window.from, view.window.to)
        } else {
            (profile.start, profile.start.after(profile.duration))
        };
        Ok(Self { profile, tree, from, to })
    }

    /// How many samples there are, the merged ones counted in.
    pub(crate) fn samples(&self) -> u64 {
        let samples = self.profile.type_index("samples");
        samples.map_or(0, |samples| unsigned(self.profile.total(samples)))
    }

    pub(crate) fn total(&self) -> u64 {
        unsigned(self.tree.total())
    }

    /// The functions in which most samples ended.
    pub(crate) fn top(&self) -> impl Iterator<Item = Top<'_>> {
        let functions = self.tree.functions_by_self().into_iter();
        let own = functions.take_while(|f| f.self_value > 0).take(MOST_ROWS);
        own.map(|f| Top { shown: self, f })
    }

    /// How many and when: `1.23 s in 123 samples, 03:04:05 to 03:19:05 UTC`.
    pub(crate) fn summary(&self, unit: &str) -> String {
        format!(
            "{} in {} samples, {} to {} UTC",
            value(self.total(), unit),
            value(self.samples(), "count"),
            date_and_time(self.from).replace('T', " "),
            date_and_time(self.to).replace('T', " ")
        )
    }
}

/// How many functions are listed where there is no script to show more.
const MOST_ROWS: usize = 50;

/// A function of [`Shown::top`], in words.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Top<'a> {
    shown: &'a Shown,
    f: FunctionTotals,
}

impl Top<'_> {
    pub(crate) fn name(&self) -> &str {
        self.frame().map_or("", |frame| &frame.function)
    }

    /// `file:line`, or empty.
    pub(crate) fn source(&self) -> String {
        match self.frame() {
            Some(frame) if !frame.file.is_empty() => format!("{}:{}", frame.file, frame.line),
            _ => String::new(),
        }
    }

    /// Self value and share.
    pub(crate) fn own(&self, unit: &str) -> (String, String) {
        self.words(self.f.self_value, unit)
    }

    /// Total value and share.
    pub(crate) fn total(&self, unit: &str) -> (String, String) {
        self.words(self.f.total, unit)
    }

    fn frame(&self) -> Option<&hsi_profiling::Frame> {
        self.shown.tree.frames().get(self.f.frame as usize)
    }

    fn words(&self, part: i64, unit: &str) -> (String, String) {
        let part = unsigned(part);
        (value(part, unit), percent(part, self.shown.total()))
    }
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
