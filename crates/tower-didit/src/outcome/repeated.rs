//! Whether the answer to a repetition means that an earlier attempt worked.

use didit_api::{ErrorBody, RetryClass};
use http::{Method, StatusCode};

/// How the refusal of a repetition is to be read, when an earlier attempt of the same call ended ambiguously.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Settled {
    /// What the call wanted is so already: an earlier attempt worked, and only its answer was lost.
    ///
    /// The one thing that looks the same is an id that somebody else has used, or deleted, meanwhile. What the lost
    /// answer said has to be read back where it matters.
    EarlierAttempt,
}

/// What the answer to a repetition says about the attempts before it, by the route's method and class and the answer's
/// status and body.
///
/// It means something only after an ambiguous attempt; a first attempt that is refused like this is simply refused.
///
/// | answer | where | body |
/// |---|---|---|
/// | 404 | `DELETE` of a [`RetryClass::Idempotent`] route | not looked at, may be empty |
/// | 400 | `PATCH` of a [`RetryClass::Idempotent`] route | [says](ErrorBody::is_same_status) that the status is the same |
/// | 400, 409 | [`RetryClass::BodyId`] | [says](ErrorBody::is_duplicate_transaction) that the transaction exists |
///
/// Everything else is what it looks like. A body longer than [`ErrorBody::MAX_BYTES`] is not looked at: there is no
/// need to collect more of it.
///
/// # Example
///
/// ```
/// use didit_api::RetryClass;
/// use http::{Method, StatusCode};
/// use tower_didit::outcome::{Settled, repeated};
///
/// let body = br#"{"transaction_id":["A transaction with this transaction_id already exists."]}"#;
/// let settled = repeated(&Method::POST, RetryClass::BodyId, StatusCode::BAD_REQUEST, body);
/// assert_eq!(settled, Some(Settled::EarlierAttempt));
/// ```
pub fn repeated(method: &Method, class: RetryClass, status: StatusCode, body: &[u8]) -> Option<Settled> {
    let settled = match (class, status) {
        (RetryClass::Idempotent, StatusCode::NOT_FOUND) => method == Method::DELETE,
        (RetryClass::Idempotent, StatusCode::BAD_REQUEST) => {
            method == Method::PATCH && ErrorBody::parse(body).is_same_status()
        }
        (RetryClass::BodyId, StatusCode::BAD_REQUEST | StatusCode::CONFLICT) => {
            ErrorBody::parse(body).is_duplicate_transaction()
        }
        _ => false,
    };
    settled.then_some(Settled::EarlierAttempt)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUPLICATE: &str = r#"{"transaction_id":["A transaction with this transaction_id already exists."]}"#;
    const SAME: &str = r#"["The new status is the same as the current status."]"#;

    fn settled(method: Method, class: RetryClass, status: u16, body: &str) -> bool {
        repeated(&method, class, StatusCode::from_u16(status).unwrap(), body.as_bytes()).is_some()
    }

    #[test]
    fn what_is_so_already_was_done_by_an_earlier_attempt() {
        use RetryClass::{BodyId, Idempotent};

        assert!(settled(Method::DELETE, Idempotent, 404, ""));
        assert!(settled(Method::DELETE, Idempotent, 404, r#"{"detail":"Not found."}"#));
        assert!(settled(Method::PATCH, Idempotent, 400, SAME));
        assert!(settled(Method::POST, BodyId, 400, DUPLICATE));
        assert!(settled(Method::POST, BodyId, 409, DUPLICATE));
        assert!(settled(Method::POST, BodyId, 409, r#"{"detail":"Transaction_id t-1 already exists."}"#));
    }

    #[test]
    fn a_status_alone_proves_nothing_where_it_has_other_meanings() {
        use RetryClass::{BodyId, IdempotencyKey, Idempotent, Safe, Unsafe, VendorData};

        let other = r#"{"amount":["This field is required."]}"#;
        let both =
            r#"{"transaction_id":["A transaction with this transaction_id already exists."],"amount":["Invalid."]}"#;
        for body in ["", other, both, "<html>400</html>", SAME] {
            assert!(!settled(Method::POST, BodyId, 400, body), "{body}");
            assert!(!settled(Method::POST, BodyId, 409, body), "{body}");
        }
        assert!(!settled(Method::PATCH, Idempotent, 400, ""));
        assert!(!settled(Method::PATCH, Idempotent, 400, other));
        assert!(!settled(Method::PATCH, Idempotent, 404, r#"{"detail":"Not found."}"#), "there is nothing to patch");
        assert!(!settled(Method::POST, Idempotent, 404, ""), "a list of what to delete is found or is not");
        assert!(!settled(Method::DELETE, Idempotent, 403, ""));
        assert!(!settled(Method::DELETE, Unsafe, 404, ""));
        for class in [Safe, Idempotent, IdempotencyKey, VendorData, Unsafe] {
            assert!(!settled(Method::POST, class, 409, DUPLICATE), "{class:?}");
        }
    }

    #[test]
    fn a_body_without_end_is_not_looked_at() {
        let padded = format!("{DUPLICATE}{}", " ".repeat(ErrorBody::MAX_BYTES));
        assert!(!settled(Method::POST, RetryClass::BodyId, 400, &padded));
    }
}
