//! Profiles for the browser tests: made up, but of the shape that a Tokio service has. The sums that
//! a test expects of the page are taken here, in the plainest way, not with the page's algorithms.

use std::collections::{BTreeMap, HashMap, HashSet};

/// A call tree, as the server would send it.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    pub(crate) title: String,
    pub(crate) unit: &'static str,
    /// Preorder; siblings heaviest first; node 0 is the root.
    pub(crate) nodes: Vec<Node>,
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) depth: usize,
    pub(crate) name: String,
    pub(crate) self_value: u64,
}

/// Self and total of one function, recursion counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) self_value: u64,
    pub(crate) total: u64,
}

impl Profile {
    /// A profile of stacks, callers first, each with its value.
    pub(crate) fn from_stacks<'a>(stacks: impl IntoIterator<Item = (u64, Vec<&'a str>)>) -> Self {
        let mut root = Tree::default();
        for (value, stack) in stacks {
            let mut at = &mut root;
            at.total += value;
            for name in stack {
                at = at.children.entry(name.to_owned()).or_default();
                at.total += value;
            }
            at.self_value += value;
        }
        let mut nodes = Vec::new();
        root.flatten("all", 0, &mut nodes);
        Self { title: "CPU time".to_owned(), unit: "nanoseconds", nodes }
    }

    /// An inference service on Tokio: decoding, a model, rayon, and the runtime's long stacks.
    pub(crate) fn service() -> Self {
        Self::service_with(0, &["another::stack"])
    }

    /// The same service with one more stack.
    pub(crate) fn service_with(value: u64, stack: &[&'static str]) -> Self {
        let mut random = Random(7);
        let more = [(value, stack.to_vec())].into_iter().filter(|(value, _)| *value > 0);
        Self::from_stacks(
            SERVICE
                .iter()
                .flat_map(|(weight, parts)| {
                    let stack: Vec<&str> =
                        parts.iter().flat_map(|part| part.iter().copied()).collect();
                    // Some samples end on the way, as they do in life.
                    let shorter = stack[..stack.len() - 1].to_vec();
                    let value = weight * 1_000_000 * (80 + random.below(40)) / 100;
                    [(value, stack), (value / (4 + random.below(9)), shorter)]
                })
                .chain(more),
        )
    }

    /// A bushy profile with at least `count` nodes: stacks 30 to 75 deep, 2500 names of about 60 characters.
    pub(crate) fn bushy(count: usize) -> Self {
        let mut random = Random(11);
        let names: Vec<String> = (0..2_500)
            .map(|n| {
                let krate = CRATES[random.below(CRATES.len() as u64) as usize];
                let module = MODULES[random.below(MODULES.len() as u64) as usize];
                format!(
                    "{krate}::{module}::pipeline::stage_{:02}::Worker<T, S>::step_{n:04}",
                    n % 40
                )
            })
            .collect();
        // Each stack leaves an earlier one somewhere and goes on by itself.
        let mut stacks: Vec<(u64, Vec<&str>)> = Vec::new();
        let mut nodes = 0;
        while nodes <= count + count / 100 {
            let mut stack = match stacks.len() as u64 {
                0 => Vec::new(),
                len => {
                    let (_, earlier) = &stacks[random.below(len) as usize];
                    let cut = earlier.len() as u64 * (20 + random.below(80)) / 100;
                    earlier[..cut as usize].to_vec()
                }
            };
            let shared = stack.len();
            while stack.len() < shared + 1 || stack.len() < 30 + random.below(45) as usize {
                stack.push(&names[random.below(names.len() as u64) as usize]);
            }
            nodes += stack.len() - shared;
            let value = 10_000_000 * (1 + 4_000 / (1 + random.below(4_000)));
            stacks.push((value, stack));
        }
        Self::from_stacks(stacks)
    }

    pub(crate) fn total(&self) -> u64 {
        self.nodes.iter().map(|node| node.self_value).sum()
    }

    /// The functions by name. A total counts each self value once, however deep the recursion.
    pub(crate) fn functions(&self) -> BTreeMap<String, Sums> {
        let mut sums = BTreeMap::<String, Sums>::new();
        let mut stack: Vec<&str> = Vec::new();
        for node in &self.nodes {
            stack.truncate(node.depth);
            stack.push(&node.name);
            for name in stack[1..].iter().collect::<HashSet<_>>() {
                sums.entry((*name).to_owned()).or_default().total += node.self_value;
            }
            if node.depth > 0 {
                sums.entry(node.name.clone()).or_default().self_value += node.self_value;
            }
        }
        sums
    }

    /// The value of all samples with at least one matching frame.
    pub(crate) fn matched(&self, test: impl Fn(&str) -> bool) -> u64 {
        let mut stack: Vec<&str> = Vec::new();
        let mut sum = 0;
        for node in &self.nodes {
            stack.truncate(node.depth);
            stack.push(&node.name);
            if stack.iter().any(|name| test(name)) {
                sum += node.self_value;
            }
        }
        sum
    }

    /// The bytes of the wire format, "flame v1".
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut strings = vec![String::new()];
        let mut index = HashMap::from([(String::new(), 0)]);
        let mut intern = |text: &str| {
            *index.entry(text.to_owned()).or_insert_with(|| {
                strings.push(text.to_owned());
                strings.len() as u64 - 1
            })
        };
        let mut frames = Vec::new();
        let mut frame_of = HashMap::new();
        let mut tree = Vec::new();
        for node in &self.nodes {
            let frame = *frame_of.entry(node.name.clone()).or_insert_with(|| {
                let krate = crate_of(&node.name);
                let (file, line) = source_of(&node.name, krate);
                frames.push([intern(&node.name), intern(&file), line, intern(krate)]);
                frames.len() as u64 - 1
            });
            tree.push([node.depth as u64, frame, node.self_value]);
        }
        let meta = serde_json::json!({
            "type": "cpu", "unit": self.unit, "title": self.title,
            "from": 1_763_859_600_000_u64, "to": 1_763_860_500_000_u64,
            "samples": self.total() / 10_000_000, "total": self.total(),
            "notes": [
                {"label": "Samples", "value": "4,812 at 99 Hz (effective 98.7)", "level": "info"},
                {"label": "Window", "value": "15 min of 15 min held", "level": "info"},
                {"label": "Lost", "value": "12 ring full, 0 unwind", "level": "warn"},
                {"label": "Hidden", "value": "0%", "level": "info"},
                {"label": "Overhead", "value": "0.08% of one CPU, 5.2 MiB", "level": "info"},
                {"label": "Symbols", "value": "libonnxruntime.so is stripped: install its debug file", "level": "warn"},
            ],
        })
        .to_string();
        let mut bytes = b"HSF1".to_vec();
        text(&mut bytes, &meta);
        varint(&mut bytes, strings.len() as u64);
        for string in &strings {
            text(&mut bytes, string);
        }
        for table in [
            frames.iter().map(|frame| &frame[..]).collect::<Vec<_>>(),
            tree.iter().map(|node| &node[..]).collect(),
        ] {
            varint(&mut bytes, table.len() as u64);
            table.iter().copied().flatten().for_each(|value| varint(&mut bytes, *value));
        }
        bytes
    }
}

#[derive(Default)]
struct Tree {
    total: u64,
    self_value: u64,
    children: BTreeMap<String, Self>,
}

impl Tree {
    fn flatten(&self, name: &str, depth: usize, nodes: &mut Vec<Node>) {
        nodes.push(Node { depth, name: name.to_owned(), self_value: self.self_value });
        let mut children: Vec<_> = self.children.iter().collect();
        children.sort_by_key(|(_, child)| std::cmp::Reverse(child.total));
        for (name, child) in children {
            child.flatten(name, depth + 1, nodes);
        }
    }
}

/// The crate of a path: the first identifier of it.
pub(crate) fn crate_of(name: &str) -> &str {
    let path = name.trim_start_matches(['<', '&']).trim_start_matches("mut ");
    match path.split_once("::") {
        Some((krate, _)) => krate,
        None if name == "all" => "",
        None if name.starts_with("Mlas") || name.starts_with("onnx") => "libonnxruntime.so",
        None => "libc.so.6",
    }
}

fn source_of(name: &str, krate: &str) -> (String, u64) {
    let line = 20 + name.len() as u64 * 7 % 900;
    match krate {
        "" | "libc.so.6" | "libonnxruntime.so" => (String::new(), 0),
        "yolo26" => ("src/pipeline.rs".to_owned(), line),
        krate => (format!("{krate}-1.2.3/src/lib.rs"), line),
    }
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    varint(bytes, text.len() as u64);
    bytes.extend_from_slice(text.as_bytes());
}

fn varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value > 127 {
        bytes.push(value as u8 | 128);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// xorshift64*: the same profile in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % limit
    }
}

const CRATES: [&str; 12] = [
    "yolo26",
    "tokio",
    "hyper",
    "image",
    "ndarray",
    "serde_json",
    "ort",
    "zune_jpeg",
    "core",
    "alloc",
    "axum",
    "rayon",
];
const MODULES: [&str; 6] =
    ["decode", "session", "runtime::task", "ops", "codec::baseline", "tensor::layout"];

const THREAD: &[&str] = &[
    "clone3",
    "start_thread",
    "std::sys::pal::unix::thread::Thread::new::thread_start",
    "<alloc::boxed::Box<F, A> as core::ops::function::FnOnce<Args>>::call_once",
    "core::ops::function::FnOnce::call_once{{vtable.shim}}",
    "std::thread::Builder::spawn_unchecked_::{{closure}}",
    "std::panic::catch_unwind",
    "std::panicking::try::do_call",
    "std::sys::backtrace::__rust_begin_short_backtrace",
];
const WORKER: &[&str] = &[
    "tokio::runtime::blocking::pool::Spawner::spawn_thread::{{closure}}",
    "tokio::runtime::blocking::pool::Inner::run",
    "tokio::runtime::task::harness::Harness<T, S>::poll",
    "tokio::runtime::task::core::Core<T, S>::poll",
    "<tokio::runtime::blocking::task::BlockingTask<T> as core::future::future::Future>::poll",
    "tokio::runtime::scheduler::multi_thread::worker::Launch::launch::{{closure}}",
    "tokio::runtime::scheduler::multi_thread::worker::run",
    "tokio::runtime::context::runtime::enter_runtime",
    "tokio::runtime::scheduler::multi_thread::worker::Context::run",
];
const TASK: &[&str] = &[
    "tokio::runtime::scheduler::multi_thread::worker::Context::run_task",
    "tokio::runtime::coop::budget",
    "tokio::runtime::task::raw::RawTask::poll",
    "tokio::runtime::task::harness::poll_future::{{closure}}",
    "<core::pin::Pin<P> as core::future::future::Future>::poll",
    "<hyper_util::server::conn::auto::UpgradeableConnection<I, S, E> as core::future::future::Future>::poll",
    "hyper::proto::h1::dispatch::Dispatcher<D, Bs, I, T>::poll_catch",
    "hyper::proto::h1::dispatch::Dispatcher<D, Bs, I, T>::poll_loop",
];
const ROUTE: &[&str] = &[
    "<tower::util::oneshot::Oneshot<S, Req> as core::future::future::Future>::poll",
    "<tower_http::trace::future::ResponseFuture<Fut, C, OnResponse> as core::future::future::Future>::poll",
    "<axum::routing::route::RouteFuture<E> as core::future::future::Future>::poll",
    "<axum::handler::future::IntoServiceFuture<F> as core::future::future::Future>::poll",
];
const DETECT: &[&str] =
    &["yolo26::routes::detect::{{closure}}", "yolo26::pipeline::Pipeline<B>::run::{{closure}}"];
const INFER: &[&str] = &[
    "yolo26::model::Detector<B>::infer",
    "ort::session::Session::run_inner",
    "onnxruntime::InferenceSession::Run(OrtRunOptions const&)",
    "onnxruntime::ExecuteThePlan",
];
const JPEG: &[&str] = &[
    "yolo26::image::decode",
    "image::image_reader::free_functions::load",
    "<image::codecs::jpeg::decoder::JpegDecoder<R> as image::image::ImageDecoder>::read_image",
    "zune_jpeg::decoder::JpegDecoder<T>::decode_into",
];
const RAYON: &[&str] = &[
    "rayon_core::registry::ThreadBuilder::run",
    "rayon_core::registry::WorkerThread::wait_until_cold",
    "<rayon_core::job::StackJob<L, F, R> as rayon_core::job::Job>::execute",
    "rayon::iter::plumbing::bridge_producer_consumer::helper",
    "rayon::iter::plumbing::bridge_producer_consumer::helper::{{closure}}",
];

type Parts = &'static [&'static [&'static str]];

const SERVICE: &[(u64, Parts)] = &[
    (
        9100,
        &[
            THREAD,
            WORKER,
            TASK,
            ROUTE,
            DETECT,
            INFER,
            &["onnxruntime::Conv<float>::Compute", "MlasConv", "MlasGemmFloatKernelAvx512F"],
        ],
    ),
    (
        2600,
        &[
            THREAD,
            WORKER,
            TASK,
            ROUTE,
            DETECT,
            INFER,
            &["onnxruntime::Conv<float>::Compute", "MlasConv", "MlasConvIm2Col"],
        ],
    ),
    (
        1500,
        &[
            THREAD,
            WORKER,
            TASK,
            ROUTE,
            DETECT,
            INFER,
            &["onnxruntime::Sigmoid<float>::Compute", "MlasComputeLogistic"],
        ],
    ),
    (
        700,
        &[
            THREAD,
            WORKER,
            TASK,
            ROUTE,
            DETECT,
            INFER,
            &["onnxruntime::Concat::Compute", "__memmove_avx_unaligned_erms"],
        ],
    ),
    (
        3300,
        &[
            THREAD,
            WORKER,
            TASK,
            ROUTE,
            DETECT,
            JPEG,
            &[
                "zune_jpeg::mcu::<impl zune_jpeg::decoder::JpegDecoder<T>>::decode_mcu_ycbcr_baseline",
                "zune_jpeg::bitstream::BitStream::decode_mcu_block",
            ],
        ],
    ),
    (
        1400,
        &[
            THREAD,
            WORKER,
            TASK,
            ROUTE,
            DETECT,
            JPEG,
            &[
                "zune_jpeg::mcu::<impl zune_jpeg::decoder::JpegDecoder<T>>::decode_mcu_ycbcr_baseline",
                "zune_jpeg::idct::avx2::idct_avx2",
            ],
        ],
    ),
    (
        800,
        &[
            THREAD,
            WORKER,
            TASK,
            ROUTE,
            DETECT,
            JPEG,
            &[
                "zune_jpeg::worker::upsample_and_color_convert",
                "zune_jpeg::color_convert::avx::ycbcr_to_rgb_avx2",
            ],
        ],
    ),
    (
        2100,
        &[
            THREAD,
            WORKER,
            TASK,
            ROUTE,
            DETECT,
            &[
                "yolo26::image::letterbox",
                "image::imageops::sample::resize",
                "image::imageops::sample::vertical_sample",
            ],
        ],
    ),
    (
        1300,
        &[
            THREAD,
            WORKER,
            TASK,
            ROUTE,
            DETECT,
            &[
                "yolo26::image::letterbox",
                "image::imageops::sample::resize",
                "image::imageops::sample::horizontal_sample",
            ],
        ],
    ),
    (
        900,
        &[
            THREAD,
            WORKER,
            TASK,
            ROUTE,
            DETECT,
            &[
                "yolo26::tensor::to_chw",
                "ndarray::impl_methods::<impl ndarray::ArrayBase<S, D>>::assign",
                "ndarray::zip::Zip<P, D>::for_each",
            ],
        ],
    ),
    (
        1200,
        &[
            THREAD,
            WORKER,
            TASK,
            ROUTE,
            DETECT,
            &[
                "yolo26::nms::suppress",
                "core::slice::sort::unstable::quicksort::quicksort",
                "yolo26::nms::suppress::{{closure}}",
            ],
        ],
    ),
    (500, &[THREAD, WORKER, TASK, ROUTE, DETECT, &["yolo26::nms::suppress", "yolo26::nms::iou"]]),
    (
        650,
        &[
            THREAD,
            WORKER,
            TASK,
            ROUTE,
            &[
                "<axum::json::Json<T> as axum_core::response::into_response::IntoResponse>::into_response",
                "serde_json::ser::to_writer",
                "<yolo26::api::Detection as serde::ser::Serialize>::serialize",
                "serde_json::ser::format_escaped_str",
            ],
        ],
    ),
    (
        240,
        &[
            THREAD,
            WORKER,
            TASK,
            ROUTE,
            &[
                "<axum::json::Json<T> as axum_core::response::into_response::IntoResponse>::into_response",
                "serde_json::ser::to_writer",
                "<yolo26::api::Detection as serde::ser::Serialize>::serialize",
                "ryu::pretty::format64",
            ],
        ],
    ),
    (
        420,
        &[
            THREAD,
            WORKER,
            TASK,
            &[
                "hyper::proto::h1::io::Buffered<T, B>::poll_flush",
                "<tokio::net::tcp::stream::TcpStream as tokio::io::async_write::AsyncWrite>::poll_write_vectored",
                "writev",
            ],
        ],
    ),
    (
        380,
        &[
            THREAD,
            WORKER,
            TASK,
            &[
                "hyper::proto::h1::conn::Conn<I, B, T>::poll_read_head",
                "<hyper::proto::h1::role::Server as hyper::proto::h1::Http1Transaction>::parse",
                "httparse::Request::parse_with_uninit_headers",
            ],
        ],
    ),
    (
        160,
        &[
            THREAD,
            WORKER,
            TASK,
            &[
                "tracing::span::Span::record_all",
                "<tracing_subscriber::registry::sharded::Registry as tracing_core::subscriber::Subscriber>::new_span",
                "sharded_slab::pool::Pool<T, C>::create_with",
            ],
        ],
    ),
    (
        700,
        &[
            THREAD,
            WORKER,
            &[
                "tokio::runtime::scheduler::multi_thread::worker::Context::park",
                "tokio::runtime::time::Driver::park_internal",
                "tokio::runtime::io::driver::Driver::turn",
                "mio::poll::Poll::poll",
                "epoll_wait",
            ],
        ],
    ),
    (
        1900,
        &[
            THREAD,
            RAYON,
            &[
                "yolo26::image::normalize_rows::{{closure}}",
                "ndarray::zip::Zip<(P1, P2), D>::inner",
                "yolo26::image::normalize_rows::{{closure}}::{{closure}}",
            ],
        ],
    ),
    (
        600,
        &[
            THREAD,
            RAYON,
            &[
                "rayon::iter::plumbing::bridge_producer_consumer::helper",
                "rayon::iter::plumbing::bridge_producer_consumer::helper::{{closure}}",
                "yolo26::image::normalize_rows::{{closure}}",
            ],
        ],
    ),
    (
        260,
        &[
            THREAD,
            &[
                "rayon_core::registry::ThreadBuilder::run",
                "rayon_core::registry::WorkerThread::wait_until_cold",
                "rayon_core::sleep::Sleep::sleep",
                "syscall",
            ],
        ],
    ),
    (
        90,
        &[
            THREAD,
            &[
                "tikv_jemalloc::background_thread_entry",
                "background_work_sleep_once",
                "pthread_cond_timedwait",
            ],
        ],
    ),
    (
        45,
        &[&[
            "_start",
            "__libc_start_main",
            "main",
            "std::rt::lang_start_internal",
            "yolo26::main",
            "tokio::runtime::runtime::Runtime::block_on",
        ]],
    ),
    (12, &[THREAD, WORKER, TASK, ROUTE, &["yolo26::routes::health", "<script>alert(1)</script>"]]),
];
