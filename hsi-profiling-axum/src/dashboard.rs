//! The page, for a browser and for a terminal, and the graph that its script draws.
//!
//! Addresses on it are relative to `/debug/`, wherever that is mounted, and the page has one
//! address, without a slash at its end.

use crate::{
    download,
    failure::Failure,
    gzip,
    moment::{date_and_time, now, span},
    notes,
    pages::{self, Choice, Link, Page, TopRow},
    query::Fields,
    shown::Shown,
    view::{CUSTOM, RANGES, THREAD, View, words},
    work::Site,
};
use axum::{
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use hsi_profiling::encode;
use serde_json::{Map, Value, json};
use std::{fmt::Write, sync::Arc};

/// `GET /debug/profiling`
pub(crate) async fn page(
    State(site): State<Arc<Site>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let fields = Fields::parse(query.as_deref());
    let is_text = match fields.get("format")? {
        None | Some("html") => false,
        Some("text") => true,
        Some(other) => return Err(Failure::field("format", other, "html, text")),
    };
    site.blocking(move |site| {
        let (view, shown) = load(site, &fields)?;
        Ok(if is_text {
            let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
            (headers, text(site, &view, &shown)).into_response()
        } else {
            pages::overview(&filled(site, &view, &shown)).into_response()
        })
    })
    .await
}

/// `GET /debug/profiling/`: the page is one level up, where its links are relative to.
pub(crate) async fn without_slash(RawQuery(query): RawQuery) -> Response {
    redirect("../profiling", query.as_deref())
}

/// `GET /debug/profiling/graph`: the tree as the script reads it.
pub(crate) async fn graph(
    State(site): State<Arc<Site>>,
    RawQuery(query): RawQuery,
    request: HeaderMap,
) -> Result<Response, Failure> {
    let fields = Fields::parse(query.as_deref());
    let gzip = gzip::is_accepted(&request);
    site.blocking(move |site| {
        let (view, shown) = load(site, &fields)?;
        let metadata = metadata(site, &view, &shown).to_string();
        let bytes = encode::flame::encode(&shown.tree, metadata.as_bytes());
        Ok(gzip::response("application/octet-stream", bytes, gzip))
    })
    .await
}

/// Sends the client to an address relative to the one that it asked for.
pub(crate) fn redirect(to: &str, query: Option<&str>) -> Response {
    let to = query.map_or_else(|| to.to_owned(), |query| format!("{to}?{query}"));
    (StatusCode::PERMANENT_REDIRECT, [(header::LOCATION, to)]).into_response()
}

fn load(site: &Site, fields: &Fields) -> Result<(View, Shown), Failure> {
    let view = View::parse(fields, site.handle.service(), now())?;
    let shown = Shown::load(&site.handle, &view)?;
    Ok((view, shown))
}

fn filled(site: &Site, view: &View, shown: &Shown) -> Page {
    let service = site.handle.service();
    let unit = view.profile_type.unit();
    let is_custom = view.window.range() == CUSTOM;
    let date = |at| if is_custom { date_and_time(at) } else { String::new() };
    Page {
        service: service.to_owned(),
        title: view.title(),
        services: vec![choice(service, service, true)],
        types: site
            .handle
            .profile_types()
            .iter()
            .map(|t| choice(t.name(), t.title(), *t == view.profile_type))
            .collect(),
        ranges: ranges(view),
        threads: threads(site, view),
        from: date(view.window.from),
        to: date(view.window.to),
        hidden: view.other_labels().map(|(key, value)| (key, value.to_owned())).collect(),
        links: links(site, view),
        downloads: download::links(view),
        style_url: "profiling/assets/style.css".to_owned(),
        script_url: "profiling/assets/flame.js".to_owned(),
        graph_url: "profiling/graph".to_owned(),
        svg_url: format!("profiling/flamegraph.svg?{}", view.query_string()),
        top: shown
            .top()
            .map(|function| {
                let (self_value, self_percent) = function.own(unit.name());
                let (total_value, total_percent) = function.total(unit.name());
                TopRow {
                    name: function.name().to_owned(),
                    self_value,
                    self_percent,
                    total_value,
                    total_percent,
                    source: function.source(),
                }
            })
            .collect(),
        notes: notes::notes(&site.handle, view, shown),
    }
}

fn ranges(view: &View) -> Vec<Choice> {
    let asked = view.window.range();
    let mut ranges: Vec<_> = RANGES
        .iter()
        .filter_map(|range| {
            let title = format!("last {}", words(span(range)?));
            Some(choice(range, &title, *range == asked))
        })
        .collect();
    if asked != CUSTOM && !RANGES.contains(&asked.as_str()) {
        ranges.push(choice(&asked, &view.window.title(), true));
    }
    ranges.push(choice(CUSTOM, "custom …", asked == CUSTOM));
    ranges
}

fn threads(site: &Site, view: &View) -> Vec<Choice> {
    let asked = view.thread();
    let mut threads = vec![choice("", "all threads", asked.is_none())];
    let mut names = site.handle.label_values(THREAD);
    // One that has no samples any more stays chosen.
    names.extend(asked.filter(|asked| !names.iter().any(|n| n == asked)).map(str::to_owned));
    threads.extend(names.iter().map(|name| choice(name, name, asked == Some(name))));
    threads
}

fn choice(value: &str, label: &str, selected: bool) -> Choice {
    Choice { value: value.to_owned(), label: label.to_owned(), selected }
}

fn links(site: &Site, view: &View) -> Vec<Link> {
    let service = site.handle.service();
    let link = |id: &str, label: &str, url, hint: &str| Link {
        id: id.to_owned(),
        label: label.to_owned(),
        url: Some(url),
        hint: hint.to_owned(),
    };
    let same = "Service, type and window as here, of the profiles that were pushed to Pyroscope";
    vec![
        link("grafana", "Open in Grafana", site.links.grafana(service, view), same),
        link("explore", "Explore", site.links.explore(service, view), same),
        link("pyroscope", "Open Pyroscope", site.links.pyroscope(), "Pyroscope's own page"),
    ]
}

/// What the script needs beside the tree.
fn metadata(site: &Site, view: &View, shown: &Shown) -> Value {
    let links: Map<String, Value> = links(site, view)
        .into_iter()
        .chain(download::links(view))
        .filter_map(|link| Some((link.id, link.url?.into())))
        .collect();
    let notes: Vec<_> = notes::notes(&site.handle, view, shown)
        .iter()
        .map(|n| json!({"label": n.label, "value": n.value, "level": n.level.name()}))
        .collect();
    let mut metadata = json!({
        "type": view.profile_type.name(),
        "unit": view.profile_type.unit().name(),
        "title": view.title(),
        "from": shown.from.unix_millis(),
        "to": shown.to.unix_millis(),
        "samples": shown.samples(),
        "total": shown.total(),
        "notes": notes,
        "links": links,
    });
    let state = site.handle.state();
    if let Some(note) = notes::state(&state) {
        metadata["empty"] =
            format!("No samples in this window: profiling is {}.", note.value).into();
    }
    metadata
}

/// The page's table for a terminal.
fn text(site: &Site, view: &View, shown: &Shown) -> String {
    let unit = view.profile_type.unit();
    let mut text =
        format!("{}: {}\n{}\n\n", site.handle.service(), view.title(), shown.summary(unit.name()));
    let mut row = |own: [&str; 2], total: [&str; 2], name: &str| {
        let [(value, share), (total, total_share)] = [own, total].map(|[v, s]| (v, s));
        // Writing to a text cannot fail.
        let _ = writeln!(text, "{value:>10} {share:>7} {total:>10} {total_share:>7}  {name}");
    };
    row(["self", "self %"], ["total", "total %"], "function");
    for function in shown.top() {
        let (own, total) = (function.own(unit.name()), function.total(unit.name()));
        row([&own.0, &own.1], [&total.0, &total.1], &printable(function.name()));
    }
    text.push('\n');
    for note in notes::notes(&site.handle, view, shown) {
        let _ = writeln!(text, "{}: {}", note.label, note.value);
    }
    text
}

/// A name cannot steer the terminal.
fn printable(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
