//! A connection of an application's, as far as what was read and answered on it tells.

mod watch;

use std::{
    future::poll_fn,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderName, StatusCode};
use tokio::time::{Instant, sleep_until};
use tower_didit::call::CorrelationId;

pub(crate) use self::watch::{Patience, TooLong};
use crate::{
    framing::{Framing, Violation},
    problem::Problem,
};

/// What is known about one connection; shared by its socket, its requests, their answers and its watch.
#[derive(Debug)]
pub(crate) struct Conversation(Mutex<Followed>);

#[derive(Debug)]
struct Followed {
    framing: Framing,
    /// What was answered before anybody was asked, and under which name.
    refusal: Option<(CorrelationId, StatusCode)>,
    /// Whether a head was given up that did not come to its end.
    is_late: bool,
    /// When the head at hand began, if one did, and how many were before it.
    head: Option<(u64, Instant)>,
    /// When the last request began or ended, or something of an answer was written, or the connection began: nothing else
    /// is a sign of life, or a client that sends a byte now and then would be served for ever.
    active: Instant,
    /// Bytes that were written, in HTTP/2, since a request came when none was being answered: who sends one has read what
    /// was before, nearly always.
    sent: usize,
    /// When an answer was last written that made it more than [`ARRIVED`].
    much: Option<Instant>,
    /// Requests whose answer has not been handed out to its end.
    in_flight: usize,
    /// How many of these have an answer.
    answered: usize,
    /// Pieces of answers that were handed out and are not written. An answer without a body has none.
    unwritten: usize,
    /// How many of both belong to requests that came before the connection was to end.
    early: usize,
    /// When the last of them was answered.
    answered_early: Instant,
    /// Who waits for them, once it is.
    leaving: Option<Waker>,
    /// Whether something has to wait to be written.
    blocked: bool,
    /// Whether what is written next may be the answer to a request.
    answering: bool,
    /// Whether the peer is answered although it may still be sending.
    lingering: bool,
}

/// A request that is being answered; the connection is not idle while there is one.
#[derive(Debug)]
pub(crate) struct InFlight {
    conversation: Arc<Conversation>,
    total: Arc<AtomicUsize>,
    answered: bool,
    early: bool,
}

/// A piece of an answer that waits to be written, which may be long after the request is no longer in flight. It ends
/// with the bytes: when they are written, or when nobody wants them any more.
#[derive(Debug)]
pub(crate) struct Unwritten {
    conversation: Arc<Conversation>,
    early: bool,
}

/// How many bytes a peer's own socket has taken in at once, nearly always, where a reset of the connection does not destroy
/// them.
const ARRIVED: usize = 64 * 1024;

/// How long an answer may be on its way to one who reads it at once.
const MOMENT: Duration = Duration::from_millis(100);

/// The answer to a head that did not end, but for its document.
const LATE: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n\r\n";

// ===== impl Conversation =====

impl Conversation {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Followed {
            framing: Framing::new(),
            refusal: None,
            is_late: false,
            head: None,
            active: Instant::now(),
            sent: 0,
            much: None,
            in_flight: 0,
            answered: 0,
            unwritten: 0,
            early: 0,
            answered_early: Instant::now(),
            leaving: None,
            blocked: false,
            answering: false,
            lingering: false,
        })))
    }

    fn followed(&self) -> MutexGuard<'_, Followed> {
        // Nothing panics under the lock, so a poisoned one is as good as any.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
        let mut followed = self.followed();
        followed.active = Instant::now();
        if followed.answered + followed.unwritten == 0 {
            followed.sent = 0;
        }
        followed.in_flight += 1;
        followed.answering = true;
        let early = followed.leaving.is_none();
        followed.early += usize::from(early);
        total.fetch_add(1, Ordering::Relaxed);
        InFlight { conversation: Arc::clone(self), total: Arc::clone(total), answered: false, early }
    }

    /// Everything that was given to the socket has been written.
    pub(crate) fn flushed(&self) {
        let mut followed = self.followed();
        followed.answering &= followed.in_flight > 0;
    }

    /// The connection ends with the answer at hand, although the peer may still be sending.
    pub(crate) fn linger(&self) {
        self.followed().lingering = true;
    }

    /// What the last request was answered with before anybody was asked, and under which name.
    pub(crate) fn refusal(&self) -> Option<(CorrelationId, StatusCode)> {
        self.followed().refusal.clone()
    }

    /// What goes out instead of these bytes, if they are hyper's own answer: a head that belongs to no request. One that
    /// comes close behind the answer before it is not told apart.
    pub(crate) fn instead_of(&self, bytes: &[u8], correlation: &HeaderName) -> Option<Bytes> {
        if !bytes.starts_with(b"HTTP/1.") {
            return None;
        }
        let mut followed = self.followed();
        if followed.answering {
            return None;
        }
        let id = CorrelationId::random();
        let violation = followed.framing.next_request().err().filter(|violation| *violation != Violation::Lost);
        let (status, instead) = Problem::in_place_of(bytes, violation, correlation, &id)?;
        followed.refusal = Some((id, status));
        followed.lingering = true;
        Some(instead)
    }

    /// What is to be written to a peer that did not end its head, if that is why the connection ends.
    pub(crate) fn last_words(&self, correlation: &HeaderName) -> Option<Bytes> {
        // Nothing can be put behind an answer that is not written yet.
        let mut followed = self.followed();
        if !followed.is_late || followed.answering {
            return None;
        }
        let id = CorrelationId::random();
        let (status, text) = Problem::in_place_of(LATE, None, correlation, &id)?;
        followed.refusal = Some((id, status));
        followed.lingering = true;
        Some(text)
    }

    /// Ends when the peer can be told that its connection ends. One of HTTP/1 is told with the answer at hand. Over HTTP/2
    /// there are clients that give up what they have not read when they are told, so what came before is answered first.
    pub(crate) async fn can_be_told(&self) {
        let answered = poll_fn(|cx| {
            let mut followed = self.followed();
            followed.leaving = Some(cx.waker().clone());
            match followed.framing.is_http2() {
                // What is held up goes on in this task.
                true if followed.early > 0 || followed.is_held_up() => Poll::Pending,
                is_http2 => Poll::Ready(is_http2.then_some(followed.answered_early)),
            }
        });
        if let Some(answered) = answered.await {
            sleep_until(answered + MOMENT).await;
        }
        // A head that has begun is answered yet. It is read in this task, so its end wakes it.
        poll_fn(|_| if self.followed().framing.in_head() { Poll::Pending } else { Poll::Ready(()) }).await;
    }

    /// Bytes were written, in HTTP/2.
    pub(crate) fn sent(&self, bytes: usize) {
        let mut followed = self.followed();
        followed.sent += bytes;
        // What is written when nothing is under way is no answer.
        if followed.sent > ARRIVED && !followed.is_idle() {
            followed.much = Some(Instant::now());
        }
    }

    /// Whether what is to be written has to wait.
    pub(crate) fn blocked(&self, blocked: bool) {
        let mut followed = self.followed();
        followed.blocked = blocked;
        if followed.answering {
            followed.active = Instant::now();
        }
    }

    /// How long the peer may yet be reading what was written, if that was much.
    pub(crate) fn reads_until(&self, patience: Duration) -> Option<Instant> {
        self.followed().reads_until(patience)
    }

    pub(crate) fn is_http2(&self) -> bool {
        self.followed().framing.is_http2()
    }

    /// Whether the peer may still be sending when its connection ends. Over HTTP/2 it always may.
    pub(crate) fn is_lingering(&self) -> bool {
        let followed = self.followed();
        followed.lingering || followed.framing.is_http2()
    }

    /// What is to be said of the framing of the next request of HTTP/1.
    pub(crate) fn next_request(&self) -> Result<(), Violation> {
        self.followed().framing.next_request()
    }
}

// ===== impl Followed =====

impl Followed {
    /// Whether nothing is under way: all requests are answered, and the answers are written.
    fn is_idle(&self) -> bool {
        self.in_flight + self.unwritten == 0 && !self.is_held_up()
    }

    /// Whether the end of an answer has to wait to be written, of which no piece may be left: small ones are copied.
    fn is_held_up(&self) -> bool {
        self.blocked && self.answering
    }

    fn reads_until(&self, patience: Duration) -> Option<Instant> {
        self.much.map(|last| last + patience).filter(|end| *end > Instant::now())
    }

    /// A request that came early was answered just now, or a piece of its answer written.
    fn early_ended(&mut self) {
        self.early -= 1;
        self.answered_early = self.active;
        if let Some(waker) = self.leaving.as_ref().filter(|_| self.early == 0) {
            waker.wake_by_ref();
        }
    }
}

// ===== impl InFlight =====

impl InFlight {
    /// The answer's head is handed out.
    pub(crate) fn answered(&mut self) {
        let mut followed = self.conversation.followed();
        followed.active = Instant::now();
        followed.answered += usize::from(!std::mem::replace(&mut self.answered, true));
    }

    /// A piece of the answer is handed out.
    pub(crate) fn piece(&self) -> Unwritten {
        let mut followed = self.conversation.followed();
        if followed.unwritten == 0 {
            // Before, nothing waited for the peer.
            followed.active = Instant::now();
        }
        followed.unwritten += 1;
        followed.early += usize::from(self.early);
        Unwritten { conversation: Arc::clone(&self.conversation), early: self.early }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut followed = self.conversation.followed();
        followed.active = Instant::now();
        followed.in_flight -= 1;
        followed.answered -= usize::from(self.answered);
        if self.early {
            followed.early_ended();
        }
        self.total.fetch_sub(1, Ordering::Relaxed);
    }
}

// ===== impl Unwritten =====

impl Unwritten {
    /// Some of it was written.
    pub(crate) fn moved(&self) {
        self.conversation.followed().active = Instant::now();
    }
}

impl Drop for Unwritten {
    fn drop(&mut self) {
        let mut followed = self.conversation.followed();
        followed.active = Instant::now();
        followed.unwritten -= 1;
        if self.early {
            followed.early_ended();
        }
    }
}
