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
//! # What it protects at Didit
//!
//! Didit honours the header on `POST /v3/aml/` and on wallet verification only (its api-errors page). Sending it
//! elsewhere is harmless and changes nothing; there, safety comes from the route's
//! [`RetryClass`](didit_api::RetryClass), which the retry layer reads.
//!
//! # Example
//!
//! ```
//! use tower::ServiceBuilder;
//! use tower_didit::idempotency::IdempotencyLayer;
//! # async fn client(_: http::Request<()>) -> Result<http::Response<()>, std::convert::Infallible> {
//! #     Ok(http::Response::new(()))
//! # }
//!
//! let service = ServiceBuilder::new()
//!     .layer(IdempotencyLayer::new())
//!     .service_fn(client);
//! ```

mod future;
mod layer;

use std::task::{Context, Poll};

use http::{HeaderName, HeaderValue, Method, Request, Response};
use tower::Service;

pub use self::{future::ResponseFuture, layer::IdempotencyLayer};
pub use crate::call::IdempotencyKey;
use crate::{
    call::{
        CallOptions,
        current::{self, InCall},
    },
    ids,
    random::Randomness,
};

/// The header that carries the key unless the layer is told otherwise (IETF draft-ietf-httpapi-idempotency-key-header).
pub const HEADER: HeaderName = HeaderName::from_static("idempotency-key");

/// Names every POST and PATCH call; see the [module](self).
#[derive(Clone, Debug)]
pub struct Idempotency<S> {
    inner: S,
    header: HeaderName,
    quoted: bool,
    random: Randomness,
}

// ===== impl Idempotency =====

impl<S> Idempotency<S> {
    /// Wraps a service.
    pub fn new(inner: S, layer: &IdempotencyLayer) -> Self {
        let IdempotencyLayer { header, quoted, random } = layer.clone();
        Self { inner, header, quoted, random }
    }

    inner_accessors!();

    /// Puts the key into the request, unless it carries one; returns the key in use.
    fn stamp<B>(&self, request: &mut Request<B>) -> Option<IdempotencyKey> {
        if let Some(own) = request.headers().get(&self.header) {
            return IdempotencyKey::try_from(own.clone()).ok();
        }
        let options = request.extensions().get::<CallOptions>();
        let key = match options.and_then(|options| options.idempotency_key.clone()) {
            Some(own) => own,
            None if matches!(*request.method(), Method::POST | Method::PATCH) => {
                IdempotencyKey::trusted(ids::new_id(&self.random))
            }
            None => return None,
        };
        let value = if self.quoted { quote(&key) } else { key.to_header() };
        request.headers_mut().insert(self.header.clone(), value);
        Some(key)
    }
}

/// The key as a string item of RFC 8941, section 3.3.3: quoted, with `"` and `\` escaped.
fn quote(key: &IdempotencyKey) -> HeaderValue {
    let escaped = key.as_str().replace('\\', r"\\").replace('"', "\\\"");
    // Visible ASCII in quotes is always a header value.
    HeaderValue::try_from(format!("\"{escaped}\"")).unwrap_or_else(|_| key.to_header())
}

impl<S, B, RB> Service<Request<B>> for Idempotency<S>
where
    S: Service<Request<B>, Response = Response<RB>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let key = self.stamp(&mut request);
        ResponseFuture::new(InCall::enter(request, |request| {
            current::with(|call| call.report.idempotency_key = call.report.idempotency_key.take().or(key));
            self.inner.call(request)
        }))
    }
}
