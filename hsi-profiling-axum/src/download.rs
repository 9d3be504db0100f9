//! A view in the formats of other tools.

use crate::{
    failure::Failure, gzip, headers::PICTURE_POLICY, moment::now, pages::Link, query::Fields,
    shown::Shown, view::View, work::Site,
};
use axum::{
    extract::{RawQuery, State},
    http::{HeaderMap, HeaderName, header},
    response::{IntoResponse, Response},
};
use hsi_profiling::{Profile, State as Profiling, encode};
use std::sync::Arc;

/// `GET /debug/profiling/profile.pb.gz`
pub(crate) async fn pprof(
    State(site): State<Arc<Site>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let fields = Fields::parse(query.as_deref());
    site.blocking(move |site| {
        let view = View::parse(&fields, site.handle.service(), now())?;
        not_off(site)?;
        let profile = site.handle.query(&view.query())?;
        Ok(([attachment(site, &view, "pb.gz")], pprof_bytes(site, &profile)).into_response())
    })
    .await
}

/// `GET /debug/profiling/folded.txt`
pub(crate) async fn folded(
    State(site): State<Arc<Site>>,
    RawQuery(query): RawQuery,
    request: HeaderMap,
) -> Result<Response, Failure> {
    let fields = Fields::parse(query.as_deref());
    let gzip = gzip::is_accepted(&request);
    site.blocking(move |site| {
        let view = View::parse(&fields, site.handle.service(), now())?;
        not_off(site)?;
        let text = encode::folded::encode(&Shown::load(&site.handle, &view)?.tree);
        let body = gzip::response("text/plain; charset=utf-8", text.into_bytes(), gzip);
        Ok(([attachment(site, &view, "folded.txt")], body).into_response())
    })
    .await
}

/// `GET /debug/profiling/flamegraph.svg`; with `download=1` as a file.
pub(crate) async fn svg(
    State(site): State<Arc<Site>>,
    RawQuery(query): RawQuery,
    request: HeaderMap,
) -> Result<Response, Failure> {
    let fields = Fields::parse(query.as_deref());
    let is_download = fields.get("download")?.is_some();
    let gzip = gzip::is_accepted(&request);
    site.blocking(move |site| {
        let view = View::parse(&fields, site.handle.service(), now())?;
        let shown = Shown::load(&site.handle, &view)?;
        let unit = view.profile_type.unit();
        let title = format!("{}: {}", site.handle.service(), view.title());
        let svg = encode::svg::encode(&shown.tree, &title, &shown.summary(unit.name()), &unit);
        let body = gzip::response("image/svg+xml", svg.into_bytes(), gzip);
        let policy = [(header::CONTENT_SECURITY_POLICY, PICTURE_POLICY)];
        let name = is_download.then(|| [attachment(site, &view, "svg")]);
        Ok(match name {
            Some(name) => (policy, name, body).into_response(),
            None => (policy, body).into_response(),
        })
    })
    .await
}

/// The downloads of a view, for the page.
pub(crate) fn links(view: &View) -> Vec<Link> {
    let query = view.query_string();
    let link = |id: &str, label: &str, path: &str, more: &str, hint: &str| Link {
        id: id.to_owned(),
        label: label.to_owned(),
        url: Some(format!("profiling/{path}?{query}{more}")),
        hint: hint.to_owned(),
    };
    vec![
        link("pprof", "pprof", "profile.pb.gz", "", "For go tool pprof, Speedscope, Pyroscope, …"),
        link("folded", "Folded stacks", "folded.txt", "", "A line of text for each stack"),
        link("svg", "SVG picture", "flamegraph.svg", "&download=1", "The widest frames, to keep"),
    ]
}

/// The profile as a file for pprof.
pub(crate) fn pprof_bytes(site: &Site, profile: &Profile) -> Vec<u8> {
    encode::pprof::encode(profile, &site.handle.symbolize(profile))
}

/// An empty file would look like an idle service: where nothing is ever sampled, say so.
pub(crate) fn not_off(site: &Site) -> Result<(), Failure> {
    match site.handle.state() {
        state @ Profiling::Off { .. } => Err(Failure::Off(format!("profiling is {state}"))),
        _ => Ok(()),
    }
}

/// Names the file after the service, the type and the window's end.
fn attachment(site: &Site, view: &View, ending: &str) -> (HeaderName, String) {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let service: String = site.handle.service().chars().map(plain).collect();
    let at = view.window.to.unix_millis().div_euclid(1000);
    let name = format!("{service}-{}-{at}.{ending}", view.profile_type.name());
    (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\""))
}
