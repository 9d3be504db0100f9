//! The HTTP face of the service: its routes, its limits, and what its errors are in HTTP.
//!
//! The profiling pages are not here; `main` mounts them beside these.

use std::collections::HashMap;

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::sse::Sse;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use serde::Serialize;

use crate::answer::{Answer, Pieces, Problem};
use crate::error::RequestError;
use crate::generator::{Counts, Generator};
use crate::leak::{Leak, LeakRate, Lost};
use crate::request::{Request, shortened};
use crate::sessions::{Listed, SessionId, Sessions};

/// The most bytes that a request may have. The longest prompt that is allowed fits however its
/// client escapes it.
pub(crate) const MAX_BODY: usize = 64 << 10;

/// What the routes work with.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) generator: Generator,
    pub(crate) sessions: Sessions,
    pub(crate) leak: Leak,
}

/// All routes of the service proper.
pub(crate) fn router(service: Service) -> Router {
    Router::new()
        .route("/v1/completions", post(complete))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .route("/v1/sessions", get(list_sessions))
        .route("/v1/sessions/{id}", delete(delete_session))
        .route("/leak", get(show_leak).post(set_leak))
        .route("/healthz", get(healthz))
        .with_state(service)
}

async fn complete(
    State(Service { generator, .. }): State<Service>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, RequestError> {
    let request = body.map_err(RequestError::from).and_then(|body| Request::parse(&body));
    let request = request.inspect_err(|error| generator.count_error(error))?;
    let stream = request.stream;
    let completion = generator.complete(request).await?;
    if stream {
        Ok(Sse::new(Pieces::new(completion)).into_response())
    } else {
        Ok(Json(Answer::whole(completion).await?).into_response())
    }
}

async fn list_sessions(State(Service { sessions, .. }): State<Service>) -> Json<SessionList> {
    Json(SessionList { sessions: sessions.list() })
}

async fn delete_session(
    State(Service { sessions, .. }): State<Service>,
    Path(id): Path<String>,
) -> Result<StatusCode, RequestError> {
    let id: SessionId = id.parse().map_err(|allowed| RequestError::Field {
        name: "session",
        value: format!("{:?}", shortened(id)),
        allowed,
    })?;
    sessions.remove(&id)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn show_leak(State(Service { leak, .. }): State<Service>) -> Json<Lost> {
    Json(leak.get().await)
}

async fn set_leak(
    State(Service { leak, .. }): State<Service>,
    query: Result<Query<HashMap<String, String>>, QueryRejection>,
) -> Result<Json<Lost>, RequestError> {
    let name = "mb_per_min";
    let given = query.ok().and_then(|Query(mut fields)| fields.remove(name));
    let rate: LeakRate = given.as_deref().unwrap_or_default().parse().map_err(|allowed| {
        let value = given.map_or("missing".into(), |given| format!("{:?}", shortened(given)));
        RequestError::Field { name, value, allowed }
    })?;
    Ok(Json(leak.set(rate).await))
}

/// That it answers is the news; the counts are for whoever watches the load.
async fn healthz(State(Service { generator, .. }): State<Service>) -> Json<Health> {
    Json(Health { status: "ok", completions: generator.counts() })
}

#[derive(Debug, Serialize)]
struct Health {
    status: &'static str,
    completions: Counts,
}

#[derive(Debug, Serialize)]
struct SessionList {
    sessions: Vec<Listed>,
}

impl From<BytesRejection> for RequestError {
    fn from(rejection: BytesRejection) -> Self {
        match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Self::TooManyBytes,
            _ => Self::Unreadable(rejection.body_text()),
        }
    }
}

impl IntoResponse for RequestError {
    fn into_response(self) -> Response {
        let status = match self {
            Self::Unreadable(_)
            | Self::NotJson(_)
            | Self::Field { .. }
            | Self::UnknownField(_)
            | Self::TooManyTokens { .. } => StatusCode::BAD_REQUEST,
            Self::NoSession(_) => StatusCode::NOT_FOUND,
            Self::SessionBusy(_) => StatusCode::CONFLICT,
            Self::TooManyBytes => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            Self::Crashed => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let mut response = (status, Json(Problem::from(&self))).into_response();
        if matches!(self, Self::Overloaded) {
            let second = header::HeaderValue::from_static("1");
            response.headers_mut().insert(header::RETRY_AFTER, second);
        }
        response
    }
}
