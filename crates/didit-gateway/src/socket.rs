//! An application's connection: what comes in is followed, and what goes out is not waited for without end.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use h2::Reason;
use http::{HeaderName, StatusCode};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep},
};
use tower_didit::call::CorrelationId;

use crate::{
    answers::Answers,
    frames::Frames,
    framing::{Framing, Violation},
    log,
    problem::Problem,
};

/// What is known about one connection; shared by its socket, its requests and its watch.
#[derive(Debug)]
pub(crate) struct Conversation {
    framing: Mutex<Followed>,
    in_flight: AtomicUsize,
    /// Whether what is written next may be the answer to a request.
    answering: AtomicBool,
    /// Whether the peer is answered although it may still be sending.
    lingering: AtomicBool,
}

#[derive(Debug)]
struct Followed {
    framing: Framing,
    /// What was answered before anybody was asked, and under which name.
    refusal: Option<(CorrelationId, StatusCode)>,
    /// Whether a head was given up that did not come to its end.
    is_late: bool,
    /// When the head at hand began, if one did, and how many were before it.
    head: Option<(u64, Instant)>,
    /// When the last request began or ended, or the connection did: nothing else is a sign of life, or a client that
    /// sends a byte now and then would be served for ever.
    active: Instant,
}

/// A request that is being answered; the connection is not idle while there is one.
#[derive(Debug)]
pub(crate) struct InFlight {
    conversation: Arc<Conversation>,
    total: Arc<AtomicUsize>,
}

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

/// The answer to a head that did not end, but for its document.
const LATE: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n\r\n";

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

// ===== impl Conversation =====

impl Conversation {
    pub(crate) fn new() -> Arc<Self> {
        let active = Instant::now();
        let followed = Followed { framing: Framing::new(), refusal: None, is_late: false, head: None, active };
        Arc::new(Self {
            framing: Mutex::new(followed),
            in_flight: AtomicUsize::new(0),
            answering: AtomicBool::new(false),
            lingering: AtomicBool::new(false),
        })
    }

    fn followed(&self) -> MutexGuard<'_, Followed> {
        // Nothing panics under the lock, so a poisoned one is as good as any.
        self.framing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, bytes: &[u8]) {
        let mut followed = self.followed();
        followed.framing.read(bytes);
        let number = followed.framing.heads();
        let known = followed.head.filter(|(known, _)| *known == number);
        followed.head = followed.framing.in_head().then(|| known.unwrap_or_else(|| (number, Instant::now())));
    }

    /// Begins a request, which is also counted in the gateway's total.
    pub(crate) fn begin(self: &Arc<Self>, total: &Arc<AtomicUsize>) -> InFlight {
        self.followed().active = Instant::now();
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.answering.store(true, Ordering::Relaxed);
        total.fetch_add(1, Ordering::Relaxed);
        InFlight { conversation: Arc::clone(self), total: Arc::clone(total) }
    }

    /// Everything that was answered has been written.
    fn flushed(&self) {
        if self.in_flight.load(Ordering::Relaxed) == 0 {
            self.answering.store(false, Ordering::Relaxed);
        }
    }

    /// The connection ends with the answer at hand, although the peer may still be sending.
    pub(crate) fn linger(&self) {
        self.lingering.store(true, Ordering::Relaxed);
    }

    /// What the last request was answered with before anybody was asked, and under which name.
    pub(crate) fn refusal(&self) -> Option<(CorrelationId, StatusCode)> {
        self.followed().refusal.clone()
    }

    /// What goes out instead of these bytes, if they are hyper's own answer: a head that belongs to no request. One that
    /// comes close behind the answer before it is not told apart.
    fn instead_of(&self, bytes: &[u8], correlation: &HeaderName) -> Option<Bytes> {
        if self.answering.load(Ordering::Relaxed) || !bytes.starts_with(b"HTTP/1.") {
            return None;
        }
        let (mut followed, id) = (self.followed(), CorrelationId::random());
        let violation = followed.framing.next_request().err().filter(|violation| *violation != Violation::Lost);
        let (status, instead) = Problem::in_place_of(bytes, violation, correlation, &id)?;
        followed.refusal = Some((id, status));
        self.linger();
        Some(instead)
    }

    /// What is to be written to a peer that did not end its head, if that is why the connection ends.
    fn last_words(&self, correlation: &HeaderName) -> Option<Bytes> {
        // Nothing can be put behind an answer that is not written yet.
        let mut followed = self.followed();
        if !followed.is_late || self.answering.load(Ordering::Relaxed) {
            return None;
        }
        let id = CorrelationId::random();
        let (status, text) = Problem::in_place_of(LATE, None, correlation, &id)?;
        followed.refusal = Some((id, status));
        Some(text)
    }

    fn is_http2(&self) -> bool {
        self.followed().framing.is_http2()
    }

    /// How many bytes of the peer's are missing at least to where a frame of HTTP/2 may begin.
    fn rest_of_frame(&self) -> usize {
        self.followed().framing.rest_of_frame()
    }

    /// What is to be said of the framing of the next request of HTTP/1.
    pub(crate) fn next_request(&self) -> Result<(), Violation> {
        self.followed().framing.next_request()
    }

    /// Ends when the peer has taken too long: over a head, counted from its first byte, or without a request, whatever else
    /// it sent. Says whether it was a head.
    pub(crate) async fn silence(&self, head: Duration, idle: Duration) -> bool {
        loop {
            let (end, head_end) = {
                let followed = self.followed();
                let busy = self.in_flight.load(Ordering::Relaxed) > 0;
                let head_end = followed.head.and_then(|(_, since)| match followed.framing.is_http2() {
                    true => Some(since + head),
                    // Behind a request that is being answered nothing is read, so the peer could not end it.
                    false => (!busy).then(|| since.max(followed.active) + head),
                });
                let idle_end = (!busy).then(|| followed.active + idle);
                (head_end.into_iter().chain(idle_end).min(), head_end)
            };
            let now = Instant::now();
            let soon = now + head.min(idle);
            if end.is_some_and(|end| end <= now) {
                let is_head = head_end.is_some_and(|end| end <= now);
                let mut followed = self.followed();
                followed.is_late = is_head && !followed.framing.is_http2();
                return is_head;
            }
            // Something may begin meanwhile, so no sleep is longer than what ends first may take.
            tokio::time::sleep_until(end.unwrap_or(soon).min(soon)).await;
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.conversation.followed().active = Instant::now();
        self.conversation.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.total.fetch_sub(1, Ordering::Relaxed);
    }
}

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
        if self.waiting {
            // Nothing moves while the peer reads nothing at all, which has an end of its own.
            return Ok(());
        }
        while let Poll::Ready(streams) = self.answers.poll_overdue(cx) {
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
            if !this.conversation.lingering.load(Ordering::Relaxed) {
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

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Duration = Duration::from_secs(10);
    const IDLE: Duration = Duration::from_secs(120);

    /// After how many seconds a client is let go of that sends a piece each second, all over again.
    async fn held(before: &[u8], pieces: impl Iterator<Item = Vec<u8>>) -> u64 {
        let (conversation, began) = (Conversation::new(), Instant::now());
        conversation.read(before);
        let drip = async {
            for piece in pieces {
                sleep(Duration::from_secs(1)).await;
                conversation.read(&piece);
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = drip => {}
            _ = conversation.silence(HEAD, IDLE) => {}
        }
        began.elapsed().as_secs()
    }

    fn bytes(text: &[u8]) -> impl Iterator<Item = Vec<u8>> {
        text.iter().map(|byte| vec![*byte]).collect::<Vec<_>>().into_iter()
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_comes_byte_by_byte_is_not_waited_for() {
        let head = format!("GET / HTTP/1.1\r\nx: {}", "x".repeat(1_000));
        assert_eq!(held(b"", bytes(head.as_bytes())).await, 11, "10 s from its first byte, which came after one");
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        assert_eq!(held(b"", bytes(preface)).await, 11);
        let headers = [&[0, 3, 232, 1, 4, 0, 0, 0, 1][..], &[b'x'; 1_000]].concat();
        assert_eq!(held(preface, bytes(&headers)).await, 14, "its fourth byte says that it is a head");
        let continued = (0..1_000).map(|number| vec![0, 0, 0, if number == 0 { 1 } else { 9 }, 0, 0, 0, 0, 1]);
        assert_eq!(held(preface, continued).await, 11);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_request_no_byte_is_a_sign_of_life() {
        assert_eq!(held(b"", std::iter::repeat_with(|| b"\r\n".to_vec()).take(1_000)).await, 12);
        let ping = std::iter::repeat_with(|| [&[0, 0, 8, 6, 0, 0, 0, 0, 0][..], &[0; 8]].concat());
        assert_eq!(held(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ping.take(1_000)).await, 120);
        // Behind what was refused nothing is a head.
        let after = b"GET / HTTP/1.1\r\ncontent-length: x\r\n\r\n";
        assert_eq!(held(after, bytes(&[b'x'; 1_000])).await, 120);
        assert_eq!(held(b"", std::iter::empty()).await, 120);
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_without_a_request_begins_with_the_end_of_the_last() {
        let (conversation, total, began) = (Conversation::new(), Arc::default(), Instant::now());
        // The next head has begun, and waits behind the request.
        conversation.read(b"GET / HTTP/1.1\r\n\r\nGET");
        let request = conversation.begin(&total);
        let answered = async {
            sleep(IDLE * 5).await;
            drop(request);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = answered => {}
            _ = conversation.silence(HEAD, IDLE) => {}
        }
        assert_eq!(began.elapsed(), IDLE * 5 + HEAD);
    }
}
