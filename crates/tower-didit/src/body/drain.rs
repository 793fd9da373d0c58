//! Reading a response that nobody wants.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Buf;
use http_body::Body;

/// Reads a body to its end and throws away what it reads, so that its connection can be used again.
///
/// Ends early, with the rest unread, once more than [`BYTES`](Self::BYTES) came: a new connection is cheaper then.
/// Time is the caller's to bound, by [`TIME`](Self::TIME).
#[derive(Debug)]
pub(crate) struct Drain<B> {
    body: B,
    left: u64,
}

impl<B> Drain<B> {
    /// The most that is read: 64 KiB. Error bodies are far smaller, and so much is on its way already (the initial window
    /// of HTTP/2 is 64 KiB, that of a TCP connection in use is larger), so reading it costs less than a new TLS handshake.
    pub(crate) const BYTES: u64 = 64 * 1024;

    /// The longest that is read for: one second. A server that sends the head of an error and keeps its body back for
    /// longer holds a connection that nobody would want again.
    pub(crate) const TIME: Duration = Duration::from_secs(1);

    pub(crate) fn new(body: B) -> Self {
        Self { body, left: Self::BYTES }
    }

    /// Whether any of it was read.
    pub(crate) fn has_read(&self) -> bool {
        self.left < Self::BYTES
    }

    /// The body: untouched, at its end, or what is left of it.
    pub(crate) fn into_inner(self) -> B {
        self.body
    }
}

impl<B: Body + Unpin> Drain<B> {
    /// Whether reading is worth it: there is something to read, and not certainly too much.
    pub(crate) fn is_worth_it(&self) -> bool {
        !self.body.is_end_stream() && self.body.size_hint().lower() <= self.left
    }

    /// Reads on; ready when it is over.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.body.is_end_stream()
            && let Some(Ok(frame)) = ready!(Pin::new(&mut self.body).poll_frame(cx))
        {
            // A frame without data counts as a byte, or a body of nothing but empty frames would be read for ever.
            let read = frame.data_ref().map_or(0, Buf::remaining).max(1);
            match self.left.checked_sub(u64::try_from(read).unwrap_or(u64::MAX)) {
                Some(left) => self.left = left,
                None => break,
            }
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, task::Waker};

    use bytes::Bytes;
    use http_body::{Frame, SizeHint};
    use http_body_util::{Empty, Full};

    use super::*;

    /// A body without a length: so many frames of so many bytes.
    struct Frames {
        frames: usize,
        size: usize,
        read: usize,
    }

    impl Body for &mut Frames {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            if self.read == self.frames {
                return Poll::Ready(None);
            }
            self.read += 1;
            Poll::Ready(Some(Ok(Frame::data(vec![0; self.size].into()))))
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::default()
        }
    }

    /// How many frames are read.
    fn read(frames: usize, size: usize) -> usize {
        let mut frames = Frames { frames, size, read: 0 };
        let mut drain = Drain::new(&mut frames);
        assert_eq!(drain.poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(()));
        frames.read
    }

    #[test]
    fn a_body_is_read_to_its_end_up_to_the_bound() {
        assert_eq!(read(4, 1024), 4);
        assert_eq!(read(64, 1024), 64, "the bound itself");
        assert_eq!(read(1_000, 1024), 65);
    }

    #[test]
    fn empty_frames_are_not_read_for_ever() {
        assert_eq!(read(usize::MAX, 0), 64 * 1024 + 1);
    }

    #[test]
    fn what_is_empty_or_known_to_be_too_large_is_not_begun() {
        assert!(!Drain::new(Empty::<Bytes>::new()).is_worth_it());
        assert!(Drain::new(Full::<Bytes>::from(vec![0; 64 * 1024])).is_worth_it());
        assert!(!Drain::new(Full::<Bytes>::from(vec![0; 64 * 1024 + 1])).is_worth_it());
    }
}
