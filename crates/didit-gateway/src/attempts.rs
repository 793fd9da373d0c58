//! How often a call was sent.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll},
};

use http::Request;
use tower::Service;

/// How often a call was handed to the client; in the extensions of its request, so that all attempts share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sent(Arc<AtomicU32>);

/// Counts what the client is given.
#[derive(Clone, Debug)]
pub(crate) struct CountAttempts<S> {
    client: S,
}

// ===== impl Sent =====

impl Sent {
    pub(crate) fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

// ===== impl CountAttempts =====

impl<S> CountAttempts<S> {
    pub(crate) fn new(client: S) -> Self {
        Self { client }
    }
}

impl<S, B> Service<Request<B>> for CountAttempts<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.client.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if let Some(Sent(count)) = request.extensions().get() {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.client.call(request)
    }
}
