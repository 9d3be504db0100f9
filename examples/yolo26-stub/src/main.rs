//! A small object-detection service, made to be profiled.
//!
//! `POST /detect` takes a JPEG or PNG picture, runs a convolutional network over it on a pool of
//! its own, and answers with boxes. The arithmetic is real and so is its cost; the weights are
//! pseudo-random, so the boxes mean nothing. A built-in load keeps the service busy, so that
//! `/debug/profiling` has something to show from the first minute on.
//!
//! Profiling is the two lines that name it in [`run`], and the `stage` labels in the detector.

#![forbid(unsafe_code)]

mod cli;
mod detector;
mod error;
mod letterbox;
mod load;
mod network;
mod nms;
mod picture;
mod rng;
mod routes;
mod server;

use std::error::Error;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::cli::{Command, Options};
use crate::detector::Detector;
use crate::load::Load;

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a program's first and last words")]
fn main() -> ExitCode {
    let options = match Command::from_env() {
        Ok(Command::Run(options)) => options,
        Ok(Command::Help) => {
            print!("{}", cli::HELP);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("yolo26-stub: {error}\nTry --help.");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("yolo26-stub: {error}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "the page's address is this program's output")]
fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    log_to_stderr();
    let profiling = hsi_profiling::start("hsi-yolo26");
    let detector = Detector::new(options.size)?;
    let app = routes::router(detector).merge(hsi_profiling_axum::router(
        profiling.handle(),
        hsi_profiling_axum::Access::loopback(),
    ));

    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("http").build()?;
    runtime.block_on(async {
        let listener = server::bind(options.address).await?;
        let address = listener.local_addr()?;
        // Whoever reads the address may at once tell us to end.
        let told_to_end = server::told_to_end()?;
        println!("http://{}/debug/profiling", server::from_inside(address));
        let load = options.load.map(|rate| Load::start(address, rate)).transpose()?;
        Ok(server::serve(listener, app, load, told_to_end).await?)
    })
}

/// Standard output is left to the page's address, which scripts may want to read.
fn log_to_stderr() {
    let filter =
        EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
}
