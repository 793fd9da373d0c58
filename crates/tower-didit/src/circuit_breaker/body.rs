//! A response body that still speaks for its call.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::{Layer, Service};

use super::{
    CircuitBreakerLayer, Error, Open,
    circuits::{Circuits, Pass},
    machine::Health,
};
use crate::{
    outcome::{Classify, DiditClassifier},
    readiness,
    refusable::Refusable,
};

/// Like [`CircuitBreakerLayer`], but a body that breaks off after good headers counts as a failure; made by
/// [`CircuitBreakerLayer::watching_bodies`].
#[derive(Clone, Debug)]
pub struct WatchingCircuitBreakerLayer<C = DiditClassifier>(pub(super) CircuitBreakerLayer<C>);

impl<S, C: Clone> Layer<S> for WatchingCircuitBreakerLayer<C> {
    type Service = WatchingCircuitBreaker<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        let (circuits, classifier) = self.0.parts();
        WatchingCircuitBreaker { inner, circuits, classifier }
    }
}

/// Leaves a failing service group alone, bodies included; see the [module](super).
#[derive(Clone, Debug)]
pub struct WatchingCircuitBreaker<S, C = DiditClassifier> {
    inner: S,
    circuits: std::sync::Arc<Circuits>,
    classifier: C,
}

// ===== impl WatchingCircuitBreaker =====

impl<S, C> WatchingCircuitBreaker<S, C> {
    inner_accessors!();
}

impl<S, C, B, RB> Service<Request<B>> for WatchingCircuitBreaker<S, C>
where
    S: Service<Request<B>, Response = Response<RB>> + Clone,
    C: Classify<S::Error> + Clone,
{
    type Response = Response<WatchedBody<RB>>;
    type Error = Error<S::Error>;
    type Future = WatchingFuture<S::Future, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Error::Inner)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let admitted = Pass::admit(&self.circuits, &request, Instant::now());
        WatchingFuture {
            inner: match admitted {
                Ok(pass) => {
                    let (inner, classifier) = (self.inner.call(request), self.classifier.clone());
                    Refusable::passed(Watched { inner, pass: Some(pass), classifier })
                }
                Err(open) => {
                    readiness::give_back(&mut self.inner);
                    Refusable::refused(open)
                }
            },
        }
    }
}

pin_project! {
    /// The response of [`WatchingCircuitBreaker`].
    #[derive(Debug)]
    pub struct WatchingFuture<F, C> {
        #[pin]
        inner: Refusable<Watched<F, C>, Open>,
    }
}

impl<F, C, B, E> Future for WatchingFuture<F, C>
where
    F: Future<Output = Result<Response<B>, E>>,
    C: Classify<E>,
{
    type Output = Result<Response<WatchedBody<B>>, Error<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().inner.poll(cx)
    }
}

pin_project! {
    // An admitted call, until its headers are there.
    #[derive(Debug)]
    struct Watched<F, C> {
        #[pin]
        inner: F,
        pass: Option<Pass>,
        classifier: C,
    }
}

impl<F, C, B, E> Future for Watched<F, C>
where
    F: Future<Output = Result<Response<B>, E>>,
    C: Classify<E>,
{
    type Output = Result<Response<WatchedBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(cx));
        let health = Health::of(this.classifier, &result);
        let mut pass = this.pass.take();
        // Good headers are half of a good answer: the body has the other half to say.
        if let (true, Some(pass)) = (result.is_err() || health != Health::Good, &mut pass) {
            pass.settle(health);
        }
        Poll::Ready(result.map(|response| response.map(|inner| WatchedBody { inner, pass, waiting: false })))
    }
}

pin_project! {
    /// A response body that says how it ended to the circuit that its call belongs to.
    ///
    /// | what becomes of the body | what it says |
    /// |---|---|
    /// | read to its end | a success |
    /// | broken off by an error | a failure |
    /// | dropped while nobody waited for it | a success: the service worked as far as it was asked |
    /// | dropped while it was waited for, by somebody whose deadline is over, or after the attempt timeout of the route and 5 s | a failure: the service hangs |
    /// | dropped while it was waited for, sooner | nothing: a reader who went away, or one with little patience |
    #[derive(Debug)]
    pub struct WatchedBody<B> {
        #[pin]
        inner: B,
        pass: Option<Pass>,
        waiting: bool,
    }

    impl<B> PinnedDrop for WatchedBody<B> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if let Some(mut pass) = this.pass.take() {
                if *this.waiting { pass.abandon() } else { pass.settle(Health::Good) }
            }
        }
    }
}

impl<B: Body> Body for WatchedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.project();
        let polled = this.inner.poll_frame(cx);
        *this.waiting = polled.is_pending();
        let frame = ready!(polled);
        let health = match &frame {
            Some(Ok(_)) => return Poll::Ready(frame),
            Some(Err(_)) => Health::Bad { retry_after: None },
            None => Health::Good,
        };
        if let Some(mut pass) = this.pass.take() {
            pass.settle(health);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
