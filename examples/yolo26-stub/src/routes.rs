//! The HTTP face of the detector: its routes, its limits, and what its errors are in HTTP.
//!
//! The profiling pages are not here; `main` mounts them beside these.

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Serialize;

use crate::detector::{Answer, Counts, Detector};
use crate::error::DetectError;

/// The most bytes that a picture may have.
pub(crate) const MAX_BODY: usize = 16 << 20;

/// All routes of the service proper.
pub(crate) fn router(detector: Detector) -> Router {
    Router::new()
        .route("/detect", post(detect))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .route("/healthz", get(healthz))
        .with_state(detector)
}

async fn detect(
    State(detector): State<Detector>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Answer>, DetectError> {
    Ok(Json(detector.detect(body?).await?))
}

/// That it answers is the news; the counts are for whoever watches the load.
async fn healthz(State(detector): State<Detector>) -> Json<Health> {
    Json(Health { status: "ok", requests: detector.counts() })
}

#[derive(Debug, Serialize)]
struct Health {
    status: &'static str,
    requests: Counts,
}

impl From<BytesRejection> for DetectError {
    fn from(rejection: BytesRejection) -> Self {
        match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Self::TooManyBytes,
            _ => Self::Unreadable(rejection.body_text()),
        }
    }
}

impl IntoResponse for DetectError {
    fn into_response(self) -> Response {
        let status = match self {
            Self::Empty | Self::Unreadable(_) | Self::Damaged(_) => StatusCode::BAD_REQUEST,
            Self::TooManyBytes | Self::TooManyPixels { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Format(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            Self::Crashed => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let mut response = (status, Json(Problem { error: self.to_string() })).into_response();
        if matches!(self, Self::Overloaded) {
            let second = header::HeaderValue::from_static("1");
            response.headers_mut().insert(header::RETRY_AFTER, second);
        }
        response
    }
}

#[derive(Debug, Serialize)]
struct Problem {
    error: String,
}
