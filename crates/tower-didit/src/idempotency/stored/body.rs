//! The body of a response that may have been kept.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use pin_project_lite::pin_project;
use tokio::time::{Instant, timeout_at};

pin_project! {
    /// The response body of [`StoredIdempotency`](super::StoredIdempotency): the server's own, or one that was kept.
    ///
    /// The body of a success was read whole before it was handed out, so it comes as one piece; one of more than
    /// [`KEPT_AT_MOST`](Self::KEPT_AT_MOST) bytes streams on from there.
    pub struct AnswerBody<B: Body> {
        data: Option<Bytes>,
        trailers: Option<HeaderMap>,
        error: Option<B::Error>,
        #[pin]
        rest: Option<B>,
    }
}

impl<B: Body> AnswerBody<B> {
    /// The longest body that is kept: 64 KiB. Answers that make something are some hundred bytes.
    pub const KEPT_AT_MOST: usize = 64 * 1024;

    /// The server's own, as it comes.
    pub(super) fn streaming(rest: B) -> Self {
        Self { rest: Some(rest), ..Self::whole(Bytes::new()) }
    }

    /// One that is there.
    pub(super) fn whole(data: Bytes) -> Self {
        Self { data: Some(data).filter(|data| !data.is_empty()), trailers: None, error: None, rest: None }
    }
}

/// What came of reading a body.
pub(super) struct Read<B: Body> {
    /// The body, to be handed out.
    pub(super) body: AnswerBody<B>,
    /// All of its data, if it came whole.
    pub(super) whole: Option<Bytes>,
    /// Whether it broke off, or did not come in time: then the rest is still to be read by whoever gets it.
    pub(super) broken: bool,
}

/// Reads a body up to [`AnswerBody::KEPT_AT_MOST`], for as long as until `by`.
pub(super) async fn read<B: Body + Unpin>(mut rest: B, by: Instant) -> Read<B> {
    let mut data = BytesMut::new();
    let mut trailers = None;
    loop {
        let Ok(frame) = timeout_at(by, rest.frame()).await else {
            let body = AnswerBody { rest: Some(rest), trailers, ..AnswerBody::whole(data.freeze()) };
            return Read { body, whole: None, broken: true };
        };
        match frame {
            None => {
                let data = data.freeze();
                let body = AnswerBody { trailers, ..AnswerBody::whole(data.clone()) };
                return Read { body, whole: Some(data), broken: false };
            }
            Some(Err(error)) => {
                let body = AnswerBody { error: Some(error), trailers, ..AnswerBody::whole(data.freeze()) };
                return Read { body, whole: None, broken: true };
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(piece) => data.extend_from_slice(&in_one(piece)),
                Err(frame) => trailers = frame.into_trailers().ok(),
            },
        }
        if data.len() > AnswerBody::<B>::KEPT_AT_MOST {
            let body = AnswerBody { rest: Some(rest), trailers, ..AnswerBody::whole(data.freeze()) };
            return Read { body, whole: None, broken: false };
        }
    }
}

fn in_one(mut piece: impl Buf) -> Bytes {
    piece.copy_to_bytes(piece.remaining())
}

impl<B: Body> Body for AnswerBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        if let Some(data) = this.data.take() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if let Some(error) = this.error.take() {
            return Poll::Ready(Some(Err(error)));
        }
        if let Some(rest) = this.rest.as_pin_mut() {
            return rest.poll_frame(cx).map(|frame| frame.map(|frame| frame.map(|frame| frame.map_data(in_one))));
        }
        Poll::Ready(this.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none()
            && self.error.is_none()
            && self.trailers.is_none()
            && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let head = self.data.as_ref().map_or(0, |data| u64::try_from(data.len()).unwrap_or(u64::MAX));
        let rest = match (&self.rest, &self.error) {
            (Some(rest), _) => rest.size_hint(),
            (None, None) => SizeHint::with_exact(0),
            (None, Some(_)) => SizeHint::new(),
        };
        let mut hint = SizeHint::new();
        if let Some(upper) = rest.upper() {
            hint.set_upper(head.saturating_add(upper));
        }
        hint.set_lower(head.saturating_add(rest.lower()));
        hint
    }
}

/// Shows no byte of the body.
impl<B: Body> fmt::Debug for AnswerBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerBody").field("size", &self.size_hint()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, io};

    use super::*;

    struct Pieces(VecDeque<Result<Frame<Bytes>, io::Error>>);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = io::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
            Poll::Ready(self.0.pop_front())
        }
    }

    fn pieces(sizes: &[usize]) -> Pieces {
        Pieces(sizes.iter().map(|size| Ok(Frame::data(Bytes::from(vec![b'x'; *size])))).collect())
    }

    fn soon() -> Instant {
        Instant::now() + std::time::Duration::from_secs(1)
    }

    /// Sends `first`, and nothing more for a minute.
    struct Slow {
        first: Option<Bytes>,
        rest: Pin<Box<tokio::time::Sleep>>,
    }

    impl Body for Slow {
        type Data = Bytes;
        type Error = io::Error;

        fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
            match self.first.take() {
                Some(first) => Poll::Ready(Some(Ok(Frame::data(first)))),
                None => self.rest.as_mut().poll(cx).map(|()| None),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_is_broken_and_what_comes_of_it_is_still_handed_out() {
        let start = Instant::now();
        let rest = Box::pin(tokio::time::sleep(std::time::Duration::from_secs(60)));
        let read = read(Slow { first: Some(Bytes::from_static(b"xxx")), rest }, soon()).await;
        assert_eq!(start.elapsed(), std::time::Duration::from_secs(1));
        assert!(read.broken && read.whole.is_none());
        assert_eq!(read.body.collect().await.unwrap().to_bytes(), "xxx");
        assert_eq!(start.elapsed(), std::time::Duration::from_secs(60));
    }

    #[tokio::test]
    async fn a_body_comes_out_whole_with_its_trailers_however_long_it_is() {
        for sizes in [&[][..], &[3, 4], &[70_000], &[40_000, 40_000, 40_000]] {
            let mut body = pieces(sizes);
            let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), "7".parse().unwrap())]);
            body.0.push_back(Ok(Frame::trailers(trailers.clone())));
            let length: usize = sizes.iter().sum();
            let read = read(body, soon()).await;
            assert_eq!(read.whole.map(|whole| whole.len()), (length <= 65_536).then_some(length));
            let collected = read.body.collect().await.unwrap();
            assert_eq!(collected.trailers(), Some(&trailers));
            assert_eq!(collected.to_bytes().len(), length);
        }
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_gives_what_came_and_then_its_error() {
        let mut body = pieces(&[3]);
        body.0.push_back(Err(io::Error::other("torn")));
        let read = read(body, soon()).await;
        assert!(read.broken && read.whole.is_none());
        let mut body = read.body;
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "xxx");
        assert_eq!(body.frame().await.unwrap().unwrap_err().to_string(), "torn");
        assert!(body.frame().await.is_none() && body.is_end_stream());
    }
}
