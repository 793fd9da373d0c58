//! `Retry-After`, RFC 9110 section 10.2.3, in both of its forms.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, header};

use super::{
    LONGEST,
    fields::{MOST_MEMBERS, members, seconds},
};

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
    // Dates have commas in them, so they are taken line by line; seconds may have been joined to one line on the way.
    let dates = headers.get_all(header::RETRY_AFTER).into_iter().take(MOST_MEMBERS);
    let dated = dates.filter_map(|line| until(line, now)).max();
    let counted = members(headers, header::RETRY_AFTER.as_str()).filter_map(|member| seconds(member.item())).max();
    dated.max(counted)
}

fn until(line: &HeaderValue, now: SystemTime) -> Option<Duration> {
    let date = httpdate::parse_http_date(line.to_str().ok()?.trim()).ok()?;
    Some(date.duration_since(now).unwrap_or(Duration::ZERO).min(LONGEST))
}
