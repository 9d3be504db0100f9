//! A headless Chromium, driven over the DevTools protocol. Every wait polls and has a deadline.

use std::{
    collections::VecDeque,
    env, fs,
    io::ErrorKind,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// One browser at a time: figures taken beside four others are figures of the machine.
static ALONE: Mutex<()> = Mutex::new(());

/// A browser with one tab. It ends, and its files go, with this value.
#[derive(Debug)]
pub(crate) struct Browser {
    child: Child,
    home: PathBuf,
    socket: WebSocket<TcpStream>,
    session: Option<String>,
    sent: u64,
    events: VecDeque<Value>,
    problems: Vec<String>,
    _alone: MutexGuard<'static, ()>,
}

impl Browser {
    /// Starts a browser, or says on stderr that there is none. In CI there has to be one.
    pub(crate) fn start() -> Option<Self> {
        let Some(program) = find() else {
            assert!(
                env::var_os("HSI_CI").is_none_or(|value| value != "1"),
                "HSI_CI=1 and no Chromium: install one, or name it in CHROMIUM"
            );
            eprintln!("SKIPPED: no Chromium on PATH and none named in CHROMIUM");
            return None;
        };
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let home = env::temp_dir().join(format!("hsi-browser-{}-{count}", std::process::id()));
        fs::create_dir_all(&home).unwrap();
        let child = Command::new(&program)
            .args(ARGUMENTS)
            .arg(format!("--user-data-dir={}", home.display()))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", program.display()));
        let (port, path) = address(&home);
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_nodelay(true).unwrap();
        let url = format!("ws://127.0.0.1:{port}{path}");
        let (socket, _) = tungstenite::client(url, stream).unwrap();
        socket.get_ref().set_read_timeout(Some(POLL)).unwrap();
        let mut browser = Self {
            child,
            home,
            socket,
            session: None,
            sent: 0,
            events: VecDeque::new(),
            problems: Vec::new(),
            _alone: alone,
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let attached = browser.call(
            "Target.attachToTarget",
            json!({"targetId": target["targetId"], "flatten": true}),
        );
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser.call("Performance.enable", json!({"timeDomain": "threadTicks"}));
        browser.size(1280, 800);
        Some(browser)
    }

    /// Sends a command and waits for its result.
    pub(crate) fn call(&mut self, method: &str, params: Value) -> Value {
        let answer = self.ask(method, params);
        answer.unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// Sends a command and waits for its result, or for why there is none.
    fn ask(&mut self, method: &str, params: Value) -> Result<Value, Value> {
        self.sent += 1;
        let id = self.sent;
        let mut message = json!({"id": id, "method": method});
        message["params"] = params;
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.socket.send(Message::text(message.to_string())).unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "no answer to {method} within {PATIENCE:?}");
            let Some(message) = self.read() else { continue };
            if message["id"] == json!(id) {
                return match message.get("error") {
                    Some(error) => Err(error.clone()),
                    None => Ok(message["result"].clone()),
                };
            }
            self.keep(message);
        }
    }

    /// One message, or none within a poll's time.
    fn read(&mut self) -> Option<Value> {
        match self.socket.read() {
            Ok(Message::Text(text)) => Some(serde_json::from_str(&text).unwrap()),
            Ok(_) => None,
            Err(tungstenite::Error::Io(error))
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
            {
                None
            }
            Err(error) => panic!("the browser is gone: {error}"),
        }
    }

    fn keep(&mut self, event: Value) {
        let params = &event["params"];
        match event["method"].as_str().unwrap_or_default() {
            "Runtime.exceptionThrown" => self.problems.push(params["exceptionDetails"].to_string()),
            "Runtime.consoleAPICalled" if params["type"] == "error" => {
                self.problems.push(params["args"].to_string())
            }
            // Violations of the content security policy are entries of this log.
            "Log.entryAdded" if params["entry"]["level"] == "error" => {
                self.problems.push(params["entry"].to_string())
            }
            "Page.javascriptDialogOpening" => self.problems.push(format!("a dialog: {params}")),
            _ => {}
        }
        self.events.push_back(event);
    }

    /// What went wrong in the page so far: errors, violations, dialogs.
    pub(crate) fn problems(&mut self) -> Vec<String> {
        // What the page said before this call has an earlier place in the stream.
        self.eval("0");
        std::mem::take(&mut self.problems)
    }

    /// Goes to an address and waits for the page to load.
    pub(crate) fn open(&mut self, url: &str) {
        self.load("Page.navigate", json!({"url": url}));
    }

    /// Loads the same address again.
    pub(crate) fn reload(&mut self) {
        self.load("Page.reload", json!({}));
    }

    fn load(&mut self, method: &str, params: Value) {
        self.events.clear();
        self.call(method, params);
        let deadline = Instant::now() + PATIENCE;
        while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            assert!(Instant::now() < deadline, "{method}: no page within {PATIENCE:?}");
            if let Some(message) = self.read() {
                self.keep(message);
            }
        }
    }

    /// The value of an expression in the page; a promise is waited for.
    pub(crate) fn eval(&mut self, expression: &str) -> Value {
        let answer = self.call(
            "Runtime.evaluate",
            json!({"expression": expression, "awaitPromise": true, "returnByValue": true}),
        );
        assert!(
            answer.get("exceptionDetails").is_none(),
            "{expression}: {}",
            answer["exceptionDetails"]["exception"]["description"]
        );
        answer["result"]["value"].clone()
    }

    pub(crate) fn text(&mut self, expression: &str) -> String {
        match self.eval(expression) {
            Value::String(text) => text,
            other => panic!("{expression} is {other}, not a text"),
        }
    }

    pub(crate) fn number(&mut self, expression: &str) -> f64 {
        self.eval(expression).as_f64().unwrap_or_else(|| panic!("{expression} is not a number"))
    }

    /// Waits until an expression is true.
    pub(crate) fn wait(&mut self, expression: &str) {
        let deadline = Instant::now() + PATIENCE;
        let parameters =
            json!({"expression": format!("Boolean({expression})"), "returnByValue": true});
        loop {
            // A page that is just being left can't be asked; the next one can.
            let answer = self.ask("Runtime.evaluate", parameters.clone());
            if answer.as_ref().is_ok_and(|answer| answer["result"]["value"] == json!(true)) {
                return;
            }
            assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {expression}: {answer:?}");
            thread::sleep(POLL);
        }
    }

    /// The CPU time of the page's main thread so far, in milliseconds.
    pub(crate) fn cpu(&mut self) -> f64 {
        let metrics = self.call("Performance.getMetrics", json!({}));
        let tasks =
            metrics["metrics"].as_array().unwrap().iter().find(|m| m["name"] == "TaskDuration");
        tasks.and_then(|m| m["value"].as_f64()).unwrap() * 1_000.0
    }

    pub(crate) fn size(&mut self, width: u32, height: u32) {
        self.call(
            "Emulation.setDeviceMetricsOverride",
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false}),
        );
    }

    pub(crate) fn prefer(&mut self, feature: &str, value: &str) {
        self.call(
            "Emulation.setEmulatedMedia",
            json!({"features": [{"name": feature, "value": value}]}),
        );
    }

    pub(crate) fn scripts(&mut self, on: bool) {
        self.call("Emulation.setScriptExecutionDisabled", json!({"value": !on}));
    }

    pub(crate) fn hover(&mut self, x: f64, y: f64) {
        self.call("Input.dispatchMouseEvent", json!({"type": "mouseMoved", "x": x, "y": y}));
    }

    pub(crate) fn click(&mut self, x: f64, y: f64) {
        self.hover(x, y);
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1});
            self.call("Input.dispatchMouseEvent", event);
        }
    }

    /// Clicks the middle of an element.
    pub(crate) fn click_on(&mut self, element: &str) {
        let at = self.eval(&format!(
            "{{ const e = {element}; e.scrollIntoView({{ block: 'nearest' }}); const b = e.getBoundingClientRect(); ({{ x: b.x + b.width / 2, y: b.y + b.height / 2 }}) }}"
        ));
        self.click(at["x"].as_f64().unwrap(), at["y"].as_f64().unwrap());
    }

    /// Presses a key by its DOM name: `Enter`, `ArrowDown`, `n`.
    pub(crate) fn key(&mut self, key: &str) {
        let text = if key.chars().count() == 1 { key } else { "" };
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" { text } else { "" };
            self.call("Input.dispatchKeyEvent", json!({"type": kind, "key": key, "text": text}));
        }
    }

    /// Types into the focused field.
    pub(crate) fn insert(&mut self, text: &str) {
        self.call("Input.insertText", json!({"text": text}));
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // A polite end lets its helper processes go too; the kill is for a browser that hangs.
        let close = json!({"id": self.sent + 1, "method": "Browser.close"});
        let _ = self.socket.send(Message::text(close.to_string()));
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            thread::sleep(POLL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.home);
    }
}

const ARGUMENTS: &[&str] = &[
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--no-first-run",
    "--remote-debugging-port=0",
];

fn find() -> Option<PathBuf> {
    if let Some(named) = env::var_os("CHROMIUM").filter(|value| !value.is_empty()) {
        return Some(named.into());
    }
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .flat_map(|dir| {
            ["chromium", "chromium-browser", "google-chrome"].map(|name| dir.join(name))
        })
        .find(|candidate| candidate.is_file())
}

/// The port and the path that the browser wrote down once it listened.
fn address(home: &Path) -> (u16, String) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = fs::read_to_string(home.join("DevToolsActivePort")).unwrap_or_default();
        if let Some((port, path)) = text.split_once('\n')
            && path.starts_with('/')
        {
            return (port.parse().unwrap(), path.trim().to_owned());
        }
        assert!(Instant::now() < deadline, "the browser did not listen within {PATIENCE:?}");
        thread::sleep(POLL);
    }
}
