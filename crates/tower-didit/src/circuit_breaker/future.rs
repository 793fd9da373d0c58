use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Response;
use pin_project_lite::pin_project;

use super::{Error, Open, circuits::Pass, machine::Health};
use crate::{outcome::Classify, refusable::Refusable};

pin_project! {
    /// The response of [`CircuitBreaker`](super::CircuitBreaker).
    #[derive(Debug)]
    pub struct ResponseFuture<F, C> {
        #[pin]
        inner: Refusable<Admitted<F, C>, Open>,
    }
}

impl<F, C> ResponseFuture<F, C> {
    pub(super) fn admitted(inner: F, pass: Pass, classifier: C) -> Self {
        Self { inner: Refusable::passed(Admitted { inner, pass, classifier }) }
    }

    pub(super) fn refused(open: Open) -> Self {
        Self { inner: Refusable::refused(open) }
    }
}

impl<F, C, B, E> Future for ResponseFuture<F, C>
where
    F: Future<Output = Result<Response<B>, E>>,
    C: Classify<E>,
{
    type Output = Result<Response<B>, Error<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().inner.poll(cx)
    }
}

pin_project! {
    // An admitted call: its pass settles with the result, or when this is dropped.
    #[derive(Debug)]
    struct Admitted<F, C> {
        #[pin]
        inner: F,
        pass: Pass,
        classifier: C,
    }
}

impl<F, C, B, E> Future for Admitted<F, C>
where
    F: Future<Output = Result<Response<B>, E>>,
    C: Classify<E>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(cx));
        this.pass.settle(Health::of(this.classifier, &result));
        Poll::Ready(result)
    }
}

pin_project! {
    /// The response of [`CircuitBreakerPeek`](super::CircuitBreakerPeek).
    #[derive(Debug)]
    pub struct PeekFuture<F> {
        #[pin]
        inner: Refusable<F, Open>,
    }
}

impl<F> PeekFuture<F> {
    pub(super) fn passed(inner: F) -> Self {
        Self { inner: Refusable::passed(inner) }
    }

    pub(super) fn refused(open: Open) -> Self {
        Self { inner: Refusable::refused(open) }
    }
}

impl<F, T, E> Future for PeekFuture<F>
where
    F: Future<Output = Result<T, E>>,
{
    type Output = Result<T, Error<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().inner.poll(cx)
    }
}
