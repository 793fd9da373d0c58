//! What a response means, by status and headers alone.

use std::time::Duration;

use http::{HeaderMap, StatusCode};

use super::{Outcome, Refusal};
use crate::quota;

/// The longest wait that a 429 without `X-RateLimit-*` may ask for and still be a rate window.
///
/// Didit's windows are 60 s. Its other 429s (a daily quota of the sandbox, whose header asks for an hour; attempts
/// per phone number; a running import) carry no `X-RateLimit-*` headers, and waiting does not help against them.
const LONGEST_WINDOW: Duration = Duration::from_secs(60);

/// What a response from Didit means.
///
/// | status | outcome |
/// |---|---|
/// | 429 of a rate window: with `X-RateLimit-*` or `RateLimit`, or with a `Retry-After` of at most 60 s | `Refused` |
/// | any other 429 (daily quota, attempts per phone number, running import) | `Answered` |
/// | 503 with `Retry-After` | `Refused` |
/// | 408, 500, 502, 503 without a hint, 504 and every other 5xx but the next | `Ambiguous` |
/// | 501, 505: the server will never do this | `Answered` |
/// | everything else; a 301 is [explained](super::hint) | `Answered` |
///
/// Who made the response is not asked: whether a gateway's page or Didit itself says 502, what was done is not known,
/// and a 503 that names a time is a refusal whoever names it.
pub fn of_response(status: StatusCode, headers: &HeaderMap) -> Outcome {
    match status {
        StatusCode::TOO_MANY_REQUESTS => throttled(headers),
        StatusCode::SERVICE_UNAVAILABLE => match quota::retry_after(headers, quota::wall_clock(headers)) {
            Some(retry_after) => Outcome::Refused { retry_after: Some(retry_after), reason: Refusal::Unavailable },
            None => Outcome::Ambiguous,
        },
        StatusCode::NOT_IMPLEMENTED | StatusCode::HTTP_VERSION_NOT_SUPPORTED => Outcome::Answered,
        StatusCode::REQUEST_TIMEOUT => Outcome::Ambiguous,
        status if status.is_server_error() => Outcome::Ambiguous,
        _ => Outcome::Answered,
    }
}

fn throttled(headers: &HeaderMap) -> Outcome {
    let quota = quota::read(headers, quota::wall_clock(headers));
    let (retry_after, limit) = (quota.wait(), quota.rate_limit.limit);
    if quota.rate_limit.is_some() || retry_after.is_some_and(|wait| wait <= LONGEST_WINDOW) {
        Outcome::Refused { retry_after, reason: Refusal::Throttled { limit } }
    } else {
        Outcome::Answered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap())).collect()
    }

    fn refused(seconds: u64, reason: Refusal) -> Outcome {
        Outcome::Refused { retry_after: Some(Duration::from_secs(seconds)), reason }
    }

    #[test]
    fn every_status_means_what_the_table_says() {
        let window = [("x-ratelimit-limit", "300"), ("x-ratelimit-remaining", "0"), ("retry-after", "7")];
        type Case<'a> = (u16, &'a [(&'static str, &'static str)], Outcome);
        let cases: &[Case<'_>] = &[
            (200, &[], Outcome::Answered),
            (201, &[], Outcome::Answered),
            (207, &[], Outcome::Answered),
            (301, &[("location", "/v3/sessions/")], Outcome::Answered),
            (400, &[], Outcome::Answered),
            (401, &[], Outcome::Answered),
            (402, &[], Outcome::Answered),
            (403, &[], Outcome::Answered),
            (404, &[], Outcome::Answered),
            (408, &[], Outcome::Ambiguous),
            (409, &[], Outcome::Answered),
            (429, &window, refused(7, Refusal::Throttled { limit: Some(300) })),
            (429, &[("retry-after", "12")], refused(12, Refusal::Throttled { limit: None })),
            (500, &[], Outcome::Ambiguous),
            (501, &[], Outcome::Answered),
            (502, &[], Outcome::Ambiguous),
            (503, &[], Outcome::Ambiguous),
            (503, &[("retry-after", "3")], refused(3, Refusal::Unavailable)),
            (504, &[], Outcome::Ambiguous),
            (505, &[], Outcome::Answered),
        ];
        for (status, pairs, outcome) in cases {
            let status = StatusCode::from_u16(*status).unwrap();
            assert_eq!(of_response(status, &headers(pairs)), *outcome, "{status} with {pairs:?}");
        }
    }

    #[test]
    fn a_gateways_page_means_what_its_status_means() {
        // Cloudflare's own codes too: "connection timed out" may be said of one that was just reset.
        let statuses = [500, 502, 503, 504, 520, 521, 522, 523, 524, 525, 526, 527, 530];
        for server in ["cloudflare", "nginx/1.27.0", "awselb/2.0", "Varnish", ""] {
            let page = [("server", server), ("content-type", "text/html; charset=utf-8"), ("content-length", "552")];
            for status in statuses {
                let outcome = of_response(StatusCode::from_u16(status).unwrap(), &headers(&page));
                assert_eq!(outcome, Outcome::Ambiguous, "{status} by {server:?}");
            }
            for status in [400, 403, 404, 413] {
                let outcome = of_response(StatusCode::from_u16(status).unwrap(), &headers(&page));
                assert_eq!(outcome, Outcome::Answered, "{status} by {server:?}");
            }
            let hinted = [page[0], page[1], ("retry-after", "5")];
            let outcome = of_response(StatusCode::SERVICE_UNAVAILABLE, &headers(&hinted));
            assert_eq!(outcome, refused(5, Refusal::Unavailable), "{server:?}");
        }
    }

    #[test]
    fn a_429_that_is_no_rate_window_is_an_answer() {
        for pairs in [&[][..], &[("retry-after", "3600")]] {
            assert_eq!(of_response(StatusCode::TOO_MANY_REQUESTS, &headers(pairs)), Outcome::Answered, "{pairs:?}");
        }
    }
}
