//! Answers of the gateway's own: problem documents (RFC 9457) that say who decided, and when to come back.

use std::time::Duration;

use http::{HeaderValue, Response, StatusCode, header};
use serde_json::json;
use tokio::time::Instant;
use tower_didit::{
    call::CorrelationId,
    stack::{Error, ErrorKind},
};

use crate::{
    body::{Answer, UploadError},
    log::Chain,
};

/// An answer of the gateway's own.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    /// The last part of the problem's type.
    kind: &'static str,
    title: &'static str,
    /// Who decided.
    pub(crate) layer: &'static str,
    detail: String,
    retry_after: Option<Duration>,
}

/// When to come back to a circuit that an operator holds open, or to a gateway that is being replaced.
const SOME_TIME: Duration = Duration::from_secs(30);

impl Problem {
    /// What every problem's type begins with.
    const TYPE: &str = "urn:didit-gateway:problem:";

    /// A request that the gateway itself refuses.
    pub(crate) fn refused(
        status: StatusCode,
        kind: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self { status, kind, title, layer: "gateway", detail: detail.into(), retry_after: None }
    }

    /// The gateway is being stopped, and the call was not sent.
    pub(crate) fn stopping() -> Self {
        Self {
            retry_after: Some(Duration::from_secs(1)),
            ..Self::refused(
                StatusCode::SERVICE_UNAVAILABLE,
                "stopping",
                "The gateway is being stopped",
                "the call was not sent, and may be made again",
            )
        }
    }

    /// The gateway was stopped before the call's end.
    pub(crate) fn cut_off() -> Self {
        Self::refused(
            StatusCode::SERVICE_UNAVAILABLE,
            "cut-off",
            "The gateway was stopped before the call ended",
            "the call was sent and may have been carried out",
        )
    }

    /// A call that came to no answer.
    pub(crate) fn of<E: std::error::Error + 'static>(error: &Error<E>) -> Self {
        let retry_after = error.retry_at().map(|at| at.saturating_duration_since(Instant::now()));
        let detail = Chain(error.kind()).to_string();
        let of = |status, kind, title, layer| Self { status, kind, title, layer, detail, retry_after };
        match error.kind() {
            ErrorKind::CircuitOpen(_) => Self {
                retry_after: retry_after.or(Some(SOME_TIME)),
                ..of(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "circuit-open",
                    "This part of Didit fails, and is left alone for now",
                    "circuit-breaker",
                )
            },
            ErrorKind::Quota(_) => {
                of(StatusCode::TOO_MANY_REQUESTS, "quota", "The rate limit has no room in time", "pacing")
            }
            ErrorKind::Deadline(_) => {
                of(StatusCode::GATEWAY_TIMEOUT, "deadline", "The call's total time ran out", "deadline")
            }
            ErrorKind::AttemptTimeout(_) => {
                of(StatusCode::GATEWAY_TIMEOUT, "attempt-timeout", "Didit did not answer in time", "attempt-timeout")
            }
            ErrorKind::Idempotency(_) => {
                of(StatusCode::CONFLICT, "idempotency", "Another call has this one's name", "idempotency")
            }
            ErrorKind::Client(client) => match upload_error(client) {
                Some(upload) => Self::of_upload(upload),
                None => of(StatusCode::BAD_GATEWAY, "transport", "The connection to Didit failed", "transport"),
            },
            _ => of(StatusCode::BAD_GATEWAY, "unsent", "The request could not be sent", "stack"),
        }
    }

    /// The upstream changed to another protocol, which no request of the gateway asks for.
    pub(crate) fn unasked_upgrade() -> Self {
        Self {
            layer: "transport",
            ..Self::refused(
                StatusCode::BAD_GATEWAY,
                "transport",
                "The connection to Didit failed",
                "the upstream changed to another protocol, unasked",
            )
        }
    }

    pub(crate) fn of_upload(error: UploadError) -> Self {
        let (status, kind, title) = match error {
            UploadError::TooLarge { .. } => {
                (StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "The request's body is too large")
            }
            UploadError::Slow { .. } => {
                (StatusCode::REQUEST_TIMEOUT, "body-slow", "The request's body came too slowly")
            }
            UploadError::Broken => (StatusCode::BAD_REQUEST, "body-broken", "The request's body broke off"),
        };
        Self::refused(status, kind, title, error.to_string())
    }

    /// The answer.
    pub(crate) fn into_response(self, id: Option<&CorrelationId>, attempts: u32) -> Response<Answer> {
        let Self { status, kind, title, layer, detail, retry_after } = self;
        // Rounded up: whoever comes back earlier is refused again.
        let seconds = retry_after.map(|wait| (wait.as_millis().div_ceil(1_000)).max(1));
        let document = json!({
            "type": format!("{}{kind}", Self::TYPE),
            "title": title,
            "status": status.as_u16(),
            "detail": detail,
            "layer": layer,
            "correlation_id": id.map(CorrelationId::as_str),
            "attempts": attempts,
            "retry_after": seconds.map(|seconds| u64::try_from(seconds).unwrap_or(u64::MAX)),
        });
        let mut response = Response::new(Answer::own(document.to_string()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = seconds.and_then(|seconds| HeaderValue::try_from(seconds.to_string()).ok()) {
            headers.insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}

/// What was wrong with the application's own body, if that is what ended an attempt.
fn upload_error(error: &(dyn std::error::Error + 'static)) -> Option<UploadError> {
    std::iter::successors(Some(error), |error| error.source()).take(16).find_map(|error| error.downcast_ref().copied())
}
