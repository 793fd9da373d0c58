//! What the service's callers learn when a call to Didit comes to nothing.

use std::error::Error;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use didit_api::ErrorBody;
use http::{
    HeaderValue, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
    response::Parts,
};
use serde_json::json;
use tokio::time::Instant;
use tower_didit::stack::{self, ErrorKind};

/// An error as callers see it: a small JSON object (RFC 9457), and when to come back if that is known.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    title: &'static str,
    retry_after: Option<HeaderValue>,
}

// ===== impl Problem =====

impl Problem {
    fn new(status: StatusCode, title: &'static str) -> Self {
        Self { status, title, retry_after: None }
    }

    pub(crate) fn bad_request(title: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, title)
    }

    pub(crate) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "there is no such verification")
    }

    pub(crate) fn unreadable(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let error = error.into();
        tracing::error!(error = &*error as &(dyn Error + 'static), "the answer could not be read");
        Self::new(StatusCode::BAD_GATEWAY, "the verification service broke off its answer")
    }

    /// What an answer that is not a success means to the service's callers.
    pub(crate) fn refused(parts: &Parts, body: &[u8]) -> Self {
        // `ErrorBody` leaves out of its text whatever may repeat what a user entered.
        tracing::warn!(status = parts.status.as_u16(), body = %ErrorBody::parse(body), "refused");
        match parts.status {
            StatusCode::NOT_FOUND => Self::not_found(),
            // The stack has already waited and repeated as long as it may.
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Self {
                retry_after: parts.headers.get(RETRY_AFTER).cloned(),
                ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "the verification service is busy")
            },
            // A wrong key, an empty account, an unknown workflow: nothing that the caller could change.
            _ => Self::new(StatusCode::BAD_GATEWAY, "the verification service refused the request"),
        }
    }
}

/// One match says what each way of failing means, because the stack has one error.
impl<E: Error + 'static> From<stack::Error<E>> for Problem {
    fn from(error: stack::Error<E>) -> Self {
        tracing::error!(error = &error as &(dyn Error + 'static), "the call failed");
        let (status, title) = match error.kind() {
            ErrorKind::Quota(_) | ErrorKind::CircuitOpen(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, "the verification service is busy")
            }
            ErrorKind::Deadline(_) | ErrorKind::AttemptTimeout(_) => {
                (StatusCode::GATEWAY_TIMEOUT, "the verification service took too long")
            }
            ErrorKind::Client(_) => (StatusCode::BAD_GATEWAY, "the verification service cannot be reached"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "the request could not be sent"),
        };
        // Whole seconds, rounded up: whoever comes back earlier is refused again.
        let seconds = |at: Instant| at.saturating_duration_since(Instant::now()).as_secs() + 1;
        Self { retry_after: error.retry_at().map(|at| seconds(at).into()), ..Self::new(status, title) }
    }
}

impl From<http::Error> for Problem {
    fn from(error: http::Error) -> Self {
        tracing::error!(error = &error as &(dyn Error + 'static), "the request could not be built");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the request could not be sent")
    }
}

impl From<serde_json::Error> for Problem {
    fn from(error: serde_json::Error) -> Self {
        // Where, not what: the text of the error may quote what stands there.
        tracing::error!(line = error.line(), column = error.column(), "the answer is not what was expected");
        Self::new(StatusCode::BAD_GATEWAY, "the verification service gave an unexpected answer")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = json!({ "title": self.title, "status": self.status.as_u16() });
        let mut response = (self.status, Json(body)).into_response();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, seconds);
        }
        response
    }
}
