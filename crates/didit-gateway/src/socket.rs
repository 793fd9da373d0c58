//! An application's connection: what comes in is followed, and what goes out is not waited for without end.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use h2::Reason;
use http::HeaderName;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep},
};
use tower_didit::call::CorrelationId;

use crate::{answers::Answers, conversation::Conversation, frames::Frames, log};

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
    // The frames that go out, in HTTP/2, and the answers they are of.
    frames: Frames,
    answers: Answers,
    // What ends answers that nobody takes: for the peer, and for hyper, as though the peer had sent it.
    resets: BytesMut,
    resets_for_hyper: BytesMut,
    // When the peer's frame at hand is no longer waited for, behind which these go.
    frame_end: Option<Pin<Box<Sleep>>>,
    // When it is no longer waited for what the peer is still sending.
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
            answers: Answers::new(patience),
            resets: BytesMut::new(),
            resets_for_hyper: BytesMut::new(),
            frame_end: None,
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

    /// Looks for streams of HTTP/2 that are refused before anybody is asked, and for answers.
    fn follow(&mut self, mut written: &[u8]) {
        while let (Some(frame), rest) = self.frames.read(written) {
            written = rest;
            self.answers.wrote(&frame, Instant::now());
            let reason = Reason::from(u32::from_be_bytes(frame.begin));
            if frame.kind == Frames::RST_STREAM && REFUSALS.contains(&reason) {
                log::refused(&CorrelationId::random(), None, &format_args!("stream reset: {}", reason.description()));
            }
        }
    }

    /// Gives up the answers of HTTP/2 that nobody takes. hyper asks neither their bodies nor anybody else while it waits for
    /// a window, but it reads; so that it lets go of what it keeps, it is told what the peer is told.
    fn poll_given_up(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        // Nothing moves while the peer reads nothing at all, which has an end of its own.
        while !self.waiting
            && let Poll::Ready(streams) = self.answers.poll_overdue(cx)
        {
            for reset in streams.into_iter().map(|stream| Frames::reset(stream, Reason::CANCEL)) {
                self.resets.extend_from_slice(&reset);
                self.resets_for_hyper.extend_from_slice(&reset);
            }
        }
        match self.poll_resets(cx) {
            Poll::Ready(written) => written,
            // hyper goes on without it.
            Poll::Pending => Ok(()),
        }
    }

    /// Reads the resets that are for hyper, as soon as a frame may begin.
    fn poll_read_resets(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let rest = self.conversation.rest_of_frame();
        if rest == 0 {
            let length = self.resets_for_hyper.len().min(buffer.remaining());
            buffer.put_slice(&self.resets_for_hyper.split_to(length));
            self.frame_end = None;
            return Poll::Ready(Ok(()));
        }
        let patience = self.patience;
        let end = self.frame_end.get_or_insert_with(|| Box::pin(sleep(patience)));
        if end.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not end a frame")));
        }
        // No further than to where a frame may begin.
        let mut scrap = [0; 4096];
        let length = rest.min(scrap.len()).min(buffer.remaining());
        let mut piece = ReadBuf::new(&mut scrap[..length]);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut piece))?;
        self.conversation.read(piece.filled());
        buffer.put_slice(piece.filled());
        Poll::Ready(Ok(()))
    }

    /// Writes the resets of this side, as soon as a frame may begin.
    fn poll_resets(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.resets.is_empty() && self.frames.rest() == 0 {
            let written = Pin::new(&mut self.stream).poll_write(cx, &self.resets);
            let written = ready!(self.bounded(cx, written))?;
            self.resets.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// How much may be written in one piece: if there are resets to write, up to the end of the frame at hand.
    fn room(&self) -> usize {
        if self.resets.is_empty() { usize::MAX } else { self.frames.rest() }
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
        this.poll_given_up(cx)?;
        if !this.resets_for_hyper.is_empty() {
            return this.poll_read_resets(cx, buffer);
        }
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
        ready!(this.poll_resets(cx))?;
        let bytes = &bytes[..bytes.len().min(this.room())];
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
        if let (Poll::Ready(Ok(written)), true) = (&written, this.conversation.is_http2()) {
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
        ready!(this.poll_resets(cx))?;
        let written = match this.room() {
            usize::MAX => Pin::new(&mut this.stream).poll_write_vectored(cx, pieces),
            room => Pin::new(&mut this.stream).poll_write(cx, &first[..first.len().min(room)]),
        };
        if let (Poll::Ready(Ok(written)), true) = (&written, this.conversation.is_http2()) {
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
        ready!(self.poll_resets(cx))?;
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.conversation.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.last.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            if !this.conversation.is_lingering() {
                return Poll::Ready(Ok(()));
            }
        }
        if this.last.get_or_insert_with(|| Box::pin(sleep(LINGER))).as_mut().poll(cx).is_ready() {
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
