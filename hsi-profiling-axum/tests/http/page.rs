//! The page, its graph, its assets and its downloads.

use crate::{
    client::{Answer, get, resolve, send},
    flame::Graph,
    service::{BURNER, BURNER_THREAD, SERVICE, handle, local, serve, wait},
};
use axum::Router;
use flate2::read::GzDecoder;
use hsi_profiling::{CallTree, encode::pprof};
use hsi_profiling_axum::{Access, router};
use std::io::Read;

const PAGE: &str = "/debug/profiling";
const GRAPH: &str = "/debug/profiling/graph";

#[test]
fn the_page_lists_the_function_that_burns() {
    let page = get(local(), PAGE);
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").starts_with("text/html"));
    let html = page.text();
    assert!(html.contains(BURNER), "{html}");
    assert!(html.contains("CPU time, last 15 minutes"), "{html}");
    assert!(html.contains("orders &lt;&quot;1&quot;&gt;") && !html.contains(SERVICE), "{html}");
    assert!(html.contains("/grafana/explore?") && html.contains("http://localhost:4040/"));
    for range in ["1m", "5m", "15m", "1h", "6h", "24h", "custom"] {
        assert!(html.contains(&format!("value=\"{range}\"")), "{range}");
    }
    assert!(html.contains(&format!("value=\"{BURNER_THREAD}\"")), "{html}");
}

#[test]
fn every_answer_is_locked_down() {
    let to = local();
    for path in [
        PAGE,
        GRAPH,
        "/debug/profiling/",
        "/debug/profiling/assets/style.css",
        "/debug/profiling/assets/none",
        "/debug/profiling?type=gpu",
        "/debug/profiling/folded.txt",
        "/debug/profiling/profile.pb.gz",
        "/debug/pprof/",
        "/debug/pprof/cmdline",
        "/debug/pprof/profile?seconds=x",
    ] {
        let answer = get(to, path);
        assert_eq!(
            answer.header("content-security-policy"),
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
             connect-src 'self'; frame-src 'self'; base-uri 'self'; form-action 'self'; \
             frame-ancestors 'none'",
            "{path}"
        );
        assert_locked_down(&answer, path);
    }
    let picture = get(to, "/debug/profiling/flamegraph.svg");
    assert_eq!(
        picture.header("content-security-policy"),
        "sandbox; default-src 'none'; style-src 'unsafe-inline'"
    );
    assert_locked_down(&picture, "the picture");
}

fn assert_locked_down(answer: &Answer, what: &str) {
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        assert_eq!(answer.header(name), value, "{what}: {name}");
    }
    let cache = if what.ends_with(".css") { "no-cache" } else { "no-store" };
    assert_eq!(answer.header("cache-control"), cache, "{what}");
}

#[test]
fn links_work_wherever_the_router_is_mounted() {
    let nested = Router::new()
        .nest("/a/b", router(handle(), Access::loopback()))
        .merge(router(handle(), Access::loopback()));
    let to = serve(nested);
    for prefix in ["", "/a/b"] {
        // With a slash at its end the page is elsewhere, and its query with it.
        let slash = format!("{prefix}{PAGE}/");
        let moved = get(to, &format!("{slash}?range=1h"));
        assert_eq!((moved.status, moved.header("location")), (308, "../profiling?range=1h"));
        let path = resolve(&slash, moved.header("location"));
        assert_eq!(path, format!("{prefix}{PAGE}?range=1h"));

        let page = get(to, &path);
        assert_eq!(page.status, 200, "{path}");
        let html = page.text();
        let mut seen = 0;
        for attribute in ["href=\"", "src=\"", "data-graph=\""] {
            for link in html.split(attribute).skip(1).map(|rest| rest.split('"').next().unwrap()) {
                let link = link.replace("&amp;", "&");
                if link.starts_with("profiling/") {
                    let target = resolve(&path, &link);
                    assert_eq!(get(to, &target).status, 200, "{link} on {path}");
                    seen += 1;
                } else {
                    // Elsewhere by intent: the icon, this very page, Grafana, Pyroscope.
                    let known = ["data:", "/grafana/", "http://localhost:4040/"];
                    let is_known = link.is_empty() || known.iter().any(|k| link.starts_with(k));
                    assert!(is_known, "{link} is neither relative nor known");
                }
            }
        }
        assert!(seen >= 7, "style, script, graph, picture and three downloads, not {seen}");

        let moved = get(to, &format!("{prefix}/debug/pprof"));
        assert_eq!((moved.status, moved.header("location")), (308, "pprof/"));
        assert_eq!(get(to, &format!("{prefix}/debug/pprof/")).status, 200);
    }
}

#[test]
fn assets_are_typed_and_asked_for_again() {
    let to = local();
    for (name, content_type) in
        [("style.css", "text/css; charset=utf-8"), ("flame.js", "text/javascript; charset=utf-8")]
    {
        let path = format!("{PAGE}/assets/{name}");
        let asset = get(to, &path);
        assert_eq!((asset.status, asset.header("content-type")), (200, content_type));
        assert!(asset.body.len() > 1000);
        let tag = asset.header("etag");
        let host = to.to_string();
        let again = |tag: &str| send(to, "GET", &path, &[("Host", &host), ("If-None-Match", tag)]);
        let same = again(tag);
        assert_eq!((same.status, same.body.len(), same.header("etag")), (304, 0, tag));
        assert_eq!(again(&format!("\"x\", W/{tag}")).status, 304);
        assert_eq!(again("\"x\"").status, 200);
    }
    assert_eq!(get(to, "/debug/profiling/assets/..%2Flib.rs").status, 404);
}

#[test]
fn the_graph_has_the_function_with_its_source_and_crate() {
    let to = local();
    let graph = Graph::decode(&get(to, &format!("{GRAPH}?range=5m")).body);
    let [_, file, line, krate] = graph.frame(BURNER).expect("the burner is in the graph");
    assert!(file.ends_with("tests/http/service.rs"), "{file}");
    assert!(line.parse::<u32>().unwrap() > 100, "{line}");
    assert_eq!(krate, "http");

    let metadata = &graph.metadata;
    assert_eq!(metadata["type"], "cpu");
    assert_eq!(metadata["unit"], "nanoseconds");
    assert_eq!(metadata["title"], "CPU time, last 5 minutes");
    assert_eq!(metadata["total"], graph.total());
    assert!(metadata["samples"].as_u64().unwrap() > 0);
    assert!(metadata["from"].as_i64().unwrap() < metadata["to"].as_i64().unwrap());
    assert_eq!(graph.nodes[0][0], 0);
    assert!(graph.nodes.iter().skip(1).all(|[depth, ..]| *depth > 0));
    let links = metadata["links"].as_object().unwrap();
    for id in ["grafana", "explore", "pyroscope", "pprof", "folded", "svg"] {
        assert!(links.contains_key(id), "{id} is not among {links:?}");
    }
    let notes = metadata["notes"].as_array().unwrap();
    for label in ["Samples", "History", "CPU", "Lost or cut", "Overhead", "Symbols"] {
        assert!(notes.iter().any(|note| note["label"] == label), "{label} is not in {notes:?}");
    }
}

#[test]
fn a_thread_has_its_own_graph() {
    let to = local();
    let graph = |query: &str| Graph::decode(&get(to, &format!("{GRAPH}?{query}")).body);
    let burner = graph("thread=burner&range=1h");
    assert!(burner.frame(BURNER).is_some());
    assert_eq!(burner.metadata["title"], "CPU time of burner, last hour");
    assert_eq!(graph("label.thread=burner").frame(BURNER).map(|f| &f[3][..]), Some("http"));
    let nobody = graph("thread=nobody");
    assert_eq!((nobody.nodes.len(), nobody.total()), (1, 0));
    let page = get(to, &format!("{PAGE}?thread=nobody&label.route=/x&from=-5m&to=now"));
    let html = page.text();
    assert!(html.contains("<option value=\"nobody\" selected>"), "{html}");
    assert!(html.contains("name=\"label.route\" value=\"/x\""), "{html}");
    assert!(html.contains("<option value=\"custom\" selected>"), "{html}");
}

#[test]
fn the_graph_is_compressed_for_those_who_can() {
    let to = local();
    let host = to.to_string();
    // A window of the past stays the same between two requests.
    let begin = Graph::decode(&get(to, GRAPH).body).metadata["to"].as_i64().unwrap();
    let path = format!("{GRAPH}?from=-1h&to={begin}");
    let plain = get(to, &path);
    let headers = [("Host", &*host), ("Accept-Encoding", "br, gzip")];
    let packed = send(to, "GET", &path, &headers);
    assert_eq!((plain.header("content-encoding"), plain.header("vary")), ("", "accept-encoding"));
    assert_eq!(
        (packed.header("content-encoding"), packed.header("vary")),
        ("gzip", "accept-encoding")
    );
    assert_eq!(packed.header("content-type"), "application/octet-stream");
    assert!(packed.body.len() < plain.body.len());
    let mut unpacked = Vec::new();
    GzDecoder::new(&*packed.body).read_to_end(&mut unpacked).unwrap();
    let (plain, packed) = (Graph::decode(&plain.body), Graph::decode(&unpacked));
    assert!(plain.frame(BURNER).is_some() && packed.frame(BURNER).is_some());
}

#[test]
fn a_terminal_gets_the_table_as_text() {
    let answer = get(local(), &format!("{PAGE}?format=text"));
    assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    let text = answer.text();
    assert!(text.starts_with(&format!("{SERVICE}: CPU time, last 15 minutes\n")), "{text}");
    let row = text.lines().find(|line| line.contains(BURNER)).expect("a row for the burner");
    assert!(row.contains('%') && row.contains('s'), "{row}");
    assert!(text.contains("Overhead: "), "{text}");
}

#[test]
fn downloads_hold_the_same_view() {
    let to = local();
    let file = get(to, "/debug/profiling/profile.pb.gz?range=5m&thread=burner");
    let name = file.header("content-disposition");
    assert!(name.starts_with("attachment; filename=\"orders___1__-cpu-"), "{name}");
    assert!(name.ends_with(".pb.gz\""), "{name}");
    let (profile, symbols) = pprof::decode(&file.body).unwrap();
    let tree = CallTree::new(&profile, &symbols, profile.type_index("cpu").unwrap());
    assert!(tree.frames().iter().any(|frame| frame.function.contains(BURNER)));
    assert!(profile.labels.sets().iter().skip(1).all(|set| set.get("thread") == Some("burner")));

    let folded = get(to, "/debug/profiling/folded.txt?thread=burner");
    assert!(folded.header("content-disposition").contains(".folded.txt"));
    let line = folded.text().lines().find(|line| line.contains(BURNER)).unwrap();
    assert!(line.rsplit(' ').next().unwrap().parse::<u64>().unwrap() > 0, "{line}");

    let picture = get(to, "/debug/profiling/flamegraph.svg?range=5m");
    assert_eq!(picture.header("content-type"), "image/svg+xml");
    assert_eq!(picture.header("content-disposition"), "");
    assert!(picture.text().contains("<svg") && picture.text().contains(BURNER));
    assert!(!picture.text().contains("<script"));
    let kept = get(to, "/debug/profiling/flamegraph.svg?download=1");
    assert!(kept.header("content-disposition").ends_with(".svg\""));
}

#[test]
fn a_field_that_is_not_valid_is_named_with_what_is() {
    let to = local();
    let views = ["", "/graph", "/flamegraph.svg", "/profile.pb.gz", "/folded.txt"];
    for (query, want) in [
        ("type=gpu", "type: `gpu` is not valid; allowed: cpu"),
        ("service=other", "service: `other` is not valid; allowed: orders"),
        ("range=forever", "range: `forever` is not valid; allowed: `15m`"),
        ("range=0s", "range: `0s` is not valid"),
        ("range=1h&range=2h", "range: `2h` is not valid; allowed: one value"),
        ("range=custom", "from: `` is not valid; allowed: `now`, `-5m`"),
        ("from=yesterday", "from: `yesterday` is not valid; allowed: `now`, `-5m`"),
        ("from=-5m&to=never", "to: `never` is not valid; allowed: `now`, `-5m`"),
        ("from=-5m&to=-1h", "to: `-1h` is not valid; allowed: after from (`-5m`)"),
        ("from=now&to=now", "from: `now` is not valid; allowed: before now"),
        ("thread=a&thread=b", "thread: `b` is not valid; allowed: one value"),
    ] {
        for view in views {
            let answer = get(to, &format!("{PAGE}{view}?{query}"));
            assert_eq!(answer.status, 400, "{view}?{query}");
            assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
            assert!(answer.text().contains(want), "{view}?{query}: {}", answer.text());
        }
    }
    let format = get(to, &format!("{PAGE}?format=pdf"));
    assert_eq!(format.text(), "format: `pdf` is not valid; allowed: html, text\n");
}

#[test]
fn head_is_get_without_the_body() {
    let to = local();
    let host = to.to_string();
    for path in [PAGE, GRAPH, "/debug/profiling/assets/flame.js", "/debug/pprof/"] {
        let answer = send(to, "HEAD", path, &[("Host", &host)]);
        assert_eq!((answer.status, answer.body.len()), (200, 0), "{path}");
        assert_ne!(answer.header("content-type"), "", "{path}");
    }
}

#[test]
fn what_is_sampled_now_is_there_at_the_next_look() {
    let to = local();
    let total = || Graph::decode(&get(to, &format!("{GRAPH}?range=1h")).body).total();
    let before = total();
    wait("the graph has grown", || total() > before);
}
