//! One box for what is below.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use tower::Service;

/// Keeps the future of a service in a box.
///
/// A future is copied each time that a layer wraps it. Everything below this is copied no more from here on: one allocation
/// costs half as much as carrying it through the layers above. One for the whole stack is enough.
#[derive(Clone, Debug)]
pub struct InBox<S>(pub(super) S);

impl<S, R> Service<R> for InBox<S>
where
    S: Service<R>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<S::Future>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        Box::pin(self.0.call(request))
    }
}
