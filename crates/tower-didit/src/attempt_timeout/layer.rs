use std::{sync::Arc, time::Duration};

use didit_api::{Endpoint, Routes};
use tower::Layer;

use super::AttemptTimeout;

/// Gives every attempt its endpoint's timeout; see the [module](super).
#[derive(Clone, Debug)]
pub struct AttemptTimeoutLayer {
    pub(super) routes: Arc<Routes>,
    pub(super) unknown: Duration,
}

impl AttemptTimeoutLayer {
    /// The longest timeout; more is cut to this, so that no instant overflows: a day.
    pub const MAX: Duration = Duration::from_secs(86_400);

    /// Takes the timeouts of Didit's endpoints, and [`Endpoint::DEFAULT_TIMEOUT`] for unknown paths.
    pub fn didit() -> Self {
        Self::new(Routes::didit())
    }

    /// Takes the timeouts of a route table, and [`Endpoint::DEFAULT_TIMEOUT`] for unknown paths.
    pub fn new(routes: Arc<Routes>) -> Self {
        Self { routes, unknown: Endpoint::DEFAULT_TIMEOUT }
    }

    /// Sets the timeout for paths that the route table does not know.
    #[must_use]
    pub fn unknown(mut self, timeout: Duration) -> Self {
        self.unknown = timeout;
        self
    }
}

impl<S> Layer<S> for AttemptTimeoutLayer {
    type Service = AttemptTimeout<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AttemptTimeout::new(inner, self)
    }
}
