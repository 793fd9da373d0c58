//! The body of an answer.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use crate::faults::Manner;

/// The body of an answer: one piece of known size, unless a fault wants it otherwise.
///
/// Its error type is [`io::Error`], as that of a body read from a connection is. A body that is cut off ends in one of
/// kind [`UnexpectedEof`](io::ErrorKind::UnexpectedEof).
#[derive(Debug)]
pub struct SandboxBody {
    rest: Bytes,
    /// The most bytes of a frame, and the pause before it.
    piece: usize,
    pause: Duration,
    /// What was announced and never comes.
    cut: Option<Cut>,
    sleep: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug)]
struct Cut {
    /// How many bytes are missing; `None` if no length is announced.
    missing: Option<usize>,
    /// The pause before the error.
    linger: Duration,
}

impl SandboxBody {
    pub(crate) fn new(data: Bytes) -> Self {
        Self { rest: data, piece: usize::MAX, pause: Duration::ZERO, cut: None, sleep: None }
    }

    pub(crate) fn in_manner(mut data: Bytes, manner: Manner) -> Self {
        let mut cut = None;
        if let Some(truncation) = manner.cut.filter(|_| !data.is_empty()) {
            let whole = data.len();
            data.truncate(truncation.of(whole));
            let missing = (!truncation.chunked).then_some(whole - data.len());
            cut = Some(Cut { missing, linger: Duration::ZERO });
        }
        let (piece, pause) = manner.slow.unwrap_or((usize::MAX, Duration::ZERO));
        Self { piece: piece.max(1), pause, cut, ..Self::new(data) }
    }

    /// Lets time pass before a cut, for what comes before it to reach the socket.
    pub(crate) fn lingering(mut self, linger: Duration) -> Self {
        if let Some(cut) = &mut self.cut {
            cut.linger = linger;
        }
        self
    }

    fn poll_pause(&mut self, cx: &mut Context<'_>, pause: Duration) -> Poll<()> {
        if pause.is_zero() {
            return Poll::Ready(());
        }
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
        ready!(sleep.as_mut().poll(cx));
        self.sleep = None;
        Poll::Ready(())
    }
}

impl Default for SandboxBody {
    fn default() -> Self {
        Self::new(Bytes::new())
    }
}

impl Body for SandboxBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if !self.rest.is_empty() {
            let pause = self.pause;
            ready!(self.poll_pause(cx, pause));
            let piece = self.piece.min(self.rest.len());
            return Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(piece)))));
        }
        let Some(linger) = self.cut.as_ref().map(|cut| cut.linger) else { return Poll::Ready(None) };
        ready!(self.poll_pause(cx, linger));
        self.cut = None;
        Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the sandbox cut the body off"))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.cut.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let length = |missing: usize| u64::try_from(self.rest.len() + missing).unwrap_or(u64::MAX);
        match &self.cut {
            None => SizeHint::with_exact(length(0)),
            Some(Cut { missing: Some(missing), .. }) => SizeHint::with_exact(length(*missing)),
            Some(Cut { missing: None, .. }) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::Truncation;

    #[test]
    fn a_body_can_go_anywhere() {
        fn goes<T: Send + Sync + Unpin>() {}
        goes::<SandboxBody>();
    }

    #[test]
    fn the_announced_length_is_that_of_the_whole() {
        let cut = |truncation| Manner { cut: Some(truncation), slow: None };
        let of = |manner| SandboxBody::in_manner(Bytes::from_static(b"0123456789"), manner).size_hint().exact();
        assert_eq!(of(Manner::default()), Some(10));
        assert_eq!(of(cut(Truncation::at_byte(3))), Some(10));
        assert_eq!(of(cut(Truncation::at_byte(3).chunked())), None);
    }
}
