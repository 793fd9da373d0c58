//! Answers of the gateway's own: problem documents (RFC 9457) that say who decided, and when to come back.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::json;
use tokio::time::Instant;
use tower_didit::{
    call::CorrelationId,
    stack::{Error, ErrorKind},
};

use crate::{
    attempts::Sent,
    body::{Answer, UploadError},
    framing::Violation,
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
    /// Whether nothing more is taken on the connection.
    pub(crate) is_last: bool,
}

/// When to come back to a circuit that an operator holds open, or to a gateway that is being replaced.
const SOME_TIME: Duration = Duration::from_secs(30);

impl Problem {
    /// What every problem's type begins with.
    const TYPE: &str = "urn:didit-gateway:problem:";

    const MEDIA_TYPE: &str = "application/problem+json";

    /// A request that the gateway itself refuses.
    pub(crate) fn refused(
        status: StatusCode,
        kind: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self { status, kind, title, layer: "gateway", detail: detail.into(), retry_after: None, is_last: true }
    }

    /// The gateway is being stopped, and the call is not waited for.
    pub(crate) fn stopped(sent: &Sent) -> Self {
        let (kind, title, detail) = match (sent.is_in_doubt(), sent.count()) {
            (true, _) => (
                "cut-off",
                "The gateway was stopped before the call ended",
                "the call was sent and may have been carried out",
            ),
            (false, 0) => ("stopping", "The gateway is being stopped", "the call was not sent, and may be made again"),
            (false, _) => (
                "stopping",
                "The gateway is being stopped",
                "no attempt of the call was carried out, and it may be made again",
            ),
        };
        // Whoever waits between attempts may be repeated: its route says so, if it is in doubt. Whether one that is cut
        // off in the middle may be is its application's to say.
        let retry_after = (!sent.is_under_way()).then_some(Duration::from_secs(1));
        Self { retry_after, ..Self::refused(StatusCode::SERVICE_UNAVAILABLE, kind, title, detail) }
    }

    /// A call that came to no answer. `is_late`: while its own body was waited for.
    pub(crate) fn of_call<E: std::error::Error + 'static>(error: &Error<E>, is_late: bool) -> Self {
        match error.kind() {
            ErrorKind::Deadline(_) | ErrorKind::AttemptTimeout(_) if is_late => Self::of_upload(UploadError::Late),
            _ => Self::of(error),
        }
    }

    /// A call that came to no answer.
    fn of<E: std::error::Error + 'static>(error: &Error<E>) -> Self {
        let retry_after = error.retry_at().map(|at| at.saturating_duration_since(Instant::now()));
        let detail = Chain(error.kind()).to_string();
        let of = |status, kind, title, layer| Self { status, kind, title, layer, detail, retry_after, is_last: false };
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
            is_last: false,
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
            UploadError::Slow { .. } | UploadError::Late => {
                (StatusCode::REQUEST_TIMEOUT, "body-slow", "The request's body came too slowly")
            }
            UploadError::Broken => (StatusCode::BAD_REQUEST, "body-broken", "The request's body broke off"),
        };
        Self::refused(status, kind, title, error.to_string())
    }

    /// A request whose head cannot be read, by the status that says so.
    pub(crate) fn unreadable(status: StatusCode, violation: Option<Violation>) -> Self {
        let (kind, title, detail) = match status {
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => (
                "head-too-large",
                "The request's head is too large",
                "`gateway.max_head` bounds its bytes, and `gateway.max_headers` its fields",
            ),
            StatusCode::URI_TOO_LONG => {
                ("target-too-long", "The request's target is too long", "it is no path of Didit's")
            }
            StatusCode::REQUEST_TIMEOUT => (
                "head-slow",
                "The request's head came too slowly",
                "`gateway.header_timeout` bounds the time from its first byte to its last",
            ),
            _ => (
                "unreadable",
                "The request cannot be read",
                violation
                    .map_or("its first line or one of its fields is not written as HTTP has it", Violation::reason),
            ),
        };
        Self::refused(status, kind, title, detail)
    }

    /// An answer in the place of hyper's own, which is a head with a status and nothing else; `None` if that is something
    /// else.
    pub(crate) fn in_place_of(
        head: &[u8],
        violation: Option<Violation>,
        header: &HeaderName,
        id: &CorrelationId,
    ) -> Option<(StatusCode, Bytes)> {
        let head = std::str::from_utf8(head).ok()?;
        let (line, fields) = head.strip_suffix("\r\n\r\n")?.split_once("\r\n")?;
        let status = line.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok().filter(StatusCode::is_client_error)?;
        let document = Self::unreadable(status, violation).document(Some(id), 0);
        let kept = fields.split("\r\n").filter(|field| !field.starts_with("content-length:"));
        let mut text = kept.fold(format!("{line}\r\n"), |text, field| text + field + "\r\n");
        let length = document.len();
        for (name, value) in [
            ("content-type", Self::MEDIA_TYPE),
            ("cache-control", "no-store"),
            (header.as_str(), id.as_str()),
            ("x-didit-attempts", "0"),
            ("content-length", &length.to_string()),
        ] {
            text += &format!("{name}: {value}\r\n");
        }
        Some((status, Bytes::from(text + "\r\n" + &document)))
    }

    /// In how many seconds to come back. Rounded up: whoever comes back earlier is refused again.
    fn seconds(&self) -> Option<u64> {
        let seconds = self.retry_after.map(|wait| (wait.as_millis().div_ceil(1_000)).max(1));
        seconds.map(|seconds| u64::try_from(seconds).unwrap_or(u64::MAX))
    }

    fn document(&self, id: Option<&CorrelationId>, attempts: u32) -> String {
        let Self { status, kind, title, layer, detail, .. } = self;
        let document = json!({
            "type": format!("{}{kind}", Self::TYPE),
            "title": title,
            "status": status.as_u16(),
            "detail": detail,
            "layer": layer,
            "correlation_id": id.map(CorrelationId::as_str),
            "attempts": attempts,
            "retry_after": self.seconds(),
        });
        document.to_string()
    }

    /// The answer.
    pub(crate) fn into_response(self, id: Option<&CorrelationId>, attempts: u32) -> Response<Answer> {
        let mut response = Response::new(Answer::own(self.document(id, attempts)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(Self::MEDIA_TYPE));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.seconds() {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// What was wrong with the application's own body, if that is what ended an attempt.
fn upload_error(error: &(dyn std::error::Error + 'static)) -> Option<UploadError> {
    std::iter::successors(Some(error), |error| error.source()).take(16).find_map(|error| error.downcast_ref().copied())
}
