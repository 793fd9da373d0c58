//! What a request asks for, without taking its body.

use std::any::Any;

use bytes::Bytes;
use http_body_util::{Empty, Full};

pub(crate) use crate::in_memory::in_memory;

/// A body of the same type with these bytes, if such a body lies in memory.
pub(crate) fn of_bytes<B: 'static>(data: Bytes) -> Option<B> {
    let mut made = None;
    let slot: &mut dyn Any = &mut made;
    if let Some(full) = slot.downcast_mut::<Option<Full<Bytes>>>() {
        *full = Some(Full::new(data));
    } else if let Some(text) = slot.downcast_mut::<Option<String>>() {
        *text = String::from_utf8(data.into()).ok();
    } else if let Some(empty) = slot.downcast_mut::<Option<Empty<Bytes>>>() {
        *empty = data.is_empty().then(Empty::new);
    } else if let Some(unit) = slot.downcast_mut::<Option<()>>() {
        *unit = data.is_empty().then_some(());
    } else {
        #[cfg(feature = "reqwest")]
        if let Some(body) = slot.downcast_mut::<Option<reqwest::Body>>() {
            *body = Some(data.into());
        }
    }
    made
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[test]
    fn what_lies_in_memory_is_read_without_being_taken() {
        let body = Full::new(Bytes::from_static(b"hello"));
        for _ in 0..2 {
            assert_eq!(in_memory(&body).unwrap(), "hello");
        }
        assert_eq!(in_memory(&Full::<Bytes>::default()).unwrap(), "");
        assert_eq!(in_memory(&Empty::<Bytes>::new()).unwrap(), "");
        assert_eq!(in_memory(&"text".to_owned()).unwrap(), "text");
        assert_eq!(in_memory(&()).unwrap(), "");
    }

    #[test]
    fn what_was_read_can_be_made_again() {
        let data = || Bytes::from_static(b"hello");
        assert_eq!(in_memory(&of_bytes::<Full<Bytes>>(data()).unwrap()).unwrap(), "hello");
        assert_eq!(of_bytes::<String>(data()).unwrap(), "hello");
        assert!(of_bytes::<Empty<Bytes>>(Bytes::new()).is_some() && of_bytes::<Empty<Bytes>>(data()).is_none());
        assert_eq!(of_bytes::<()>(Bytes::new()), Some(()));
        assert!(of_bytes::<String>(Bytes::from_static(b"\xff")).is_none());
        assert!(of_bytes::<http_body_util::combinators::BoxBody<Bytes, std::io::Error>>(data()).is_none());
    }

    #[cfg(feature = "reqwest")]
    #[test]
    fn a_body_of_reqwest_is_read_if_it_lies_in_memory() {
        let body = of_bytes::<reqwest::Body>(Bytes::from_static(b"hello")).unwrap();
        assert_eq!(in_memory(&body).unwrap(), "hello");
        assert!(in_memory(&reqwest::Body::wrap(body)).is_none());
    }

    #[test]
    fn what_may_stream_is_left_alone() {
        assert!(in_memory(&Full::new(Bytes::from_static(b"hello")).boxed()).is_none());
    }
}
