//! Repeats a call that failed, where that is right, when that is right, and only as often as the server can bear.
//!
//! # Why three questions
//!
//! *May this call be repeated?* depends on what came back and on the route: a 429 was refused unprocessed, so anything
//! may be sent again; after a timeout a second `POST` may bill twice. [`Policy`] answers it, by default from the route
//! table ([`RoutePolicy`]).
//!
//! *How long to wait?* is [`Backoff`]'s to say, and the server's hint is its floor: full jitter spreads clients that
//! failed together ([`ExponentialBackoff`]).
//!
//! *Has this client repeated too much already?* is the [`Budget`]'s: it is shared by all clones of the layer, so that an
//! outage is not answered with five times the load.
//!
//! # What a caller sees
//!
//! The last real response or error, as it came: what was sent counts more than a repetition that found no connection or was
//! held back in this process. Only then can a response come out whose body was drained before the repetition; it is empty,
//! and its `Content-Length` is gone. A wait that the deadline or
//! [`longest_wait`](RetryBuilder::longest_wait) has no room for is not begun: the response is handed out at once, with
//! its `Retry-After` for whoever can wait. How often the call was sent stands in the
//! [`CallReport`](crate::call::CallReport), and so does it if a repetition was refused because an earlier attempt had
//! [worked](crate::call::CallReport::settled_by). A call that a retry layer further out already repeats is passed through.
//!
//! # Bodies
//!
//! The inner service takes [`ReplayBody`]. A body in memory costs a reference count per attempt. A stream is recorded
//! while the first attempt sends it, up to [`replay_cap`](RetryBuilder::replay_cap), and sent again from the recording;
//! a larger one goes out once. What that costs, and what becomes of an attempt that is still sending when the next one
//! begins, is described in [`body`](crate::body).
//!
//! The response of an attempt that is repeated is read to its end during the backoff, within bounds, so that its
//! connection can be used again. The response that the caller gets is left alone.
//!
//! # Example
//!
//! ```
//! use std::sync::{Arc, atomic::{AtomicU16, Ordering}};
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::{Empty, Full};
//! use tower::{ServiceBuilder, ServiceExt};
//! use tower_didit::{body::ReplayBody, call::CallReport, retry::RetryLayer};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let answers = Arc::new(AtomicU16::new(0));
//! let service = ServiceBuilder::new().layer(RetryLayer::didit()).service_fn(
//!     move |_: Request<ReplayBody<Full<Bytes>>>| {
//!         // Fails twice, then works.
//!         let status = if answers.fetch_add(1, Ordering::Relaxed) < 2 { 503 } else { 200 };
//!         async move { Response::builder().status(status).body(Empty::<Bytes>::new()).map_err(std::io::Error::other) }
//!     },
//! );
//!
//! let response = service.oneshot(Request::get("/v3/sessions/").body(Full::<Bytes>::default())?).await?;
//! assert_eq!(response.status(), 200);
//! assert_eq!(response.extensions().get::<CallReport>().map(CallReport::attempts), Some(3));
//! # Ok(())
//! # }
//! ```

mod backoff;
mod budget;
mod decision;
mod future;
mod layer;
mod limits;
mod policy;

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use http_body::Body;
use tower::Service;

pub use self::{
    backoff::{Backoff, ExponentialBackoff},
    budget::Budget,
    future::ResponseFuture,
    layer::{RetryBuilder, RetryLayer},
    limits::{AttemptLimit, PolicyExt, TimeLimit},
    policy::{Attempt, Policy, RoutePolicy},
};
use self::{future::Attempts, layer::Shared};
use crate::{
    body::ReplayBody,
    call::current::Scope,
    outcome::{Classify, DiditClassifier},
};

/// Repeats what may be repeated; see the [module](self).
#[derive(Debug)]
pub struct Retry<S, C = DiditClassifier, P = RoutePolicy, K = ExponentialBackoff> {
    inner: S,
    shared: Arc<Shared<C, P, K>>,
}

// ===== impl Retry =====

impl<S, C, P, K> Retry<S, C, P, K> {
    inner_accessors!();
}

impl<S: Clone, C, P, K> Clone for Retry<S, C, P, K> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<S, C, P, K, B, RB> Service<Request<B>> for Retry<S, C, P, K>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<RB>> + Clone,
    B: Body + Unpin,
    RB: Body + Unpin,
    C: Classify<S::Error>,
    P: Policy,
    K: Backoff,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S, C, P, K, B, RB>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let scope = Scope::enter(&request);
        let attempts = Attempts::start(&mut self.inner, request.map(ReplayBody::new), &self.shared);
        ResponseFuture::new(scope.around(attempts))
    }
}
