use std::{
    error::Error as StdError,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Response;
use pin_project_lite::pin_project;

use super::{attempt::AttemptWatch, call::CallWatch, error_type};
use crate::{
    call::current::{self, InCall},
    outcome::Classify,
};

pin_project! {
    /// The response of [`Telemetry`](super::Telemetry).
    #[derive(Debug)]
    pub struct ResponseFuture<F, C> {
        #[pin]
        inner: InCall<Watched<F, C>>,
    }
}

impl<F, C> ResponseFuture<F, C> {
    pub(super) fn new(inner: InCall<Watched<F, C>>) -> Self {
        Self { inner }
    }
}

impl<F, C, B, E> Future for ResponseFuture<F, C>
where
    F: Future<Output = Result<Response<B>, E>>,
    C: Classify<E>,
    B: 'static,
    E: StdError + 'static,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().inner.poll(cx)
    }
}

pin_project! {
    // A call that lends its phases to the layers below while they run.
    #[derive(Debug)]
    pub(super) struct Watched<F, C> {
        #[pin]
        inner: F,
        // Boxed, because a future is moved often and watched seldom.
        watch: Option<Box<CallWatch>>,
        classifier: C,
    }
}

impl<F, C> Watched<F, C> {
    pub(super) fn new(inner: F, watch: Option<Box<CallWatch>>, classifier: C) -> Self {
        Self { inner, watch, classifier }
    }
}

impl<F, C, B, E> Future for Watched<F, C>
where
    F: Future<Output = Result<Response<B>, E>>,
    C: Classify<E>,
    B: 'static,
    E: StdError + 'static,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Some(watch) = this.watch else { return this.inner.poll(cx) };
        let lent = current::lend_phases(&mut watch.phases);
        let result = ready!(this.inner.poll(cx));
        drop(lent);
        let outcome = this.classifier.of(&result);
        watch.end(outcome, &result, &error_type(&result, outcome));
        Poll::Ready(result)
    }
}

pin_project! {
    /// The response of [`AttemptTelemetry`](super::AttemptTelemetry), inside the attempt's span.
    #[derive(Debug)]
    pub struct AttemptFuture<F, C> {
        #[pin]
        inner: F,
        watch: Option<Box<AttemptWatch>>,
        classifier: C,
    }
}

impl<F, C> AttemptFuture<F, C> {
    pub(super) fn start(watch: Option<Box<AttemptWatch>>, classifier: C, start: impl FnOnce() -> F) -> Self {
        let inner = {
            let _entered = AttemptWatch::span(watch.as_deref());
            start()
        };
        Self { inner, watch, classifier }
    }
}

impl<F, C, B, E> Future for AttemptFuture<F, C>
where
    F: Future<Output = Result<Response<B>, E>>,
    C: Classify<E>,
    E: StdError + 'static,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = {
            let _entered = AttemptWatch::span(this.watch.as_deref());
            ready!(this.inner.poll(cx))
        };
        if let Some(watch) = this.watch {
            let outcome = this.classifier.of(&result);
            watch.end(outcome, &result, &error_type(&result, outcome));
        }
        Poll::Ready(result)
    }
}
