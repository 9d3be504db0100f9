//! The whole service as an operator and a client meet it: the program, its port, its answers.

use std::io::{BufRead, BufReader, Cursor, Read};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use image::{ImageFormat, Rgb, RgbImage};
use serde_json::Value;

/// Far more than anything here takes; a test that gets there has failed.
const DEADLINE: Duration = Duration::from_secs(60);

#[test]
fn pictures_are_answered_and_the_same_each_time() {
    let service = Service::start(&["--no-load", "--size", "64"]);
    for format in [ImageFormat::Png, ImageFormat::Jpeg] {
        let picture = picture(150, 100, format);
        let (status, answer) = service.detect(&picture);
        assert_eq!(status, 200, "{answer}");
        assert_eq!((&answer["width"], &answer["height"]), (&150.into(), &100.into()));

        let detections = answer["detections"].as_array().expect("a list");
        assert!(!detections.is_empty());
        for detection in detections {
            assert!(detection["class"].is_string());
            let confidence = detection["confidence"].as_f64().expect("a number");
            assert!((0.25..=1.0).contains(&confidence));
            let bounds: Vec<f64> = serde_json::from_value(detection["box"].clone()).expect("4");
            let [x, y, width, height] = bounds[..] else { panic!("{bounds:?}") };
            assert!(x >= 0.0 && y >= 0.0 && width > 0.0 && height > 0.0, "{bounds:?}");
            assert!(x + width <= 150.2 && y + height <= 100.2, "{bounds:?}");
        }
        for stage in ["queue", "decode", "letterbox", "infer", "nms", "total"] {
            assert!(answer["timings_ms"][stage].as_f64().is_some_and(|ms| ms >= 0.0), "{stage}");
        }

        let (_, again) = service.detect(&picture);
        assert_eq!(answer["detections"], again["detections"]);
    }
}

#[test]
fn what_cannot_be_answered_is_named() {
    let service = Service::start(&["--no-load", "--size", "64"]);
    let check = |body: &[u8], status: u16, parts: &[&str]| {
        let (got, answer) = service.detect(body);
        let error = answer["error"].as_str().unwrap_or_default();
        assert_eq!(got, status, "{answer}");
        assert!(parts.iter().all(|part| error.contains(part)), "{error:?} lacks one of {parts:?}");
    };
    check(b"", 400, &["empty", "JPEG", "PNG"]);
    check(b"not a picture", 415, &["JPEG", "PNG"]);
    check(b"GIF89a\x01\x00\x01\x00", 415, &["GIF", "JPEG", "PNG"]);
    check(&picture(64, 64, ImageFormat::Png)[..100], 400, &["damaged"]);
    check(&picture(8193, 1, ImageFormat::Png), 413, &["8193 x 1", "8192", "24 million"]);
    check(&vec![0; (16 << 20) + 1], 413, &["16 MiB"]);

    let health = service.health();
    assert_eq!(health["requests"]["detected"], 0, "{health}");
}

#[test]
fn what_is_too_much_is_refused_at_once() {
    let service =
        Service::start_with(&["--no-load", "--size", "96"], &[("RAYON_NUM_THREADS", "1")]);
    let picture = picture(64, 64, ImageFormat::Png);
    let statuses: Vec<u16> = thread::scope(|scope| {
        let clients: Vec<_> = (0..16).map(|_| scope.spawn(|| service.detect(&picture))).collect();
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
    assert_eq!(service.health()["requests"]["refused"], count(503));
}

#[test]
fn the_load_keeps_the_service_busy() {
    let service = Service::start(&["--rate", "100", "--size", "64"]);
    // Six scenes: each has been taken at least once.
    wait_until(|| service.health()["requests"]["detected"].as_u64() >= Some(7));
    let health = service.health();
    assert_eq!(health["status"], "ok");
    for misfortune in ["rejected", "refused", "failed"] {
        assert_eq!(health["requests"][misfortune], 0, "{health}");
    }
}

#[test]
fn the_profiling_page_answers_at_the_printed_address() {
    let service = Service::start(&["--no-load", "--size", "64"]);
    let response = agent().get(&service.page).call().expect("an answer");
    assert_eq!(response.status(), 200);
}

#[test]
fn it_leaves_in_good_order_when_told_to() {
    let mut service = Service::start(&["--rate", "50", "--size", "64"]);
    let told = Command::new("sh")
        .args(["-c", &format!("kill -TERM {}", service.process.id())])
        .status()
        .expect("a shell");
    assert!(told.success());
    wait_until(|| service.process.try_wait().expect("a child").is_some());
    assert!(service.process.wait().expect("a child").success());
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let output = finish(program(&["--no-load"]).env("YOLO26_ADDR", &address));
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    for part in [address.as_str(), "in use", "YOLO26_ADDR"] {
        assert!(error.contains(part), "{error} lacks {part}");
    }
}

#[test]
fn a_bad_setting_is_named_and_nothing_is_served() {
    let output = finish(program(&[]).env("YOLO26_ADDR", "nowhere"));
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("YOLO26_ADDR") && error.contains("nowhere"), "{error}");
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
            .env("YOLO26_ADDR", "127.0.0.1:0")
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

    fn detect(&self, body: &[u8]) -> (u16, Value) {
        read(agent().post(self.url("/detect")).send(body))
    }

    fn health(&self) -> Value {
        let (status, health) = read(agent().get(self.url("/healthz")).call());
        assert_eq!(status, 200);
        health
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

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_yolo26-stub"));
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

/// A picture with something in it: a checkered disc on a gradient.
fn picture(width: u32, height: u32, format: ImageFormat) -> Vec<u8> {
    let picture = RgbImage::from_fn(width, height, |x, y| {
        let (across, down) = (x.abs_diff(width / 2), y.abs_diff(height / 2));
        if across * across + down * down < 900 {
            Rgb([255 * ((x / 8 + y / 8) % 2) as u8, 40, 200])
        } else {
            Rgb([(x * 255 / width) as u8, (y * 255 / height) as u8, 90])
        }
    });
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).expect("encodes");
    bytes.into_inner()
}
