use std::{
    pin::Pin,
    task::{Context, Poll},
};

use http::Response;
use pin_project_lite::pin_project;

use super::{Elapsed, Error};
use crate::{call::current::InCall, expiring::Expiring};

pin_project! {
    /// The response of [`Deadline`](super::Deadline).
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: InCall<Expiring<F, Elapsed>>,
    }
}

impl<F> ResponseFuture<F> {
    pub(super) fn new(inner: InCall<Expiring<F, Elapsed>>) -> Self {
        Self { inner }
    }
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<B>, Error<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().inner.poll(cx)
    }
}
