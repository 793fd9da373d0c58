use std::time::Duration;

use didit_api::ServiceGroup;
use tokio::time::Instant;

use crate::{error::LayerError, outcome::NeverSent};

/// The error of [`CircuitBreaker`](super::CircuitBreaker): the circuit is open, or the inner service failed.
pub type Error<E> = LayerError<Open, E>;

/// The circuit of this service group is open: nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the circuit of {} is open for another {wait:?}", group.name())]
pub struct Open {
    group: ServiceGroup,
    wait: Duration,
    retry_at: Instant,
    #[source]
    never_sent: NeverSent,
}

impl Open {
    pub(super) fn new(group: ServiceGroup, retry_at: Instant, now: Instant) -> Self {
        let wait = retry_at.saturating_duration_since(now);
        Self { group, wait, retry_at, never_sent: NeverSent::until(retry_at) }
    }

    /// The part of the server that is left alone.
    pub fn group(&self) -> ServiceGroup {
        self.group
    }

    /// When to come back.
    pub fn retry_at(&self) -> Instant {
        self.retry_at
    }
}
