//! `/debug/pprof/`, for the tools that know it from Go.

use crate::{
    client::{Answer, begin, finish, get, send},
    service::{BURNER, local, wait},
};
use hsi_profiling::{CallTree, Profile, encode::pprof};
use std::{
    env,
    net::{SocketAddr, TcpStream},
    process::Command,
    time::{Duration, Instant},
};

const PROFILE: &str = "/debug/pprof/profile";

#[test]
fn the_coming_second_is_waited_for() {
    let to = local();
    let begin = Instant::now();
    let answer = get(to, &format!("{PROFILE}?seconds=1"));
    let took = begin.elapsed();
    assert!((Duration::from_secs(1)..Duration::from_secs(30)).contains(&took), "{took:?}");
    let profile = assert_profile(&answer);
    let window = profile.duration;
    assert!((Duration::from_millis(900)..took).contains(&window), "{window:?} of {took:?}");
    let cpu = profile.total(profile.type_index("cpu").unwrap());
    assert!(cpu > 0 && profile.total(profile.type_index("samples").unwrap()) > 0);
}

#[test]
fn the_past_is_there_at_once() {
    let to = local();
    for query in ["from=-5m&to=now", "from=-1h", "from=0", "from=2026-01-01T00:00:00Z&to=now"] {
        let begin = Instant::now();
        let answer = get(to, &format!("{PROFILE}?{query}"));
        // Names are looked up the first time, in an unoptimized program; nothing is waited for.
        assert!(begin.elapsed() < Duration::from_secs(25), "{query}: {:?}", begin.elapsed());
        assert_profile(&answer);
    }
}

fn assert_profile(answer: &Answer) -> Profile {
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    assert_eq!(answer.header("content-type"), "application/octet-stream");
    assert_eq!(answer.header("content-disposition"), "attachment; filename=\"profile\"");
    assert_eq!(answer.header("content-encoding"), "", "the file is gzip, the transfer is not");
    assert_eq!(answer.body[..2], [0x1f, 0x8b]);
    let (profile, symbols) = pprof::decode(&answer.body).unwrap();
    let tree = CallTree::new(&profile, &symbols, profile.type_index("cpu").unwrap());
    let burner = tree
        .functions_by_total()
        .into_iter()
        .find(|function| tree.frames()[function.frame as usize].function.contains(BURNER));
    assert!(burner.is_some_and(|function| function.total > 0), "no {BURNER} in the profile");
    profile
}

#[test]
fn a_bad_query_is_named() {
    let to = local();
    for (query, want) in [
        ("seconds=0", "seconds: `0` is not valid; allowed: a whole number from 1 to 60"),
        ("seconds=61", "seconds: `61` is not valid; allowed: a whole number from 1 to 60"),
        ("seconds=-1", "seconds: `-1` is not valid"),
        ("seconds=1.5", "seconds: `1.5` is not valid"),
        ("seconds=ten", "seconds: `ten` is not valid"),
        ("seconds=1&seconds=2", "seconds: `2` is not valid; allowed: one value"),
        ("seconds=5&from=-5m", "seconds: `5` is not valid; allowed: either seconds"),
        ("seconds=5&to=now", "seconds: `5` is not valid; allowed: either seconds"),
        ("to=now", "from: `` is not valid; allowed: `now`, `-5m`"),
        ("from=5m", "from: `5m` is not valid; allowed: `now`, `-5m`"),
        ("from=-5x", "from: `-5x` is not valid"),
        ("from=-5m&to=%3Cb%3E", "to: `<b>` is not valid"),
        ("from=-5m&to=-6m", "to: `-6m` is not valid; allowed: after from (`-5m`)"),
        ("from=4102444800", "from: `4102444800` is not valid; allowed: before now"),
    ] {
        let answer = get(to, &format!("{PROFILE}?{query}"));
        assert_eq!(answer.status, 400, "{query}");
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
        assert_eq!(answer.header("x-go-pprof"), "1", "go tool pprof prints the text");
        assert!(answer.text().starts_with(want), "{query}: {}", answer.text());
    }
}

#[test]
fn what_is_not_served_is_not_found() {
    let to = local();
    let cmdline = get(to, "/debug/pprof/cmdline");
    assert_eq!(cmdline.status, 404);
    assert!(cmdline.text().contains("never served"), "{}", cmdline.text());
    let program = env::args().next().unwrap();
    assert!(!cmdline.text().contains(&program));
    for name in ["symbol", "trace", "heap", "allocs", "goroutine", "mutex", "block"] {
        let answer = get(to, &format!("/debug/pprof/{name}"));
        assert_eq!(answer.status, 404, "{name}");
        let want = format!("`{name}` is not served here; what is: /debug/pprof/profile\n");
        assert_eq!(answer.text(), want);
    }
}

#[test]
fn the_index_is_for_people_and_for_terminals() {
    let to = local();
    let text = get(to, "/debug/pprof/");
    assert_eq!(text.header("content-type"), "text/plain; charset=utf-8");
    assert!(text.text().contains("profile?seconds=10"), "{}", text.text());
    let host = to.to_string();
    let page = send(to, "GET", "/debug/pprof/", &[("Host", &host), ("Accept", "text/html,*/*")]);
    assert!(page.header("content-type").starts_with("text/html"));
    assert!(page.text().contains("href=\"profile?from=-5m&amp;to=now\""), "{}", page.text());
}

#[test]
fn the_headers_of_a_capture_are_there_at_once() {
    let to = local();
    let begin = Instant::now();
    let host = to.to_string();
    let answer = send(to, "HEAD", &format!("{PROFILE}?seconds=60"), &[("Host", &host)]);
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
}

#[test]
fn captures_are_few_and_end_with_their_client() {
    let to = local();
    let host = to.to_string();
    let opened = Instant::now();
    let mut clients: Vec<_> = (0..5)
        .map(|_| begin(to, "GET", &format!("{PROFILE}?seconds=60"), &[("Host", &host)]))
        .collect();
    // Whichever came last is sent away; the others wait.
    let mut refused = None;
    wait("one capture too many is refused", || {
        refused = clients.iter().position(is_answered);
        refused.is_some()
    });
    let answer = finish(clients.swap_remove(refused.unwrap()));
    assert_eq!(answer.status, 429);
    assert!(answer.text().contains("4 captures are running"), "{}", answer.text());
    assert!(answer.text().contains("?from=-1m&to=now"), "{}", answer.text());
    // The past needs no capture.
    assert_eq!(get(to, &format!("{PROFILE}?from=-1m&to=now")).status, 200);
    assert!(!clients.iter().any(is_answered));
    drop(clients);
    let mut let_in = opened.elapsed();
    wait("there is room again", || {
        let_in = opened.elapsed();
        get(to, &format!("{PROFILE}?seconds=1")).status == 200
    });
    assert!(let_in < Duration::from_secs(60), "they ran on to their end: {let_in:?}");
}

/// Whether something came back.
fn is_answered(client: &TcpStream) -> bool {
    client.set_nonblocking(true).unwrap();
    let peeked = client.peek(&mut [0]);
    client.set_nonblocking(false).unwrap();
    peeked.is_ok()
}

#[test]
fn go_tool_pprof_reads_the_live_service() {
    let to = local();
    let Ok(version) = Command::new("go").arg("version").output() else {
        let is_ci = env::var_os("HSI_CI").is_some_and(|value| value == "1");
        assert!(!is_ci, "HSI_CI=1 and no go: install it, or the pprof endpoints go untested");
        eprintln!("SKIPPED: no go on PATH");
        return;
    };
    assert!(version.status.success(), "{version:?}");
    let top = go_tool_pprof(to, &["-top"], "seconds=1");
    assert!(top.contains("Type: cpu") && top.contains("Duration: 1"), "{top}");
    assert!(top.lines().any(|line| line.contains(BURNER) && line.contains('%')), "{top}");
    let tree = go_tool_pprof(to, &["-tree"], "from=-5m&to=now");
    assert!(tree.contains(BURNER), "{tree}");
    let list = go_tool_pprof(to, &[&format!("-list={BURNER}")], "from=-5m");
    assert!(list.contains("black_box(number.wrapping_mul(number))"), "{list}");
}

fn go_tool_pprof(to: SocketAddr, arguments: &[&str], query: &str) -> String {
    let temporary = env::temp_dir().join(format!("hsi-pprof-{}", std::process::id()));
    let output = Command::new("go")
        .args(["tool", "pprof"])
        .args(arguments)
        .arg(format!("http://{to}{PROFILE}?{query}"))
        .env("PPROF_TMPDIR", &temporary)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let _ = std::fs::remove_dir_all(&temporary);
    String::from_utf8(output.stdout).unwrap()
}
