//! The total time of a call: everything below it, waiting and repeating included.
//!
//! # Why a deadline and not a long timeout
//!
//! A timeout only ends a call. A deadline is also known to the layers below *before* they wait: the retry layer does
//! not sleep past it but hands out the last real response, and the pacing layer refuses at the door what cannot start
//! in time. So a caller who cannot be served is told at once.
//!
//! The default is 120 s: a call may have to wait a whole rate window (60 s) for quota, and a repetition after that
//! still has to fit. One call sets its own with [`CallOptions::deadline`].
//!
//! # Example
//!
//! ```
//! use std::time::Duration;
//! use tower::ServiceBuilder;
//! use tower_didit::deadline::DeadlineLayer;
//! # async fn client(_: http::Request<()>) -> Result<http::Response<()>, std::convert::Infallible> {
//! #     Ok(http::Response::new(()))
//! # }
//!
//! let service = ServiceBuilder::new()
//!     .layer(DeadlineLayer::new(Duration::from_secs(20)))
//!     .service_fn(client);
//! ```

mod error;
mod future;
mod layer;

use std::{
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use tower::Service;

use self::future::Bounded;
pub use self::{
    error::{Elapsed, Error},
    future::ResponseFuture,
    layer::DeadlineLayer,
};
use crate::{
    call::{
        CallOptions,
        current::{self, Scope},
    },
    readiness,
    refusable::Refusable,
};

/// Ends a call after a total time; see the [module](self).
#[derive(Clone, Debug)]
pub struct Deadline<S> {
    inner: S,
    total: Duration,
}

// ===== impl Deadline =====

impl<S> Deadline<S> {
    /// Wraps a service.
    pub const fn new(inner: S, total: Duration) -> Self {
        Self { inner, total }
    }

    inner_accessors!();
}

impl<S, B, RB> Service<Request<B>> for Deadline<S>
where
    S: Service<Request<B>, Response = Response<RB>> + Clone,
{
    type Response = S::Response;
    type Error = Error<S::Error>;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Error::Inner)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let options = request.extensions().get::<CallOptions>();
        let total = options.and_then(|options| options.deadline).unwrap_or(self.total);
        let total = total.min(DeadlineLayer::MAX);
        let scope = Scope::enter(&request);
        let now = current::now();
        let at = now + total;
        // Whoever has no time at all would only have it sent and abandoned.
        if at.min(current::deadline().unwrap_or(at)) <= now {
            readiness::give_back(&mut self.inner);
            return ResponseFuture::new(scope.around(Refusable::refused(Elapsed::unsent(total))));
        }
        let until = current::until(at);
        let response = self.inner.call(request);
        drop(until);
        ResponseFuture::new(scope.around(Refusable::passed(Bounded::new(response, at, total))))
    }
}
