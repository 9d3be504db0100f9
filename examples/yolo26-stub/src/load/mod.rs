//! A modest client of our own: it posts generated pictures to us over real HTTP, so that the
//! profile shows a service at work, sockets and parsing included.
//!
//! It runs on one thread, named `load`, with a blocking client: what the load itself costs is one
//! tower of the flame graph and takes nothing from the threads that serve. One request is under
//! way at a time, so a slow service slows it down, and a refusal or a failure makes it pause.

mod pace;
mod rate;
mod scene;

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use self::pace::Pace;
pub(crate) use self::rate::Rate;
use self::scene::Scene;
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
    /// Starts posting to the service at `address`.
    pub(crate) fn start(address: SocketAddr, rate: Rate) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let url = format!("http://{}/detect", server::from_inside(address));
        thread::Builder::new().name("load".into()).spawn(move || run(&url, rate, &stopped))?;
        Ok(Self { _stop: stop })
    }
}

/// Longer than any picture of ours should take; a service that needs more is not well.
const TIMEOUT: Duration = Duration::from_secs(10);

fn run(url: &str, rate: Rate, stopped: &Receiver<()>) {
    let scenes = match Scene::all() {
        Ok(scenes) => scenes,
        Err(error) => return tracing::error!("no load: a scene could not be encoded: {error}"),
    };
    let agent = agent();
    let mut pace = Pace::new(rate);
    tracing::info!("load: {} pictures in turn, {rate} a second", scenes.len());
    for scene in scenes.iter().cycle() {
        let started = Instant::now();
        let result = post(&agent, url, scene);
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
fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().proxy(None).timeout_global(Some(TIMEOUT)).build().new_agent()
}

/// Anything but a picture answered is an error: a refusal, a rejection, a broken connection.
fn post(agent: &ureq::Agent, url: &str, scene: &Scene) -> Result<(), ureq::Error> {
    let mut response =
        agent.post(url).content_type(scene.content_type).send(scene.bytes.as_slice())?;
    // Reading to the end lets the connection be used again.
    response.body_mut().read_to_vec()?;
    Ok(())
}
