//! The HTML of the dashboard: plain structs in, markup out.
//!
//! Nothing here knows a handle, a store or a request. The server fills a [`Page`], every address in
//! it already relative to where the router is mounted, and the templates print it. Text is escaped
//! by maud; nothing is inline that a strict content security policy would refuse.

pub(crate) mod format;
mod graph;
mod overview;
mod table;

pub(crate) use overview::overview;

/// All that the overview page prints.
#[derive(Clone, Debug, Default)]
pub(crate) struct Page {
    /// The name of this service, for the document's title.
    pub(crate) service: String,
    /// What is shown, for a person: `CPU time, last 15 minutes`.
    pub(crate) title: String,
    /// The selectors. The names of their fields in the query are `service`, `type`, `range` and
    /// `thread`.
    pub(crate) services: Vec<Choice>,
    pub(crate) types: Vec<Choice>,
    /// One of the ranges has the value `custom`: then the fields `from` and `to` count.
    pub(crate) ranges: Vec<Choice>,
    pub(crate) threads: Vec<Choice>,
    /// The window of a custom range in UTC, `2026-01-31T03:04:05`; empty when the range is relative.
    pub(crate) from: String,
    pub(crate) to: String,
    /// Further fields of the query that the form has no control for and must carry along.
    pub(crate) hidden: Vec<(String, String)>,
    /// Where to go from here, left to right.
    pub(crate) links: Vec<Link>,
    /// The same view in other formats.
    pub(crate) downloads: Vec<Link>,
    pub(crate) style_url: String,
    pub(crate) script_url: String,
    /// Where the script fetches the graph; it replaces the query by that of the form.
    pub(crate) graph_url: String,
    /// The picture for a reader without JavaScript, with its query.
    pub(crate) svg_url: String,
    /// The heaviest functions by self value, for a reader without JavaScript.
    pub(crate) top: Vec<TopRow>,
    /// The status line.
    pub(crate) notes: Vec<Note>,
}

/// An option of a selector.
#[derive(Clone, Debug, Default)]
pub(crate) struct Choice {
    pub(crate) value: String,
    pub(crate) label: String,
    pub(crate) selected: bool,
}

/// A link to another view of the same data.
#[derive(Clone, Debug, Default)]
pub(crate) struct Link {
    /// How the graph's metadata names this link when a new view has a new address: `grafana`.
    pub(crate) id: String,
    pub(crate) label: String,
    /// The address. None shows the label disabled.
    pub(crate) url: Option<String>,
    /// A hint: where the link goes, or why it is disabled and what would enable it.
    pub(crate) hint: String,
}

/// A row of the table that is drawn without JavaScript; the values are already formatted.
#[derive(Clone, Debug, Default)]
pub(crate) struct TopRow {
    pub(crate) name: String,
    pub(crate) self_value: String,
    pub(crate) self_percent: String,
    pub(crate) total_value: String,
    pub(crate) total_percent: String,
    /// `file:line`, or empty.
    pub(crate) source: String,
}

/// An entry of the status line.
#[derive(Clone, Debug, Default)]
pub(crate) struct Note {
    pub(crate) label: String,
    pub(crate) value: String,
    pub(crate) level: Level,
}

/// How much a note matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Level {
    #[default]
    Info,
    Warn,
    Error,
}

impl Level {
    /// The word on the wire, which is also the class in the style sheet.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}
