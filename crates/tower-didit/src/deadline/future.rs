use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Response;
use pin_project_lite::pin_project;
use tokio::time::{Duration, Instant};

use super::{Elapsed, Error};
use crate::{
    call::current::{self, InCall},
    error::LayerError,
    expiring::Expiring,
    refusable::Refusable,
};

pin_project! {
    /// The response of [`Deadline`](super::Deadline).
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: InCall<Refusable<Bounded<F>, Elapsed>>,
    }
}

impl<F> ResponseFuture<F> {
    pub(super) fn new(inner: InCall<Refusable<Bounded<F>, Elapsed>>) -> Self {
        Self { inner }
    }
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<B>, Error<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // Refused or expired, it is this layer's error.
        self.project().inner.poll(cx).map_err(|error| match error {
            LayerError::Layer(elapsed) => LayerError::Layer(elapsed),
            LayerError::Inner(error) => error,
        })
    }
}

pin_project! {
    // The inner response, which ends on time and lets the layers below know when that is.
    #[derive(Debug)]
    pub(super) struct Bounded<F> {
        #[pin]
        inner: Expiring<F, Elapsed>,
    }
}

impl<F> Bounded<F> {
    pub(super) fn new(response: F, at: Instant, total: Duration) -> Self {
        Self { inner: Expiring::new(response, at, Elapsed::maybe_sent(total)) }
    }
}

impl<F, T, E> Future for Bounded<F>
where
    F: Future<Output = Result<T, E>>,
{
    type Output = Result<T, Error<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let until = current::until(this.inner.at());
        let result = ready!(this.inner.poll(cx));
        drop(until);
        if matches!(result, Err(LayerError::Layer(_))) {
            current::cut_off("deadline_exceeded");
        }
        Poll::Ready(result)
    }
}
