//! Answers, and the bodies that Didit documents.

use std::time::Duration;

use bytes::Bytes;
use didit_api::error::OddThrottle;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    body::SandboxBody,
    faults::{Manner, http_date},
    hints::{Hints, ResetForm, RetryAfterForm},
    limiter::Throttled,
};

/// A whole response, and what the journal should know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// A list and not a map: an answer is moved around as an error, and should be small.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) body: Bytes,
    /// The session that the request concerned, if its path does not say.
    pub(crate) session: Option<Uuid>,
}

impl Answer {
    pub(crate) fn empty(status: StatusCode) -> Self {
        Self { status, headers: Vec::new(), body: Bytes::new(), session: None }
    }

    pub(crate) fn json(status: StatusCode, body: &Value) -> Self {
        Self::of_type(status, "application/json", body.to_string().into())
    }

    pub(crate) fn ok(body: &Value) -> Self {
        Self::json(StatusCode::OK, body)
    }

    pub(crate) fn bad_request(body: &Value) -> Self {
        Self::json(StatusCode::BAD_REQUEST, body)
    }

    /// The commonest error shape: `{"detail": text}`.
    pub(crate) fn detail(status: StatusCode, text: &str) -> Self {
        Self::json(status, &json!({ "detail": text }))
    }

    pub(crate) fn of_type(status: StatusCode, content_type: &'static str, body: Bytes) -> Self {
        let mut answer = Self { body, ..Self::empty(status) };
        answer.headers.push((header::CONTENT_TYPE, HeaderValue::from_static(content_type)));
        answer
    }

    /// Adds a header; one that cannot be written is left out.
    pub(crate) fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
        self
    }

    pub(crate) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(crate) fn about(mut self, session: Uuid) -> Self {
        self.session = Some(session);
        self
    }

    pub(crate) fn into_response(self, manner: Manner) -> Response<SandboxBody> {
        let mut response = Response::new(SandboxBody::in_manner(self.body, manner));
        *response.status_mut() = self.status;
        response.headers_mut().extend(self.headers);
        response
    }
}

// ===== what Didit's pages and its OpenAPI file quote =====

/// An unknown session, or an unknown path.
pub(crate) fn not_found() -> Answer {
    Answer::detail(StatusCode::NOT_FOUND, "Not found.")
}

/// A path that is known without its method.
pub(crate) fn method_not_allowed(method: &http::Method, allowed: &str) -> Answer {
    Answer::detail(StatusCode::METHOD_NOT_ALLOWED, &format!("Method \"{method}\" not allowed."))
        .header(header::ALLOW, allowed)
}

/// A path without its final slash.
pub(crate) fn moved(to: &str) -> Answer {
    let page = Bytes::new();
    Answer::of_type(StatusCode::MOVED_PERMANENTLY, "text/html; charset=utf-8", page).header(header::LOCATION, to)
}

/// A body that is not JSON where JSON is needed.
pub(crate) fn not_json(error: &serde_json::Error) -> Answer {
    let text = format!("JSON parse error - {error}");
    Answer::detail(StatusCode::BAD_REQUEST, &text)
}

/// A body of a type that the route does not take.
pub(crate) fn unsupported_media_type(content_type: &str) -> Answer {
    let text = format!("Unsupported media type \"{content_type}\" in request.");
    Answer::detail(StatusCode::UNSUPPORTED_MEDIA_TYPE, &text)
}

/// `{"field": ["This field is required."]}`.
pub(crate) fn required(field: &str) -> Answer {
    invalid(field, "This field is required.")
}

/// `{"field": [text]}`.
pub(crate) fn invalid(field: &str, text: &str) -> Answer {
    let body: serde_json::Map<_, _> = [(field.to_owned(), json!([text]))].into_iter().collect();
    Answer::bad_request(&Value::Object(body))
}

/// A rate limit was exceeded. Didit's page on rate limiting: these headers come on this answer and on no other.
pub(crate) fn throttled(throttled: &Throttled, hints: &Hints, now: Duration) -> Answer {
    let seconds = throttled.retry_after;
    let detail = match title(&throttled.scope) {
        Some(title) => {
            let span = match throttled.window.as_millis() {
                60_000 => "minute".to_owned(),
                1_000 => "second".to_owned(),
                millis if millis % 1_000 == 0 => format!("{} seconds", millis / 1_000),
                millis => format!("{millis} milliseconds"),
            };
            format!("{title} rate limit exceeded. You can make up to {} requests per {span}.", throttled.limit)
        }
        None => format!("Request was throttled. Expected available in {seconds} seconds."),
    };
    let mut answer = Answer::detail(StatusCode::TOO_MANY_REQUESTS, &detail)
        .with(HeaderName::from_static("x-ratelimit-limit"), HeaderValue::from(throttled.limit))
        .with(HeaderName::from_static("x-ratelimit-remaining"), HeaderValue::from(0));
    let reset = match &hints.reset {
        ResetForm::EpochSeconds => Some(HeaderValue::from(throttled.reset)),
        ResetForm::EpochMillis => Some(HeaderValue::from(throttled.reset.saturating_mul(1_000))),
        ResetForm::SecondsLeft => Some(HeaderValue::from(seconds)),
        ResetForm::MillisLeft => Some(HeaderValue::from(seconds.saturating_mul(1_000))),
        ResetForm::Omitted => None,
        ResetForm::Instead(text) => Some(text.clone()),
    };
    let retry_after = match &hints.retry_after {
        RetryAfterForm::Seconds => Some(HeaderValue::from(seconds)),
        RetryAfterForm::HttpDate => Some(http_date(throttled.reset)),
        RetryAfterForm::Omitted => None,
        RetryAfterForm::Instead(value) => Some(value.value(now)),
    };
    answer.headers.extend(reset.map(|reset| (HeaderName::from_static("x-ratelimit-reset"), reset)));
    answer.headers.extend(retry_after.map(|value| (header::RETRY_AFTER, value)));
    answer
}

/// A 429 that is no rate window. Didit's OpenAPI file: none has `X-RateLimit-*`, and only the quota has `Retry-After`.
pub(crate) fn odd_throttled(kind: OddThrottle, limit: u32, seconds: u64) -> Answer {
    let refused = |text: &str| Answer::detail(StatusCode::TOO_MANY_REQUESTS, text);
    match kind {
        OddThrottle::PhoneAttempts => {
            refused("Maximum verification attempts reached for this phone number. Please try again later.")
        }
        OddThrottle::ImportJob => {
            refused("This application already has an active import job. Wait until it has finished.")
        }
        // The quota, and whatever the table of these may learn.
        _ => refused(&format!(
            "Sandbox session creation quota exceeded. A sandbox application can create up to {limit} sessions per 24 \
             hours. Expected available in {seconds} seconds."
        ))
        .with(header::RETRY_AFTER, HeaderValue::from(seconds)),
    }
}

/// How the text of a 429 begins. Those of add-images and ingest-write are not quoted anywhere and follow the others.
fn title(scope: &str) -> Option<&'static str> {
    Some(match scope {
        "generic-get" => "GET request",
        "generic-write" => "Write request",
        "ingest-write" => "Ingest write request",
        "session-v2-create" => "Session creation",
        "session-generate-pdf" => "Session PDF generation",
        "session-add-images" => "Session image upload",
        "session-update-kyc" => "Session KYC data update",
        "session-update-poa" => "Session POA data update",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use didit_api::ErrorBody;

    use super::*;

    #[test]
    fn a_429_says_what_the_page_says() {
        let full = Throttled {
            scope: "session-v2-create".to_owned(),
            limit: 600,
            window: Duration::from_secs(60),
            reset: 1_790_000_060,
            retry_after: 12,
        };
        let answer = throttled(&full, &Hints::default(), Duration::ZERO);
        let text = "Session creation rate limit exceeded. You can make up to 600 requests per minute.";
        assert_eq!(answer.body, json!({ "detail": text }).to_string());
        let headers = answer.into_response(Manner::default()).into_parts().0.headers;
        for (name, value) in [
            ("x-ratelimit-limit", "600"),
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-reset", "1790000060"),
            ("retry-after", "12"),
        ] {
            assert_eq!(headers[name], value);
        }
    }

    #[test]
    fn a_scope_of_ones_own_is_throttled_in_the_framework_s_words() {
        let full =
            Throttled { scope: "mine".to_owned(), limit: 1, window: Duration::from_secs(60), reset: 0, retry_after: 3 };
        let answer = throttled(&full, &Hints::default(), Duration::ZERO);
        assert_eq!(answer.body, r#"{"detail":"Request was throttled. Expected available in 3 seconds."}"#);
    }

    #[test]
    fn each_odd_429_is_recognised_by_its_text() {
        for kind in [OddThrottle::SandboxQuota, OddThrottle::PhoneAttempts, OddThrottle::ImportJob] {
            let answer = odd_throttled(kind, 500, 7_200);
            let body = ErrorBody::parse(&answer.body);
            assert_eq!(body.odd_throttle(), Some(kind));
            assert_eq!(body.throttled_scope(), None);
            let names: Vec<_> = answer.headers.iter().map(|(name, _)| name.as_str()).collect();
            if kind == OddThrottle::SandboxQuota {
                assert_eq!(body.retry_after_from_text(), Some(Duration::from_secs(7_200)));
                assert_eq!(names, ["content-type", "retry-after"]);
            } else {
                assert_eq!(names, ["content-type"]);
            }
        }
    }
}
