//! One key per logical call, the same on every attempt.
//!
//! # Why above the retry layer
//!
//! A key that is made below the retry layer changes with every attempt, and then it protects nothing. This layer
//! stands above it and names the call once. A caller's own key, in the request's header or in
//! [`CallOptions::idempotency_key`], always wins; the key in use is in the
//! [`CallReport`](crate::call::CallReport).
//!
//! Only POST and PATCH get a key: the other methods are idempotent by themselves (RFC 9110).
//!
//! # Keys that survive a restart
//!
//! By default a key is a random UUIDv7: it covers the attempts of one call and nothing else. A process that dies in the
//! middle of a call and starts over makes another. A caller that names the business operation with
//! [`CallOptions::operation_id`] gets a key made of that id, the method, the path with its query, and the body: a
//! UUIDv8 that is the same in every process, always.
//!
//! The body counts if its type shows that it lies in memory, where it can be read without being taken: `Full<Bytes>`,
//! `Empty<Bytes>`, `String`, `()`, and with the feature `reqwest` a `reqwest::Body` of bytes. **Any other type counts
//! as one that streams**, a `BoxBody` or an axum `Body` too, whatever is in it: the key is made of the rest, and two
//! calls that differ in their bodies only are not told apart.
//!
//! # Calls that happen once
//!
//! A key in a header helps only where the server honours it. With a [store](IdempotencyLayer::store) the layer
//! remembers which operations were begun and what came of them: calls with one name are held together, an operation
//! that may have been carried out is [looked up](reconcile) before it is sent again, and what is done is not done
//! twice. That is [`stored`], a service of its own, so that a stack without a store pays nothing for it.
//!
//! # What it protects at Didit
//!
//! Didit honours the header on `POST /v3/aml/` and on wallet verification only (its api-errors page). Sending it
//! elsewhere is harmless and changes nothing; there, safety comes from the route's
//! [`RetryClass`](didit_api::RetryClass), which the retry layer reads.
//!
//! # Example
//!
//! ```
//! use http::{Request, Response};
//! use tower::{ServiceBuilder, ServiceExt};
//! use tower_didit::{call::CallOptions, idempotency::{self, IdempotencyLayer}};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let service = ServiceBuilder::new()
//!     .layer(IdempotencyLayer::new())
//!     .service_fn(async |request: Request<String>| {
//!         // What a server would recognise the call by.
//!         Ok::<_, std::convert::Infallible>(Response::new(request.headers()[idempotency::HEADER].clone()))
//!     });
//!
//! let request = || {
//!     let options = CallOptions::new().operation_id("order-7".parse()?);
//!     let body = r#"{"full_name":"Ada Example"}"#.to_owned();
//!     Ok::<_, Box<dyn std::error::Error>>(Request::post("/v3/aml/").extension(options).body(body)?)
//! };
//! let first = service.clone().oneshot(request()?).await?.into_body();
//! let second = service.oneshot(request()?).await?.into_body();
//! assert_eq!(first, second);
//! # Ok(())
//! # }
//! ```

mod future;
mod hash;
mod keys;
mod layer;
pub mod reconcile;
pub mod store;
pub mod stored;

use std::task::{Context, Poll};

use http::{HeaderName, Request, Response};
use tower::Service;

use self::keys::Keys;
pub use self::{
    future::ResponseFuture,
    hash::HashSecret,
    layer::IdempotencyLayer,
    stored::{Provenance, Refused, StoredIdempotency, StoredIdempotencyLayer},
};
#[cfg(doc)]
use crate::call::CallOptions;
pub use crate::call::IdempotencyKey;
use crate::{
    call::current::{self, Scope},
    payload,
};

/// The header that carries the key unless the layer is told otherwise (IETF draft-ietf-httpapi-idempotency-key-header).
pub const HEADER: HeaderName = HeaderName::from_static("idempotency-key");

/// Names every POST and PATCH call; see the [module](self).
#[derive(Clone, Debug)]
pub struct Idempotency<S> {
    inner: S,
    keys: Keys,
}

// ===== impl Idempotency =====

impl<S> Idempotency<S> {
    /// Wraps a service.
    pub fn new(inner: S, layer: &IdempotencyLayer) -> Self {
        Self { inner, keys: layer.keys.clone() }
    }

    inner_accessors!();
}

impl<S, B, RB> Service<Request<B>> for Idempotency<S>
where
    S: Service<Request<B>, Response = Response<RB>>,
    B: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let key = self.keys.stamp(&mut request);
        let scope = Scope::enter(&request);
        current::with(|call| call.report.idempotency_key = call.report.idempotency_key.take().or(key));
        ResponseFuture::new(scope.around(self.inner.call(request)))
    }
}
