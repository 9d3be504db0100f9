//! A modest client of our own: it holds conversations with us over real HTTP, so that the profile
//! shows a service at work, sockets and parsing included.
//!
//! It runs on one thread, named `load`, with a blocking client: what the load itself costs is one
//! tower of the flame graph and takes nothing from the threads that serve. One request is under
//! way at a time, so a slow service slows it down, and a refusal or a failure makes it pause.

mod pace;
mod rate;
mod talk;

use std::error::Error;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use self::pace::Pace;
pub(crate) use self::rate::Rate;
use self::talk::{Talk, Turn};
use crate::server;

/// The load, for as long as this lives. Its thread ends by itself, after the request that is
/// under way; nobody waits for it.
#[derive(Debug)]
#[must_use = "the load ends when this is dropped"]
pub(crate) struct Load {
    /// Never sent on: that it is gone is the message.
    _stop: Sender<()>,
}

impl Load {
    /// Starts talking to the service at `address`.
    pub(crate) fn start(address: SocketAddr, rate: Rate) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let client = Client::new(server::from_inside(address));
        thread::Builder::new().name("load".into()).spawn(move || run(&client, rate, &stopped))?;
        Ok(Self { _stop: stop })
    }
}

/// How many tokens the load asks for at a time.
const MAX_TOKENS: usize = 40;
/// Longer than any answer to the load should take; a service that needs more is not well.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Any number: every run says the same.
const SEED: u64 = 27;

fn run(client: &Client, rate: Rate, stopped: &Receiver<()>) {
    let mut talk = Talk::new(SEED);
    let mut pace = Pace::new(rate);
    tracing::info!("load: {rate} completions a second");
    loop {
        let turn = talk.turn();
        let started = Instant::now();
        let result = client.take(&turn);
        let was_backing_off = pace.is_backing_off();
        let pause = pace.pause_after(result.is_ok(), started.elapsed());
        match result {
            Err(error) if !was_backing_off => tracing::warn!("load: backing off: {error}"),
            Ok(()) if was_backing_off && !pace.is_backing_off() => {
                tracing::info!("load: back to {rate} a second");
            }
            _ => {}
        }
        match stopped.recv_timeout(pause) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// A client that ignores the proxy settings of its environment: we talk to ourselves.
#[derive(Debug)]
struct Client {
    agent: ureq::Agent,
    service: String,
}

impl Client {
    fn new(address: SocketAddr) -> Self {
        let agent = ureq::Agent::config_builder()
            .proxy(None)
            .timeout_global(Some(TIMEOUT))
            .build()
            .new_agent();
        Self { agent, service: format!("http://{address}") }
    }

    /// Anything but an answer to its end is an error: a refusal, a broken connection or stream. A
    /// conversation that ends is forgotten also then, lest it grow too long.
    fn take(&self, turn: &Turn) -> Result<(), Box<dyn Error>> {
        let answered = self.complete(turn);
        if turn.ends {
            self.forget(turn)?;
        }
        answered
    }

    fn forget(&self, turn: &Turn) -> Result<(), ureq::Error> {
        let url = format!("{}/v1/sessions/{}", self.service, turn.session);
        match self.agent.delete(url).call() {
            // Somebody else has made room already.
            Ok(_) | Err(ureq::Error::StatusCode(404)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn complete(&self, turn: &Turn) -> Result<(), Box<dyn Error>> {
        let Turn { session, prompt, .. } = turn;
        let body = json!({ "session": session, "prompt": prompt, "max_tokens": MAX_TOKENS });
        let mut response = self
            .agent
            .post(format!("{}/v1/completions", self.service))
            .content_type("application/json")
            .send(body.to_string())?;
        // Reading to the end lets the connection be used again.
        let mut is_done = false;
        for line in BufReader::new(response.body_mut().as_reader()).lines() {
            is_done |= line? == "data: [DONE]";
        }
        if is_done { Ok(()) } else { Err("a stream of tokens ended too early".into()) }
    }
}
