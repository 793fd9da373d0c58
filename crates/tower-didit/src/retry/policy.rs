//! Whether a call may be repeated at all.

use std::time::Duration;

use didit_api::{Endpoint, RetryClass};
use http::{HeaderMap, Method};
use serde::Deserialize;

use crate::{call::IdempotencyKey, outcome::Outcome};

/// One attempt that came to something else than an answer, as a [`Policy`] sees it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Attempt<'a> {
    /// What the attempt came to.
    pub outcome: Outcome,
    /// The attempt's number, counted from 1.
    pub number: u32,
    /// How long the call has been repeating: since its first attempt failed.
    pub repeating_for: Duration,
    /// What the route table knows about the request, if it knows its path.
    pub endpoint: Option<&'a Endpoint>,
    /// The request's method.
    pub method: &'a Method,
    /// The request's headers.
    pub headers: &'a HeaderMap,
    /// The request's body: all of it if it lies in memory as one piece, or was sent to its end as a stream of one piece or
    /// of at most 64 KiB. Empty otherwise, so a policy that looks for something in it does not find it and errs on the
    /// side of care.
    pub body: &'a [u8],
}

/// Whether a call may be repeated: the first of the retry layer's three questions.
///
/// It is asked only if repeating is possible: the outcome is not an answer, attempts are left, and the body can be
/// sent again.
pub trait Policy {
    /// Whether doing it once more is right after this attempt.
    fn may_repeat(&self, attempt: &Attempt<'_>) -> bool;
}

impl<F: Fn(&Attempt<'_>) -> bool> Policy for F {
    fn may_repeat(&self, attempt: &Attempt<'_>) -> bool {
        self(attempt)
    }
}

/// The policy that reads the route table.
///
/// What was never sent, or was refused unprocessed, may always be repeated. After an ambiguous failure it depends on
/// the route's [`RetryClass`]:
///
/// | class | repeated after an ambiguous failure |
/// |---|---|
/// | `Safe`, `Idempotent`, `BodyId` | yes |
/// | `IdempotencyKey` | if the request carries one `Idempotency-Key` that [can be used](IdempotencyKey) |
/// | `VendorData` | if the body names a `vendor_data` |
/// | `Unsafe` | no |
///
/// A path that the table does not know is taken by its method: RFC 9110 section 9.2.2.
#[derive(Clone, Copy, Debug, Default)]
pub struct RoutePolicy;

impl Policy for RoutePolicy {
    fn may_repeat(&self, attempt: &Attempt<'_>) -> bool {
        match attempt.outcome {
            Outcome::NotSent(_) | Outcome::Refused { .. } => true,
            Outcome::Answered => false,
            Outcome::Ambiguous => {
                let by_method = || RetryClass::of_method(attempt.method);
                match attempt.endpoint.map_or_else(by_method, Endpoint::retry_class) {
                    RetryClass::Safe | RetryClass::Idempotent | RetryClass::BodyId => true,
                    RetryClass::IdempotencyKey => has_key(attempt.headers),
                    RetryClass::VendorData => names_vendor_data(attempt.body),
                    // `RetryClass` may grow; what is not understood is not repeated.
                    _ => false,
                }
            }
        }
    }
}

/// Whether there is a key that the server can recognise the call by. An empty one, one that is too long, and one of two
/// are taken for none: what a server makes of them is not known.
fn has_key(headers: &HeaderMap) -> bool {
    let mut keys = headers.get_all("idempotency-key").iter();
    let first = keys.next().map(|key| IdempotencyKey::try_from(key.clone()));
    matches!(first, Some(Ok(_))) && keys.next().is_none()
}

/// Whether the JSON body of a session creation carries a `vendor_data` that Didit can recognise the session by.
fn names_vendor_data(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        vendor_data: Option<std::borrow::Cow<'a, str>>,
    }

    let named: Result<Named<'_>, _> = serde_json::from_slice(body);
    named.is_ok_and(|named| named.vendor_data.is_some_and(|vendor_data| !vendor_data.is_empty()))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::outcome::{NotSent, Refusal};

    /// A first attempt on an unknown path, with nothing in its body.
    fn first(outcome: Outcome, headers: &HeaderMap) -> Attempt<'_> {
        let method = &Method::GET;
        Attempt { outcome, number: 1, repeating_for: Duration::ZERO, endpoint: None, method, headers, body: b"" }
    }

    fn repeats(class: RetryClass, outcome: Outcome, headers: &HeaderMap, body: &[u8]) -> bool {
        let endpoint = Endpoint::new("test", Method::POST, "/test/").retry(class);
        let method = endpoint.method();
        let attempt = Attempt { endpoint: Some(&endpoint), method, headers, body, ..first(outcome, headers) };
        RoutePolicy.may_repeat(&attempt)
    }

    #[test]
    fn every_class_is_repeated_when_nothing_was_done() {
        let nothing_done = [
            Outcome::NotSent(NotSent::Transport),
            Outcome::NotSent(NotSent::Local { retry_at: None }),
            Outcome::Refused { retry_after: None, reason: Refusal::Unavailable },
        ];
        for outcome in nothing_done {
            assert!(repeats(RetryClass::Unsafe, outcome, &HeaderMap::new(), b""), "{outcome:?}");
        }
    }

    #[test]
    fn after_an_ambiguous_failure_the_class_decides() {
        let none = HeaderMap::new();
        let keyed = HeaderMap::from_iter([("idempotency-key".parse().unwrap(), HeaderValue::from_static("k"))]);
        let cases = [
            (RetryClass::Safe, &none, "", true),
            (RetryClass::Idempotent, &none, "", true),
            (RetryClass::BodyId, &none, "", true),
            (RetryClass::IdempotencyKey, &none, "", false),
            (RetryClass::IdempotencyKey, &keyed, "", true),
            (RetryClass::VendorData, &none, r#"{"workflow_id":"w","vendor_data":"user-7"}"#, true),
            (RetryClass::VendorData, &none, r#"{"vendor_data":"user\u002d7"}"#, true),
            (RetryClass::VendorData, &none, r#"{"vendor_data":""}"#, false),
            (RetryClass::VendorData, &none, r#"{"vendor_data":null}"#, false),
            (RetryClass::VendorData, &none, r#"{"metadata":{"vendor_data":"user-7"}}"#, false),
            (RetryClass::VendorData, &keyed, r#"{"workflow_id":"w"}"#, false),
            (RetryClass::VendorData, &none, "not json", false),
            (RetryClass::Unsafe, &keyed, r#"{"vendor_data":"user-7"}"#, false),
        ];
        for (class, headers, body, expected) in cases {
            assert_eq!(repeats(class, Outcome::Ambiguous, headers, body.as_bytes()), expected, "{class:?} {body}");
        }
    }

    #[test]
    fn a_header_that_is_no_key_is_no_reason_to_repeat() {
        let keys = |values: &[&str]| {
            let pair = |value: &&str| (http::HeaderName::from_static("idempotency-key"), value.parse().unwrap());
            values.iter().map(pair).fold(HeaderMap::new(), |mut headers, (name, value)| {
                headers.append(name, value);
                headers
            })
        };
        let long = "x".repeat(256);
        for odd in [&[""][..], &["two words"], &[&long], &["k", "l"], &["k", "k"]] {
            assert!(!repeats(RetryClass::IdempotencyKey, Outcome::Ambiguous, &keys(odd), b""), "{odd:?}");
        }
        assert!(repeats(RetryClass::IdempotencyKey, Outcome::Ambiguous, &keys(&["\"quoted\""]), b""));
    }

    #[test]
    fn an_unknown_path_is_taken_by_its_method() {
        let cases = [
            (Method::GET, true),
            (Method::HEAD, true),
            (Method::PUT, true),
            (Method::DELETE, true),
            (Method::POST, false),
            (Method::PATCH, false),
        ];
        for (method, expected) in cases {
            let headers = HeaderMap::new();
            let attempt = Attempt { method: &method, ..first(Outcome::Ambiguous, &headers) };
            assert_eq!(RoutePolicy.may_repeat(&attempt), expected, "{method}");
        }
    }

    #[test]
    fn an_answer_is_never_repeated() {
        assert!(!repeats(RetryClass::Safe, Outcome::Answered, &HeaderMap::new(), b""));
    }
}
