//! `Retry-After`, RFC 9110 section 10.2.3, in both of its forms.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, header};

use super::{LONGEST, digits};

/// How long `Retry-After` asks to wait: delta seconds, or a date measured against `now`.
///
/// A date in the past means no wait. `None` if the header is absent or cannot be read.
///
/// # Example
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use http::{HeaderMap, HeaderValue, header::RETRY_AFTER};
/// use tower_didit::quota::retry_after;
///
/// let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static("7"))]);
/// assert_eq!(retry_after(&headers, SystemTime::UNIX_EPOCH), Some(Duration::from_secs(7)));
/// ```
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    let wait = match digits(value) {
        Some(seconds) => Duration::from_secs(seconds),
        None => httpdate::parse_http_date(value.trim()).ok()?.duration_since(now).unwrap_or(Duration::ZERO),
    };
    Some(wait.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Option<Duration> {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let value = http::HeaderValue::from_bytes(value.as_bytes()).unwrap();
        retry_after(&HeaderMap::from_iter([(header::RETRY_AFTER, value)]), now)
    }

    #[test]
    fn both_forms_are_read_and_everything_else_is_absent() {
        let seconds = |count| Some(Duration::from_secs(count));
        let cases = [
            ("0", seconds(0)),
            ("7", seconds(7)),
            (" 7\t", seconds(7)),
            ("007", seconds(7)),
            ("86400", seconds(86_400)),
            ("86401", seconds(86_400)),
            ("18446744073709551615", seconds(86_400)),
            ("99999999999999999999999999", seconds(86_400)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", seconds(10)),
            ("Sunday, 06-Nov-94 08:49:47 GMT", seconds(10)),
            ("Sun, 06 Nov 1994 08:49:07 GMT", seconds(0)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", seconds(86_400)),
            ("", None),
            ("-1", None),
            ("+1", None),
            ("1.5", None),
            ("1e3", None),
            ("seven", None),
            ("7, 9", None),
            ("\u{ff17}", None),
        ];
        for (value, wait) in cases {
            assert_eq!(read(value), wait, "{value:?}");
        }
    }
}
