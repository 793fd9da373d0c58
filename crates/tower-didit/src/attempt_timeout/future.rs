use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;

use super::{Elapsed, Error};
use crate::{call::current, expiring::Expiring};

pin_project! {
    /// The response of [`AttemptTimeout`](super::AttemptTimeout).
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: Expiring<F, Elapsed>,
    }
}

impl<F> ResponseFuture<F> {
    pub(super) fn new(inner: Expiring<F, Elapsed>) -> Self {
        Self { inner }
    }
}

impl<F, T, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<T, E>>,
{
    type Output = Result<T, Error<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = ready!(self.project().inner.poll(cx));
        if matches!(result, Err(Error::Layer(_))) {
            current::cut_off("timeout");
        }
        Poll::Ready(result)
    }
}
