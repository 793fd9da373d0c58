use std::sync::Arc;

use didit_api::Routes;
use http::HeaderName;
use tower::Layer;

use super::{Correlation, HEADER};
use crate::random::Randomness;

/// Sends the correlation id out with every call; see the [module](super).
#[derive(Clone, Debug)]
pub struct CorrelationLayer {
    pub(crate) header: HeaderName,
    pub(super) routes: Arc<Routes>,
    pub(super) random: Randomness,
    pub(super) attempts_traced: bool,
    pub(super) calls_keyed: bool,
}

impl CorrelationLayer {
    /// Sends the id as [`HEADER`] and the trace as `traceparent`, and names spans after Didit's routes.
    pub fn new() -> Self {
        Self {
            header: HEADER,
            routes: Routes::didit(),
            random: Randomness::new(),
            attempts_traced: false,
            calls_keyed: false,
        }
    }

    /// Sends the id under another name.
    #[must_use]
    pub fn header(mut self, name: HeaderName) -> Self {
        self.header = name;
        self
    }

    /// Names spans after another route table.
    #[must_use]
    pub fn routes(mut self, routes: Arc<Routes>) -> Self {
        self.routes = routes;
        self
    }

    /// Leaves `traceparent` to a layer below that sends a new one with each attempt, as
    /// the attempt layer of `telemetry` does. The span of the call is then `internal`, because the spans
    /// of the attempts are the `client`'s.
    ///
    /// That layer finds the trace through the task. Where something in between hands requests to another task, as tower's
    /// `Buffer` does, its attempts begin traces of their own; there, this is left `false`, and they go on from the header.
    #[must_use]
    pub fn attempts_traced(mut self, traced: bool) -> Self {
        self.attempts_traced = traced;
        self
    }

    /// Draws a key for each POST and PATCH beside the id, for the idempotency layer below: it has the same source of
    /// randomness.
    #[cfg(feature = "stack")]
    pub(crate) fn calls_keyed(mut self) -> Self {
        self.calls_keyed = true;
        self
    }

    /// Makes new ids from another source of randomness.
    #[must_use]
    pub fn randomness(mut self, random: Randomness) -> Self {
        self.random = random;
        self
    }
}

impl Default for CorrelationLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for CorrelationLayer {
    type Service = Correlation<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Correlation::new(inner, self)
    }
}
