use std::sync::Arc;

use didit_api::{Routes, ServiceGroup};
use tower::Layer;

use super::{
    CircuitBreaker, CircuitBreakerHandle, CircuitBreakerPeek, CircuitState, TripPolicy, WatchingCircuitBreakerLayer,
    circuits::Circuits,
};
use crate::{outcome::DiditClassifier, random::Randomness};

/// Leaves a failing service group alone; see the [module](super).
#[derive(Clone, Debug)]
pub struct CircuitBreakerLayer<C = DiditClassifier> {
    circuits: Arc<Circuits>,
    classifier: C,
}

impl CircuitBreakerLayer {
    /// One circuit for each of Didit's service groups, with [`TripPolicy::DIDIT`].
    pub fn didit() -> Self {
        Self::new(TripPolicy::DIDIT, Routes::didit())
    }

    /// One circuit for each service group of a route table.
    pub fn new(policy: TripPolicy, routes: Arc<Routes>) -> Self {
        Self::with_randomness(policy, routes, Randomness::new())
    }

    /// Draws the jitter of open times from another source of randomness.
    pub fn with_randomness(policy: TripPolicy, routes: Arc<Routes>, random: Randomness) -> Self {
        Self { circuits: Arc::new(Circuits::new(policy, routes, random)), classifier: DiditClassifier }
    }
}

impl<C> CircuitBreakerLayer<C> {
    /// Reads results with another classifier.
    pub fn classifier<C2>(self, classifier: C2) -> CircuitBreakerLayer<C2> {
        CircuitBreakerLayer { circuits: self.circuits, classifier }
    }

    /// A layer that refuses while the circuit is open and otherwise stays out of the way. It shares the circuits of this
    /// one, and belongs above a queue: a call that would be refused at its end need not stand in it.
    pub fn peek(&self) -> CircuitBreakerPeekLayer {
        CircuitBreakerPeekLayer { circuits: Arc::clone(&self.circuits) }
    }

    /// A layer that shares the circuits of this one and counts a body that breaks off after good headers as a failure. It
    /// changes the type of the response's body.
    pub fn watching_bodies(self) -> WatchingCircuitBreakerLayer<C> {
        WatchingCircuitBreakerLayer(self)
    }

    /// What an operator sees and does.
    pub fn handle(&self) -> CircuitBreakerHandle {
        CircuitBreakerHandle { circuits: Arc::clone(&self.circuits) }
    }

    /// The state of a group's circuit; `None` if no route belongs to the group.
    pub fn state(&self, group: ServiceGroup) -> Option<CircuitState> {
        self.handle().state(group)
    }
}

impl<C: Clone> CircuitBreakerLayer<C> {
    pub(super) fn parts(&self) -> (Arc<Circuits>, C) {
        (Arc::clone(&self.circuits), self.classifier.clone())
    }
}

impl<S, C: Clone> Layer<S> for CircuitBreakerLayer<C> {
    type Service = CircuitBreaker<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        let (circuits, classifier) = self.parts();
        CircuitBreaker { inner, circuits, classifier }
    }
}

/// Refuses while a circuit is open; made by [`CircuitBreakerLayer::peek`].
#[derive(Clone, Debug)]
pub struct CircuitBreakerPeekLayer {
    circuits: Arc<Circuits>,
}

impl<S> Layer<S> for CircuitBreakerPeekLayer {
    type Service = CircuitBreakerPeek<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CircuitBreakerPeek { inner, circuits: Arc::clone(&self.circuits) }
    }
}
