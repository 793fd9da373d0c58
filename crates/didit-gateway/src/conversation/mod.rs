//! A connection of an application's, as far as what was read and answered on it tells.

mod watch;

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use bytes::Bytes;
use http::{HeaderName, StatusCode};
use tokio::time::Instant;
use tower_didit::call::CorrelationId;

pub(crate) use self::watch::{Patience, TooLong};
use crate::{
    framing::{Framing, Violation},
    problem::Problem,
};

/// What is known about one connection; shared by its socket, its requests and its watch.
#[derive(Debug)]
pub(crate) struct Conversation {
    framing: Mutex<Followed>,
    in_flight: AtomicUsize,
    /// How many of these have an answer that is being handed out.
    handed_out: AtomicUsize,
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
    /// When the last piece of an answer was handed out.
    moved: Instant,
}

/// A request that is being answered; the connection is not idle while there is one.
#[derive(Debug)]
pub(crate) struct InFlight {
    conversation: Arc<Conversation>,
    total: Arc<AtomicUsize>,
    handed_out: bool,
}

/// The answer to a head that did not end, but for its document.
const LATE: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n\r\n";

// ===== impl Conversation =====

impl Conversation {
    pub(crate) fn new() -> Arc<Self> {
        let now = Instant::now();
        let followed =
            Followed { framing: Framing::new(), refusal: None, is_late: false, head: None, active: now, moved: now };
        Arc::new(Self {
            framing: Mutex::new(followed),
            in_flight: AtomicUsize::new(0),
            handed_out: AtomicUsize::new(0),
            answering: AtomicBool::new(false),
            lingering: AtomicBool::new(false),
        })
    }

    fn followed(&self) -> MutexGuard<'_, Followed> {
        // Nothing panics under the lock, so a poisoned one is as good as any.
        self.framing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn read(&self, bytes: &[u8]) {
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
        InFlight { conversation: Arc::clone(self), total: Arc::clone(total), handed_out: false }
    }

    /// Everything that was answered has been written.
    pub(crate) fn flushed(&self) {
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
    pub(crate) fn instead_of(&self, bytes: &[u8], correlation: &HeaderName) -> Option<Bytes> {
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
    pub(crate) fn last_words(&self, correlation: &HeaderName) -> Option<Bytes> {
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

    pub(crate) fn is_http2(&self) -> bool {
        self.followed().framing.is_http2()
    }

    /// Whether the peer is answered although it may still be sending.
    pub(crate) fn is_lingering(&self) -> bool {
        self.lingering.load(Ordering::Relaxed)
    }

    /// What is to be said of the framing of the next request of HTTP/1.
    pub(crate) fn next_request(&self) -> Result<(), Violation> {
        self.followed().framing.next_request()
    }
}

// ===== impl InFlight =====

impl InFlight {
    /// A piece of the answer was handed out, or its head was.
    pub(crate) fn moved(&mut self) {
        self.conversation.followed().moved = Instant::now();
        if !std::mem::replace(&mut self.handed_out, true) {
            self.conversation.handed_out.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.handed_out {
            self.conversation.handed_out.fetch_sub(1, Ordering::Relaxed);
        }
        self.conversation.followed().active = Instant::now();
        self.conversation.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.total.fetch_sub(1, Ordering::Relaxed);
    }
}
