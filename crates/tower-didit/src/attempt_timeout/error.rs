use std::time::Duration;

use crate::{call::SenderSlow, error::LayerError};

/// The error of [`AttemptTimeout`](super::AttemptTimeout): no answer in time, or the inner service failed.
pub type Error<E> = LayerError<Elapsed, E>;

/// The attempt was not answered in time. Whether it was carried out is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the attempt was not answered within {after:?}")]
pub struct Elapsed {
    pub(super) after: Duration,
    #[source]
    pub(super) sender: Option<SenderSlow>,
}

impl Elapsed {
    /// How long the attempt had.
    pub fn after(&self) -> Duration {
        self.after
    }
}
