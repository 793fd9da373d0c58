use std::sync::Arc;

use didit_api::Routes;
use tower::Layer;

use super::{AttemptTelemetry, Telemetry, instruments::Shared};
use crate::{outcome::DiditClassifier, random::Randomness};

/// Tells how calls went; see the [module](super).
#[derive(Clone, Debug)]
pub struct TelemetryLayer<C = DiditClassifier> {
    shared: Arc<Shared>,
    classifier: C,
}

impl TelemetryLayer {
    /// Names series after Didit's routes.
    pub fn didit() -> Self {
        Self::new(Routes::didit(), Randomness::new())
    }

    /// Names series after the routes of another table, and draws the ids of attempts from this source.
    pub fn new(routes: Arc<Routes>, random: Randomness) -> Self {
        Self { shared: Arc::new(Shared::new(routes, random)), classifier: DiditClassifier }
    }
}

impl<C> TelemetryLayer<C> {
    /// What results mean.
    #[must_use]
    pub fn classifier<C2>(self, classifier: C2) -> TelemetryLayer<C2> {
        TelemetryLayer { shared: self.shared, classifier }
    }
}

impl<C: Clone> TelemetryLayer<C> {
    /// The layer around attempts, which shares everything with this one.
    pub fn attempts(&self) -> AttemptLayer<C> {
        AttemptLayer { shared: Arc::clone(&self.shared), classifier: self.classifier.clone() }
    }
}

impl<S, C: Clone> Layer<S> for TelemetryLayer<C> {
    type Service = Telemetry<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        Telemetry { inner, shared: Arc::clone(&self.shared), classifier: self.classifier.clone() }
    }
}

/// Tells how attempts went, and sends `traceparent` with each; see the [module](super). Made by
/// [`TelemetryLayer::attempts`].
#[derive(Clone, Debug)]
pub struct AttemptLayer<C = DiditClassifier> {
    shared: Arc<Shared>,
    classifier: C,
}

impl<S, C: Clone> Layer<S> for AttemptLayer<C> {
    type Service = AttemptTelemetry<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        AttemptTelemetry { inner, shared: Arc::clone(&self.shared), classifier: self.classifier.clone() }
    }
}
