//! What is looked at, and the query that says so. All of it is in the address, so that a link
//! shows what its sender saw; what only the browser knows (zoom, search) is in the fragment.
//!
//! A [`View`] can't hold a bad range or type.

use crate::{
    failure::Failure,
    moment::{MOMENTS, Moment, Span, date_and_time, span},
    query::Fields,
};
use hsi_profiling::{ProfileType, Query, Timestamp};
use std::time::Duration;

/// What is looked at: a kind of profile, a window of time, and whose samples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) profile_type: ProfileType,
    pub(crate) window: Window,
    /// Each key once, sorted.
    labels: Vec<(String, String)>,
}

impl View {
    /// Parses the fields of a query; `now` is when it was asked.
    pub(crate) fn parse(fields: &Fields, service: &str, now: Timestamp) -> Result<Self, Failure> {
        if let Some(other) = fields.get("service")?.filter(|name| *name != service) {
            return Err(Failure::field("service", other, format!("{service}, the only one here")));
        }
        Ok(Self {
            profile_type: profile_type(fields)?,
            window: Window::parse(fields, now)?,
            labels: labels(fields)?,
        })
    }

    /// The query that shows this view again.
    pub(crate) fn query_string(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("type", self.profile_type.name());
        match self.window.asked {
            Asked::Last(length) => {
                query.append_pair("range", &Span(length).to_string());
            }
            Asked::Between(from, to) => {
                query.append_pair("range", CUSTOM);
                query.append_pair("from", &from.to_string()).append_pair("to", &to.to_string());
            }
        }
        if let Some(thread) = self.thread() {
            query.append_pair(THREAD, thread);
        }
        for (key, value) in self.other_labels() {
            query.append_pair(&key, value);
        }
        query.finish()
    }

    /// What to ask the history.
    pub(crate) fn query(&self) -> Query {
        let query = Query::new(self.profile_type).from(self.window.from).to(self.window.to);
        self.labels.iter().fold(query, |query, (key, value)| query.label(key, value))
    }

    /// The thread that is looked at; none is all.
    pub(crate) fn thread(&self) -> Option<&str> {
        self.labels.iter().find(|(key, _)| key == THREAD).map(|(_, value)| &**value)
    }

    /// The labels but the thread, as fields of a query.
    pub(crate) fn other_labels(&self) -> impl Iterator<Item = (String, &str)> {
        let others = self.labels.iter().filter(|(key, _)| key != THREAD);
        others.map(|(key, value)| (format!("{LABEL}{key}"), &**value))
    }

    /// The labels, as key and value.
    pub(crate) fn labels(&self) -> &[(String, String)] {
        &self.labels
    }

    /// For a person: `CPU time of infer-0, last 15 minutes`.
    pub(crate) fn title(&self) -> String {
        let mut title = self.profile_type.title().to_owned();
        for (position, (_, value)) in self.labels.iter().enumerate() {
            title += if position == 0 { " of " } else { ", " };
            title += value;
        }
        format!("{title}, {}", self.window.title())
    }
}

/// A window of time that ends after it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) from: Timestamp,
    pub(crate) to: Timestamp,
    asked: Asked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Last(Duration),
    Between(Moment, Moment),
}

impl Window {
    /// `range=15m`; or `from` and `to`, which count where the range is `custom` or not there. A
    /// form sends what was left in them with any range.
    fn parse(fields: &Fields, now: Timestamp) -> Result<Self, Failure> {
        match fields.get("range")? {
            Some(CUSTOM) => {}
            Some(range) => return Self::last(range, now),
            None if fields.get("from")?.or(fields.get("to")?).is_some() => {}
            None => return Self::last(DEFAULT_RANGE, now),
        }
        Self::between(fields, now)
    }

    /// `from` and `to`; without `to`, up to now.
    pub(crate) fn between(fields: &Fields, now: Timestamp) -> Result<Self, Failure> {
        let Some(from) = fields.get("from")? else {
            return Err(Failure::field("from", "", MOMENTS));
        };
        let to = fields.get("to")?;
        let asked_from = Moment::parse("from", from)?;
        let asked_to = to.map_or(Ok(Moment::Now), |to| Moment::parse("to", to))?;
        let window = Self {
            from: asked_from.resolve(now),
            to: asked_to.resolve(now),
            asked: Asked::Between(asked_from, asked_to),
        };
        if window.from < window.to {
            Ok(window)
        } else if to.is_some_and(|to| to != "now") {
            Err(Failure::field("to", to.unwrap_or_default(), format!("after from (`{from}`)")))
        } else {
            Err(Failure::field("from", from, "before now"))
        }
    }

    fn last(range: &str, now: Timestamp) -> Result<Self, Failure> {
        let length = span(range).filter(|length| !length.is_zero());
        let length = length.ok_or_else(|| Failure::field("range", range, RANGE))?;
        Ok(Self { from: now.before(length), to: now, asked: Asked::Last(length) })
    }

    /// The range as the selector has it: `15m`, or `custom`.
    pub(crate) fn range(&self) -> String {
        match self.asked {
            Asked::Last(length) => Span(length).to_string(),
            Asked::Between(..) => CUSTOM.to_owned(),
        }
    }

    /// For a person: `last 15 minutes`.
    pub(crate) fn title(&self) -> String {
        match self.asked {
            Asked::Last(length) => format!("last {}", words(length)),
            Asked::Between(..) => {
                let (from, to) = (date_and_time(self.from), date_and_time(self.to));
                let same_day = from.split_once('T').zip(to.split_once('T'));
                let to = match same_day {
                    Some(((day, _), (until, time))) if day == until => time.to_owned(),
                    _ => to.replace('T', " "),
                };
                format!("{} to {to} UTC", from.replace('T', " "))
            }
        }
    }

    /// As Grafana writes it: relative where it was asked so.
    pub(crate) fn grafana(&self) -> (String, String) {
        match self.asked {
            Asked::Last(length) => (format!("now-{}", Span(length)), "now".to_owned()),
            Asked::Between(..) => {
                (self.from.unix_millis().to_string(), self.to.unix_millis().to_string())
            }
        }
    }
}

/// The range of a selector whose window is in `from` and `to`.
pub(crate) const CUSTOM: &str = "custom";
/// The ranges of the selector.
pub(crate) const RANGES: [&str; 6] = ["1m", "5m", "15m", "1h", "6h", "24h"];
const DEFAULT_RANGE: &str = "15m";
const RANGE: &str = "`15m` (with s, m, h or d, at most 366d), or `custom` with from and to";

/// The label that every sample has; it has a field of its own.
pub(crate) const THREAD: &str = "thread";
const LABEL: &str = "label.";

fn profile_type(fields: &Fields) -> Result<ProfileType, Failure> {
    let Some(name) = fields.get("type")? else { return Ok(ProfileType::Cpu) };
    ProfileType::ALL.iter().copied().find(|known| known.name() == name).ok_or_else(|| {
        let names: Vec<_> = ProfileType::ALL.iter().map(|known| known.name()).collect();
        Failure::field("type", name, names.join(", "))
    })
}

fn labels(fields: &Fields) -> Result<Vec<(String, String)>, Failure> {
    let thread = fields.get(THREAD)?.map(|value| (THREAD, value));
    let mut labels: Vec<_> = thread
        .into_iter()
        .chain(fields.beginning(LABEL))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    labels.sort_unstable();
    match labels.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(pair) => Err(Failure::field(&pair[1].0, &pair[1].1, "one value, not several")),
        None => Ok(labels),
    }
}

/// A length in words: `15 minutes`, `hour`.
pub(crate) fn words(length: Duration) -> String {
    let text = Span(length).to_string();
    let (number, unit) = text.split_at(text.len() - 1);
    let unit = match unit {
        "d" => "day",
        "h" => "hour",
        "m" => "minute",
        _ => "second",
    };
    if number == "1" { unit.to_owned() } else { format!("{number} {unit}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_millis(1_767_225_600_000);

    fn view(query: &str) -> Result<View, Failure> {
        View::parse(&Fields::parse(Some(query)), "orders", NOW)
    }

    #[test]
    fn a_view_is_in_its_query() {
        for (query, again, title) in [
            ("", "type=cpu&range=15m", "CPU time, last 15 minutes"),
            ("service=orders&type=cpu&range=1h", "type=cpu&range=1h", "CPU time, last hour"),
            ("range=7200s&from=-1h&to=", "type=cpu&range=2h", "CPU time, last 2 hours"),
            (
                "range=5m&thread=infer+%26+0&label.b=2&label.a=%3D&unknown=1",
                "type=cpu&range=5m&thread=infer+%26+0&label.a=%3D&label.b=2",
                "CPU time of =, 2, infer & 0, last 5 minutes",
            ),
            (
                "from=-5m",
                "type=cpu&range=custom&from=-5m&to=now",
                "CPU time, 2025-12-31 23:55:00 to 2026-01-01 00:00:00 UTC",
            ),
            (
                "range=custom&from=2025-12-31T20:00&to=1767214800",
                "type=cpu&range=custom&from=2025-12-31T20%3A00%3A00.000Z&to=2025-12-31T21%3A00%3A00.000Z",
                "CPU time, 2025-12-31 20:00:00 to 21:00:00 UTC",
            ),
        ] {
            let parsed = view(query).unwrap();
            assert_eq!(parsed.query_string(), again);
            assert_eq!(parsed.title(), title);
            let same = view(again).unwrap();
            assert_eq!((same.query_string(), same.query()), (again.to_owned(), parsed.query()));
        }
    }

    #[test]
    fn what_is_not_valid_is_named() {
        for (query, field, value, allowed) in [
            ("type=gpu", "type", "gpu", "cpu"),
            ("type=cpu&type=cpu", "type", "cpu", "one value"),
            ("service=other", "service", "other", "orders"),
            ("range=0m", "range", "0m", "`15m`"),
            ("range=15", "range", "15", "`15m`"),
            ("range=9999999d", "range", "9999999d", "`15m`"),
            ("range=custom", "from", "", "`-5m`"),
            ("to=now", "from", "", "`-5m`"),
            ("from=tomorrow", "from", "tomorrow", "`-5m`"),
            ("from=-5m&to=soon", "to", "soon", "`-5m`"),
            ("from=-5m&to=-10m", "to", "-10m", "after from (`-5m`)"),
            ("from=-5m&to=-5m", "to", "-5m", "after from"),
            ("from=now", "from", "now", "before now"),
            ("from=2026-01-01T00:00:01&to=now", "from", "2026-01-01T00:00:01", "before now"),
            ("thread=a&thread=b", "thread", "b", "one value"),
            ("thread=a&label.thread=b", "thread", "b", "one value"),
            ("label.k=a&label.k=b", "k", "b", "one value"),
        ] {
            let Err(Failure::Field { field: f, value: v, allowed: a }) = view(query) else {
                panic!("{query} is taken");
            };
            assert_eq!((&*f, &*v), (field, value), "{query}");
            assert!(a.contains(allowed), "{query}: {a}");
        }
    }

    #[test]
    fn grafana_is_given_the_window_as_it_was_asked() {
        let window = |query: &str| view(query).unwrap().window.grafana();
        assert_eq!(window("range=15m"), ("now-15m".to_owned(), "now".to_owned()));
        assert_eq!(
            window("from=-1s&to=now"),
            ("1767225599000".to_owned(), "1767225600000".to_owned())
        );
    }
}
