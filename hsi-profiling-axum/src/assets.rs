//! Style and script of the page: plain files, part of the program, as they stand in the source.

use crate::failure::Failure;
use axum::{
    extract::Path,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};

/// `GET /debug/profiling/assets/{name}`. A browser asks each time whether it has the newest, since
/// the address stays the same when the program does not.
pub(crate) async fn asset(Path(name): Path<String>, request: HeaderMap) -> Response {
    let Some(asset) = ASSETS.iter().find(|asset| asset.name == name) else {
        return Failure::Unknown(format!("there is no asset `{name}`")).into_response();
    };
    let tag = format!("\"{:016x}\"", asset.hash);
    let known = request.get_all(header::IF_NONE_MATCH).iter().any(|tags| {
        let tags = tags.to_str().unwrap_or_default();
        tags.split(',').any(|known| known.trim().trim_start_matches("W/") == tag)
    });
    let headers = [(header::ETAG, tag.as_str()), (header::CACHE_CONTROL, "no-cache")];
    if known {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (headers, [(header::CONTENT_TYPE, asset.content_type)], asset.text).into_response()
}

struct Asset {
    name: &'static str,
    content_type: &'static str,
    text: &'static str,
    hash: u64,
}

impl Asset {
    const fn new(name: &'static str, content_type: &'static str, text: &'static str) -> Self {
        Self { name, content_type, text, hash: hash(text.as_bytes()) }
    }
}

static ASSETS: [Asset; 2] = [
    Asset::new("style.css", "text/css; charset=utf-8", include_str!("assets/style.css")),
    Asset::new("flame.js", "text/javascript; charset=utf-8", include_str!("assets/flame.js")),
];

/// FNV-1a, which is enough to tell two versions of a file apart.
const fn hash(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        at += 1;
    }
    hash
}
