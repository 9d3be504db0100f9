//! The headers of every answer: nothing is kept in a cache, nothing is guessed, nothing runs that
//! is not ours, and no other site may embed or read it.

use crate::links::origin;
use axum::{
    extract::{Request, State},
    http::{HeaderName, HeaderValue, header},
    middleware::Next,
    response::Response,
};
use std::sync::Arc;

/// The headers that an answer gets where it does not set them itself.
#[derive(Debug)]
pub(crate) struct Headers(Vec<(HeaderName, HeaderValue)>);

impl Headers {
    /// `grafana` is the one place besides our own that the page may show in a frame.
    pub(crate) fn new(grafana: Option<&str>) -> Self {
        let with_frames = |frames: &str| HeaderValue::try_from(policy(frames)).ok();
        let policy = grafana
            .and_then(origin)
            .and_then(with_frames)
            .or_else(|| with_frames(""))
            .unwrap_or(HeaderValue::from_static("default-src 'none'"));
        let mut headers = vec![(header::CONTENT_SECURITY_POLICY, policy)];
        headers.extend(FIXED.map(|(name, value)| (name, HeaderValue::from_static(value))));
        Self(headers)
    }
}

/// The layer around the routes.
pub(crate) async fn add(
    State(headers): State<Arc<Headers>>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in &headers.0 {
        response.headers_mut().entry(name).or_insert_with(|| value.clone());
    }
    response
}

/// A picture brings its styles with it and has no right to anything else.
pub(crate) const PICTURE_POLICY: &str = "sandbox; default-src 'none'; style-src 'unsafe-inline'";

const FIXED: [(HeaderName, &str); 5] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

fn policy(frames: &str) -> String {
    let space = if frames.is_empty() { "" } else { " " };
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
         connect-src 'self'; frame-src 'self'{space}{frames}; base-uri 'self'; \
         form-action 'self'; frame-ancestors 'none'"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_names_grafana_and_nothing_else() {
        for (grafana, want) in [
            (None, "frame-src 'self'; base-uri"),
            (Some("/grafana"), "frame-src 'self'; base-uri"),
            (Some("https://g.example:3000/grafana"), "frame-src 'self' https://g.example:3000; "),
            (Some("https://g\n.example"), "frame-src 'self'; base-uri"),
        ] {
            let Headers(headers) = Headers::new(grafana);
            let policy = headers[0].1.to_str().unwrap();
            assert!(policy.contains(want), "{policy}");
            assert!(
                policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'; ")
            );
        }
    }
}
