//! Webhooks: whether one is Didit's, which event it is, and whether it is out of date.
//!
//! Didit tries to deliver an event three times within about five minutes. It takes any 2xx within 5 s for an answer,
//! tries again after a 5xx, a 404 or a time-out, and **drops the event after any other answer**: a receiver that is
//! busy has to say 503. Events may come twice and out of order.
//!
//! | question | answer |
//! |---|---|
//! | is it Didit's? | [`verify`], or a [`Verifier`] with other settings |
//! | how is it refused? | [`Rejected::status`]: 401, 400 or 413, and never a 5xx |
//! | has it been here before? | [`Event::key`] |
//! | has a later one been here? | [`Event::order`] |
//! | what does it say? | [`Event`] |
//!
//! # Three signatures
//!
//! All are HMAC-SHA-256 with the text of the secret as the key, in lower-case hexadecimal digits.
//!
//! | header | what is signed | |
//! |---|---|---|
//! | `X-Signature-V2` | [canonical JSON](canonical_json) of the body | the one that counts |
//! | `X-Signature` | the body, to the byte | counts where the first is missing; fails if the JSON was written anew on the way |
//! | `X-Signature-Simple` | `{timestamp}:{session_id}:{status}:{webhook_type}` | does not cover the decision: alone it is refused, unless [configured](Verifier::accept_simple) |
//!
//! If several came, **all of them have to be right**, and made with one secret. Didit sends all three, so that a
//! wrong one tells that something between Didit and the receiver changed the request; an operator should hear of it as
//! [`Rejected::Contradiction`] and not find out later. Where it is known and harmless, [`Verifier::strongest_only`]
//! lets the strongest decide.
//!
//! `X-Timestamp` is not signed. How old an event is is told by the `timestamp` in its body, and the header has to say the
//! same, or else an old event could be sent again with a new header.
//!
//! Sources: Didit's webhooks page and the code of its demo. Its agent skill and the demo's README describe other
//! messages, which disagree with both.
//!
//! # Payload versions
//!
//! A destination chooses [`PayloadVersion`]. The envelope is that of version 3; of the older ones only this is known
//! to differ: [how a decision names its features](PayloadVersion::lists_features).
//!
//! # Example
//!
//! ```
//! use std::time::{Duration, SystemTime};
//! use didit_api::{SessionStatus, webhook::{EventOrder, RejectedKind, Secrets, WebhookType, encode, sign, verify}};
//! use http::HeaderMap;
//! use serde_json::json;
//!
//! // During a rotation both secrets are taken, the new one first.
//! let secrets = Secrets::new(["new-secret-not-real-0123456789abcdefghijklmn", "example-secret-not-real-0123456789abcdefghi"])?;
//! # let before = Secrets::new(["example-secret-not-real-0123456789abcdefghi"])?;
//! # let signed_with_the_old_one = |body: &[u8]| sign(body, &before);
//!
//! // What a server receives: the body to the byte, and the headers.
//! let body = encode(&json!({
//!     "event_id": "aaaaaaaa-0000-4000-8000-000000000002", "webhook_type": "status.updated",
//!     "timestamp": 1_790_000_060, "session_id": "11111111-2222-4333-8444-555555555555",
//!     "status": "Approved", "vendor_data": "user-7", "metadata": { "corr": "c-1" }
//! }))?;
//! let headers: HeaderMap = signed_with_the_old_one(body.as_bytes())?;
//! let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_061);
//!
//! let verified = verify(body.as_bytes(), &headers, &secrets, now)?;
//! let event = verified.event;
//! assert_eq!(verified.secret, 1);
//! assert_eq!(event.webhook_type, Some(WebhookType::StatusUpdated));
//! assert_eq!(event.session_status(), Some(SessionStatus::Approved));
//!
//! // Has it been here before, and has a later one?
//! assert_eq!(event.key().as_str(), "id:aaaaaaaa-0000-4000-8000-000000000002");
//! let last_applied = 1_790_000_000;
//! let stream = event.stream().ok_or("events of a session are ordered")?;
//! assert_eq!(stream.as_str(), "status.updated/11111111-2222-4333-8444-555555555555");
//! assert_eq!(event.order(Some(last_applied)), EventOrder::Newer);
//!
//! // One byte changed.
//! let forged = body.replace("Approved", "approved");
//! let rejected = verify(forged.as_bytes(), &headers, &secrets, now).unwrap_err();
//! assert_eq!((rejected.kind(), rejected.status().as_u16()), (RejectedKind::Forged, 401));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod canonical;
mod event;
mod key;
mod order;
mod rejected;
mod secrets;
mod sign;
mod verify;

pub use canonical::{MAX_DEPTH, canonical_json};
pub use event::{Event, NotAnEvent, PayloadVersion, ProfileStatus, ResubmitInfo, TransactionStatus, WebhookType};
pub use key::EventKey;
pub use order::{EventOrder, Stream};
pub use rejected::{HeaderFault, Malformed, MalformedKind, Rejected, RejectedKind};
pub use secrets::{Secrets, SecretsError};
pub use sign::{encode, sign};
pub use verify::{DEFAULT_MAX_BODY, DEFAULT_TOLERANCE, Verified, Verifier, verify};

/// The header with the time, in seconds since the Unix epoch. Not signed.
pub const HEADER_TIMESTAMP: &str = "x-timestamp";

/// The header, `true`, of what the console sends for a test. Not signed.
pub const HEADER_TEST: &str = "x-didit-test-webhook";

/// A way to sign an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SignatureKind {
    /// `X-Signature-V2`, over the canonical form of the body.
    Canonical,
    /// `X-Signature`, over the bytes of the body.
    Raw,
    /// `X-Signature-Simple`, over four fields.
    Simple,
}

// ===== impl SignatureKind =====

impl SignatureKind {
    /// All of them, the strongest first.
    pub const ALL: [Self; 3] = [Self::Canonical, Self::Raw, Self::Simple];

    /// The header it comes in, in lower case.
    pub const fn header(self) -> &'static str {
        match self {
            Self::Canonical => "x-signature-v2",
            Self::Raw => "x-signature",
            Self::Simple => "x-signature-simple",
        }
    }
}
