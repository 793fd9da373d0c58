//! Whatever headers say, reading them ends, does not panic, and gives waits that are bounded.
//!
//! An input is lines: a byte that picks the header, then its value.

#![no_main]

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use libfuzzer_sys::fuzz_target;
use tower_didit::{
    outcome::{self, Outcome},
    quota,
};

const NAMES: [&str; 10] = [
    "retry-after",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "ratelimit-limit",
    "ratelimit-remaining",
    "ratelimit-reset",
    "ratelimit",
    "ratelimit-policy",
    "date",
];

fuzz_target!(|input: &[u8]| {
    let lines = input.split(|byte| *byte == b'\n').filter_map(|line| {
        let (pick, value) = line.split_first()?;
        let name = HeaderName::from_static(NAMES[usize::from(*pick) % NAMES.len()]);
        Some((name, HeaderValue::from_bytes(value).ok()?))
    });
    let mut headers = HeaderMap::new();
    for (name, value) in lines.take(64) {
        headers.append(name, value);
    }

    for now in
        [SystemTime::UNIX_EPOCH, quota::wall_clock(&headers), SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40)]
    {
        let read = quota::read(&headers, now);
        assert_eq!(read.retry_after, quota::retry_after(&headers, now));
        for wait in [read.retry_after, read.rate_limit.reset, read.rate_limit.window, read.wait()] {
            assert!(wait.is_none_or(|wait| wait <= quota::LONGEST), "{read:?}");
        }
        // One more line lengthens the wait or, beyond the most members that are looked at, changes nothing.
        let mut more = headers.clone();
        more.append("retry-after", HeaderValue::from_static("60"));
        assert!(quota::retry_after(&more, now) >= read.retry_after);
    }
    for status in [429, 503] {
        let status = StatusCode::from_u16(status).expect("it is one");
        if let Outcome::Refused { retry_after, .. } = outcome::of_response(status, &headers) {
            assert!(retry_after.is_none_or(|wait| wait <= quota::LONGEST));
        }
    }
});
