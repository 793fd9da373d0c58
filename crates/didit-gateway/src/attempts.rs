//! How often a call was sent, and a line of the log for each time.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower::Service;

use crate::log::AttemptLine;

/// How often a call was handed to the client; in the extensions of its request, so that all attempts share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sent(Arc<AtomicU32>);

/// Counts attempts, and writes a line for each.
#[derive(Clone, Debug)]
pub(crate) struct CountAttempts<S> {
    client: S,
}

pin_project! {
    /// An attempt under way.
    pub(crate) struct AttemptFuture<F> {
        #[pin]
        inner: F,
        line: Option<AttemptLine>,
    }
}

// ===== impl Sent =====

impl Sent {
    pub(crate) fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    fn another(&self) -> u32 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

// ===== impl CountAttempts =====

impl<S> CountAttempts<S> {
    pub(crate) fn new(client: S) -> Self {
        Self { client }
    }
}

impl<S, B, RB> Service<Request<B>> for CountAttempts<S>
where
    S: Service<Request<B>, Response = Response<RB>, Error: std::error::Error + 'static>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = AttemptFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.client.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let number = request.extensions().get::<Sent>().map_or(1, Sent::another);
        let line = AttemptLine::new(number, &request);
        AttemptFuture { inner: self.client.call(request), line: Some(line) }
    }
}

impl<F, RB, E> Future for AttemptFuture<F>
where
    F: Future<Output = Result<Response<RB>, E>>,
    E: std::error::Error + 'static,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(cx));
        if let Some(line) = this.line.take() {
            line.ended(result.as_ref().map(Response::status));
        }
        Poll::Ready(result)
    }
}
