//! A server for the browser tests: the real markup, style and script, with a made-up profile.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    thread,
};

use axum::{
    Router,
    extract::{Path, RawQuery, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};

use crate::{
    pages::{self, Choice, Level, Link, Note, Page, TopRow},
    profile::Profile,
};

/// The policy that the real server sends.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; frame-src 'self'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'";

const PICTURE: &str = "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 900 120'><rect width='900' height='120' fill='#fc9'/></svg>";

/// What the server answers to a request for the graph; a test may change it.
#[derive(Clone, Debug)]
pub(crate) enum Graph {
    Show(Profile),
    Bytes(Vec<u8>),
    Fail(StatusCode, &'static str),
}

#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    answer: (StatusCode, Vec<u8>),
    top: Vec<TopRow>,
    queries: Vec<String>,
}

impl Shared {
    /// All work is done before a request, so that a figure taken in the browser is the browser's.
    fn set(&mut self, graph: Graph) {
        self.answer = match graph {
            Graph::Show(profile) => {
                self.top = top(&profile);
                (StatusCode::OK, profile.encode())
            }
            Graph::Bytes(bytes) => (StatusCode::OK, bytes),
            Graph::Fail(status, text) => (status, text.into()),
        };
    }
}

type Context = State<Arc<Mutex<Shared>>>;

impl Server {
    /// Starts on a free port of the loopback; the thread ends with the test's process.
    pub(crate) fn start(graph: Graph) -> Self {
        Self::start_on(graph, 0)
    }

    /// Starts on a port of one's choice, to look at the page by hand.
    pub(crate) fn start_on(graph: Graph, port: u16) -> Self {
        let mut shared = Shared::default();
        shared.set(graph);
        let state = Arc::new(Mutex::new(shared));
        let router = Router::new()
            .route("/debug/profiling", get(page))
            .route("/debug/profiling/graph", get(graph_bytes))
            .route(
                "/debug/profiling/flamegraph.svg",
                get(|| async { ([(header::CONTENT_TYPE, "image/svg+xml")], PICTURE) }),
            )
            .route("/debug/profiling/assets/{name}", get(asset))
            .with_state(Arc::clone(&state));
        let (sender, receiver) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
                sender.send(listener.local_addr().unwrap()).unwrap();
                axum::serve(listener, router).await.unwrap();
            });
        });
        Self { address: receiver.recv().unwrap(), state }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/debug/profiling", self.address)
    }

    pub(crate) fn set(&self, graph: Graph) {
        self.state.lock().unwrap().set(graph);
    }

    /// The queries of the requests for the graph so far.
    pub(crate) fn queries(&self) -> Vec<String> {
        self.state.lock().unwrap().queries.clone()
    }
}

async fn graph_bytes(State(state): Context, RawQuery(query): RawQuery) -> Response {
    let mut state = state.lock().unwrap();
    state.queries.push(query.unwrap_or_default());
    let (status, bytes) = state.answer.clone();
    (status, [(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response()
}

async fn asset(Path(name): Path<String>) -> Response {
    let kind = if name.ends_with(".js") { "text/javascript" } else { "text/css" };
    match std::fs::read(format!("{}/src/assets/{name}", env!("CARGO_MANIFEST_DIR"))) {
        Ok(bytes) => {
            ([(header::CONTENT_TYPE, kind), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")], bytes)
                .into_response()
        }
        Err(_) => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn page(State(state): Context) -> Response {
    let top = state.lock().unwrap().top.clone();
    let html = pages::overview(&page_of(top)).into_string();
    ([(header::CONTENT_SECURITY_POLICY, POLICY)], axum::response::Html(html)).into_response()
}

fn top(profile: &Profile) -> Vec<TopRow> {
    let total = profile.total();
    let mut functions: Vec<_> = profile.functions().into_iter().collect();
    functions.sort_by_key(|(_, sums)| std::cmp::Reverse(sums.self_value));
    functions
        .into_iter()
        .take(20)
        .map(|(name, sums)| TopRow {
            name,
            self_value: pages::format::value(sums.self_value, profile.unit),
            self_percent: pages::format::percent(sums.self_value, total),
            total_value: pages::format::value(sums.total, profile.unit),
            total_percent: pages::format::percent(sums.total, total),
            source: "src/lib.rs:1".to_owned(),
        })
        .collect()
}

fn page_of(top: Vec<TopRow>) -> Page {
    let base = "profiling/";
    let choices = |list: &[(&str, &str)], chosen: &str| {
        list.iter()
            .map(|(value, label)| Choice {
                value: (*value).to_owned(),
                label: (*label).to_owned(),
                selected: *value == chosen,
            })
            .collect()
    };
    let link = |id: &str, label: &str, url: Option<&str>| Link {
        id: id.to_owned(),
        label: label.to_owned(),
        url: url.map(str::to_owned),
        hint: "The same service, type and window".to_owned(),
    };
    Page {
        service: "yolo26".to_owned(),
        title: "CPU time".to_owned(),
        services: choices(&[("yolo26", "yolo26")], "yolo26"),
        types: choices(
            &[
                ("cpu", "CPU time"),
                ("alloc_space", "Allocated bytes"),
                ("inuse_space", "Heap in use"),
            ],
            "cpu",
        ),
        ranges: choices(
            &[
                ("1m", "last 1 minute"),
                ("5m", "last 5 minutes"),
                ("15m", "last 15 minutes"),
                ("1h", "last hour"),
                ("6h", "last 6 hours"),
                ("24h", "last 24 hours"),
                ("custom", "custom …"),
            ],
            "15m",
        ),
        threads: choices(
            &[
                ("", "all threads"),
                ("tokio-runtime-w", "tokio-runtime-w (8)"),
                ("rayon", "rayon (4)"),
            ],
            "",
        ),
        links: vec![
            link("grafana", "Open in Grafana", Some("http://grafana.example/d/x")),
            link("explore", "Explore", Some("http://grafana.example/explore")),
            link("pyroscope", "Open Pyroscope", None),
        ],
        downloads: vec![
            link("pprof", "pprof", Some("profiling/download?format=pprof")),
            link("svg", "SVG picture", Some("profiling/flamegraph.svg")),
        ],
        style_url: format!("{base}assets/style.css"),
        script_url: format!("{base}assets/flame.js"),
        graph_url: format!("{base}graph"),
        svg_url: format!("{base}flamegraph.svg?type=cpu&range=15m"),
        top,
        notes: vec![Note {
            label: "Samples".to_owned(),
            value: "4,812".to_owned(),
            level: Level::Info,
        }],
        ..Page::default()
    }
}
