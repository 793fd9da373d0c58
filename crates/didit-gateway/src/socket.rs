//! An application's connection: what comes in is followed, and what goes out is not waited for without end.

use std::{
    io,
    mem::MaybeUninit,
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
    time::{Instant, Sleep, sleep},
};
use tower_didit::call::CorrelationId;

use crate::{conversation::Conversation, frames::Frames, log};

/// A TCP stream that tells its conversation what it reads, and fails when its peer stops reading.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    conversation: Arc<Conversation>,
    patience: Duration,
    /// The header that names a request.
    correlation: HeaderName,
    // What is being written in the place of hyper's own answer.
    instead: Option<Bytes>,
    // The frames that go out, in HTTP/2.
    frames: Frames,
    // When it is no longer waited for what the peer is still sending, or reading.
    last: Option<Pin<Box<Sleep>>>,
    // Made when a write has to wait for the first time.
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

/// How long a peer may go on sending what is not read, once it has its answer.
const LINGER: Duration = Duration::from_millis(500);

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
    /// `patience` is how long the peer may leave what was written unread.
    pub(crate) fn new(
        stream: TcpStream,
        conversation: Arc<Conversation>,
        patience: Duration,
        correlation: HeaderName,
    ) -> Self {
        Self {
            stream,
            conversation,
            patience,
            correlation,
            instead: None,
            frames: Frames::default(),
            last: None,
            timer: None,
            waiting: false,
        }
    }

    /// Writes another answer than hyper's own; `None` if that is none.
    fn poll_instead(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Option<Poll<io::Result<usize>>> {
        if self.instead.is_none() {
            self.instead = self.conversation.instead_of(bytes, &self.correlation);
        }
        let mut instead = self.instead.take()?;
        while !instead.is_empty() {
            let written = Pin::new(&mut self.stream).poll_write(cx, &instead);
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
            self.waiting = false;
            return written;
        }
        let patience = self.patience;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(patience)));
        if !self.waiting {
            self.waiting = true;
            timer.as_mut().reset(Instant::now() + patience);
        }
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not read")))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some(words) = self.conversation.last_words(&self.correlation) {
            // So little fits where nothing else waits to be sent, and whoever is this slow is not waited for.
            let _ = self.stream.try_write(&words);
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
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
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
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
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, pieces);
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
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.conversation.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.last.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            let lingers = this.conversation.is_lingering() || this.conversation.is_http2();
            if !lingers {
                return Poll::Ready(Ok(()));
            }
        }
        // Whoever has much to read says meanwhile, in HTTP/2, that it can take more.
        let patience = if this.conversation.is_unread() { this.patience } else { LINGER };
        if this.last.get_or_insert_with(|| Box::pin(sleep(patience))).as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        // RFC 9112 section 9.6: closed with bytes unread, the connection is reset, and the answer may never be seen.
        let mut scrap = [MaybeUninit::uninit(); 4096];
        loop {
            let mut buffer = ReadBuf::uninit(&mut scrap);
            let read = ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
