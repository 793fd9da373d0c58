//! The body of an answer.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// The body of an answer: one piece of known size.
///
/// Its error type is [`io::Error`], as that of a body read from a connection is; nothing produces one yet.
#[derive(Debug, Default)]
pub struct SandboxBody {
    data: Option<Bytes>,
}

impl SandboxBody {
    pub(crate) fn new(data: Bytes) -> Self {
        Self { data: Some(data).filter(|data| !data.is_empty()) }
    }
}

impl Body for SandboxBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        Poll::Ready(self.data.take().map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let length = self.data.as_ref().map_or(0, Bytes::len);
        SizeHint::with_exact(u64::try_from(length).unwrap_or(u64::MAX))
    }
}
