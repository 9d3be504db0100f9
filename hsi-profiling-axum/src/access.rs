//! Who may see the profiles. Everyone else sees what a path without a route answers.
//!
//! Here is what a request says of itself, judged. Users, sessions and mutual TLS are not here: a
//! service that has them puts its own layer around the router.

use axum::{
    body::{Body, Bytes},
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, Method, StatusCode, Version, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use hsi_profiling::Error;
use std::{
    convert::Infallible,
    fmt,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};
use subtle::ConstantTimeEq;

/// Who may see the profiles. There is no default: say who.
#[derive(Debug)]
#[must_use]
pub struct Access {
    loopback: bool,
    token: Option<Token>,
    /// Whether the log says already that requests come without a peer.
    told: AtomicBool,
}

impl Access {
    /// People on this machine, and whoever forwards a port to it (`ssh -L`, `kubectl
    /// port-forward`).
    ///
    /// A request is let in when its peer has a loopback address, its `Host` is `localhost`,
    /// `127.0.0.1` or `[::1]` with any port, and no header tells of a proxy: who comes through a
    /// proxy on this machine is not on this machine. Pages of other sites may link here, not
    /// fetch.
    ///
    /// The peer's address is known to a router that is served with
    /// `into_make_service_with_connect_info::<SocketAddr>()`. Without it nobody is let in, and
    /// both the log and the answer say why.
    pub fn loopback() -> Self {
        Self { loopback: true, token: None, told: AtomicBool::new(false) }
    }

    /// Whoever sends `Authorization: Bearer` with this token, from anywhere: for scrapers, over
    /// TLS or a network that you trust.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for a token of fewer than 16 characters, or with other characters than
    /// ASCII's visible ones: it could be guessed, or not be sent.
    pub fn bearer_token(token: impl Into<String>) -> Result<Self, Error> {
        let token = Some(Token::new(token.into())?);
        Ok(Self { loopback: false, token, told: AtomicBool::new(false) })
    }

    /// These, and whoever has the token as well; see [`Access::bearer_token`].
    ///
    /// # Errors
    ///
    /// As for [`Access::bearer_token`].
    pub fn or_bearer_token(mut self, token: impl Into<String>) -> Result<Self, Error> {
        self.token = Some(Token::new(token.into())?);
        Ok(self)
    }

    /// For the log: who is let in, and what that needs.
    pub(crate) fn describe(&self) -> &'static str {
        match (self.loopback, self.token.is_some()) {
            (true, false) => LOOPBACK,
            (true, true) => LOOPBACK_OR_TOKEN,
            (false, _) => "those with the bearer token",
        }
    }

    fn judge(&self, request: &Request) -> Verdict {
        if self.token.as_ref().is_some_and(|token| token.is_in(request.headers())) {
            return Verdict::Allowed;
        }
        if !self.loopback || !names_this_machine(request) || !comes_from_here(request) {
            return Verdict::Denied;
        }
        match request.extensions().get::<ConnectInfo<SocketAddr>>() {
            Some(ConnectInfo(peer)) if peer.ip().to_canonical().is_loopback() => Verdict::Allowed,
            Some(_) => Verdict::Denied,
            None => Verdict::NoPeer,
        }
    }
}

/// The layer around the routes.
pub(crate) async fn guard(
    State(access): State<Arc<Access>>,
    request: Request,
    next: Next,
) -> Response {
    let method = request.method().clone();
    match access.judge(&request) {
        Verdict::Allowed => next.run(request).await,
        Verdict::Denied => not_found(&method),
        Verdict::NoPeer => {
            if !access.told.swap(true, Ordering::Relaxed) {
                tracing::error!("{NO_PEER}");
            }
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{NO_PEER}\n")).into_response()
        }
    }
}

/// The layer that answers what is neither `GET` nor `HEAD`: no route changes anything.
pub(crate) async fn only_reading(request: Request, next: Next) -> Response {
    match *request.method() {
        Method::GET | Method::HEAD => next.run(request).await,
        _ => (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET, HEAD")]).into_response(),
    }
}

/// What axum answers where there is no route. To `HEAD`, a route states the length of what `GET`
/// would send, if it is known; no route does not, and so neither do we.
fn not_found(method: &Method) -> Response {
    let body = if method == Method::HEAD { Body::new(Nothing) } else { Body::empty() };
    (StatusCode::NOT_FOUND, body).into_response()
}

/// A body with nothing in it that does not say so.
struct Nothing;

impl http_body::Body for Nothing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }
}

const LOOPBACK: &str = "this machine only; that needs the server to be started with \
    `into_make_service_with_connect_info::<SocketAddr>()`";
const LOOPBACK_OR_TOKEN: &str = "this machine and those with the bearer token; the first needs \
    the server to be started with `into_make_service_with_connect_info::<SocketAddr>()`";
const NO_PEER: &str = "nobody can be let in to the profiling page: the server does not tell who \
    its peers are, so none is known to be on this machine. Serve the router with \
    `axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>())`.";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Allowed,
    Denied,
    /// The request would do, but the server does not tell who sent it.
    NoPeer,
}

/// Whether the client wanted to reach this machine under a name that no DNS can point elsewhere.
fn names_this_machine(request: &Request) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (host, None) = (hosts.next(), hosts.next()) else { return false };
    // A request for a whole URL names the host a second time; HTTP/2 has it only there.
    let authority = request.uri().authority();
    match (host, authority) {
        (None, None) => false,
        (None, Some(_)) if request.version() < Version::HTTP_2 => false,
        _ => {
            host.is_none_or(|host| host.to_str().is_ok_and(is_this_machine))
                && authority.is_none_or(|authority| is_this_machine(authority.as_str()))
        }
    }
}

/// `localhost`, `127.0.0.1` or `[::1]`, with a port or without.
fn is_this_machine(host: &str) -> bool {
    let port_of = |name: &str| match host.get(..name.len()) {
        Some(start) if start.eq_ignore_ascii_case(name) => host.get(name.len()..),
        _ => None,
    };
    ["localhost", "127.0.0.1", "[::1]"].into_iter().filter_map(port_of).any(|rest| {
        let is_port =
            |port: &str| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok();
        rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port)
    })
}

/// Whether nothing says that a proxy, or a page of another site, sent the request.
fn comes_from_here(request: &Request) -> bool {
    let headers = request.headers();
    let forwarded = headers.keys().any(|name| {
        let name = name.as_str();
        name.starts_with("x-forwarded") || PROXIED.contains(&name)
    });
    !forwarded && !is_of_another_site(request.method(), headers)
}

/// What proxies add, besides `X-Forwarded-…`.
const PROXIED: [&str; 8] = [
    "forwarded",
    "via",
    "x-real-ip",
    "x-client-ip",
    "x-original-forwarded-for",
    "x-envoy-external-address",
    "true-client-ip",
    "cf-connecting-ip",
];

/// Whether a browser sent this for a page of another site. Such a page may link here, which is a
/// navigation; it may not fetch from here, or it could keep the service busy with captures.
fn is_of_another_site(method: &Method, headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let foreign = !matches!(text("sec-fetch-site"), None | Some("same-origin" | "none"));
    if method == Method::GET || method == Method::HEAD {
        let linked = matches!(text("sec-fetch-mode"), Some("navigate"))
            && matches!(text("sec-fetch-dest"), None | Some("document"));
        return foreign && !linked;
    }
    let host = text("host").unwrap_or_default();
    let same_origin = text("origin").is_none_or(|origin| {
        ["http://", "https://"].iter().any(|scheme| origin.strip_prefix(scheme) == Some(host))
    });
    foreign || !same_origin
}

struct Token(String);

impl Token {
    fn new(token: String) -> Result<Self, Error> {
        let length = token.chars().count();
        if length < SHORTEST_TOKEN || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Error::Setting {
                name: "bearer_token",
                // A secret does not go into a message, not even a bad one.
                value: format!("({length} characters)"),
                allowed: format!("at least {SHORTEST_TOKEN} visible ASCII characters"),
            });
        }
        Ok(Self(token))
    }

    fn is_in(&self, headers: &HeaderMap) -> bool {
        let mut sent = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (sent.next(), sent.next()) else { return false };
        let Some((scheme, token)) = value.to_str().ok().and_then(|v| v.split_once(' ')) else {
            return false;
        };
        scheme.eq_ignore_ascii_case("bearer")
            && bool::from(token.trim().as_bytes().ct_eq(self.0.as_bytes()))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

const SHORTEST_TOKEN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn judge(access: &Access, peer: Option<&str>, request: &str) -> Verdict {
        let mut lines = request.split(" | ");
        let (method, uri) = lines.next().unwrap().split_once(' ').unwrap();
        let mut builder = Request::builder().method(method).uri(uri);
        for (name, value) in lines.map(|line| line.split_once(": ").unwrap()) {
            builder = builder.header(name, value);
        }
        let mut request = builder.body(Body::empty()).unwrap();
        if let Some(peer) = peer {
            let peer: SocketAddr = peer.parse().unwrap();
            request.extensions_mut().insert(ConnectInfo(peer));
        }
        access.judge(&request)
    }

    #[test]
    fn loopback_is_peer_and_host_and_no_proxy() {
        let here = Some("127.0.0.1:5000");
        for (peer, request, want) in [
            (here, "GET / | host: localhost", Verdict::Allowed),
            (here, "GET / | host: LocalHost:8026", Verdict::Allowed),
            (here, "GET / | host: 127.0.0.1:1", Verdict::Allowed),
            (here, "GET / | host: [::1]:65535", Verdict::Allowed),
            (Some("127.9.9.9:1"), "GET / | host: localhost", Verdict::Allowed),
            (Some("[::1]:1"), "GET / | host: localhost", Verdict::Allowed),
            (Some("[::ffff:127.0.0.1]:1"), "GET / | host: localhost", Verdict::Allowed),
            (Some("[::ffff:10.0.0.1]:1"), "GET / | host: localhost", Verdict::Denied),
            (Some("10.0.0.1:1"), "GET / | host: localhost", Verdict::Denied),
            (Some("[fe80::1]:1"), "GET / | host: localhost", Verdict::Denied),
            (None, "GET / | host: localhost", Verdict::NoPeer),
            (None, "GET / | host: example.com", Verdict::Denied),
            (None, "GET / | host: localhost | via: 1.1 proxy", Verdict::Denied),
            (here, "GET /", Verdict::Denied),
            (here, "GET / | host: ", Verdict::Denied),
            (here, "GET / | host: localhost | host: localhost", Verdict::Denied),
            (here, "GET / | host: localhost | host: evil.example", Verdict::Denied),
            (here, "GET / | host: localhost.evil.example", Verdict::Denied),
            (here, "GET / | host: evil.example", Verdict::Denied),
            (here, "GET / | host: 127.0.0.1.nip.io", Verdict::Denied),
            (here, "GET / | host: 127.0.0.2", Verdict::Denied),
            (here, "GET / | host: localhost:", Verdict::Denied),
            (here, "GET / | host: localhost:65536", Verdict::Denied),
            (here, "GET / | host: localhost:+80", Verdict::Denied),
            (here, "GET / | host: localhost:80:80", Verdict::Denied),
            (here, "GET / | host: localhost.", Verdict::Denied),
            (here, "GET / | host: ::1", Verdict::Denied),
            (here, "GET / | host: user@localhost", Verdict::Denied),
            (here, "GET http://localhost/ | host: localhost", Verdict::Allowed),
            (here, "GET http://evil.example/ | host: localhost", Verdict::Denied),
            (here, "GET http://localhost/ | host: evil.example", Verdict::Denied),
            (here, "GET http://localhost/", Verdict::Denied),
            (here, "GET http://a@localhost/ | host: localhost", Verdict::Denied),
            (here, "GET / | host: localhost | x-forwarded-for: 127.0.0.1", Verdict::Denied),
            (here, "GET / | host: localhost | X-Forwarded-Host: localhost", Verdict::Denied),
            (here, "GET / | host: localhost | forwarded: for=127.0.0.1", Verdict::Denied),
            (here, "GET / | host: localhost | x-real-ip: 127.0.0.1", Verdict::Denied),
            (here, "GET / | host: localhost | x-envoy-external-address: 1.1.1.1", Verdict::Denied),
        ] {
            assert_eq!(judge(&Access::loopback(), peer, request), want, "{peer:?} {request}");
        }
    }

    #[test]
    fn http_2_names_the_host_in_its_address() {
        for (uri, want) in
            [("http://localhost:1/", Verdict::NoPeer), ("http://orders.example/", Verdict::Denied)]
        {
            let request = Request::builder().version(Version::HTTP_2).uri(uri);
            let request = request.body(Body::empty()).unwrap();
            assert_eq!(Access::loopback().judge(&request), want, "{uri}");
        }
    }

    #[test]
    fn pages_of_other_sites_may_link_and_nothing_else() {
        for (request, want) in [
            ("GET / | sec-fetch-site: same-origin | sec-fetch-mode: cors", Verdict::Allowed),
            ("GET / | sec-fetch-site: none | sec-fetch-mode: navigate", Verdict::Allowed),
            ("GET / | sec-fetch-site: cross-site | sec-fetch-mode: navigate", Verdict::Allowed),
            (
                "GET / | sec-fetch-site: same-site | sec-fetch-mode: navigate | sec-fetch-dest: document",
                Verdict::Allowed,
            ),
            (
                "GET / | sec-fetch-site: cross-site | sec-fetch-mode: navigate | sec-fetch-dest: iframe",
                Verdict::Denied,
            ),
            ("GET / | sec-fetch-site: cross-site | sec-fetch-mode: no-cors", Verdict::Denied),
            ("GET / | sec-fetch-site: same-site | sec-fetch-mode: cors", Verdict::Denied),
            ("GET / | origin: http://evil.example", Verdict::Allowed),
            ("POST /", Verdict::Allowed),
            ("POST / | origin: http://localhost:80", Verdict::Allowed),
            (
                "POST / | sec-fetch-site: same-origin | origin: http://localhost:80",
                Verdict::Allowed,
            ),
            ("POST / | origin: http://localhost:81", Verdict::Denied),
            ("POST / | origin: http://evil.example", Verdict::Denied),
            ("POST / | origin: null", Verdict::Denied),
            ("POST / | sec-fetch-site: cross-site | sec-fetch-mode: navigate", Verdict::Denied),
            ("DELETE / | sec-fetch-site: same-site", Verdict::Denied),
        ] {
            let request = format!("{request} | host: localhost:80");
            let verdict = judge(&Access::loopback(), Some("127.0.0.1:9"), &request);
            assert_eq!(verdict, want, "{request}");
        }
    }

    #[test]
    fn a_token_needs_neither_peer_nor_host() {
        let access = Access::bearer_token(TOKEN).unwrap();
        for (request, want) in [
            (format!("GET / | authorization: Bearer {TOKEN}"), Verdict::Allowed),
            (format!("GET / | authorization: bearer {TOKEN}"), Verdict::Allowed),
            (format!("GET / | host: x | via: y | authorization: Bearer {TOKEN}"), Verdict::Allowed),
            (format!("GET / | authorization: Basic {TOKEN}"), Verdict::Denied),
            (format!("GET / | authorization: {TOKEN}"), Verdict::Denied),
            (format!("GET / | authorization: Bearer {TOKEN}x"), Verdict::Denied),
            (format!("GET / | authorization: Bearer {}", &TOKEN[1..]), Verdict::Denied),
            ("GET / | authorization: Bearer".to_owned(), Verdict::Denied),
            (
                format!("GET / | authorization: Bearer x | authorization: Bearer {TOKEN}"),
                Verdict::Denied,
            ),
            ("GET / | host: localhost".to_owned(), Verdict::Denied),
        ] {
            assert_eq!(judge(&access, None, &request), want, "{request}");
            let verdict = judge(&access, Some("127.0.0.1:1"), &request);
            assert_eq!(verdict, want, "{request}");
        }
        let both = Access::loopback().or_bearer_token(TOKEN).unwrap();
        let far = Some("10.0.0.1:1");
        assert_eq!(judge(&both, Some("[::1]:1"), "GET / | host: localhost"), Verdict::Allowed);
        let request = format!("GET / | authorization: Bearer {TOKEN}");
        assert_eq!(judge(&both, far, &request), Verdict::Allowed);
        assert_eq!(judge(&both, far, "GET / | host: localhost"), Verdict::Denied);
    }

    #[test]
    fn a_weak_token_is_refused_and_no_token_is_printed() {
        for weak in ["", "short", "123456789012345", "0123456789 abcdef", "0123456789abcdéf"] {
            let error = Access::bearer_token(weak).unwrap_err().to_string();
            assert!(error.contains("bearer_token") && error.contains("at least 16"), "{error}");
            assert!(weak.is_empty() || !error.contains(weak), "{error}");
        }
        let access = Access::loopback().or_bearer_token(TOKEN).unwrap();
        assert!(!format!("{access:?} {}", access.describe()).contains(TOKEN));
    }
}
