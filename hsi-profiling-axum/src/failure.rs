//! What is answered instead of a profile: a status, and a sentence that says what to do.

use axum::{
    http::{HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
};
use hsi_profiling::Error;

/// Why a request has no profile for an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// A field of the query is not valid.
    Field { field: String, value: String, allowed: String },
    /// Profiling does not run.
    Off(String),
    /// As much is done at a time as may be.
    Busy(String),
    /// There is nothing at this path.
    Unknown(String),
    /// A fault of ours; the log has it.
    Internal,
}

impl Failure {
    /// A field of the query that is not valid.
    pub(crate) fn field(field: &str, value: &str, allowed: impl Into<String>) -> Self {
        let (mut shown, mut rest) = (String::new(), value.chars());
        shown.extend(rest.by_ref().take(MOST_VALUE_CHARS));
        if rest.next().is_some() {
            shown.push('…');
        }
        Self::Field { field: field.to_owned(), value: shown, allowed: allowed.into() }
    }
}

const MOST_VALUE_CHARS: usize = 100;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Query { field, value, allowed } => Self::field(field, &value, allowed),
            Error::NotRunning => Self::Off(error.to_string()),
            other => {
                tracing::error!("a profile could not be made: {other}");
                Self::Internal
            }
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, text) = match self {
            Self::Field { field, value, allowed } => (
                StatusCode::BAD_REQUEST,
                format!("{field}: `{value}` is not valid; allowed: {allowed}"),
            ),
            Self::Off(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason),
            Self::Busy(text) => (StatusCode::TOO_MANY_REQUESTS, text),
            Self::Unknown(text) => (StatusCode::NOT_FOUND, text),
            Self::Internal => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "the profile could not be made; the service's log says why".to_owned(),
            ),
        };
        let headers = [
            (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
            // With it, `go tool pprof` prints the text and not just the status.
            (GO_PPROF, "1"),
        ];
        (status, headers, format!("{text}\n")).into_response()
    }
}

const GO_PPROF: HeaderName = HeaderName::from_static("x-go-pprof");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_value_is_cut_at_a_character() {
        let Failure::Field { value, .. } = Failure::field("f", &"é".repeat(500), "less") else {
            panic!("not a field");
        };
        assert_eq!(value.chars().count(), MOST_VALUE_CHARS + 1);
        let Failure::Field { value, .. } = Failure::field("f", "é", "less") else {
            panic!("not a field");
        };
        assert_eq!(value, "é");
    }
}
