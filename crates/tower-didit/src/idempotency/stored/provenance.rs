//! Where a response comes from that the server did not give to this call.

use http::{HeaderName, HeaderValue, Response};

/// Set to `true` on a response that another call with the same key was given by the server.
pub const REPLAYED_HEADER: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Set to `true` on a response that was put together from what a look-up found.
pub const ADOPTED_HEADER: HeaderName = HeaderName::from_static("idempotency-adopted");

/// Where a response comes from, in its extensions, if the server did not give it to this call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Provenance {
    /// From the store: status, `Content-Type` and body of an earlier answer. [`REPLAYED_HEADER`] is set.
    Replayed,
    /// From a call with the same key that was under way at the same time. [`REPLAYED_HEADER`] is set.
    Coalesced,
    /// From a look-up, after the answer was lost; see [`Verdict::Found`](crate::idempotency::reconcile::Verdict::Found).
    /// [`ADOPTED_HEADER`] is set.
    Adopted,
}

impl Provenance {
    pub(super) fn mark<B>(self, mut response: Response<B>) -> Response<B> {
        let header = match self {
            Self::Replayed | Self::Coalesced => REPLAYED_HEADER,
            Self::Adopted => ADOPTED_HEADER,
        };
        response.headers_mut().insert(header, HeaderValue::from_static("true"));
        response.extensions_mut().insert(self);
        response
    }
}
