//! The program, its port, its answer.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Far more than anything here takes.
const DEADLINE: Duration = Duration::from_secs(30);

#[test]
fn it_answers_at_the_printed_address() {
    let mut process = Killed(
        Command::new(env!("CARGO_BIN_EXE_nemotron-stub"))
            .env("NEMOTRON_ADDR", "127.0.0.1:0")
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts"),
    );
    let output = BufReader::new(process.0.stdout.take().expect("a pipe"));
    let (send, receive) = mpsc::channel();
    thread::spawn(move || send.send(output.lines().next()));
    let line = receive.recv_timeout(DEADLINE).expect("a line in time");
    let page = line.expect("a line").expect("readable");

    let agent = ureq::Agent::config_builder()
        .proxy(None)
        .timeout_global(Some(DEADLINE))
        .build()
        .new_agent();
    let health = page.replace("/debug/profiling", "/healthz");
    let mut answer = agent.get(health).call().expect("an answer");
    assert_eq!(answer.body_mut().read_to_string().expect("text"), "ok");
    assert_eq!(agent.get(page).call().expect("an answer").status(), 200);
}

/// Ends with the test, however the test ends.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
