//! Who is let in, and that everyone else learns nothing.

use crate::{
    client::{Answer, get, send},
    service::{self, handle, local, serve, serve_at, serve_without_peers, wait},
};
use axum::{Router, routing::get as route};
use hsi_profiling_axum::{Access, router};
use std::net::{SocketAddr, UdpSocket};

const TOKEN: &str = "0123456789abcdef";
const PAGE: &str = "/debug/profiling";
const PATHS: [&str; 13] = [
    PAGE,
    "/debug/profiling/",
    "/debug/profiling/graph",
    "/debug/profiling/flamegraph.svg",
    "/debug/profiling/profile.pb.gz",
    "/debug/profiling/folded.txt",
    "/debug/profiling/assets/flame.js",
    "/debug/pprof",
    "/debug/pprof/",
    "/debug/pprof/profile",
    "/debug/pprof/profile?seconds=x",
    "/debug/pprof/cmdline",
    "/debug/pprof/heap",
];

#[test]
fn only_this_machine_is_let_in() {
    let to = local();
    let port = to.port();
    let named = |host: &str| format!("{host}:{port}");
    for (status, headers) in [
        (200, vec![("Host", named("127.0.0.1"))]),
        (200, vec![("Host", named("localhost"))]),
        (200, vec![("Host", "[::1]".to_owned())]),
        (200, vec![("hOST", "LOCALHOST".to_owned())]),
        (404, vec![]),
        (404, vec![("Host", named("orders.example"))]),
        (404, vec![("Host", named("localhost.orders.example"))]),
        (404, vec![("Host", named("127.0.0.1.nip.io"))]),
        (404, vec![("Host", named("0.0.0.0"))]),
        (404, vec![("Host", "localhost:http".to_owned())]),
        (404, vec![("Host", named("localhost")), ("X-Forwarded-For", "127.0.0.1".to_owned())]),
        (404, vec![("Host", named("localhost")), ("X-Forwarded-Host", "localhost".to_owned())]),
        (404, vec![("Host", named("localhost")), ("Forwarded", "for=127.0.0.1".to_owned())]),
        (404, vec![("Host", named("localhost")), ("X-Real-IP", "127.0.0.1".to_owned())]),
        (404, vec![("Host", named("localhost")), ("Via", "1.1 proxy".to_owned())]),
        (404, vec![("Host", named("localhost")), ("Sec-Fetch-Site", "cross-site".to_owned())]),
        (404, vec![("Host", named("localhost")), ("Authorization", format!("Bearer {TOKEN}"))]),
    ] {
        // A token where none is configured changes nothing.
        let want =
            if headers.iter().any(|(name, _)| *name == "Authorization") { 200 } else { status };
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, &**value)).collect();
        assert_eq!(send(to, "GET", PAGE, &headers).status, want, "{headers:?}");
    }
    for (status, target) in [
        (200, format!("http://localhost:{port}{PAGE}")),
        (404, format!("http://orders.example{PAGE}")),
    ] {
        let host = named("localhost");
        assert_eq!(send(to, "GET", &target, &[("Host", &host)]).status, status, "{target}");
    }
}

#[test]
fn ipv6_is_this_machine_too() {
    let Some(to) = serve_at("[::1]:0", router(handle(), Access::loopback())) else {
        eprintln!("SKIPPED: no IPv6 loopback here");
        return;
    };
    assert_eq!(get(to, PAGE).status, 200);
    assert_eq!(send(to, "GET", PAGE, &[("Host", "localhost")]).status, 200);
    // IPv4 peers of a socket for both have addresses like ::ffff:127.0.0.1.
    let to = serve_at("[::]:0", router(handle(), Access::loopback())).unwrap();
    let v4 = SocketAddr::from(([127, 0, 0, 1], to.port()));
    assert_eq!(get(v4, PAGE).status, 200);
}

#[test]
fn a_peer_from_elsewhere_is_not() {
    let Some(outside) = outside() else {
        eprintln!("SKIPPED: this machine has no address but the loopback");
        return;
    };
    let access = Access::loopback().or_bearer_token(TOKEN).unwrap();
    let to = serve_at("0.0.0.0:0", router(handle(), access)).unwrap();
    let through_outside = SocketAddr::new(outside, to.port());
    let local = [("Host", "localhost")];
    assert_eq!(
        send(SocketAddr::from(([127, 0, 0, 1], to.port())), "GET", PAGE, &local).status,
        200
    );
    assert_eq!(send(through_outside, "GET", PAGE, &local).status, 404);
    let bearer = format!("Bearer {TOKEN}");
    let known = [("Host", "orders.example"), ("Authorization", &bearer)];
    assert_eq!(send(through_outside, "GET", PAGE, &known).status, 200);
}

#[test]
fn who_is_denied_sees_what_is_not_there() {
    let app = Router::new()
        .route("/healthz", route(|| async { "well" }))
        .merge(router(handle(), Access::loopback()));
    let to = serve(app);
    let evil = [("Host", "orders.example")];
    assert_eq!(send(to, "GET", "/healthz", &evil).text(), "well");
    for method in ["GET", "HEAD", "POST", "PUT", "OPTIONS"] {
        let nothing = send(to, method, "/debug/no-such-thing", &evil);
        assert_eq!((nothing.status, &*nothing.body), (404, &b""[..]));
        for path in PATHS {
            let denied = send(to, method, path, &evil);
            assert_eq!(
                (&denied.head, &denied.body),
                (&nothing.head, &nothing.body),
                "{method} {path}"
            );
        }
    }
}

#[test]
fn only_reading_is_served_and_other_sites_cannot_even_ask() {
    let to = local();
    let host = to.to_string();
    let own = format!("http://{host}");
    for (status, origin) in [(405, None), (405, Some(&*own)), (404, Some("http://orders.example"))]
    {
        let mut headers = vec![("Host", &*host), ("Content-Length", "0")];
        headers.extend(origin.map(|origin| ("Origin", origin)));
        assert_eq!(send(to, "POST", PAGE, &headers).status, status, "{origin:?}");
    }
}

#[test]
fn a_token_opens_to_those_who_have_it() {
    let to = serve_without_peers(router(handle(), Access::bearer_token(TOKEN).unwrap()));
    let ask = |value: &str| -> Answer {
        send(to, "GET", "/debug/pprof/", &[("Host", "orders.example"), ("Authorization", value)])
    };
    assert_eq!(ask(&format!("Bearer {TOKEN}")).status, 200);
    for wrong in ["Bearer", "Bearer 0123456789abcdeF", "Basic 0123456789abcdef", TOKEN] {
        let denied = ask(wrong);
        assert_eq!((denied.status, &*denied.body), (404, &b""[..]), "{wrong}");
    }
    assert_eq!(get(to, PAGE).status, 404, "a token is no loopback");
}

#[test]
fn a_server_that_hides_its_peers_is_told_how_not_to() {
    service::keep_log();
    let access = Access::loopback().or_bearer_token(TOKEN).unwrap();
    let to = serve_without_peers(router(handle(), access));
    let fix = "into_make_service_with_connect_info::<SocketAddr>()";
    wait("the log says where the page is", || {
        service::log()
            .lines()
            .any(|line| line.contains("INFO") && line.contains(PAGE) && line.contains(fix))
    });
    for path in PATHS {
        let answer = get(to, path);
        assert_eq!(answer.status, 500, "{path}");
        assert!(answer.text().contains(fix), "{}", answer.text());
    }
    // Nobody is told who would not have been let in anyway.
    assert_eq!(send(to, "GET", PAGE, &[("Host", "orders.example")]).status, 404);
    assert_eq!(send(to, "GET", PAGE, &[("Host", "localhost"), ("Via", "x")]).status, 404);
    // A token needs no peer.
    let bearer = format!("Bearer {TOKEN}");
    assert_eq!(send(to, "GET", PAGE, &[("Host", "x"), ("Authorization", &bearer)]).status, 200);
    let log = service::log();
    let errors = log.lines().filter(|line| line.contains("ERROR") && line.contains(fix)).count();
    assert_eq!(errors, 1, "{log}");
}

/// An address of this machine that others reach it by. Nothing is sent.
fn outside() -> Option<std::net::IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then_some(ip)
}
