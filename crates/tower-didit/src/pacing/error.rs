use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{error::LayerError, outcome::NeverSent};

/// The error of [`Pacing`](super::Pacing): the call could not start in time, or the inner service failed.
pub type Error<E> = LayerError<Refused, E>;

/// The quota lets the call start only after its deadline: nothing was sent, and nothing was waited for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the quota of {scope} has no room for another {wait:?}, which is beyond the call's deadline")]
pub struct Refused {
    scope: Arc<str>,
    wait: Duration,
    retry_at: Instant,
    #[source]
    never_sent: NeverSent,
}

impl Refused {
    pub(super) fn new(scope: &str, retry_at: Instant, now: Instant) -> Self {
        let wait = retry_at.saturating_duration_since(now);
        Self { scope: scope.into(), wait, retry_at, never_sent: NeverSent::until(retry_at) }
    }

    /// The name of the scope that is full.
    pub fn scope(&self) -> &str {
        &self.scope
    }

    /// The earliest start that the quota allows.
    pub fn retry_at(&self) -> Instant {
        self.retry_at
    }
}
