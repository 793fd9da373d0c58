//! Where a response comes from that the server did not give to this call.

use http::{HeaderName, HeaderValue, Response};

pub use crate::call::Provenance;
use crate::call::current;

/// Set to `true` on a response that another call with the same key was given by the server.
pub const REPLAYED_HEADER: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Set to `true` on a response that was put together from what a look-up found.
pub const ADOPTED_HEADER: HeaderName = HeaderName::from_static("idempotency-adopted");

impl Provenance {
    pub(super) fn mark<B>(self, mut response: Response<B>) -> Response<B> {
        let header = match self {
            Self::Replayed | Self::Coalesced => REPLAYED_HEADER,
            Self::Adopted => ADOPTED_HEADER,
        };
        response.headers_mut().insert(header, HeaderValue::from_static("true"));
        response.extensions_mut().insert(self);
        current::with(|call| call.report.provenance = Some(self));
        response
    }
}
