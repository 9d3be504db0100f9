//! The page in a real browser: what a person sees and does, on made-up profiles.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of a test may fail it, and say why it is skipped"
)]

#[expect(
    dead_code,
    reason = "the markup's modules, compiled here without the server that fills them"
)]
#[path = "../src/pages/mod.rs"]
mod pages;

#[path = "browser/chrome.rs"]
mod chrome;
#[path = "browser/profile.rs"]
mod profile;
#[path = "browser/server.rs"]
mod server;

use std::{fs, path::Path};

use axum::http::StatusCode;
use pages::format;
use serde_json::{Value, json};

use crate::{
    chrome::Browser,
    profile::Profile,
    server::{Graph, Server},
};

/// A browser on a page that shows `profile`; the page is drawn.
fn show(profile: &Profile) -> Option<(Browser, Server)> {
    let mut browser = Browser::start()?;
    let server = Server::start(Graph::Show(profile.clone()));
    browser.open(&server.url());
    drawn(&mut browser);
    Some((browser, server))
}

fn drawn(browser: &mut Browser) {
    browser.wait("performance.getEntriesByName('hsi-drawn').length");
}

/// The page behaved: no error, no violation of its policy, no dialog.
fn quiet(browser: &mut Browser) {
    assert_eq!(browser.problems(), Vec::<String>::new());
}

/// Two frames later, everything asked for so far is on the screen.
fn settle(browser: &mut Browser) {
    browser.eval(
        "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(0))))",
    );
}

/// The first node of a function, in the page's numbering.
fn node(browser: &mut Browser, name: &str) -> u64 {
    let find = format!(
        "[...Array(hsiFlame.state().nodes).keys()].find((i) => hsiFlame.nameOf(i) === {})",
        json!(name)
    );
    browser.eval(&find).as_u64().unwrap_or_else(|| panic!("no frame {name}"))
}

/// A point on a frame, scrolled into view.
fn point(browser: &mut Browser, name: &str) -> (f64, f64) {
    let node = node(browser, name);
    let at = browser.eval(&format!(
        "{{ const pane = document.getElementById('scroll'); pane.scrollTop += hsiFlame.rect({node}).y - 100; \
         const r = hsiFlame.rect({node}), b = document.getElementById('canvas').getBoundingClientRect(); \
         ({{ x: b.x + r.x + Math.min(20, r.width / 2), y: b.y + r.y + 8 }}) }}"
    ));
    settle(browser);
    (at["x"].as_f64().unwrap(), at["y"].as_f64().unwrap())
}

fn click_frame(browser: &mut Browser, name: &str) {
    let (x, y) = point(browser, name);
    browser.click(x, y);
    settle(browser);
}

fn zoomed(browser: &mut Browser) -> String {
    browser.text("hsiFlame.nameOf(hsiFlame.state().zoom)")
}

fn type_search(browser: &mut Browser, text: &str) {
    browser.eval("document.getElementById('q').focus(); document.getElementById('q').select()");
    if text.is_empty() {
        browser.eval("document.execCommand('delete')");
    } else {
        browser.insert(text);
    }
    settle(browser);
}

fn found(browser: &mut Browser) -> String {
    browser.text("document.getElementById('found').textContent")
}

/// The cells of the table, row by row.
fn rows(browser: &mut Browser) -> Vec<Vec<String>> {
    let rows = browser.eval(
        "[...document.querySelectorAll('#table tbody tr')].map((row) => [...row.cells].map((cell) => cell.textContent))",
    );
    serde_json::from_value(rows).unwrap()
}

fn pixel(browser: &mut Browser, x: f64, y: f64) -> Value {
    browser.eval(&format!(
        "{{ const c = document.getElementById('canvas'), b = c.getBoundingClientRect(); \
         [...c.getContext('2d').getImageData({x} - b.x, {y} - b.y, 1, 1).data] }}"
    ))
}

const DECODE: &str = "yolo26::image::decode";
const SUPPRESS: &str = "yolo26::nms::suppress";

#[test]
fn a_frame_is_painted_and_named_on_hover() {
    let profile = Profile::service();
    let Some((mut browser, _server)) = show(&profile) else { return };
    let (x, y) = point(&mut browser, DECODE);
    let paper = json!([255, 255, 255, 255]);
    assert_ne!(pixel(&mut browser, x - 18.0, y), paper, "a frame is a bar");
    let right =
        browser.number("document.getElementById('canvas').getBoundingClientRect().right - 3");
    assert_eq!(pixel(&mut browser, right, y), paper, "beside the frames there is nothing");
    browser.hover(x, y);
    browser.wait("!document.getElementById('tip').hidden");
    let tip = browser.text("document.getElementById('tip').innerText");
    let sums = profile.functions()[DECODE];
    for part in [
        DECODE,
        "src/pipeline.rs:",
        &format::value(sums.self_value, "nanoseconds"),
        &format::value(sums.total, "nanoseconds"),
        &format::percent(sums.total, profile.total()),
    ] {
        assert!(tip.contains(part), "{part:?} is not in the tip {tip:?}");
    }
    quiet(&mut browser);
}

#[test]
fn a_click_zooms_and_there_are_four_ways_back() {
    let Some((mut browser, _server)) = show(&Profile::service()) else { return };
    for way in ["Escape", "Backspace", "reset", "crumb"] {
        click_frame(&mut browser, DECODE);
        assert_eq!(zoomed(&mut browser), DECODE);
        let node = node(&mut browser, DECODE);
        let width = browser.number(&format!("hsiFlame.rect({node}).width"));
        assert_eq!(
            width,
            browser.number("document.getElementById('scroll').clientWidth"),
            "it fills the width"
        );
        match way {
            "reset" => browser.click_on("document.getElementById('reset')"),
            "crumb" => browser.click_on("document.querySelector('#crumbs button')"),
            key => browser.key(key),
        }
        settle(&mut browser);
        assert_eq!(zoomed(&mut browser), "all", "{way}");
    }
    // Backspace is one step back, not all of them.
    click_frame(&mut browser, "yolo26::routes::detect::{{closure}}");
    click_frame(&mut browser, DECODE);
    browser.key("Backspace");
    assert_eq!(zoomed(&mut browser), "yolo26::routes::detect::{{closure}}");
    quiet(&mut browser);
}

#[test]
fn a_search_states_the_matched_share_without_counting_twice() {
    let profile = Profile::service();
    let Some((mut browser, _server)) = show(&profile) else { return };
    type Test = fn(&str) -> bool;
    let cases: [(&str, Test); 6] = [
        ("poll", |name| name.contains("poll")),
        ("image|JPEG", |name| name.contains("image") || name.to_lowercase().contains("jpeg")),
        ("helper", |name| name.contains("helper")),
        ("^yolo26::nms", |name| name.starts_with("yolo26::nms")),
        ("\"yolo26::nms::suppress\"", |name| name == SUPPRESS),
        ("no such thing", |_| false),
    ];
    for (search, test) in cases {
        type_search(&mut browser, search);
        let share = format::percent(profile.matched(test), profile.total());
        let found = found(&mut browser);
        assert!(
            found.starts_with(&format!("{share} matched")),
            "{search:?}: {found:?}, expected {share}"
        );
    }
    type_search(&mut browser, "call_once{{(");
    let literal = found(&mut browser);
    assert!(literal.contains("not a regex"), "{literal:?}");
    assert_eq!(browser.text("document.getElementById('q').getAttribute('aria-invalid')"), "true");
    type_search(&mut browser, "call_once{{");
    type_search(&mut browser, DECODE);
    let (x, y) = point(&mut browser, DECODE);
    assert_eq!(
        pixel(&mut browser, x - 18.0, y),
        json!([122, 31, 162, 255]),
        "a hit has the hit's colour"
    );
    assert!(
        rows(&mut browser).iter().all(|row| row[0].contains(DECODE)),
        "the table shows the hits"
    );
    type_search(&mut browser, "");
    assert_eq!(found(&mut browser), "");
    quiet(&mut browser);
}

#[test]
fn next_and_previous_walk_the_matches_heaviest_first() {
    let Some((mut browser, _server)) = show(&Profile::service()) else { return };
    // MlasConvIm2Col matches too, but inside of MlasConv.
    type_search(&mut browser, "^MlasConv|^MlasCompute|ryu");
    let count = found(&mut browser);
    assert!(count.ends_with(" · 3 matches"), "{count:?}");
    for (place, name) in [
        ("1 of 3", "MlasConv"),
        ("2 of 3", "MlasComputeLogistic"),
        ("3 of 3", "ryu::pretty::format64"),
        ("1 of 3", "MlasConv"),
    ] {
        browser.key("Enter");
        settle(&mut browser);
        assert_eq!(browser.text("hsiFlame.nameOf(hsiFlame.state().cursor)"), name, "{place}");
        let found = found(&mut browser);
        assert!(found.contains(place), "{found:?}");
    }
    quiet(&mut browser);
}

#[test]
fn the_table_has_every_function_with_its_sums() {
    let profile = Profile::service();
    let Some((mut browser, _server)) = show(&profile) else { return };
    let expect = profile.functions();
    browser.wait("!document.getElementById('more').hidden");
    let more = browser.text("document.querySelector('#more span').textContent");
    let hidden = format!("{} of {} functions", expect.len() - 100, expect.len());
    assert!(more.contains(&hidden), "{more:?} states {hidden:?}");
    browser.click_on("document.querySelector('#more button')");
    let rows = rows(&mut browser);
    assert_eq!(rows.len(), expect.len());
    for row in &rows {
        let sums = expect[&row[0]];
        assert_eq!(row[1], format::value(sums.self_value, "nanoseconds"), "{}", row[0]);
        assert_eq!(row[2], format::percent(sums.self_value, profile.total()), "{}", row[0]);
        assert_eq!(row[3], format::value(sums.total, "nanoseconds"), "{}", row[0]);
        assert_eq!(row[4], format::percent(sums.total, profile.total()), "{}", row[0]);
    }
    let sorted = |rows: &[Vec<String>], key: fn(&profile::Sums) -> u64| {
        rows.iter().map(|row| key(&expect[&row[0]])).is_sorted_by(|a, b| a >= b)
    };
    assert!(sorted(&rows, |sums| sums.self_value), "heaviest self first");
    browser.click_on("document.querySelector('th:nth-child(4) button')");
    assert_eq!(browser.text("document.querySelector('th:nth-child(4)').ariaSort"), "descending");
    assert!(sorted(&self::rows(&mut browser), |sums| sums.total), "heaviest total first");
    browser.click_on("document.querySelector('th button')");
    let names: Vec<_> = self::rows(&mut browser).into_iter().map(|row| row[0].clone()).collect();
    assert_eq!(browser.text("document.querySelector('th').ariaSort"), "ascending");
    assert_eq!(names.len(), expect.len());
    quiet(&mut browser);
}

#[test]
fn table_and_graph_are_one_selection() {
    let Some((mut browser, _server)) = show(&Profile::service()) else { return };
    let button = format!(
        "[...document.querySelectorAll('.fn button')].find((b) => b.title === {})",
        json!(SUPPRESS)
    );
    browser.click_on(&button);
    assert_eq!(browser.text("document.getElementById('q').value"), format!("\"{SUPPRESS}\""));
    assert_eq!(browser.text(&format!("{button}.ariaPressed")), "true");
    assert_eq!(
        browser.text("hsiFlame.nameOf(hsiFlame.state().cursor)"),
        SUPPRESS,
        "the graph shows it"
    );
    click_frame(&mut browser, DECODE);
    browser.wait("document.querySelector('.picked')");
    assert_eq!(
        browser.text("document.querySelector('.picked button').title"),
        DECODE,
        "the table marks it"
    );
    assert_eq!(browser.text("document.getElementById('q').value"), "", "one selection, not two");
    assert_eq!(browser.number("document.querySelectorAll('.picked').length"), 1.0);
    quiet(&mut browser);
}

#[test]
fn a_refresh_keeps_zoom_search_and_selection() {
    let Some((mut browser, server)) = show(&Profile::service()) else { return };
    click_frame(&mut browser, DECODE);
    type_search(&mut browser, "jpeg");
    // The next profile has other node numbers, for a stack comes in that is heavier than all.
    let profile =
        Profile::service_with(9_000_000_000_000, &["a_new::heavy::stack", "that::comes::first"]);
    server.set(Graph::Show(profile.clone()));
    let before = node(&mut browser, DECODE);
    browser.click_on("document.getElementById('refresh')");
    browser.wait(&format!("hsiFlame.nameOf({before}) !== {}", json!(DECODE)));
    settle(&mut browser);
    assert_eq!(zoomed(&mut browser), DECODE);
    assert_eq!(browser.text("document.getElementById('q').value"), "jpeg");
    assert_eq!(
        browser.text("document.querySelector('.picked button')?.title ?? 'filtered'"),
        DECODE_OR_FILTERED
    );
    let share = format::percent(
        profile.matched(|name| name.contains("jpeg") || name.contains("Jpeg")),
        profile.total(),
    );
    let found = found(&mut browser);
    assert!(found.starts_with(&share), "{found:?} is of the new profile: {share}");
    // The address alone is enough to come back to the same place.
    browser.reload();
    drawn(&mut browser);
    assert_eq!(zoomed(&mut browser), DECODE);
    assert_eq!(browser.text("document.getElementById('q').value"), "jpeg");
    quiet(&mut browser);
}

/// The search `jpeg` leaves `yolo26::image::decode` out of the table.
const DECODE_OR_FILTERED: &str = "filtered";

#[test]
fn a_failed_refresh_says_why_and_keeps_the_graph() {
    let Some((mut browser, server)) = show(&Profile::service()) else { return };
    click_frame(&mut browser, DECODE);
    server.set(Graph::Fail(
        StatusCode::SERVICE_UNAVAILABLE,
        "the sampler has stopped: <b>too few timers</b>",
    ));
    browser.click_on("document.getElementById('refresh')");
    browser.wait("!document.getElementById('error').hidden");
    let error = browser.text("document.getElementById('error').textContent");
    assert!(error.contains("<b>too few timers</b>"), "the server's word, as text: {error:?}");
    assert_eq!(zoomed(&mut browser), DECODE);
    server.set(Graph::Bytes(b"HSF1\x02{}\x05".to_vec()));
    browser.click_on("document.getElementById('refresh')");
    browser.wait(
        "document.getElementById('error').textContent.startsWith('The answer is not a profile')",
    );
    assert_eq!(zoomed(&mut browser), DECODE);
    server.set(Graph::Show(Profile::service()));
    browser.click_on("document.getElementById('refresh')");
    browser.wait("document.getElementById('error').hidden");
    assert_eq!(zoomed(&mut browser), DECODE);
    let problems = browser.problems();
    assert!(problems.iter().all(|problem| problem.contains("503")), "{problems:?}");
}

#[test]
fn an_empty_window_says_so() {
    let Some((mut browser, server)) = show(&Profile::from_stacks([])) else { return };
    assert!(
        browser
            .text("document.getElementById('empty').innerText")
            .contains("No samples in this window")
    );
    assert_eq!(browser.eval("document.getElementById('scroll').hidden"), json!(true));
    server.set(Graph::Show(Profile::service()));
    browser.click_on("document.getElementById('refresh')");
    browser.wait(
        "!document.getElementById('scroll').hidden && document.getElementById('empty').hidden",
    );
    quiet(&mut browser);
}

#[test]
fn a_name_is_text_even_when_it_looks_like_markup() {
    let hostile = [
        "<script>alert(1)</script>",
        "<img src=x onerror=\"alert(2)\">",
        "\"><svg onload=alert(3)>",
        "javascript:alert(4)",
        "$& $1 \\u0000 ${alert(5)}",
    ];
    let profile =
        Profile::from_stacks(hostile.iter().map(|name| (50_000_000, vec!["main", *name])));
    let Some((mut browser, _server)) = show(&profile) else { return };
    let names: Vec<_> = rows(&mut browser).into_iter().map(|row| row[0].clone()).collect();
    for name in hostile {
        assert!(names.iter().any(|shown| shown == name), "{name:?} is not in {names:?}");
        let (x, y) = point(&mut browser, name);
        browser.hover(x, y);
        assert_eq!(browser.text("document.querySelector('#tip b').textContent"), name);
        browser.click(x, y);
        settle(&mut browser);
        assert_eq!(zoomed(&mut browser), name);
        browser.key("Escape");
        let row = format!(
            "[...document.querySelectorAll('.fn button')].find((b) => b.title === {})",
            json!(name)
        );
        browser.click_on(&row);
        browser.click_on(&row);
    }
    let strangers =
        browser.number("document.querySelectorAll('main script, main img, main svg').length");
    assert_eq!(strangers, 0.0);
    quiet(&mut browser);
}

#[test]
fn a_new_view_is_fetched_without_a_reload_and_has_an_address() {
    let Some((mut browser, server)) = show(&Profile::service()) else { return };
    assert_eq!(server.queries(), ["service=yolo26&type=cpu&range=15m"]);
    browser.eval("window.sameDocument = true");
    let choose = "{ const s = document.querySelector('[name=range]'); s.value = '1h'; s.dispatchEvent(new Event('change', { bubbles: true })) }";
    browser.eval(choose);
    browser.wait("location.search === '?service=yolo26&type=cpu&range=1h'");
    browser.wait("!document.body.classList.contains('busy')");
    assert_eq!(server.queries().last().unwrap(), "service=yolo26&type=cpu&range=1h");
    assert_eq!(browser.eval("window.sameDocument"), json!(true));
    // Not at once: the answer to this would be lost with the page.
    browser.eval("void setTimeout(() => history.back())");
    browser.wait("!window.sameDocument && location.search === ''");
    drawn(&mut browser);
    quiet(&mut browser);
}

#[test]
fn a_custom_range_waits_for_apply() {
    let Some((mut browser, server)) = show(&Profile::service()) else { return };
    assert_eq!(browser.eval("document.getElementById('custom').hidden"), json!(true));
    browser.eval("{ const s = document.querySelector('[name=range]'); s.value = 'custom'; s.dispatchEvent(new Event('change', { bubbles: true })) }");
    assert_eq!(browser.eval("document.getElementById('custom').hidden"), json!(false));
    assert_eq!(browser.text("document.querySelector('[name=from]').value"), "2025-11-23T01:00");
    assert_eq!(server.queries().len(), 1, "nothing is asked for before both ends are known");
    browser.eval("document.querySelector('[name=from]').value = '2026-01-31T03:04:05'; document.querySelector('[name=to]').value = '2026-01-31T03:09:05'");
    browser.click_on("document.getElementById('apply')");
    browser.wait("location.search.includes('range=custom')");
    browser.wait("!document.body.classList.contains('busy')");
    let query = server.queries().pop().unwrap();
    assert!(query.contains("from=2026-01-31T03%3A04%3A05&to=2026-01-31T03%3A09%3A05"), "{query}");
    quiet(&mut browser);
}

#[test]
fn live_refreshes_at_once_and_can_be_stopped() {
    let Some((mut browser, server)) = show(&Profile::service()) else { return };
    browser.click_on("document.getElementById('live')");
    assert_eq!(browser.text("document.getElementById('live').ariaPressed"), "true");
    browser.wait("!document.body.classList.contains('busy')");
    assert_eq!(server.queries().len(), 2);
    browser.click_on("document.getElementById('live')");
    assert_eq!(browser.text("document.getElementById('live').ariaPressed"), "false");
    assert_eq!(server.queries().len(), 2);
    quiet(&mut browser);
}

#[test]
fn the_keyboard_reaches_everything() {
    let Some((mut browser, _server)) = show(&Profile::service()) else { return };
    browser.key("/");
    assert_eq!(browser.text("document.activeElement.id"), "q");
    browser.key("Escape");
    assert_eq!(browser.text("document.activeElement.id"), "scroll");
    for (key, name) in [
        ("ArrowDown", "all"),
        ("ArrowDown", "clone3"),
        ("ArrowDown", "start_thread"),
        ("ArrowUp", "clone3"),
        ("ArrowRight", "_start"),
        ("ArrowLeft", "clone3"),
        ("ArrowDown", "start_thread"),
    ] {
        browser.key(key);
        settle(&mut browser);
        assert_eq!(browser.text("hsiFlame.nameOf(hsiFlame.state().cursor)"), name, "{key}");
        let said = browser.text("document.getElementById('say').textContent");
        assert!(said.starts_with(name) && said.contains("of the total"), "{said:?}");
    }
    browser.key("Enter");
    assert_eq!(zoomed(&mut browser), "start_thread");
    browser.key("Escape");
    assert_eq!(zoomed(&mut browser), "all");
    quiet(&mut browser);
}

#[test]
fn folding_the_runtime_keeps_the_sum() {
    let profile = Profile::service();
    let Some((mut browser, _server)) = show(&profile) else { return };
    let before = rows(&mut browser);
    let nodes = browser.number("hsiFlame.state().nodes");
    browser.click_on("document.getElementById('fold')");
    settle(&mut browser);
    assert!(browser.number("hsiFlame.state().nodes") < nodes);
    let detect = node(&mut browser, "yolo26::routes::detect::{{closure}}");
    assert_eq!(
        browser.number(&format!("hsiFlame.rect({detect}).y")),
        17.0,
        "the service's code is in the first row"
    );
    let width = browser.number(&format!(
        "hsiFlame.rect({detect}).width / document.getElementById('scroll').clientWidth"
    ));
    let share = profile.matched(|name| name == "yolo26::routes::detect::{{closure}}") as f64
        / profile.total() as f64;
    assert!((width - share).abs() < 1e-9, "{width} is not {share}");
    assert_eq!(rows(&mut browser), before, "the table is of the whole profile");
    browser.key("h");
    settle(&mut browser);
    assert_eq!(browser.number("hsiFlame.state().nodes"), nodes);
    quiet(&mut browser);
}

#[test]
fn without_scripts_there_are_a_picture_a_table_and_a_form() {
    let Some(mut browser) = Browser::start() else { return };
    let server = Server::start(Graph::Show(Profile::service()));
    browser.scripts(false);
    browser.open(&server.url());
    browser.wait("document.querySelector('img.picture')?.naturalWidth > 0");
    let plain = rows(&mut browser);
    assert_eq!(plain.len(), 20);
    assert_eq!(browser.eval("document.getElementById('tools').hidden"), json!(true));
    browser.click_on("document.getElementById('apply')");
    browser.wait("location.search.includes('range=15m')");
    browser.scripts(true);
    browser.open(&server.url());
    drawn(&mut browser);
    let scripted = rows(&mut browser);
    for (plain, scripted) in plain.iter().zip(&scripted) {
        assert_eq!(plain[..5], scripted[..5], "the script says what the server said");
    }
    quiet(&mut browser);
}

#[test]
fn a_narrow_window_does_not_scroll_sideways() {
    let Some((mut browser, _server)) = show(&Profile::service()) else { return };
    for (width, height) in [(400, 860), (320, 640), (768, 1024), (1920, 1080)] {
        browser.size(width, height);
        settle(&mut browser);
        let overflow = browser.number(
            "document.scrollingElement.scrollWidth - document.scrollingElement.clientWidth",
        );
        assert_eq!(overflow, 0.0, "at {width}");
        // The canvas has the width of its frame.
        browser.wait("document.getElementById('canvas').width === document.getElementById('scroll').clientWidth");
    }
    quiet(&mut browser);
}

#[test]
fn dark_and_light_follow_the_system() {
    let Some((mut browser, _server)) = show(&Profile::service()) else { return };
    let (x, y) = point(&mut browser, DECODE);
    let light = pixel(&mut browser, x - 18.0, y);
    browser.prefer("prefers-color-scheme", "dark");
    settle(&mut browser);
    let dark = pixel(&mut browser, x - 18.0, y);
    let sum = |pixel: &Value| (0..3).map(|channel| pixel[channel].as_u64().unwrap()).sum::<u64>();
    assert!(sum(&dark) + 150 < sum(&light), "{dark} after {light}");
    quiet(&mut browser);
}

/// The budget: 100 000 frames drawn within 1 s, a zoom within 50 ms. The figures are printed
/// (`--nocapture`). Time on the clock is also that of the neighbours on this machine, so the test
/// fails at five times the budget only; the first picture's CPU time has to be within it.
#[test]
fn a_hundred_thousand_frames_are_within_the_budget() {
    let profile = Profile::bushy(100_000);
    let Some((mut browser, _server)) = show(&profile) else { return };
    let nodes = browser.number("hsiFlame.state().nodes");
    assert!(nodes >= 100_000.0, "{nodes} frames");
    let load_cpu = browser.cpu();
    let drawn = browser.number("performance.getEntriesByName('hsi-drawn')[0].startTime");
    let fetched = browser.number(
        "performance.getEntriesByType('resource').find((e) => e.name.includes('graph?')).responseEnd",
    );
    browser.eval(MEASURE);
    let before = browser.cpu();
    let zooms = browser.eval(
        "(async () => { const times = []; \
            for (let k = 0; k < 8; k++) { \
                times.push(await measure(() => clickAt(100 + k * 120, 17 * (6 + k) + 8))); \
                times.push(await measure(() => clickAt(300, 8))); \
            } \
            return times.sort((a, b) => a - b); })()",
    );
    let zooms: Vec<f64> = serde_json::from_value(zooms).unwrap();
    let zoom_cpu = (browser.cpu() - before) / zooms.len() as f64;
    let (median, worst) = (zooms[zooms.len() / 2], zooms[zooms.len() - 1]);
    let search = browser.number(
        "{ const q = document.getElementById('q'); q.value = 'image|jpeg'; \
         measure(() => q.dispatchEvent(new Event('input'))) }",
    );
    let heap = browser.number("performance.memory.usedJSHeapSize / 1048576");
    println!(
        "{nodes} frames: page to picture {drawn:.0} ms, of that decode and draw {:.0} ms (CPU in all \
         {load_cpu:.0} ms); zoom median {median:.1} ms, worst {worst:.1} ms (CPU {zoom_cpu:.1} ms); \
         search {search:.1} ms; heap {heap:.0} MiB",
        drawn - fetched
    );
    assert!(drawn < 5_000.0, "drawn after {drawn} ms");
    assert!(load_cpu < 1_000.0, "the first picture took {load_cpu} ms of CPU");
    assert!(median < 250.0, "a zoom took {median} ms");
    assert!(zoom_cpu < 250.0, "a zoom and its table took {zoom_cpu} ms of CPU");
    assert!(search < 500.0, "a search took {search} ms");
    quiet(&mut browser);
}

/// `measure` runs an act and waits until its picture is drawn, in the next frame. What the table
/// does after that is not in it, but in the CPU time.
const MEASURE: &str = "\
    const frame = () => new Promise((done) => requestAnimationFrame(done)); \
    window.clickAt = (x, y) => { \
        const canvas = document.getElementById('canvas'), b = canvas.getBoundingClientRect(); \
        canvas.dispatchEvent(new PointerEvent('click', { clientX: b.x + x, clientY: b.y + y, bubbles: true })); }; \
    window.measure = async (act) => { await frame(); await new Promise((done) => setTimeout(done, 50)); const began = performance.now(); act(); \
        await frame(); return performance.now() - began; }; 0";

#[test]
fn script_and_style_stay_small() {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/assets");
    let size = |name: &str| fs::metadata(assets.join(name)).unwrap().len();
    let scripts: u64 = fs::read_dir(&assets)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "js"))
        .map(|entry| entry.metadata().unwrap().len())
        .sum();
    assert!(scripts <= 30_000, "the scripts have {scripts} bytes");
    assert!(size("style.css") <= 12_288, "the style has {} bytes", size("style.css"));
}

#[test]
fn the_assets_need_nothing_from_elsewhere() {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/assets");
    for name in ["flame.js", "style.css"] {
        let text = fs::read_to_string(assets.join(name)).unwrap();
        for word in [
            "http:",
            "https:",
            "import ",
            "@import",
            "innerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
        ] {
            assert!(!text.contains(word), "{name} has {word:?}");
        }
    }
}
