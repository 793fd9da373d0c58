//! What a server says about its quota: `Retry-After`, `X-RateLimit-*`, `RateLimit` and `RateLimit-Policy`, read by pure
//! functions.
//!
//! Didit sends the first two, and on 429 responses only, so they correct a client, they cannot steer it. The IETF's
//! fields (draft-ietf-httpapi-ratelimit-headers, in its newer and its older form) are what gateways and other APIs send,
//! on successes too.
//!
//! # Rules
//!
//! Headers are a server's word, and may have passed through strange hands:
//!
//! - What cannot be read is treated as absent, and does not make absent what stands beside it.
//! - What is said twice, in two lines or in one with commas, is read in the most careful way: the longest wait, the
//!   least that is left, the lower limit.
//! - A wait beyond [`LONGEST`] is cut to it, so that no arithmetic on it can overflow. Nonsense never shortens a wait.
//! - A time in the past is no wait.
//! - Nothing is allocated, and no more than [`MOST_MEMBERS`] members of a field are looked at.
//!
//! # Example
//!
//! ```
//! use std::time::{Duration, SystemTime};
//! use http::{HeaderMap, HeaderName, HeaderValue};
//! use tower_didit::quota;
//!
//! let headers = HeaderMap::from_iter([
//!     (HeaderName::from_static("ratelimit-policy"), HeaderValue::from_static(r#""burst";q=100;w=60, "daily";q=5000;w=86400"#)),
//!     (HeaderName::from_static("ratelimit"), HeaderValue::from_static(r#""burst";r=3;t=20, "daily";r=1200;t=40000"#)),
//! ]);
//! let tightest = quota::read(&headers, SystemTime::UNIX_EPOCH).rate_limit;
//! assert_eq!((tightest.remaining, tightest.limit), (Some(3), Some(100)));
//! assert_eq!((tightest.reset, tightest.window), (Some(Duration::from_secs(20)), Some(Duration::from_secs(60))));
//! ```

mod fields;
mod ietf;
mod rate_limit;
mod retry_after;

#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime};

use http::{HeaderMap, header};

pub use self::{fields::MOST_MEMBERS, rate_limit::RateLimit, retry_after::retry_after};

/// The longest wait that a header can ask for; more is cut to this: a day.
pub const LONGEST: Duration = Duration::from_secs(86_400);

/// What the headers of one response say about quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quota {
    /// How long the server wants to be left alone.
    pub retry_after: Option<Duration>,
    /// The tightest of the limits that the response speaks of.
    pub rate_limit: RateLimit,
}

impl Quota {
    /// How long to wait: `Retry-After`, which goes before all else (RFC 9110 section 10.2.3 and the IETF's draft), or the
    /// time until the tightest window frees up.
    pub fn wait(&self) -> Option<Duration> {
        self.retry_after.or(self.rate_limit.reset)
    }
}

/// Reads everything that a response says about quota, measuring dates against `now`, best [that of the
/// server](wall_clock).
pub fn read(headers: &HeaderMap, now: SystemTime) -> Quota {
    Quota { retry_after: retry_after(headers, now), rate_limit: RateLimit::read(headers, now) }
}

/// The server's idea of the time: its `Date` header, which spares a comparison of two clocks, else our own.
pub fn wall_clock(headers: &HeaderMap) -> SystemTime {
    let date = headers.get(header::DATE).and_then(|value| value.to_str().ok());
    match date.and_then(|date| httpdate::parse_http_date(date.trim()).ok()) {
        Some(date) => date,
        None => crate::clock::wall(),
    }
}
