//! All layers in the right order, around one client.
//!
//! # Why this order
//!
//! | from outside in | because |
//! |---|---|
//! | [correlation](crate::correlation) | it opens the call: everything below logs under its id |
//! | telemetry, calls | everything that takes a call's time is below it (feature `telemetry`) |
//! | [idempotency](crate::idempotency) | all attempts share one key |
//! | [deadline](crate::deadline) | it bounds everything below, waiting included |
//! | [retry](crate::retry) | it repeats what is under it |
//! | [breaker, peek](crate::circuit_breaker) | an open circuit refuses before the call queues for quota |
//! | [pacing](crate::pacing) | every attempt takes a slot; time in the queue is not time on the wire |
//! | [breaker, ticket](crate::circuit_breaker) | a call may have queued for a while: admission is decided at dispatch, and a refusal gives the slot back |
//! | telemetry, attempts | below every wait, and above the timeout, so that it sees what retry sees (feature `telemetry`) |
//! | [attempt timeout](crate::attempt_timeout) | wire time only |
//!
//! With an [idempotency store](DiditBuilder::idempotency_store) the second layer is
//! [`StoredIdempotency`], and the response body is its
//! [`AnswerBody`](crate::idempotency::stored::AnswerBody).
//!
//! The stack also completes requests: the API key is added, and a URI without a host is sent to the base URL. A request
//! for another host is refused, because the key would go with it.
//!
//! # Example
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::{Empty, Full};
//! use tower::{Layer, ServiceExt};
//! use tower_didit::{DiditLayer, body::ReplayBody};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Any `Service<Request<ReplayBody<_>>>` will do; usually a hyper client.
//! let client = tower::service_fn(|request: Request<ReplayBody<Full<Bytes>>>| async move {
//!     assert_eq!(request.uri().host(), Some("verification.didit.me"));
//!     assert!(request.headers().contains_key("x-api-key"));
//!     Ok::<_, std::io::Error>(Response::new(Empty::<Bytes>::new()))
//! });
//!
//! let didit = DiditLayer::builder().api_key("secret").build()?.layer(client);
//! let response = didit.oneshot(Request::get("/v3/sessions/").body(Full::default())?).await?;
//! assert_eq!(response.status(), 200);
//! # Ok(())
//! # }
//! ```

//!
//! # Naming the type
//!
//! An application that keeps the service in a struct names it once. The client's body type is
//! [`ReplayBody`](crate::body::ReplayBody) of the application's own:
//!
//! ```
//! use bytes::Bytes;
//! use http_body_util::Full;
//! use hyper_util::client::legacy::{Client, connect::HttpConnector};
//! use tower_didit::{DiditService, body::ReplayBody};
//!
//! type Didit = DiditService<Client<HttpConnector, ReplayBody<Full<Bytes>>>>;
//! ```

mod error;
mod future;
pub(crate) mod header;
mod layer;
mod target;

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower::Service;

pub use self::{
    error::{Error, ErrorKind, Flatten},
    future::ResponseFuture,
    layer::{DiditBuilder, DiditLayer},
    target::ForeignHost,
};
use self::{
    target::Target,
    told::{AttemptTold, Told},
};
use crate::{
    attempt_timeout::AttemptTimeout,
    call::current::InCall,
    circuit_breaker::{CircuitBreaker, CircuitBreakerPeek},
    correlation::Correlation,
    deadline::Deadline,
    idempotency::{Idempotency, StoredIdempotency},
    pacing::Pacing,
    readiness,
    refusable::Refusable,
    retry::Retry,
};

/// A client `S` with all layers around it; see the [module](self).
pub type DiditService<S> = Stack<Correlation<Told<Idempotency<Bounded<S>>>>>;

/// A client `S` with all layers around it, and a store among them; see the [module](self).
pub type StoredDiditService<S> = Stack<Correlation<Told<StoredIdempotency<Bounded<S>>>>>;

/// What happens within the call's total time.
type Bounded<S> = Deadline<Retry<Queued<S>>>;

/// What one attempt goes through.
type Queued<S> = CircuitBreakerPeek<Pacing<CircuitBreaker<AttemptTold<AttemptTimeout<S>>>>>;

/// What is told about calls and attempts, if the feature is on.
#[cfg(feature = "telemetry")]
mod told {
    pub(super) type Told<S> = crate::telemetry::Telemetry<S>;
    pub(super) type AttemptTold<S> = crate::telemetry::AttemptTelemetry<S>;
}
#[cfg(not(feature = "telemetry"))]
mod told {
    pub(super) type Told<S> = S;
    pub(super) type AttemptTold<S> = S;
}

/// Layers from outside in, which requests go to completed, and come back from with one flat [`Error`].
///
/// [`DiditService`] and [`StoredDiditService`] say which layers those are.
#[derive(Clone, Debug)]
pub struct Stack<T> {
    layers: T,
    target: Arc<Target>,
}

impl<T, B, RB> Service<Request<B>> for Stack<T>
where
    T: Service<Request<B>, Response = Response<RB>, Error: Flatten> + Clone,
{
    type Response = T::Response;
    type Error = Error<<T::Error as Flatten>::Client>;
    type Future = ResponseFuture<T, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.layers.poll_ready(cx).map_err(|error| Error::new(error.flatten(), None))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        match self.target.complete(&mut request) {
            Ok(()) => {
                ResponseFuture::new(Refusable::passed(InCall::open(request, |request| self.layers.call(request))))
            }
            Err(foreign) => {
                readiness::give_back(&mut self.layers);
                ResponseFuture::new(Refusable::refused(foreign))
            }
        }
    }
}
