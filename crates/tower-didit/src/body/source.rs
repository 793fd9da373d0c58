//! A body as its owner gave it, after it was looked at.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};

/// A body that streams, with what came out of it when it was looked at.
pub(super) struct Source<B: Body> {
    ahead: Option<Result<Frame<Bytes>, B::Error>>,
    body: B,
}

/// What a look at a body found.
pub(super) enum Found<B: Body> {
    /// Nothing to send.
    Nothing,
    /// All of it, in memory.
    Whole(Bytes),
    /// A body that takes time, or comes in pieces.
    Stream(Source<B>),
}

impl<B: Body + Unpin> Source<B> {
    /// Finds out whether a body lies in memory.
    ///
    /// A body whose exact length is known is polled once, without waiting: if all of it comes out at once, it was in
    /// memory.
    pub(super) fn look(mut body: B) -> Found<B> {
        if body.is_end_stream() {
            return Found::Nothing;
        }
        let Some(length) = body.size_hint().exact() else { return Found::Stream(Self { ahead: None, body }) };
        let frame = match Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => return Found::Stream(Self { ahead: None, body }),
            Poll::Ready(None) => return Found::Nothing,
            Poll::Ready(Some(frame)) => frame.map(into_bytes),
        };
        let is_whole = |data: &Bytes| length_of(data) == length && body.is_end_stream();
        match frame {
            Ok(frame) if frame.data_ref().is_some_and(is_whole) => match frame.into_data() {
                Ok(data) => Found::Whole(data),
                Err(frame) => Found::Stream(Self { ahead: Some(Ok(frame)), body }),
            },
            frame => Found::Stream(Self { ahead: Some(frame), body }),
        }
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.ahead.take() {
            Some(frame) => Poll::Ready(Some(frame)),
            None => Pin::new(&mut self.body).poll_frame(cx).map(|frame| frame.map(|frame| frame.map(into_bytes))),
        }
    }
}

impl<B: Body> Source<B> {
    pub(super) fn is_end_stream(&self) -> bool {
        self.ahead.is_none() && self.body.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let ahead = self.ahead.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()).map_or(0, length_of);
        let rest = self.body.size_hint();
        shifted(rest, |bytes| bytes.saturating_add(ahead))
    }
}

/// Turns the data of a frame into `Bytes`; without a copy if that is what it is.
fn into_bytes<D: Buf>(frame: Frame<D>) -> Frame<Bytes> {
    frame.map_data(|mut data| data.copy_to_bytes(data.remaining()))
}

pub(super) fn length_of(data: &Bytes) -> u64 {
    u64::try_from(data.len()).unwrap_or(u64::MAX)
}

/// A hint with both of its bounds moved; `shift` must not change their order.
pub(super) fn shifted(hint: SizeHint, shift: impl Fn(u64) -> u64) -> SizeHint {
    let mut moved = SizeHint::new();
    moved.set_lower(shift(hint.lower()));
    if let Some(upper) = hint.upper() {
        moved.set_upper(shift(upper));
    }
    moved
}
