//! What became of webhooks.

use serde::{Deserialize, Serialize};

/// One event on its way to one destination. It holds no payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WebhookRecord {
    /// The event's id, the same for all destinations.
    pub event_id: String,
    /// Its type.
    pub webhook_type: String,
    /// The session.
    pub session_id: String,
    /// The status that it tells.
    pub status: String,
    /// Which destination, in the order in which they were given, from 0.
    pub destination: usize,
    /// Every attempt that has begun, in order.
    pub attempts: Vec<WebhookAttempt>,
    /// What came of it.
    pub outcome: WebhookOutcome,
}

/// One attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WebhookAttempt {
    /// Milliseconds from the start of the sandbox to its beginning.
    pub at_ms: u64,
    /// The status answered; `None` before the end of the attempt, and if it ended without one.
    pub status: Option<u16>,
}

/// What came of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum WebhookOutcome {
    /// Still to be sent, or sent again.
    Pending,
    /// Answered with a 2xx, at least one copy of it.
    Delivered,
    /// Refused, or out of attempts.
    GivenUp,
    /// Never sent, by a [fault](crate::WebhookFault::Drop).
    Dropped,
}
