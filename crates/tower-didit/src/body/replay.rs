//! A request body that can be sent again.

use std::{
    fmt, mem,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{
    BoxError,
    source::{Found, Source, length_of},
    tape::{Keeper, Reader},
};

/// The request body that layers below [`RetryLayer`](crate::retry::RetryLayer) see; what it keeps, and when, is
/// described in the [module](super).
///
/// A hyper client takes it without a word, because the body type of the client is inferred. A client whose body
/// type is fixed (a tonic channel) gets a `map_request` in between.
///
/// # Errors
///
/// Its error is boxed, as clients take it: an error of the original body, unchanged and found by downcasting, or a
/// [`ReplayError`](super::ReplayError). Bodies in memory have none.
pub struct ReplayBody<B: Body> {
    kind: Kind<B>,
}

enum Kind<B: Body> {
    // All of it lies in memory; `None` once it was sent, or if there is nothing to send.
    Memory { data: Option<Bytes> },
    // It streams, once.
    Once { source: Source<B> },
    // It streams from a recording, and behind that from its source.
    Recorded { reader: Reader<B> },
}

/// What is kept of a body to send it again.
pub(crate) enum Kept<B: Body> {
    /// All of it, by reference count.
    Memory(Option<Bytes>),
    /// What the attempts have read so far, and the rest of it.
    Tape(Keeper<B>),
}

impl<B: Body> Kept<B> {
    /// Whether the whole body could be sent once more now. A recording may be given up at any moment.
    pub(crate) fn can_start_over(&self) -> bool {
        match self {
            Self::Memory(_) => true,
            Self::Tape(keeper) => keeper.can_start_over(),
        }
    }

    /// Claims the body for another attempt, which it then certainly can be sent by; `false` if that is too late.
    pub(crate) fn claim(&self) -> bool {
        match self {
            Self::Memory(_) => true,
            Self::Tape(keeper) => keeper.take(),
        }
    }

    /// The body once more, for the attempt that it was claimed for.
    pub(crate) fn again(&self) -> ReplayBody<B> {
        let kind = match self {
            Self::Memory(data) => Kind::Memory { data: data.clone() },
            Self::Tape(keeper) => Kind::Recorded { reader: keeper.reader() },
        };
        ReplayBody { kind }
    }

    /// Keeps nothing any longer: the attempt under way is the last.
    pub(crate) fn release(&self) {
        if let Self::Tape(keeper) = self {
            keeper.release();
        }
    }

    /// The bytes of the body; none if they are not all there, or are many and in pieces.
    pub(crate) fn joined(&self) -> Bytes {
        match self {
            Self::Memory(data) => data.clone().unwrap_or_default(),
            Self::Tape(keeper) => keeper.joined(),
        }
    }
}

impl<B: Body> ReplayBody<B> {
    /// Wraps a body, finding out whether it lies in memory.
    ///
    /// A body whose exact length is known is polled once, without waiting: if all of it comes out at once, it was in
    /// memory. What comes out otherwise is sent first. A stream is not recorded before a retry layer asks for it.
    pub fn new(body: B) -> Self
    where
        B: Unpin,
    {
        match Source::look(body) {
            Found::Nothing => Self::default(),
            Found::Whole(data) => Self { kind: Kind::Memory { data: Some(data) } },
            Found::Stream(source) => Self { kind: Kind::Once { source } },
        }
    }

    /// What sends this body again: a stream is recorded from now on, up to `cap` bytes. `None` for a stream if the cap is
    /// zero, or if it is recorded already.
    pub(crate) fn keep(&mut self, cap: usize) -> Option<Kept<B>> {
        match &self.kind {
            Kind::Memory { data } => return Some(Kept::Memory(data.clone())),
            Kind::Once { .. } if cap > 0 => {}
            Kind::Once { .. } | Kind::Recorded { .. } => return None,
        }
        let Kind::Once { source } = mem::replace(&mut self.kind, Kind::Memory { data: None }) else { return None };
        let (keeper, reader) = Keeper::new(source, cap);
        self.kind = Kind::Recorded { reader };
        Some(Kept::Tape(keeper))
    }

    /// A copy for another attempt, if this body lies in memory. Costs a reference count.
    pub fn try_clone(&self) -> Option<Self> {
        match &self.kind {
            Kind::Memory { data } => Some(Self { kind: Kind::Memory { data: data.clone() } }),
            Kind::Once { .. } | Kind::Recorded { .. } => None,
        }
    }
}

impl<B> Body for ReplayBody<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.get_mut().kind {
            Kind::Memory { data } => Poll::Ready(data.take().map(|data| Ok(Frame::data(data)))),
            Kind::Once { source } => source.poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(Into::into))),
            Kind::Recorded { reader } => reader.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Memory { data } => data.is_none(),
            Kind::Once { source } => source.is_end_stream(),
            Kind::Recorded { reader } => reader.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.size()
    }
}

/// Nothing in it is pinned in place: a body has to be `Unpin` to be wrapped.
impl<B: Body> Unpin for ReplayBody<B> {}

impl<B: Body> ReplayBody<B> {
    fn size(&self) -> SizeHint {
        match &self.kind {
            Kind::Memory { data } => SizeHint::with_exact(data.as_ref().map_or(0, length_of)),
            Kind::Once { source } => source.size_hint(),
            Kind::Recorded { reader } => reader.size_hint(),
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
            Kind::Once { .. } => "streaming",
            Kind::Recorded { .. } => "recorded",
        };
        f.debug_struct("ReplayBody").field("kind", &kind).field("size", &self.size()).finish()
    }
}

#[cfg(test)]
mod tests;
