//! Profiling that does not run says so everywhere, and the page still answers.

use crate::{
    client::{get, send},
    flame::Graph,
    service::{off, serve},
};
use hsi_profiling_axum::{Access, router};

const WHY: &str = "profiling is off: switched off";

#[test]
fn the_page_says_why_there_is_nothing() {
    let to = serve(router(off(), Access::loopback()));
    let page = get(to, "/debug/profiling");
    assert_eq!(page.status, 200);
    assert!(page.text().contains("off: switched off"), "{}", page.text());
    let text = get(to, "/debug/profiling?format=text");
    assert!(text.text().contains("Profiling: off: switched off"), "{}", text.text());
    let graph = Graph::decode(&get(to, "/debug/profiling/graph").body);
    assert_eq!((graph.nodes.len(), graph.total()), (1, 0));
    let empty = graph.metadata["empty"].as_str().unwrap();
    assert!(empty.contains(WHY), "{empty}");
    assert_eq!(graph.metadata["notes"][0]["level"], "error");
    assert_eq!(get(to, "/debug/profiling/flamegraph.svg").status, 200);
    assert_eq!(get(to, "/debug/pprof/").status, 200);
}

#[test]
fn files_and_captures_are_unavailable() {
    let to = serve(router(off(), Access::loopback()));
    let host = to.to_string();
    for path in [
        "/debug/pprof/profile",
        "/debug/pprof/profile?seconds=1",
        "/debug/pprof/profile?from=-5m&to=now",
        "/debug/profiling/profile.pb.gz",
        "/debug/profiling/folded.txt",
    ] {
        let answer = get(to, path);
        assert_eq!(answer.status, 503, "{path}");
        assert!(answer.text().starts_with(WHY), "{path}: {}", answer.text());
        assert_eq!(send(to, "HEAD", path, &[("Host", &host)]).status, 503, "{path}");
    }
    assert_eq!(get(to, "/debug/pprof/profile?seconds=0").status, 400);
    assert_eq!(get(to, "/debug/pprof/cmdline").status, 404);
}
