use std::{fmt, time::Duration};

use didit_api::ServiceGroup;
use tokio::time::Instant;

use crate::{error::LayerError, outcome::NeverSent};

/// The error of [`CircuitBreaker`](super::CircuitBreaker): the circuit is open, or the inner service failed.
pub type Error<E> = LayerError<Open, E>;

/// The circuit of this service group lets the call not pass: nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the circuit of {} is open{}", group.name(), Wait(*wait))]
pub struct Open {
    group: ServiceGroup,
    wait: Option<Duration>,
    retry_at: Option<Instant>,
    #[source]
    never_sent: NeverSent,
}

impl Open {
    pub(super) fn new(group: ServiceGroup, retry_at: Option<Instant>, now: Instant) -> Self {
        let wait = retry_at.map(|retry_at| retry_at.saturating_duration_since(now));
        Self { group, wait, retry_at, never_sent: retry_at.map_or(NeverSent::new(), NeverSent::until) }
    }

    /// The part of the server that is left alone.
    pub fn group(&self) -> ServiceGroup {
        self.group
    }

    /// When to come back; `None` if an operator holds the circuit open.
    pub fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }
}

/// For how long, if that is known.
struct Wait(Option<Duration>);

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(wait) => write!(f, " for another {wait:?}"),
            None => f.write_str(" until an operator closes it"),
        }
    }
}
