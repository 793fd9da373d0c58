//! A status with headers of one's own.

use std::time::{Duration, SystemTime};

use http::{HeaderName, HeaderValue, StatusCode};

/// The value of a `Retry-After` header, sensible or not.
///
/// Zero is `Seconds(0)`, absurd is `Seconds(u64::MAX)`, overflowing or malformed is [`Text`](Self::Text).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RetryAfter {
    /// Whole seconds. In a file a number: `30`.
    Seconds(u64),
    /// An HTTP date so far ahead of the sandbox's clock, rounded up to a whole second. In a file:
    /// `{ "date_in_s": 30 }`.
    DateIn(Duration),
    /// An HTTP date so long past on the sandbox's clock. In a file: `{ "date_ago_s": 30 }`.
    DateAgo(Duration),
    /// Sent as it is. In a file a string: `"soon"`, `"-1"`, `"99999999999999999999999"`.
    Text(HeaderValue),
}

impl From<u64> for RetryAfter {
    fn from(seconds: u64) -> Self {
        Self::Seconds(seconds)
    }
}

impl RetryAfter {
    pub(crate) fn value(&self, now: Duration) -> HeaderValue {
        match self {
            Self::Seconds(seconds) => HeaderValue::from(*seconds),
            Self::DateIn(ahead) => http_date(whole_seconds_up(now.saturating_add(*ahead))),
            Self::DateAgo(ago) => http_date(now.saturating_sub(*ago).as_secs()),
            Self::Text(text) => text.clone(),
        }
    }
}

/// An answer that refuses, with headers of one's own.
///
/// In a file it is a `status`; `retry_after` and `headers` may be left out, and a header may come twice:
///
/// ```
/// let file = r#"{ "rules": [ { "fault": { "status": {
///     "code": 429,
///     "retry_after": { "date_in_s": 30 },
///     "headers": [["x-ratelimit-reset", "-1"], ["x-ratelimit-reset", "later"]]
/// } } } ] }"#;
/// didit_sandbox::Faults::from_json(file)?;
/// # Ok::<(), didit_sandbox::FaultsError>(())
/// ```
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use didit_sandbox::{Fault, Refusal, RetryAfter};
/// use http::{HeaderName, HeaderValue, StatusCode};
///
/// let refusal = Refusal::new(StatusCode::TOO_MANY_REQUESTS)
///     .retry_after(RetryAfter::DateIn(Duration::from_secs(30)))
///     .header(HeaderName::from_static("x-ratelimit-remaining"), HeaderValue::from_static("-5"));
/// let fault = Fault::Refusal(refusal);
/// # assert_eq!(fault.kind(), "status");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub(crate) code: StatusCode,
    pub(crate) retry_after: Option<RetryAfter>,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
}

impl Refusal {
    /// A status, 400 to 599, without `Retry-After`.
    pub fn new(code: StatusCode) -> Self {
        Self { code, retry_after: None, headers: Vec::new() }
    }

    /// Sets `Retry-After`.
    #[must_use]
    pub fn retry_after(mut self, value: impl Into<RetryAfter>) -> Self {
        self.retry_after = Some(value.into());
        self
    }

    /// Adds a header, beside those of the same name that were added before.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }
}

/// The latest date that HTTP can write: the end of the year 9999.
const LAST_DATE: u64 = 253_402_300_799;

/// An HTTP date, from seconds since the Unix epoch.
pub(crate) fn http_date(seconds: u64) -> HeaderValue {
    let date = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.min(LAST_DATE));
    HeaderValue::try_from(httpdate::fmt_http_date(date)).unwrap_or_else(|_| HeaderValue::from(seconds))
}

pub(crate) fn whole_seconds_up(duration: Duration) -> u64 {
    duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_written() {
        let now = Duration::from_millis(1_790_000_000_250);
        let date = Duration::from_secs(30);
        for (form, text) in [
            (RetryAfter::from(0), "0"),
            (RetryAfter::Seconds(u64::MAX), "18446744073709551615"),
            (RetryAfter::DateIn(date), "Mon, 21 Sep 2026 14:13:51 GMT"),
            (RetryAfter::DateAgo(date), "Mon, 21 Sep 2026 14:12:50 GMT"),
            (RetryAfter::DateIn(Duration::MAX), "Fri, 31 Dec 9999 23:59:59 GMT"),
            (RetryAfter::Text(HeaderValue::from_static("soon")), "soon"),
        ] {
            assert_eq!(form.value(now), text);
        }
    }
}
