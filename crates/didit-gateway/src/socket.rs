//! An application's connection: what comes in is followed, and what goes out is not waited for without end.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use h2::Reason;
use http::HeaderName;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::oneshot,
    time::{Instant, Sleep, sleep},
};
use tower_didit::call::CorrelationId;

use crate::{conversation::Conversation, frames::Frames, log};

/// A TCP stream that tells its conversation what it reads, and fails when its peer stops reading.
#[derive(Debug)]
pub(crate) struct Socket {
    // Until it is dropped.
    stream: Option<TcpStream>,
    // Where the stream goes then, unless its peer stopped reading.
    back: Option<oneshot::Sender<TcpStream>>,
    conversation: Arc<Conversation>,
    patience: Duration,
    // The header that names a request.
    correlation: HeaderName,
    // What is being written in the place of hyper's own answer.
    instead: Option<Bytes>,
    // The frames that go out, in HTTP/2.
    frames: Frames,
    // Made when a write has to wait for the first time.
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

/// The codes that a stream of HTTP/2 is reset with because of what the peer sent. `STREAM_CLOSED` is none: it also ends
/// streams that were answered before their body had come in.
const REFUSALS: [Reason; 6] = [
    Reason::PROTOCOL_ERROR,
    Reason::FLOW_CONTROL_ERROR,
    Reason::FRAME_SIZE_ERROR,
    Reason::REFUSED_STREAM,
    Reason::COMPRESSION_ERROR,
    Reason::ENHANCE_YOUR_CALM,
];

// ===== impl Socket =====

impl Socket {
    /// A socket, and where its stream comes from when it is dropped, which is not closed yet. `patience` is how long the peer
    /// may leave what was written unread.
    pub(crate) fn new(
        stream: TcpStream,
        conversation: Arc<Conversation>,
        patience: Duration,
        correlation: HeaderName,
    ) -> (Self, oneshot::Receiver<TcpStream>) {
        let (back, left) = oneshot::channel();
        let socket = Self {
            stream: Some(stream),
            back: Some(back),
            conversation,
            patience,
            correlation,
            instead: None,
            frames: Frames::default(),
            timer: None,
            waiting: false,
        };
        (socket, left)
    }

    fn stream(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Writes another answer than hyper's own; `None` if that is none.
    fn poll_instead(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Option<Poll<io::Result<usize>>> {
        if self.instead.is_none() {
            self.instead = self.conversation.instead_of(bytes, &self.correlation);
        }
        let mut instead = self.instead.take()?;
        while !instead.is_empty() {
            let written = match self.stream() {
                Ok(stream) => stream.poll_write(cx, &instead),
                Err(error) => Poll::Ready(Err(error)),
            };
            match self.bounded(cx, written) {
                Poll::Ready(Ok(written)) => instead.advance(written),
                other => {
                    self.instead = Some(instead);
                    return Some(other);
                }
            }
        }
        Some(Poll::Ready(Ok(bytes.len())))
    }

    /// Looks for streams of HTTP/2 that are refused before anybody is asked.
    fn follow(&mut self, mut written: &[u8]) {
        while let (Some(frame), rest) = self.frames.read(written) {
            written = rest;
            let reason = Reason::from(u32::from_be_bytes(frame.begin));
            if frame.kind == Frames::RST_STREAM && REFUSALS.contains(&reason) {
                log::refused(&CorrelationId::random(), None, &format_args!("stream reset: {}", reason.description()));
            }
        }
    }

    fn bounded<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            if std::mem::take(&mut self.waiting) {
                self.conversation.blocked(false);
            }
            return written;
        }
        let patience = self.patience;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(patience)));
        if !self.waiting {
            self.waiting = true;
            self.conversation.blocked(true);
            timer.as_mut().reset(Instant::now() + patience);
        }
        ready!(timer.as_mut().poll(cx));
        self.back = None;
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not read")))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let Some(stream) = self.stream.take() else { return };
        if let Some(words) = self.conversation.last_words(&self.correlation) {
            // So little fits where nothing else waits to be sent, and whoever is this slow is not waited for.
            let _ = stream.try_write(&words);
        }
        if let Some(back) = self.back.take() {
            // An error means that nobody is there to end it in good order, which is the same as closing it.
            let _ = back.send(stream);
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(this.stream()?.poll_read(cx, buffer))?;
        this.conversation.read(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(written) = this.poll_instead(cx, bytes) {
            return written;
        }
        let written = this.stream()?.poll_write(cx, bytes);
        if let (Poll::Ready(Ok(written)), true) = (&written, this.conversation.is_http2()) {
            this.conversation.sent(*written);
            this.follow(&bytes[..*written]);
        }
        this.bounded(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let first = pieces.iter().find(|piece| !piece.is_empty()).map_or(&[][..], |piece| piece);
        if let Some(written) = this.poll_instead(cx, first) {
            return written;
        }
        let written = this.stream()?.poll_write_vectored(cx, pieces);
        if let (Poll::Ready(Ok(written)), true) = (&written, this.conversation.is_http2()) {
            this.conversation.sent(*written);
            let mut left = *written;
            for piece in pieces {
                let taken = left.min(piece.len());
                this.follow(&piece[..taken]);
                left -= taken;
            }
        }
        this.bounded(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(TcpStream::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.stream()?.poll_flush(cx))?;
        self.conversation.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Whoever has the stream next says that nothing more comes, in good time.
        self.poll_flush(cx)
    }
}
