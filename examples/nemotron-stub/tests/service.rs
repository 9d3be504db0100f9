//! The whole service as an operator and a client meet it: the program, its port, its answers.

use std::io::{BufRead, BufReader, Lines, Read};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Far more than anything here takes; a test that gets there has failed.
const DEADLINE: Duration = Duration::from_secs(60);

/// The smallest model: the tests are about the service.
const QUIET: &[&str] = &["--no-load", "--layers", "1"];

/// What takes so long that it is still under way when a client has seen its first tokens.
const LONG: &[&str] = &["--no-load", "--layers", "8"];

#[test]
fn a_completion_is_streamed_token_by_token() {
    let service = Service::start(QUIET);
    let stream = service.stream(&json!({ "prompt": "The cache grows", "max_tokens": 12 }));
    let mut events: Vec<String> = stream.collect();
    assert_eq!(events.pop().as_deref(), Some("[DONE]"));
    let pieces: Vec<Value> =
        events.iter().map(|event| serde_json::from_str(event).expect("JSON")).collect();

    let (last, tokens) = pieces.split_last().expect("pieces");
    assert_eq!(tokens.len(), 12);
    for piece in &pieces {
        assert_eq!(piece["object"], "text_completion");
        assert_eq!(piece["model"], "nemotron-stub");
        assert_eq!(piece["id"], last["id"]);
        assert!(piece["created"].as_u64().is_some_and(|seconds| seconds > 1_700_000_000));
        assert!(piece["choices"][0]["text"].is_string(), "{piece}");
    }
    assert!(tokens.iter().all(|piece| piece["choices"][0]["finish_reason"].is_null()));
    assert_eq!(last["choices"][0]["finish_reason"], "length");
    let usage = &last["usage"];
    assert_eq!(usage["completion_tokens"], 12);
    let prompt = usage["prompt_tokens"].as_u64().expect("a number");
    assert!(prompt > 0);
    assert_eq!(usage["total_tokens"], prompt + 12);
    assert_eq!(service.health()["completions"]["completed"], 1);
}

#[test]
fn without_chance_the_answer_is_the_same_whole_or_in_pieces() {
    let service = Service::start(QUIET);
    let mut body = json!({ "prompt": "Where does the time go?", "temperature": 0 });
    let streamed = service.say(&body);

    body["stream"] = false.into();
    let (status, answer) = service.complete(&body);
    assert_eq!(status, 200, "{answer}");
    let text = answer["choices"][0]["text"].as_str().expect("a text");
    assert!(!text.is_empty());
    assert_eq!(text, streamed);
    // The default.
    assert_eq!(answer["usage"]["completion_tokens"], 64);
}

#[test]
fn a_session_goes_on_where_it_was_and_grows() {
    let service = Service::start(QUIET);
    let turn = |prompt: &str| {
        let body = json!({ "prompt": prompt, "session": "tea", "max_tokens": 5, "stream": false });
        let (status, answer) = service.complete(&body);
        assert_eq!(status, 200, "{answer}");
        answer["usage"].clone()
    };
    let first = turn("Please explain");
    assert_eq!(first["prompt_tokens_details"]["cached_tokens"], 0);
    let [after_first] = &service.sessions()[..] else { panic!("one session") };
    assert_eq!(after_first["id"], "tea");
    assert_eq!(after_first["tokens"], first["total_tokens"]);
    assert_eq!(after_first["busy"], false);

    let second = turn(" the queue, in as many words as it takes to make a cache grow.");
    assert_eq!(second["prompt_tokens_details"]["cached_tokens"], first["total_tokens"]);
    let [after_second] = &service.sessions()[..] else { panic!("one session") };
    assert_eq!(after_second["tokens"], second["total_tokens"]);
    assert!(after_second["bytes"].as_u64() > after_first["bytes"].as_u64(), "{after_second}");

    assert_eq!(service.delete("tea").0, 204);
    assert!(service.sessions().is_empty());
    let (status, answer) = service.delete("tea");
    assert_eq!(status, 404);
    assert!(answer.contains("no session tea"), "{answer}");
    assert_eq!(turn("Please explain")["prompt_tokens_details"]["cached_tokens"], 0);
}

#[test]
fn a_session_remembers_what_was_said() {
    let service = Service::start(QUIET);
    let answer = |prompt: &str, session: &str, max_tokens: u32| {
        service.say(&json!({
            "prompt": prompt, "session": session, "max_tokens": max_tokens, "temperature": 0,
        }))
    };
    // The same last prompt after another first one.
    answer("Fog, light wind from the west, no ships.", "sea", 3);
    answer("The river runs past the mill.", "mill", 3);
    assert_ne!(answer(" What is next?", "sea", 20), answer(" What is next?", "mill", 20));
}

#[test]
fn a_session_has_an_end() {
    let service = Service::start(QUIET);
    let body = json!({
        // Letters and commas in turn, which no merge joins.
        "prompt": "a,".repeat(1000), "session": "long", "max_tokens": 100, "stream": false,
    });
    let (status, answer) = service.complete(&body);
    assert_eq!(status, 200, "{answer}");
    // As many as there is room for; the last one is said and not read any more.
    assert_eq!(answer["usage"]["total_tokens"], 2049, "{answer}");
    assert_eq!(answer["usage"]["completion_tokens"], 49);

    let (status, answer) = service.complete(&body);
    assert_eq!(status, 400);
    let error = answer["error"].as_str().expect("a sentence");
    for part in ["prompt has 2000 tokens", "session has 2049", "2047 together"] {
        assert!(error.contains(part), "{error} lacks {part}");
    }
    assert_eq!(service.sessions()[0]["tokens"], 2049);
}

#[test]
fn what_cannot_be_answered_is_named() {
    let service = Service::start(QUIET);
    let check = |body: &str, status: u16, parts: &[&str]| {
        let (got, answer) = read(agent().post(service.url("/v1/completions")).send(body));
        let error = answer["error"].as_str().unwrap_or_default();
        assert_eq!(got, status, "{answer}");
        assert!(parts.iter().all(|part| error.contains(part)), "{error:?} lacks one of {parts:?}");
    };
    check("", 400, &["JSON"]);
    check("{", 400, &["JSON"]);
    check("{}", 400, &["prompt is missing", "1 to 8192 bytes"]);
    check(r#"{"prompt": 7}"#, 400, &["prompt is 7", "1 to 8192 bytes"]);
    check(r#"{"prompt": "a", "max_tokens": 513}"#, 400, &["max_tokens is 513", "1 to 512"]);
    check(r#"{"prompt": "a", "session": "a/b"}"#, 400, &["session is \"a/b\"", "64 letters"]);
    check(r#"{"prompt": "a", "temperature": -1}"#, 400, &["temperature is -1", "0 to 2"]);
    check(r#"{"prompt": "a", "stream": 1}"#, 400, &["stream is 1", "true and false"]);
    check(r#"{"prompt": "a", "top_k": 1}"#, 400, &["top_k", "max_tokens", "temperature"]);
    check(&" ".repeat((64 << 10) + 1), 413, &["64 KiB"]);

    let (status, answer) = service.delete("a%20b");
    assert_eq!(status, 400);
    assert!(answer.contains("a b") && answer.contains("64 letters"), "{answer}");

    let completions = &service.health()["completions"];
    assert_eq!(completions["rejected"], 10);
    assert_eq!(completions["completed"], 0);
}

#[test]
fn what_is_too_much_is_refused_at_once() {
    let service = Service::start_with(QUIET, &[("RAYON_NUM_THREADS", "1")]);
    let body = json!({ "prompt": "a", "max_tokens": 100, "stream": false });
    let statuses: Vec<u16> = thread::scope(|scope| {
        let clients: Vec<_> = (0..16).map(|_| scope.spawn(|| service.complete(&body))).collect();
        clients
            .into_iter()
            .map(|client| {
                let (status, answer) = client.join().expect("a client");
                let error = answer["error"].as_str().unwrap_or_default();
                assert_eq!(status == 503, error.contains("try again"), "{answer}");
                status
            })
            .collect()
    });
    let count = |status| statuses.iter().filter(|&&got| got == status).count();
    assert!(count(200) >= 4 && count(503) >= 1 && count(200) + count(503) == 16, "{statuses:?}");
    assert_eq!(service.health()["completions"]["refused"], count(503));
}

#[test]
fn who_hangs_up_is_not_worked_for() {
    let service = Service::start(LONG);
    let body = json!({ "prompt": "Tell the story", "session": "cut", "max_tokens": 512 });
    // Should a machine stand still for as long as all tokens take, the next client does it.
    wait_until(|| {
        let before = service.health();
        let mut stream = service.stream(&body);
        assert!(stream.next().is_some_and(|event| event.contains("text_completion")));
        drop(stream);
        wait_until(|| service.endings() > endings(&before));
        service.health()["completions"]["cancelled"].as_u64() >= Some(1)
    });
    let generated = service.health()["completions"]["generated_tokens"].as_u64();
    let whole = service.endings() * 512;
    assert!(generated < Some(whole), "{generated:?} of {whole}");
    // What was said until then is kept.
    let [session] = &service.sessions()[..] else { panic!("one session") };
    assert!(session["busy"] == false && session["tokens"].as_u64() > Some(1), "{session}");
}

#[test]
fn the_leak_leaks_for_as_long_as_it_is_told_to() {
    let service = Service::start(QUIET);
    let set = |query: &str| read(agent().post(service.url("/leak") + query).send_empty());
    let get = || read(agent().get(service.url("/leak")).call()).1;
    assert_eq!(get(), json!({ "mb_per_min": 0, "leaked_bytes": 0 }));

    for (query, value) in [
        ("", "missing"),
        ("?mb_per_min=", "\"\""),
        ("?mb_per_min=1025", "\"1025\""),
        ("?mb_per_min=-1", "\"-1\""),
        ("?rate=1", "missing"),
    ] {
        let (status, answer) = set(query);
        assert_eq!(status, 400, "{query}");
        let error = answer["error"].as_str().expect("a sentence");
        let expect = format!("mb_per_min is {value}; a whole number from 0 to 1024 is allowed");
        assert_eq!(error, expect);
    }
    assert_eq!(get(), json!({ "mb_per_min": 0, "leaked_bytes": 0 }));

    let (status, answer) = set("?mb_per_min=600");
    assert_eq!((status, &answer["mb_per_min"]), (200, &600.into()));
    wait_until(|| get()["leaked_bytes"].as_u64() > Some(1 << 20));

    let (status, stopped) = set("?mb_per_min=0");
    assert_eq!((status, &stopped["mb_per_min"]), (200, &0.into()));
    // What was lost stays lost, and no more is.
    assert!(stopped["leaked_bytes"].as_u64() > Some(1 << 20));
    assert_eq!(get(), stopped);
}

#[test]
fn the_load_keeps_the_service_busy() {
    let service = Service::start(&["--rate", "100", "--layers", "1"]);
    wait_until(|| {
        let completed = service.health()["completions"]["completed"].as_u64();
        completed >= Some(8) && service.sessions().len() > 1
    });
    let health = service.health();
    assert_eq!(health["status"], "ok");
    for misfortune in ["cancelled", "rejected", "refused", "failed"] {
        assert_eq!(health["completions"][misfortune], 0, "{health}");
    }
}

#[test]
fn the_profiling_page_answers_at_the_printed_address() {
    let service = Service::start(QUIET);
    let response = agent().get(&service.page).call().expect("an answer");
    assert_eq!(response.status(), 200);
}

#[test]
fn it_leaves_in_good_order_when_told_to() {
    let mut service = Service::start(&["--rate", "50", "--layers", "1"]);
    service.tell_to_end();
    wait_until(|| service.process.try_wait().expect("a child").is_some());
    assert!(service.process.wait().expect("a child").success());
}

#[test]
fn a_stream_that_is_open_does_not_keep_it_from_leaving() {
    let mut service = Service::start(LONG);
    let mut stream = service.stream(&json!({ "prompt": "Tell the story", "max_tokens": 512 }));
    assert!(stream.next().is_some());
    service.tell_to_end();
    // The client stays, and reads no more.
    wait_until(|| service.process.try_wait().expect("a child").is_some());
    assert!(service.process.wait().expect("a child").success());
    drop(stream);
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let output = finish(program(QUIET).env("NEMOTRON_ADDR", &address));
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    for part in [address.as_str(), "in use", "NEMOTRON_ADDR"] {
        assert!(error.contains(part), "{error} lacks {part}");
    }
}

#[test]
fn a_bad_setting_is_named_and_nothing_is_served() {
    let output = finish(program(&[]).env("NEMOTRON_ADDR", "nowhere"));
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("NEMOTRON_ADDR") && error.contains("nowhere"), "{error}");
    assert!(output.stdout.is_empty());
}

/// The program on a port of its own, for as long as this lives.
struct Service {
    process: Child,
    /// The address it printed.
    page: String,
}

impl Service {
    fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[])
    }

    fn start_with(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut process = program(arguments)
            .env("NEMOTRON_ADDR", "127.0.0.1:0")
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let output = BufReader::new(process.stdout.take().expect("a pipe"));
        let mut service = Self { process, page: String::new() };
        let (send, receive) = mpsc::channel();
        thread::spawn(move || send.send(output.lines().next()));
        let line = receive.recv_timeout(DEADLINE).expect("a line in time");
        service.page = line.expect("a line").expect("readable");
        assert!(service.page.ends_with("/debug/profiling"), "{}", service.page);
        service
    }

    fn complete(&self, body: &Value) -> (u16, Value) {
        read(agent().post(self.url("/v1/completions")).send(body.to_string()))
    }

    fn stream(&self, body: &Value) -> Events {
        let response = agent().post(self.url("/v1/completions")).send(body.to_string());
        let response = response.expect("an answer");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Events(BufReader::new(response.into_body().into_reader()).lines())
    }

    /// The text of a completion that is streamed.
    fn say(&self, body: &Value) -> String {
        let pieces = self.stream(body).filter(|event| event != "[DONE]");
        let texts = pieces.map(|piece| -> String {
            let piece: Value = serde_json::from_str(&piece).expect("JSON");
            piece["choices"][0]["text"].as_str().expect("a text").into()
        });
        texts.collect()
    }

    fn sessions(&self) -> Vec<Value> {
        let (status, answer) = read(agent().get(self.url("/v1/sessions")).call());
        assert_eq!(status, 200);
        serde_json::from_value(answer["sessions"].clone()).expect("a list")
    }

    fn delete(&self, session: &str) -> (u16, String) {
        let url = self.url(&format!("/v1/sessions/{session}"));
        let mut response = agent().delete(url).call().expect("an answer");
        (response.status().as_u16(), response.body_mut().read_to_string().expect("a body"))
    }

    fn health(&self) -> Value {
        let (status, health) = read(agent().get(self.url("/healthz")).call());
        assert_eq!(status, 200);
        health
    }

    fn endings(&self) -> u64 {
        endings(&self.health())
    }

    fn tell_to_end(&self) {
        let told = Command::new("sh")
            .args(["-c", &format!("kill -TERM {}", self.process.id())])
            .status()
            .expect("a shell");
        assert!(told.success());
    }

    fn url(&self, path: &str) -> String {
        self.page.replace("/debug/profiling", path)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The data of server-sent events, as they come. Dropped, it closes the connection.
struct Events(Lines<BufReader<ureq::BodyReader<'static>>>);

impl Iterator for Events {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        // Between two events there is an empty line.
        let line =
            self.0.by_ref().map(|line| line.expect("a line")).find(|line| !line.is_empty())?;
        Some(line.strip_prefix("data: ").expect("data").into())
    }
}

/// How many completions have ended, one way or the other.
fn endings(health: &Value) -> u64 {
    let count = |ending: &str| health["completions"][ending].as_u64().expect("a number");
    count("completed") + count("cancelled") + count("failed")
}

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nemotron-stub"));
    command.args(arguments);
    command
}

/// Runs a program that is expected to end by itself.
fn finish(command: &mut Command) -> Output {
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let mut in_time = || child.try_wait().expect("a child").is_some();
    let deadline = Instant::now() + DEADLINE;
    while !in_time() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
    // Where it is still there it is killed, and its status shows that.
    let _ = child.kill();
    child.wait_with_output().expect("a child")
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .proxy(None)
        .http_status_as_error(false)
        .timeout_global(Some(DEADLINE))
        .build()
        .new_agent()
}

fn read(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> (u16, Value) {
    let mut response = response.expect("an answer");
    let mut body = String::new();
    response.body_mut().as_reader().read_to_string(&mut body).expect("a body");
    (response.status().as_u16(), serde_json::from_str(&body).expect("JSON"))
}

#[track_caller]
fn wait_until(mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !done() {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}");
        thread::sleep(Duration::from_millis(5));
    }
}
