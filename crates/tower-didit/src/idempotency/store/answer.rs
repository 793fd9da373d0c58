//! What is kept of an answer.

use std::fmt;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use serde::Deserialize;
use uuid::Uuid;

/// What is kept of an answer: its status, the id of what was made, and its body only if replay is on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The `session_id` of the answer, or the `request_id` of a check, if it is a UUID.
    pub session_id: Option<Uuid>,
    /// The body, if replay is on.
    pub body: Option<KeptBody>,
}

/// A body that is kept to be given again. `Debug` shows its length only.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeptBody {
    /// The `Content-Type`.
    pub content_type: Option<HeaderValue>,
    /// The bytes.
    pub data: Bytes,
}

// ===== impl Answer =====

impl Answer {
    /// An answer of which nothing but the status is kept.
    pub fn new(status: StatusCode) -> Self {
        Self { status, session_id: None, body: None }
    }

    /// Keeps the id that stands in a JSON body.
    #[must_use]
    pub fn with_id_of(mut self, body: &[u8]) -> Self {
        self.session_id = id_of(body);
        self
    }

    /// Keeps the body.
    #[must_use]
    pub fn with_body(mut self, content_type: Option<HeaderValue>, data: Bytes) -> Self {
        self.body = Some(KeptBody { content_type, data });
        self
    }
}

/// Nothing but a UUID is taken for an id, so that nothing personal gets into a store under its name.
fn id_of(body: &[u8]) -> Option<Uuid> {
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        session_id: Option<std::borrow::Cow<'a, str>>,
        #[serde(borrow)]
        request_id: Option<std::borrow::Cow<'a, str>>,
    }

    let named: Named<'_> = serde_json::from_slice(body).ok()?;
    Uuid::try_parse(&named.session_id.or(named.request_id)?).ok()
}

impl fmt::Debug for KeptBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptBody").field("bytes", &self.data.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_uuid_is_taken_for_an_id() {
        let id = "11111111-2222-4333-8444-555555555555";
        let cases = [
            (format!(r#"{{"session_id":"{id}","url":"u"}}"#), true),
            (format!(r#"{{"request_id":"{id}"}}"#), true),
            (r#"{"session_id":"Ada Example"}"#.to_owned(), false),
            (r#"{"session_id":7}"#.to_owned(), false),
            ("not json".to_owned(), false),
        ];
        for (body, found) in cases {
            let answer = Answer::new(StatusCode::CREATED).with_id_of(body.as_bytes());
            assert_eq!(answer.session_id.is_some(), found, "{body}");
        }
    }

    #[test]
    fn debug_shows_no_byte_of_a_body() {
        let answer = Answer::new(StatusCode::OK).with_body(None, Bytes::from_static(b"secret"));
        assert!(!format!("{answer:?}").contains("secret"));
    }
}
