use std::time::Duration;

use crate::{error::LayerError, outcome::NeverSent};

/// The error of [`Deadline`](super::Deadline): time ran out, or the inner service failed.
pub type Error<E> = LayerError<Elapsed, E>;

/// The call's total time ran out. Whether its last attempt was carried out is not known, unless there was no time at all:
/// then nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the call did not end within its deadline of {after:?}")]
pub struct Elapsed {
    after: Duration,
    #[source]
    never_sent: Option<NeverSent>,
}

impl Elapsed {
    pub(super) fn maybe_sent(after: Duration) -> Self {
        Self { after, never_sent: None }
    }

    pub(super) fn unsent(after: Duration) -> Self {
        Self { after, never_sent: Some(NeverSent::new()) }
    }

    /// How long the call had.
    pub fn after(&self) -> Duration {
        self.after
    }
}
