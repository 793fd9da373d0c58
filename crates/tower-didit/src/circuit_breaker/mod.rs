//! Leaves a failing part of the server alone, and notices the moment it is back.
//!
//! # Why one circuit per service group
//!
//! Didit fails per provider: document reading may be down while sessions are created as ever. One circuit for the host
//! would stop both. So there is one circuit for each [`ServiceGroup`](didit_api::ServiceGroup) of the route table.
//!
//! # Why tickets with a generation
//!
//! A call that was let through ten seconds ago speaks about the server of ten seconds ago. Every call carries the
//! generation that it was admitted in, and every change of state begins a new one, so that a late success closes nothing
//! and a late failure opens nothing. A probe whose caller went away gives its place back at once; one that hangs loses it
//! after its endpoint's attempt timeout and a grace of 5 s.
//!
//! # What is counted
//!
//! A result of the server's: see the table in [`outcome`](crate::outcome). A 429 belongs to the pacer: it is no failure, and
//! no success for a probe. A call is good when its response's headers are; where a body that breaks off should count as a
//! failure, [`CircuitBreakerLayer::watching_bodies`] waits for its end.
//!
//! # Operating it
//!
//! [`CircuitBreakerLayer::handle`] shows the state and the counts of each circuit, tells of changes, and holds a circuit
//! open or closed.
//!
//! # Around a queue
//!
//! Admission is decided at dispatch, below a queue, because a call may have queued for a while. Above the queue stands
//! [`CircuitBreakerLayer::peek`]: it shares the circuits, and refuses what need not queue at all.
//!
//! # Example
//!
//! ```
//! use tower::ServiceBuilder;
//! use tower_didit::circuit_breaker::CircuitBreakerLayer;
//! # async fn client(_: http::Request<()>) -> Result<http::Response<()>, std::convert::Infallible> {
//! #     Ok(http::Response::new(()))
//! # }
//!
//! let breaker = CircuitBreakerLayer::didit();
//! let service = ServiceBuilder::new()
//!     .layer(breaker.peek())
//!     // a queue may stand here
//!     .layer(breaker)
//!     .service_fn(client);
//! ```

mod body;
mod circuits;
mod error;
mod future;
mod handle;
#[cfg(all(test, interleavings))]
mod interleavings;
mod layer;
mod listeners;
mod machine;
mod policy;
#[cfg(test)]
#[cfg(not(interleavings))]
mod reference;
mod window;

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower::Service;

use self::circuits::{Circuits, Pass};
pub use self::{
    body::{WatchedBody, WatchingCircuitBreaker, WatchingCircuitBreakerLayer, WatchingFuture},
    error::{Error, Open},
    future::{PeekFuture, ResponseFuture},
    handle::{CircuitBreakerHandle, CircuitStatus},
    layer::{CircuitBreakerLayer, CircuitBreakerPeekLayer},
    listeners::StateChange,
    machine::CircuitState,
    policy::TripPolicy,
};
use crate::{
    call::current,
    outcome::{Classify, DiditClassifier},
    readiness,
};

/// Leaves a failing service group alone; see the [module](self).
#[derive(Clone, Debug)]
pub struct CircuitBreaker<S, C = DiditClassifier> {
    inner: S,
    circuits: Arc<Circuits>,
    classifier: C,
}

// ===== impl CircuitBreaker =====

impl<S, C> CircuitBreaker<S, C> {
    inner_accessors!();
}

impl<S, C, B, RB> Service<Request<B>> for CircuitBreaker<S, C>
where
    S: Service<Request<B>, Response = Response<RB>> + Clone,
    C: Classify<S::Error> + Clone,
{
    type Response = S::Response;
    type Error = Error<S::Error>;
    type Future = ResponseFuture<S::Future, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Error::Inner)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match Pass::admit(&self.circuits, &request, current::now()) {
            // Held before the call is made, so that a panic in it gives the ticket back.
            Ok(pass) => ResponseFuture::admitted(self.inner.call(request), pass, self.classifier.clone()),
            Err(open) => {
                readiness::give_back(&mut self.inner);
                ResponseFuture::refused(open)
            }
        }
    }
}

/// Refuses while a circuit is open, and otherwise stays out of the way; see the [module](self).
#[derive(Clone, Debug)]
pub struct CircuitBreakerPeek<S> {
    inner: S,
    circuits: Arc<Circuits>,
}

// ===== impl CircuitBreakerPeek =====

impl<S> CircuitBreakerPeek<S> {
    inner_accessors!();
}

impl<S, B> Service<Request<B>> for CircuitBreakerPeek<S>
where
    S: Service<Request<B>> + Clone,
{
    type Response = S::Response;
    type Error = Error<S::Error>;
    type Future = PeekFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Error::Inner)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match self.circuits.peek(self.circuits.place(&request), current::now()) {
            Ok(()) => PeekFuture::passed(self.inner.call(request)),
            Err(open) => {
                readiness::give_back(&mut self.inner);
                PeekFuture::refused(open)
            }
        }
    }
}
