//! The answers of faults.

use std::time::Duration;

use didit_api::error::OddThrottle;
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::json;

use crate::{
    answer::{self, Answer},
    faults::{Refusal, RetryAfter},
};

/// What the example of Didit's OpenAPI file asks a client to wait for the sandbox's quota, in seconds.
const QUOTA_WAIT: u64 = 3_600;

/// What the quota is (the same).
const QUOTA: u32 = 500;

/// The answer of a status fault: JSON where Didit itself would speak, a page where what stands before it would.
pub(crate) fn status(code: StatusCode, retry_after: Option<u64>) -> Answer {
    let reason = code.canonical_reason().unwrap_or("Error");
    let answer = match code.as_u16() {
        429 => {
            let seconds = retry_after.unwrap_or(1);
            let text = format!("Request was throttled. Expected available in {seconds} seconds.");
            Answer::detail(code, &text)
        }
        500 => Answer::of_type(code, "text/html", "<h1>Server Error (500)</h1>".into()),
        502..=504 => {
            let page = format!("<html><body><h1>{} {reason}</h1></body></html>", code.as_u16());
            Answer::of_type(code, "text/html", page.into())
        }
        _ => Answer::json(code, &json!({ "detail": reason })),
    };
    match retry_after {
        Some(seconds) => answer.with(header::RETRY_AFTER, HeaderValue::from(seconds)),
        None => answer,
    }
}

/// The same with headers of one's own. A 429 whose `Retry-After` is no number does not name one in its text either.
pub(crate) fn refusal(now: Duration, refusal: &Refusal) -> Answer {
    let mut answer = match &refusal.retry_after {
        None => status(refusal.code, None),
        Some(RetryAfter::Seconds(seconds)) => status(refusal.code, Some(*seconds)),
        Some(other) => {
            let plain = match refusal.code {
                StatusCode::TOO_MANY_REQUESTS => Answer::detail(refusal.code, "Request was throttled."),
                code => status(code, None),
            };
            plain.with(header::RETRY_AFTER, other.value(now))
        }
    };
    answer.headers.extend(refusal.headers.iter().cloned());
    answer
}

pub(crate) fn odd(kind: OddThrottle) -> Answer {
    answer::odd_throttled(kind, QUOTA, QUOTA_WAIT)
}

/// A 429 whose headers mean nothing, chosen by `draw`.
pub(crate) fn absurd(draw: u64) -> Answer {
    /// Each header may come never, once or twice.
    type Values = &'static [&'static str];
    const RETRY_AFTER: [Values; 12] = [
        &[],
        &["0"],
        &["-1"],
        &[""],
        &["1.5"],
        &["soon"],
        &["NaN"],
        &["31536000"],
        &["99999999999999999999999"],
        &["Thu, 01 Jan 1970 00:00:00 GMT"],
        &["Fri, 31 Dec 9999 23:59:59 GMT"],
        &["5", "7"],
    ];
    const LIMIT: [Values; 7] = [&[], &["0"], &["-1"], &["4294967296"], &["600, 300"], &["many"], &["600", "10"]];
    const REMAINING: [Values; 5] = [&[], &["0"], &["-5"], &["100"], &["18446744073709551616"]];
    const RESET: [Values; 10] = [
        &[],
        &["0"],
        &["1"],
        &["-1"],
        &[""],
        &["never"],
        &["1e3"],
        &["253402300800000"],
        &["18446744073709551616"],
        &["30", "60000"],
    ];
    let mut draw = draw;
    let mut pick = |of: &[Values]| {
        let count = u64::try_from(of.len()).unwrap_or(1);
        let index = usize::try_from(draw % count).unwrap_or_default();
        draw /= count;
        of.get(index).copied().unwrap_or_default()
    };
    let chosen = [
        (header::RETRY_AFTER, pick(&RETRY_AFTER)),
        (HeaderName::from_static("x-ratelimit-limit"), pick(&LIMIT)),
        (HeaderName::from_static("x-ratelimit-remaining"), pick(&REMAINING)),
        (HeaderName::from_static("x-ratelimit-reset"), pick(&RESET)),
    ];
    let mut answer = Answer::detail(StatusCode::TOO_MANY_REQUESTS, "Request was throttled.");
    for (name, values) in chosen {
        answer.headers.extend(values.iter().map(|value| (name.clone(), HeaderValue::from_static(value))));
    }
    answer
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn absurd_headers_differ_from_draw_to_draw() {
        let shown: HashSet<_> = (0..4_200).map(|draw| format!("{:?}", absurd(draw).headers)).collect();
        assert_eq!(shown.len(), 4_200);
    }

    #[test]
    fn a_status_speaks_as_whoever_would_send_it() {
        let body = |code| String::from_utf8(status(code, None).body.to_vec()).unwrap();
        assert!(body(StatusCode::BAD_GATEWAY).contains("502 Bad Gateway"));
        assert!(body(StatusCode::INTERNAL_SERVER_ERROR).starts_with("<h1>Server Error"));
        assert_eq!(body(StatusCode::FORBIDDEN), r#"{"detail":"Forbidden"}"#);
    }
}
