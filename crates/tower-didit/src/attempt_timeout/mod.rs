//! How long one attempt may be on the wire.
//!
//! # Why per endpoint
//!
//! A list answers within a second, a proof of address may take half a minute. One timeout for both either hangs on
//! the first or cuts off the second, which then bills without an answer. So the route table carries a timeout for
//! each endpoint, and this layer stands below every queue: waiting for quota is not time on the wire.
//!
//! The time runs until the response's headers; reading its body is up to the caller.
//!
//! # Example
//!
//! ```
//! use std::time::Duration;
//! use tower::ServiceBuilder;
//! use tower_didit::attempt_timeout::AttemptTimeoutLayer;
//! # async fn client(_: http::Request<()>) -> Result<http::Response<()>, std::convert::Infallible> {
//! #     Ok(http::Response::new(()))
//! # }
//!
//! let service = ServiceBuilder::new()
//!     .layer(AttemptTimeoutLayer::didit())
//!     .service_fn(client);
//! ```

mod error;
mod future;
mod layer;

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use didit_api::Routes;
use http::Request;
use tower::Service;

pub use self::{
    error::{Elapsed, Error},
    future::ResponseFuture,
    layer::AttemptTimeoutLayer,
};
use crate::{
    call::{SenderWait, current},
    expiring::Expiring,
};

/// Ends an attempt after its endpoint's timeout; see the [module](self).
#[derive(Clone, Debug)]
pub struct AttemptTimeout<S> {
    inner: S,
    routes: Arc<Routes>,
    unknown: Duration,
}

// ===== impl AttemptTimeout =====

impl<S> AttemptTimeout<S> {
    /// Wraps a service.
    pub fn new(inner: S, layer: &AttemptTimeoutLayer) -> Self {
        Self { inner, routes: Arc::clone(&layer.routes), unknown: layer.unknown }
    }

    inner_accessors!();
}

impl<S, B> Service<Request<B>> for AttemptTimeout<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = Error<S::Error>;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Error::Inner)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let endpoint = self.routes.find(request.method(), request.uri().path());
        let after = endpoint.map_or(self.unknown, |id| self.routes.get(id).attempt_timeout());
        let at = current::now() + after.min(AttemptTimeoutLayer::MAX);
        let sender = request.extensions().get::<SenderWait>().cloned();
        ResponseFuture::new(Expiring::new(self.inner.call(request), at, after), sender)
    }
}
