//! A service with the real profiler in it, which burns CPU in a function that the tests look for.

use axum::Router;
use hsi_profiling::{Config, Handle, Session};
use hsi_profiling_axum::{Access, router};
use std::{
    hint::black_box,
    net::SocketAddr,
    sync::{
        LazyLock, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use tokio::{net::TcpListener, runtime::Runtime};

/// The function that uses the CPU, and the thread that it runs in.
pub(crate) const BURNER: &str = "burn_cycles";
pub(crate) const BURNER_THREAD: &str = "burner";
/// The name needs escaping, in HTML and in a file's name.
pub(crate) const SERVICE: &str = "orders <\"1\">";

/// The one session of this process, with something to see in it.
pub(crate) fn handle() -> Handle {
    static SESSION: LazyLock<Session> = LazyLock::new(|| {
        let session = Config::builder(SERVICE).cpu_hz(250).start().unwrap();
        thread::Builder::new().name(BURNER_THREAD.to_owned()).spawn(|| burn_cycles(&DONE)).unwrap();
        let begin = DONE.load(Ordering::Relaxed);
        wait("the burner has used some CPU", || DONE.load(Ordering::Relaxed) > begin + 50);
        session
    });
    SESSION.handle()
}

/// A handle of a profiler that never started.
pub(crate) fn off() -> Handle {
    Config::builder("idle").enabled(false).start().unwrap().handle()
}

/// Serves the router, for people on this machine, and says where.
pub(crate) fn local() -> SocketAddr {
    serve(router(handle(), Access::loopback()))
}

/// Serves on a free port, as the documentation says.
pub(crate) fn serve(app: Router) -> SocketAddr {
    serve_at("127.0.0.1:0", app).unwrap()
}

/// Serves there; none is an address that this machine does not have.
pub(crate) fn serve_at(address: &str, app: Router) -> Option<SocketAddr> {
    let listener = RUNTIME.block_on(TcpListener::bind(address)).ok()?;
    let address = listener.local_addr().unwrap();
    RUNTIME.spawn(async move {
        let service = app.into_make_service_with_connect_info::<SocketAddr>();
        axum::serve(listener, service).await.unwrap();
    });
    Some(address)
}

/// Serves as someone does who has not read the documentation.
pub(crate) fn serve_without_peers(app: Router) -> SocketAddr {
    let listener = RUNTIME.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    RUNTIME.spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

/// What the log has so far.
pub(crate) fn log() -> String {
    let log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
    String::from_utf8(log.clone()).unwrap()
}

/// Keeps the log; the first one to call it does.
pub(crate) fn keep_log() {
    static KEPT: LazyLock<()> = LazyLock::new(|| {
        tracing_subscriber::fmt().with_ansi(false).with_writer(|| Log).init();
    });
    LazyLock::force(&KEPT);
}

/// Waits until it is so, and fails when that takes too long.
pub(crate) fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Long, for machines that have other things to do.
const PATIENCE: Duration = Duration::from_secs(120);

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());
static DONE: AtomicU64 = AtomicU64::new(0);
static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Log;

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOG.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[inline(never)]
fn burn_cycles(done: &AtomicU64) {
    loop {
        // About a millisecond, even unoptimized on a slow machine; then others get their turn.
        for number in 0..200_000_u64 {
            black_box(number.wrapping_mul(number));
        }
        done.fetch_add(1, Ordering::Relaxed);
        thread::yield_now();
    }
}
