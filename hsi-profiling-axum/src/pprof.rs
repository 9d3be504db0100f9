//! `/debug/pprof/`, as Go's `net/http/pprof` serves it, for `go tool pprof`, Alloy, Parca and
//! whatever else scrapes Go services.
//!
//! `cmdline` is not here, by decision: arguments hold secrets. Neither are `symbol`, since profiles
//! come with their names, nor kinds of profile that this process does not take.

use crate::{
    dashboard::redirect,
    download::{not_off, pprof_bytes},
    failure::Failure,
    moment::now,
    query::Fields,
    view::Window,
    work::Site,
};
use axum::{
    extract::{Path, RawQuery, State},
    http::{HeaderMap, Method, header},
    response::{IntoResponse, Response},
};
use hsi_profiling::{Error, ProfileType, Query};
use maud::{DOCTYPE, html};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep_until};

/// `GET /debug/pprof/`: what there is, as a page or as text.
pub(crate) async fn index(request: HeaderMap) -> Response {
    let accept = request.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    if !accept.unwrap_or_default().contains("text/html") {
        let lines = INDEX.map(|(path, what)| format!("{path}\n    {what}\n"));
        return format!("{TITLE}\n\n{}", lines.concat()).into_response();
    }
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                title { (TITLE) }
            }
            body {
                h1 { (TITLE) }
                dl {
                    @for (path, what) in INDEX {
                        dt { a href=(path) { (path) } }
                        dd { (what) }
                    }
                }
            }
        }
    };
    page.into_response()
}

/// `GET /debug/pprof`
pub(crate) async fn with_slash(RawQuery(query): RawQuery) -> Response {
    redirect("pprof/", query.as_deref())
}

/// `GET /debug/pprof/profile`: the coming seconds, or a window of the past.
pub(crate) async fn profile(
    State(site): State<Arc<Site>>,
    method: Method,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let bytes = match Asked::parse(&Fields::parse(query.as_deref()))? {
        Asked::Past(window) => past(&site, window).await?,
        // Who asks for the headers need not wait for what he does not get.
        Asked::Coming(_) if method == Method::HEAD => {
            site.blocking(|site| not_off(site).map(|()| Vec::new())).await?
        }
        Asked::Coming(seconds) => coming(&site, seconds).await?,
    };
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"profile\""),
    ];
    Ok((headers, bytes).into_response())
}

/// `GET /debug/pprof/{name}`: anything else.
pub(crate) async fn unknown(Path(name): Path<String>) -> Failure {
    let why = match name.as_str() {
        "cmdline" => "the command line is never served: arguments hold secrets".to_owned(),
        _ => format!("`{name}` is not served here"),
    };
    Failure::Unknown(format!("{why}; what is: /debug/pprof/profile"))
}

const TITLE: &str = "Profiles of this process";
const INDEX: [(&str, &str); 3] = [
    (
        "profile?seconds=10",
        "CPU time of the coming 1 to 60 seconds (30 without the field), for pprof",
    ),
    ("profile?from=-5m&to=now", "CPU time of the past, at once, for pprof"),
    ("../profiling", "the page"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Coming(Duration),
    Past(Window),
}

impl Asked {
    fn parse(fields: &Fields) -> Result<Self, Failure> {
        let seconds = fields.get("seconds")?;
        let is_past = fields.get("from")?.or(fields.get("to")?).is_some();
        match seconds {
            Some(seconds) if is_past => {
                let allowed = "either seconds, for the coming ones, or from and to, for the past";
                Err(Failure::field("seconds", seconds, allowed))
            }
            None if is_past => Window::between(fields, now()).map(Self::Past),
            None => Ok(Self::Coming(DEFAULT)),
            Some(text) => {
                let plain = text.bytes().all(|b| b.is_ascii_digit());
                let seconds = text.parse().ok().filter(|s| plain && (1..=MOST_SECONDS).contains(s));
                let allowed = || format!("a whole number from 1 to {MOST_SECONDS}");
                seconds
                    .map(|seconds| Self::Coming(Duration::from_secs(seconds)))
                    .ok_or_else(|| Failure::field("seconds", text, allowed()))
            }
        }
    }
}

/// What Go takes where nothing is said.
const DEFAULT: Duration = Duration::from_secs(30);
const MOST_SECONDS: u64 = 60;

async fn past(site: &Arc<Site>, window: Window) -> Result<Vec<u8>, Failure> {
    site.blocking(move |site| {
        not_off(site)?;
        let query = Query::new(ProfileType::Cpu).from(window.from).to(window.to);
        Ok(pprof_bytes(site, &site.handle.query(&query)?))
    })
    .await
}

/// Waits here and not in a thread: when the client goes away this future is dropped, and the
/// capture and its permit with it.
async fn coming(site: &Arc<Site>, length: Duration) -> Result<Vec<u8>, Failure> {
    let _permit = site.begin_capture()?;
    let capture = site
        .blocking(move |site| match site.handle.capture(ProfileType::Cpu, length) {
            Err(Error::NotRunning) => {
                Err(Failure::Off(format!("profiling is {}", site.handle.state())))
            }
            begun => Ok(begun?),
        })
        .await?;
    tracing::info!(seconds = length.as_secs(), "a client waits for a CPU profile");
    sleep_until(Instant::from_std(capture.deadline())).await;
    site.blocking(move |site| Ok(pprof_bytes(site, &capture.wait()?))).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_whole_and_bounded() {
        let parse = |query: &str| Asked::parse(&Fields::parse(Some(query)));
        assert_eq!(parse(""), Ok(Asked::Coming(DEFAULT)));
        for seconds in [1, 14, 60] {
            let want = Asked::Coming(Duration::from_secs(seconds));
            assert_eq!(parse(&format!("seconds={seconds}&debug=0")), Ok(want));
        }
        for bad in ["0", "61", "-1", "%2B5", "1.5", "1s", "99999999999999999999", "x"] {
            let Err(Failure::Field { field, allowed, .. }) = parse(&format!("seconds={bad}"))
            else {
                panic!("{bad} is taken");
            };
            assert_eq!((&*field, &*allowed), ("seconds", "a whole number from 1 to 60"));
        }
    }
}
