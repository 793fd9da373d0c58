//! An application's connection: what comes in is followed, and what goes out is not waited for without end.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep},
};

use crate::framing::{Framing, Violation};

/// What is known about one connection; shared by its socket, its requests and its watch.
#[derive(Debug)]
pub(crate) struct Conversation {
    framing: Mutex<Followed>,
    in_flight: AtomicUsize,
}

#[derive(Debug)]
struct Followed {
    framing: Framing,
    /// When the head at hand began, if one did.
    head_since: Option<Instant>,
    /// When something last happened.
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
    // Made when a write has to wait for the first time.
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

// ===== impl Conversation =====

impl Conversation {
    pub(crate) fn new() -> Arc<Self> {
        let followed = Followed { framing: Framing::new(), head_since: None, active: Instant::now() };
        Arc::new(Self { framing: Mutex::new(followed), in_flight: AtomicUsize::new(0) })
    }

    fn followed(&self) -> MutexGuard<'_, Followed> {
        // Nothing panics under the lock, so a poisoned one is as good as any.
        self.framing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, bytes: &[u8]) {
        let mut followed = self.followed();
        followed.active = Instant::now();
        followed.framing.read(bytes);
        followed.head_since = followed.framing.in_head().then(|| followed.head_since.unwrap_or(followed.active));
    }

    /// Begins a request, which is also counted in the gateway's total.
    pub(crate) fn begin(self: &Arc<Self>, total: &Arc<AtomicUsize>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        total.fetch_add(1, Ordering::Relaxed);
        InFlight { conversation: Arc::clone(self), total: Arc::clone(total) }
    }

    /// What is to be said of the framing of the next request of HTTP/1.
    pub(crate) fn next_request(&self) -> Result<(), Violation> {
        self.followed().framing.next_request()
    }

    /// Ends when the peer has been silent for too long: in the middle of a head, or without a request.
    pub(crate) async fn silence(&self, head: Duration, idle: Duration) {
        loop {
            let end = {
                let followed = self.followed();
                let busy = self.in_flight.load(Ordering::Relaxed) > 0;
                let head_end = followed.head_since.map(|since| since + head);
                let idle_end = (!busy).then(|| followed.active + idle);
                head_end.into_iter().chain(idle_end).min()
            };
            let now = Instant::now();
            if end.is_some_and(|end| end <= now) {
                return;
            }
            // A head may begin meanwhile, so no sleep is longer than a head may take.
            tokio::time::sleep_until(end.unwrap_or(now + head).min(now + head)).await;
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
    pub(crate) fn new(stream: TcpStream, conversation: Arc<Conversation>, patience: Duration) -> Self {
        Self { stream, conversation, patience, timer: None, waiting: false }
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
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.bounded(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, pieces);
        this.bounded(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
