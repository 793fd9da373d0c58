//! What a caller may learn about one call afterwards.

use std::time::Duration;

use super::{CorrelationId, IdempotencyKey};
use crate::outcome::Outcome;

/// How one call went: the names it ran under, how often it was sent, and what it waited for.
///
/// Found in the extensions of the response, and in the error of the assembled stack.
#[derive(Clone, Debug, Default)]
pub struct CallReport {
    pub(crate) correlation_id: Option<CorrelationId>,
    pub(crate) idempotency_key: Option<IdempotencyKey>,
    pub(crate) attempts: u32,
    pub(crate) held_back: u32,
    pub(crate) queued: Duration,
    pub(crate) backed_off: Duration,
    pub(crate) outcome: Option<Outcome>,
}

impl CallReport {
    /// The name of the journey, if the correlation layer is in the stack.
    pub fn correlation_id(&self) -> Option<&CorrelationId> {
        self.correlation_id.as_ref()
    }

    /// The key that every attempt carried, if the idempotency layer is in the stack and the method takes one.
    pub fn idempotency_key(&self) -> Option<&IdempotencyKey> {
        self.idempotency_key.as_ref()
    }

    /// How many attempts were made, those included that a lower layer held back. 0 without the retry layer.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// How many of the attempts a lower layer held back: by an open circuit, or for lack of quota in time.
    pub fn held_back(&self) -> u32 {
        self.held_back
    }

    /// How long attempts waited for quota, in total.
    pub fn queued(&self) -> Duration {
        self.queued
    }

    /// How long the call waited between attempts, in total.
    pub fn backed_off(&self) -> Duration {
        self.backed_off
    }

    /// What the last attempt came to, if the retry layer is in the stack.
    pub fn outcome(&self) -> Option<Outcome> {
        self.outcome
    }

    /// Whether anything happened that a caller may want to know.
    pub(crate) fn is_eventful(&self) -> bool {
        self.attempts > 1 || !self.queued.is_zero()
    }
}
