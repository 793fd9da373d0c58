use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;

use super::{AnswerBody, Error};
use crate::call::current::InCall;

/// A call on its way. Boxed: a store is asked before and after it, beside which one allocation is nothing.
pub(super) type Running<RB, E> = Pin<Box<dyn Future<Output = Result<Response<AnswerBody<RB>>, Error<E>>> + Send>>;

pin_project! {
    /// The response of [`StoredIdempotency`](super::StoredIdempotency).
    pub struct ResponseFuture<RB: Body, E> {
        #[pin]
        inner: InCall<Running<RB, E>>,
    }
}

impl<RB: Body, E> ResponseFuture<RB, E> {
    pub(super) fn new(inner: InCall<Running<RB, E>>) -> Self {
        Self { inner }
    }
}

impl<RB: Body, E> fmt::Debug for ResponseFuture<RB, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

impl<RB: Body, E> Future for ResponseFuture<RB, E> {
    type Output = Result<Response<AnswerBody<RB>>, Error<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().inner.poll(cx)
    }
}
