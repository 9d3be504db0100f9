//! The page and the pprof endpoints of [`hsi_profiling`], for a service on axum.
//!
//! ```no_run
//! use axum::Router;
//! use hsi_profiling_axum::{Access, router};
//! use std::net::SocketAddr;
//!
//! # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
//! let profiling = hsi_profiling::Config::builder("orders").start()?;
//! let app = Router::new().merge(router(profiling.handle(), Access::loopback()));
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
//! axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Then `http://localhost:8080/debug/profiling` draws what the process did, and
//! `go tool pprof http://localhost:8080/debug/pprof/profile?seconds=10` works as with a Go service.
//!
//! | `GET` | answers |
//! |---|---|
//! | `/debug/profiling` | the page; `?format=text` gives its table to a terminal |
//! | `/debug/profiling/graph` | the call tree, in the binary form that the page draws |
//! | `/debug/profiling/flamegraph.svg` | a picture that needs no script |
//! | `/debug/profiling/profile.pb.gz` | the view for `go tool pprof` and its relatives |
//! | `/debug/profiling/folded.txt` | the view as folded stacks |
//! | `/debug/profiling/assets/…` | style and script of the page |
//! | `/debug/pprof/` | an index of the below |
//! | `/debug/pprof/profile?seconds=10` | the coming 1 to 60 seconds of CPU, as pprof |
//! | `/debug/pprof/profile?from=-5m&to=now` | the same of the past, at once |
//!
//! A view's query is `type=cpu`, `range=15m` (or `range=custom` with `from` and `to`: `now`,
//! `-5m`, seconds or milliseconds since 1970, or `2026-01-31T03:04:05Z`), `thread=…`, and
//! `label.key=value` for any other label. A field that is not valid is answered with 400, its
//! name, its value and what is allowed.
//!
//! # Security
//!
//! A profile shows the names and paths of your source and what the service is busy with, and
//! making one costs CPU. So [`Access`] has no default, and who has none gets the answer of a path
//! that does not exist: 404, empty. [`Access::loopback`] wants a peer on this machine, a `Host`
//! that says so (which keeps out web sites that rebind their name to `127.0.0.1`), and no sign of
//! a proxy in between; [`Access::bearer_token`] is for scrapers. Nothing here changes the service,
//! and the command line and the environment are never served. The page runs under a content
//! security policy that allows no script, style or connection but its own.
//!
//! The paths are the router's own: nest it to put a prefix before them; every link on the page is
//! relative. A service with its own 404 page should mount this router where that page does not
//! apply, or the plain 404 tells it apart.
#![forbid(unsafe_code)]

mod access;
mod assets;
mod dashboard;
mod download;
mod failure;
mod gzip;
mod headers;
mod links;
mod moment;
mod notes;
mod pages;
mod pprof;
mod query;
mod shown;
mod view;
mod work;

use axum::{Router, middleware, routing::any};
use hsi_profiling::Handle;
use std::sync::Arc;

pub use access::Access;

/// The routes, for those to whom `access` gives it. Merge them into the service's own.
///
/// Call it once in a process: each router bounds the captures and the work that it does at a time.
pub fn router(handle: Handle, access: Access) -> Router {
    tracing::info!(
        "profiling is served under /debug/profiling and /debug/pprof/, to {}",
        access.describe()
    );
    let headers = headers::Headers::new(handle.grafana_url());
    // Not `get`, which would tell those who are denied that there is something that can be got.
    Router::new()
        .route("/debug/profiling", any(dashboard::page))
        .route("/debug/profiling/", any(dashboard::without_slash))
        .route("/debug/profiling/graph", any(dashboard::graph))
        .route("/debug/profiling/flamegraph.svg", any(download::svg))
        .route("/debug/profiling/profile.pb.gz", any(download::pprof))
        .route("/debug/profiling/folded.txt", any(download::folded))
        .route("/debug/profiling/assets/{name}", any(assets::asset))
        .route("/debug/pprof", any(pprof::with_slash))
        .route("/debug/pprof/", any(pprof::index))
        .route("/debug/pprof/profile", any(pprof::profile))
        .route("/debug/pprof/{name}", any(pprof::unknown))
        .with_state(Arc::new(work::Site::new(handle)))
        .layer(middleware::from_fn(access::only_reading))
        .layer(middleware::from_fn_with_state(Arc::new(headers), headers::add))
        // The last layer is the outermost: who is denied sees nothing of the above.
        .layer(middleware::from_fn_with_state(Arc::new(access), access::guard))
}
