//! The page as it is served: this process profiles itself, the public router shows it, a browser
//! reads it. A file, and so a process, of its own: a sampler is there once in a process.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of a test may fail it, and say why it is skipped"
)]

#[expect(dead_code, reason = "the other browser tests need more of it")]
#[path = "browser/chrome.rs"]
mod chrome;

use std::{
    hint::black_box,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use chrome::Browser;
use hsi_profiling_axum::{Access, router};

#[inline(never)]
fn a_hot_function_of_this_test(stop: &AtomicBool) {
    let mut sum = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        sum = (0..10_000_u64).fold(sum, |sum, n| black_box(sum ^ n.wrapping_mul(0x9E37_79B9)));
    }
    black_box(sum);
}

#[test]
fn the_page_draws_this_process() {
    let Some(mut browser) = Browser::start() else { return };
    let session = hsi_profiling::Config::builder("browser-test").start().expect("a session");
    let app = router(session.handle(), Access::loopback());
    let (sender, receiver) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
            sender.send(listener.local_addr().unwrap()).unwrap();
            axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>())
                .await
                .unwrap();
        });
    });
    let address = receiver.recv().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let hot = thread::spawn({
        let stop = Arc::clone(&stop);
        move || a_hot_function_of_this_test(&stop)
    });
    browser.open(&format!("http://{address}/debug/profiling?range=5m"));
    let row = "[...document.querySelectorAll('.fn button')].find((b) => b.title.includes('a_hot_function_of_this_test'))";
    let deadline = Instant::now() + Duration::from_secs(60);
    while browser.eval(&format!("Boolean({row})")) != true {
        assert!(Instant::now() < deadline, "{}", browser.text("document.body.innerText"));
        browser.wait("!document.body.classList.contains('busy')");
        thread::sleep(Duration::from_millis(200));
        browser.click_on("document.getElementById('refresh')");
        browser.wait("!document.body.classList.contains('busy')");
    }
    // The other form of its address leads to the same page, and so does the query of a view.
    browser.click_on(row);
    assert!(browser.text("document.getElementById('found').textContent").contains("% matched"));
    browser.open(&format!("http://{address}/debug/profiling/?range=5m&type=cpu"));
    browser.wait("performance.getEntriesByName('hsi-drawn').length && hsiFlame.state().nodes > 1");
    assert_eq!(browser.text("document.querySelector('[name=range]').value"), "5m");
    browser.wait("document.querySelectorAll('#notes div').length");
    stop.store(true, Ordering::Relaxed);
    hot.join().unwrap();
    // Without the script: the same process as a picture.
    browser.scripts(false);
    browser.open(&format!("http://{address}/debug/profiling?range=5m"));
    browser.wait("document.querySelector('img.picture')?.naturalWidth > 0");
    assert_eq!(browser.problems(), Vec::<String>::new());
}
