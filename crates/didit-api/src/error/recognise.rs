//! Telling apart error bodies that a status code does not.

use std::time::Duration;

use super::{ErrorBody, ErrorShape};

/// A 429 that is no rate window: waiting a minute does not help, and nothing else of the key is held up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OddThrottle {
    /// The sandbox's 500 sessions of a day are used up; the wait may be hours.
    SandboxQuota,
    /// The phone number has had its four attempts of an hour: an outcome, not a fault.
    PhoneAttempts,
    /// The application has an import running: a conflict; poll that job.
    ImportJob,
}

// ===== impl ErrorBody =====

/// What a body is about. Each method is meant for the status codes it names; the body alone does not carry them.
impl ErrorBody {
    /// A `transaction_id` that Didit has already: 400, or 409 in a race (Didit's create-transaction page).
    ///
    /// After an attempt whose end was not seen this means that the attempt worked. It is no answer to a request that
    /// has other faults as well: then the earlier attempt cannot have worked.
    pub fn is_duplicate_transaction(&self) -> bool {
        let exists = |text: &str| contains(text, "already exists");
        match self.fields.as_slice() {
            [] => self.texts().any(|text| contains(text, "transaction_id") && exists(text)),
            fields => fields.iter().all(|found| found.field == "transaction_id" && exists(&found.message)),
        }
    }

    /// A session that has the wanted status already: 400 on update-status. Set twice, it is set.
    pub fn is_same_status(&self) -> bool {
        self.shape == ErrorShape::List
            && self.messages().any(|text| contains(text, "new status is the same as the current status"))
    }

    /// Which of the 429s that are no rate window this is (Didit's OpenAPI file).
    ///
    /// ```
    /// use didit_api::error::{ErrorBody, OddThrottle};
    ///
    /// let body = ErrorBody::parse(br#"{"detail":"This application already has an active import job."}"#);
    /// assert_eq!(body.odd_throttle(), Some(OddThrottle::ImportJob));
    /// ```
    pub fn odd_throttle(&self) -> Option<OddThrottle> {
        self.texts().find_map(|text| {
            if contains(text, "maximum verification attempts reached for this phone number") {
                Some(OddThrottle::PhoneAttempts)
            } else if contains(text, "active import job") {
                Some(OddThrottle::ImportJob)
            } else {
                contains(text, "sandbox").then_some(OddThrottle::SandboxQuota)
            }
        })
    }

    /// The name of the scope whose window a 429 says is full, as in [`Limits`](crate::Limits); no header names it.
    pub fn throttled_scope(&self) -> Option<&'static str> {
        const BEGINNINGS: [(&str, &str); 6] = [
            ("get request rate limit", "generic-get"),
            ("write request rate limit", "generic-write"),
            ("session creation rate limit", "session-v2-create"),
            ("session pdf generation rate limit", "session-generate-pdf"),
            ("session kyc data update", "session-update-kyc"),
            ("session poa data update", "session-update-poa"),
        ];
        self.messages().find_map(|text| {
            let text = text.to_ascii_lowercase();
            BEGINNINGS.iter().find(|(beginning, _)| text.starts_with(beginning)).map(|(_, scope)| *scope)
        })
    }

    /// The wait in "Expected available in N seconds.", for a 429 without headers.
    ///
    /// A number too long to be meant is taken as the longest wait there is, so that nonsense never shortens a wait.
    ///
    /// ```
    /// use std::time::Duration;
    /// use didit_api::ErrorBody;
    ///
    /// let body = ErrorBody::parse(br#"{"detail":"Request was throttled. Expected available in 17 seconds."}"#);
    /// assert_eq!(body.retry_after_from_text(), Some(Duration::from_secs(17)));
    /// ```
    pub fn retry_after_from_text(&self) -> Option<Duration> {
        self.texts().find_map(seconds_in)
    }

    fn texts(&self) -> impl Iterator<Item = &str> {
        self.messages().chain(self.fields.iter().map(|found| found.message.as_str()))
    }
}

/// Whether a text holds a lower-case phrase, in any case.
fn contains(text: &str, phrase: &str) -> bool {
    text.to_ascii_lowercase().contains(phrase)
}

/// As many digits as a wait can need (31 years); more are not added up.
const MAX_DIGITS: usize = 9;

fn seconds_in(text: &str) -> Option<Duration> {
    let text = text.to_ascii_lowercase();
    let (_, rest) = text.split_once("expected available in ")?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, unit) = rest.split_at(end);
    if digits.is_empty() || !unit.trim_start().starts_with("second") {
        return None;
    }
    let digits = digits.trim_start_matches('0');
    let seconds = digits.bytes().take(MAX_DIGITS).fold(0, |sum: u64, digit| sum * 10 + u64::from(digit - b'0'));
    Some(Duration::from_secs(if digits.len() > MAX_DIGITS { u64::from(u32::MAX) } else { seconds }))
}
