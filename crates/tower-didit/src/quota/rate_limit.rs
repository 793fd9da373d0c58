//! `X-RateLimit-Limit`, `-Remaining` and `-Reset` as Didit sends them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderMap;

use super::{LONGEST, digits};

/// What the `X-RateLimit-*` headers of one response say. Each may be missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateLimit {
    /// The limit of the scope that the response speaks of.
    pub limit: Option<u32>,
    /// Requests left in its window; 0 on a 429.
    pub remaining: Option<u32>,
    /// How long until the window frees up; the header itself is UTC epoch seconds.
    pub reset: Option<Duration>,
}

impl RateLimit {
    /// Reads the headers, measuring the reset time against `now`.
    pub fn read(headers: &HeaderMap, now: SystemTime) -> Self {
        let number = |name: &str| headers.get(name).and_then(|value| digits(value.to_str().ok()?));
        let small = |name: &str| number(name).and_then(|number| u32::try_from(number).ok());
        let elapsed = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self {
            limit: small("x-ratelimit-limit"),
            remaining: small("x-ratelimit-remaining"),
            reset: number("x-ratelimit-reset")
                .map(|reset| Duration::from_secs(reset).saturating_sub(elapsed).min(LONGEST)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&'static str, &'static str)]) -> RateLimit {
        let headers = pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        RateLimit::read(&headers, UNIX_EPOCH + Duration::from_secs(1_790_000_000))
    }

    #[test]
    fn a_complete_429_is_read() {
        let read =
            read(&[("x-ratelimit-limit", "300"), ("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1790000012")]);
        let expected = RateLimit { limit: Some(300), remaining: Some(0), reset: Some(Duration::from_secs(12)) };
        assert_eq!(read, expected);
    }

    #[test]
    fn what_is_missing_or_malformed_is_absent() {
        assert_eq!(read(&[]), RateLimit::default());
        assert_eq!(read(&[("x-ratelimit-limit", "many"), ("x-ratelimit-reset", "soon")]), RateLimit::default());
        assert_eq!(read(&[("x-ratelimit-limit", "99999999999")]).limit, None);
    }

    #[test]
    fn a_reset_in_the_past_is_no_wait_and_an_absurd_one_is_a_day() {
        assert_eq!(read(&[("x-ratelimit-reset", "1")]).reset, Some(Duration::ZERO));
        assert_eq!(read(&[("x-ratelimit-reset", "99999999999999999999999")]).reset, Some(LONGEST));
    }
}
