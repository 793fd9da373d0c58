//! A request body that can be sent again if it lies in memory.

use std::{
    fmt, mem,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

pin_project! {
    /// The request body that layers below [`RetryLayer`](crate::retry::RetryLayer) see.
    ///
    /// A body that lies in memory as one piece (`Full`, `Empty`) is kept by a reference count and sent again as often
    /// as needed. Any other body streams through untouched: its first attempt goes out as ever, it is just not
    /// repeated.
    ///
    /// A hyper client takes it without a word, because the body type of the client is inferred. A client whose body
    /// type is fixed (a tonic channel) gets a `map_request` in between.
    pub struct ReplayBody<B: Body> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[project = KindProjection]
    enum Kind<B: Body> {
        // All of it lies in memory; `None` once it was sent, or if there is nothing to send.
        Memory { data: Option<Bytes> },
        // It streams; `first` is what came out while finding that out.
        Stream { first: Option<Result<Frame<Bytes>, B::Error>>, #[pin] body: B },
    }
}

/// What is kept of a body to send it again: all of it, by reference count.
#[derive(Clone)]
pub(crate) struct Kept(Option<Bytes>);

impl Kept {
    /// The body once more.
    pub(crate) fn again<B: Body>(&self) -> ReplayBody<B> {
        ReplayBody { kind: Kind::Memory { data: self.0.clone() } }
    }

    /// The bytes of the body.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}

impl<B: Body> ReplayBody<B> {
    /// What sends this body again, if it lies in memory.
    pub(crate) fn keep(&self) -> Option<Kept> {
        match &self.kind {
            Kind::Memory { data } => Some(Kept(data.clone())),
            Kind::Stream { .. } => None,
        }
    }

    /// A copy for another attempt, if this body can be sent again. Costs a reference count.
    pub fn try_clone(&self) -> Option<Self> {
        self.keep().map(|kept| kept.again())
    }

    /// Wraps a body, finding out whether it lies in memory.
    ///
    /// A body whose exact length is known is polled once, without waiting: if all of it comes out at once, it was in
    /// memory. What comes out otherwise is sent first.
    pub fn new(mut body: B) -> Self
    where
        B: Unpin,
    {
        if body.is_end_stream() {
            return Self::default();
        }
        let mut first = None;
        if let Some(length) = body.size_hint().exact() {
            match Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop())) {
                Poll::Pending => {}
                Poll::Ready(None) => return Self::default(),
                Poll::Ready(Some(frame)) => first = Some(frame.map(into_bytes)),
            }
            if let Some(Ok(frame)) = &first
                && let Some(data) = frame.data_ref()
                && u64::try_from(data.len()) == Ok(length)
                && body.is_end_stream()
            {
                return Self { kind: Kind::Memory { data: Some(data.clone()) } };
            }
        }
        Self { kind: Kind::Stream { first, body } }
    }
}

/// Turns the data of a frame into `Bytes`; without a copy if that is what it is.
fn into_bytes<D: Buf>(frame: Frame<D>) -> Frame<Bytes> {
    frame.map_data(|mut data| data.copy_to_bytes(data.remaining()))
}

impl<B: Body> Body for ReplayBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project().kind.project() {
            KindProjection::Memory { data } => Poll::Ready(data.take().map(|data| Ok(Frame::data(data)))),
            KindProjection::Stream { first, body } => match mem::take(first) {
                Some(first) => Poll::Ready(Some(first)),
                None => body.poll_frame(cx).map(|frame| frame.map(|frame| frame.map(into_bytes))),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Memory { data } => data.is_none(),
            Kind::Stream { first, body } => first.is_none() && body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let length = |data: &Bytes| u64::try_from(data.len()).unwrap_or(u64::MAX);
        match &self.kind {
            Kind::Memory { data } => SizeHint::with_exact(data.as_ref().map_or(0, length)),
            Kind::Stream { first, body } => {
                let head = first.as_ref().and_then(|first| first.as_ref().ok()?.data_ref()).map_or(0, length);
                let rest = body.size_hint();
                let mut hint = SizeHint::new();
                if let Some(upper) = rest.upper() {
                    hint.set_upper(head.saturating_add(upper));
                }
                hint.set_lower(head.saturating_add(rest.lower()));
                hint
            }
        }
    }
}

/// An empty body.
impl<B: Body> Default for ReplayBody<B> {
    fn default() -> Self {
        Self { kind: Kind::Memory { data: None } }
    }
}

/// Says what kind of body it is, never what is in it.
impl<B: Body> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            Kind::Memory { .. } => "in memory",
            Kind::Stream { .. } => "streaming",
        };
        f.debug_struct("ReplayBody").field("kind", &kind).field("size", &self.size_hint()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, convert::Infallible, io};

    use super::*;

    /// A body that yields what it is told, with or without a known length.
    struct Script {
        steps: VecDeque<Option<Result<Frame<Bytes>, io::Error>>>,
        length: Option<u64>,
    }

    impl Body for Script {
        type Data = Bytes;
        type Error = io::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
            match self.steps.pop_front() {
                Some(None) => Poll::Pending,
                Some(Some(step)) => {
                    if let (Some(left), Ok(frame)) = (self.length, &step) {
                        self.length = Some(left - frame.data_ref().map_or(0, |data| data.len() as u64));
                    }
                    Poll::Ready(Some(step))
                }
                None => Poll::Ready(None),
            }
        }

        fn is_end_stream(&self) -> bool {
            self.steps.is_empty()
        }

        fn size_hint(&self) -> SizeHint {
            self.length.map_or_else(SizeHint::new, SizeHint::with_exact)
        }
    }

    fn script(
        length: Option<u64>,
        steps: impl IntoIterator<Item = Option<Result<&'static str, io::Error>>>,
    ) -> ReplayBody<Script> {
        let frame = |data: &'static str| Frame::data(Bytes::from_static(data.as_bytes()));
        let steps = steps.into_iter().map(|step| step.map(|data| data.map(frame))).collect();
        ReplayBody::new(Script { steps, length })
    }

    /// Everything a body yields, polled until it ends; `Pending` is polled again.
    fn drain<B: Body<Error: fmt::Debug> + Unpin>(mut body: ReplayBody<B>) -> Result<String, B::Error> {
        let mut text = String::new();
        loop {
            match Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop())) {
                Poll::Pending => {}
                Poll::Ready(None) => return Ok(text),
                Poll::Ready(Some(frame)) => {
                    if let Ok(data) = frame?.into_data() {
                        text.push_str(std::str::from_utf8(&data).unwrap());
                    }
                }
            }
        }
    }

    #[test]
    fn a_body_in_memory_is_sent_as_often_as_needed() {
        let body = ReplayBody::new(http_body_util::Full::new(Bytes::from_static(b"hello")));
        assert_eq!(body.keep().unwrap().as_bytes(), b"hello");
        assert_eq!(body.size_hint().exact(), Some(5));
        for _ in 0..3 {
            assert_eq!(drain(body.try_clone().unwrap()).unwrap(), "hello");
        }
    }

    #[test]
    fn an_empty_body_ends_at_once_and_can_be_sent_again() {
        let body: ReplayBody<http_body_util::Empty<Bytes>> = ReplayBody::new(http_body_util::Empty::new());
        assert!(body.is_end_stream());
        assert_eq!(drain(body.try_clone().unwrap()).unwrap(), "");
    }

    #[test]
    fn a_stream_goes_out_once_and_whole_whatever_the_first_poll_found() {
        let cases = [
            script(None, [Some(Ok("ab")), Some(Ok("cd"))]),
            script(Some(4), [Some(Ok("ab")), Some(Ok("cd"))]),
            script(Some(4), [None, Some(Ok("ab")), None, Some(Ok("cd"))]),
            script(Some(4), [Some(Ok("ab")), None, Some(Ok("cd"))]),
        ];
        for body in cases {
            assert!(body.try_clone().is_none());
            assert_eq!(drain(body).unwrap(), "abcd");
        }
    }

    #[test]
    fn the_length_is_right_after_the_first_poll_took_something() {
        let body = script(Some(4), [Some(Ok("ab")), Some(Ok("cd"))]);
        assert_eq!(body.size_hint().exact(), Some(4));
    }

    #[test]
    fn an_error_found_by_the_first_poll_is_not_swallowed() {
        let body = script(Some(4), [Some(Err(io::Error::other("torn")))]);
        assert_eq!(drain(body).unwrap_err().to_string(), "torn");
    }

    #[test]
    fn debug_shows_no_byte_of_the_body() {
        let body = ReplayBody::new(http_body_util::Full::<Bytes>::new(Bytes::from_static(b"secret")));
        assert!(!format!("{body:?}").contains("secret"));
        let _: Result<String, Infallible> = drain(body);
    }
}
