//! What lies in a body, without taking it.

use std::any::Any;

use bytes::Bytes;
use http_body::Body;
use http_body_util::{Empty, Full};

/// The bytes of a body that lies in memory: `Full<Bytes>`, `Empty<Bytes>`, `String` or `()`, and with the feature of that
/// name one of `reqwest`. Any other streams, as far as can be told without taking it: `None`.
pub(crate) fn in_memory<B: 'static>(body: &B) -> Option<Bytes> {
    let body: &dyn Any = body;
    if let Some(full) = body.downcast_ref::<Full<Bytes>>() {
        // The clone shares its bytes, and `Full` gives all of them at once.
        return Some(whole(full.clone()));
    }
    if let Some(text) = body.downcast_ref::<String>() {
        return Some(Bytes::copy_from_slice(text.as_bytes()));
    }
    #[cfg(feature = "reqwest")]
    if let Some(body) = body.downcast_ref::<reqwest::Body>() {
        return body.as_bytes().map(Bytes::copy_from_slice);
    }
    (body.is::<Empty<Bytes>>() || body.is::<()>()).then(Bytes::new)
}

fn whole(mut full: Full<Bytes>) -> Bytes {
    use std::{
        pin::Pin,
        task::{Context, Poll, Waker},
    };

    match Pin::new(&mut full).poll_frame(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
        Poll::Ready(Some(Err(never))) => match never {},
        Poll::Ready(None) | Poll::Pending => Bytes::new(),
    }
}
