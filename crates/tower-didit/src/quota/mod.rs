//! What a server says about its quota: `Retry-After` and `X-RateLimit-*`, read by pure functions.
//!
//! Didit sends these headers on 429 responses only, so they correct a client, they cannot steer it. A value that
//! cannot be read is treated as absent; a value beyond [`LONGEST`] is cut to it, so that no arithmetic on it can
//! overflow.

mod rate_limit;
mod retry_after;

use std::time::{Duration, SystemTime};

use http::{HeaderMap, header};

pub use self::{rate_limit::RateLimit, retry_after::retry_after};

/// The longest wait that a header can ask for; more is cut to this: a day.
pub const LONGEST: Duration = Duration::from_secs(86_400);

/// The server's idea of the time: its `Date` header, which spares a comparison of two clocks, else our own.
pub fn wall_clock(headers: &HeaderMap) -> SystemTime {
    let date = headers.get(header::DATE).and_then(|value| value.to_str().ok());
    match date.and_then(|date| httpdate::parse_http_date(date.trim()).ok()) {
        Some(date) => date,
        None => crate::clock::wall(),
    }
}

/// Reads digits and nothing else, without overflow: as many as a `u64` surely holds.
fn digits(value: &str) -> Option<u64> {
    const MOST_DIGITS: usize = 19;
    let value = value.trim_matches([' ', '\t']);
    let plain = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    if !plain {
        return None;
    }
    Some(if value.len() <= MOST_DIGITS { value.parse().ok()? } else { u64::MAX })
}
