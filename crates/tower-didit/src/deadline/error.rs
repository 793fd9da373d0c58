use std::time::Duration;

use crate::error::LayerError;

/// The error of [`Deadline`](super::Deadline): time ran out, or the inner service failed.
pub type Error<E> = LayerError<Elapsed, E>;

/// The call's total time ran out. Whether its last attempt was carried out is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the call did not end within its deadline of {after:?}")]
pub struct Elapsed {
    pub(super) after: Duration,
}

impl Elapsed {
    /// How long the call had.
    pub fn after(&self) -> Duration {
        self.after
    }
}
