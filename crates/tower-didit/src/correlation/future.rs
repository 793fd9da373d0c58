use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Response;
use pin_project_lite::pin_project;
use tracing::Span;

use crate::call::current::InCall;

pin_project! {
    /// The response of [`Correlation`](super::Correlation), inside the call's span.
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: InCall<F>,
        span: Span,
    }
}

impl<F> ResponseFuture<F> {
    pub(super) fn new(inner: InCall<F>, span: Span) -> Self {
        Self { inner, span }
    }
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let _entered = this.span.enter();
        let result = ready!(this.inner.poll(cx));
        if let Ok(response) = &result {
            this.span.record("http.response.status_code", response.status().as_u16());
        }
        Poll::Ready(result)
    }
}
