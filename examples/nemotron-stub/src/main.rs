//! The service that will run a small transformer's forward pass, to profile its memory.
//!
//! For now it answers `GET /healthz` and shows its profile, and no more: the forward pass arrives
//! with the heap profiler.
//!
//! It listens on 127.0.0.1:8027, or where `NEMOTRON_ADDR` says. Profiling is the two lines in
//! [`run`] that name it.

#![forbid(unsafe_code)]

use std::env;
use std::error::Error;
use std::ffi::OsStr;
use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::process::ExitCode;

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

#[tokio::main]
#[expect(clippy::print_stderr, reason = "a program's last words")]
async fn main() -> ExitCode {
    let filter =
        EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nemotron-stub: {error}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "the page's address is this program's output")]
async fn run() -> Result<(), Box<dyn Error>> {
    let address = address(env::var_os("NEMOTRON_ADDR").as_deref())?;
    let profiling = hsi_profiling::start("hsi-nemotron");
    let app = Router::new().route("/healthz", get(async || "ok")).merge(
        hsi_profiling_axum::router(profiling.handle(), hsi_profiling_axum::Access::loopback()),
    );

    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let told_to_end = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };

    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| format!("can't listen on {address} (NEMOTRON_ADDR): {error}"))?;
    println!("http://{}/debug/profiling", listener.local_addr()?);
    axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>())
        .with_graceful_shutdown(told_to_end)
        .await?;
    Ok(())
}

const DEFAULT_ADDRESS: &str = "127.0.0.1:8027";

fn address(variable: Option<&OsStr>) -> Result<SocketAddr, String> {
    let text = variable.unwrap_or(OsStr::new(DEFAULT_ADDRESS)).to_string_lossy();
    text.parse().map_err(|_| {
        format!(
            "NEMOTRON_ADDR={text:?} is not an address; \
             IP:PORT is allowed, such as {DEFAULT_ADDRESS} or [::1]:8027"
        )
    })
}
