use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Response;
use pin_project_lite::pin_project;
use tracing::{Instrument, Span, instrument::Instrumented};

use crate::call::current::InCall;

pin_project! {
    /// The response of [`Correlation`](super::Correlation), inside the call's span: when it is dropped, too.
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: Instrumented<InCall<F>>,
    }
}

impl<F> ResponseFuture<F> {
    pub(super) fn new(inner: InCall<F>, span: Span) -> Self {
        Self { inner: inner.instrument(span) }
    }
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let result = ready!(this.inner.as_mut().poll(cx));
        if let Ok(response) = &result {
            this.inner.span().record("http.response.status_code", response.status().as_u16());
        }
        Poll::Ready(result)
    }
}
