//! A small text-generation service, made to be profiled.
//!
//! `POST /v1/completions` takes a prompt, runs a transformer over it on a pool of its own, and
//! streams the tokens that it makes up. The arithmetic is real and so is its cost; the weights are
//! pseudo-random, so what is said means nothing. Sessions keep their caches of keys and values
//! between requests, which is where the memory goes; `POST /leak` makes a leak on purpose. A
//! built-in load keeps the service busy, so that `/debug/profiling` has something to show from the
//! first minute on.
//!
//! Profiling is the two lines that name it in [`run`], and the `stage` labels in the generator.

#![forbid(unsafe_code)]

mod answer;
mod cli;
mod error;
mod generator;
mod leak;
mod load;
mod model;
mod request;
mod rng;
mod routes;
mod server;
mod sessions;

use std::error::Error;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::cli::{Command, Options};
use crate::generator::Generator;
use crate::leak::Leak;
use crate::load::Load;
use crate::routes::Service;
use crate::sessions::Sessions;

/// How many conversations are kept.
const SESSIONS: usize = 32;
/// How many bytes their caches may have together.
const SESSION_BYTES: usize = 128 << 20;

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a program's first and last words")]
fn main() -> ExitCode {
    let options = match Command::from_env() {
        Ok(Command::Run(options)) => options,
        Ok(Command::Help) => {
            print!("{}", cli::HELP);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("nemotron-stub: {error}\nTry --help.");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nemotron-stub: {error}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "the page's address is this program's output")]
fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    log_to_stderr();
    let profiling = hsi_profiling::start("hsi-nemotron");
    let sessions = Sessions::new(SESSIONS, SESSION_BYTES);
    let generator = Generator::new(options.depth, sessions.clone())?;
    let app = routes::router(Service { generator, sessions, leak: Leak::default() }).merge(
        hsi_profiling_axum::router(profiling.handle(), hsi_profiling_axum::Access::loopback()),
    );

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
