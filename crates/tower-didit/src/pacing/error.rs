use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

pub use super::ledger::Why;
use crate::{error::LayerError, outcome::NeverSent};

/// The error of [`Pacing`](super::Pacing): the call could not start in time, or the inner service failed.
pub type Error<E> = LayerError<Refused, E>;

/// The quota does not let the call start in time: nothing was sent.
///
/// Nearly always that is known at the door, and nothing was waited for. A call that already waits is refused as soon as
/// its turn is known to come too late: after a pause, a lowered limit, or calls of a higher priority.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the quota of {scope} has no room for another {wait:?}: {}", reason(*why))]
pub struct Refused {
    scope: Arc<str>,
    why: Why,
    wait: Duration,
    retry_at: Instant,
    #[source]
    never_sent: NeverSent,
}

impl Refused {
    pub(super) fn new(scope: &str, why: Why, retry_at: Instant, now: Instant) -> Self {
        let wait = retry_at.saturating_duration_since(now);
        Self { scope: scope.into(), why, wait, retry_at, never_sent: NeverSent::until(retry_at) }
    }

    /// The name of the scope that is full.
    pub fn scope(&self) -> &str {
        &self.scope
    }

    /// What the call came up against.
    pub fn why(&self) -> Why {
        self.why
    }

    /// The earliest start that the quota allows; after [`Why::MaxWait`] of a call that has waited, the next start of anybody
    /// who waits for the scope, after [`Why::QueueFull`], when there is room in the queue, and after
    /// [`Why::TooManyKeys`], when there is room for another credential.
    pub fn retry_at(&self) -> Instant {
        self.retry_at
    }
}

fn reason(why: Why) -> &'static str {
    match why {
        Why::Deadline => "that is beyond the call's deadline",
        Why::MaxWait => "that is beyond the longest wait",
        Why::QueueFull => "too many calls wait for it",
        Why::TooManyKeys => "too many credentials are in use",
    }
}
