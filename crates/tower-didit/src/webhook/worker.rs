//! Hands events from the inbox to the handler.

use std::{collections::HashMap, fmt, future::pending, future::poll_fn, sync::Arc, time::Duration};

use didit_api::webhook::{Event, WebhookType};
use tokio::{
    sync::watch,
    task::{Id, JoinError, JoinSet, yield_now},
    time::{Instant, sleep, sleep_until, timeout},
};
use tower::Service;
use tracing::Instrument;

use super::{
    Delivery, Failure,
    inbox::{Claim, Claimed, Inbox, InboxError, Settlement, Terms, Ticket},
};
use crate::{
    call::CorrelationId,
    correlation,
    error::{ConfigError, check_duration},
    random::Randomness,
    retry::{Backoff, ExponentialBackoff},
    timestamp::Clock,
};

/// Drains an inbox into a handler, a `Service<Delivery, Response = ()>`; see the [module](super).
///
/// A handler runs inside the journey's [scope](correlation::scope) and a span `webhook` with its correlation id, so that
/// calls it makes through the stack carry the id further. If it fails, panics or takes too long, the event is tried again
/// after a backoff, and parked when its attempts are used up. An error of the handler's is logged as it reads: nothing
/// personal belongs in its text.
#[derive(Debug)]
#[must_use = "events are handled while `run` runs"]
pub struct Worker<H> {
    handler: H,
    settings: Settings,
}

/// Makes a [`Worker`]: [`Worker::builder`].
#[derive(Clone, Debug)]
#[must_use]
pub struct WorkerBuilder {
    settings: Settings,
}

#[derive(Clone)]
struct Settings {
    inbox: Arc<dyn Inbox>,
    clock: Clock,
    at_once: usize,
    terms: Terms,
    patience: Duration,
    backoff: ExponentialBackoff,
    random: Randomness,
}

/// A ticket whose event is being handled; the inbox may have given out a later one meanwhile.
struct Held {
    ticket: watch::Sender<Ticket>,
    attempt: u32,
    // The claim that the later ticket came with.
    again: Option<Claimed>,
}

/// What became of an event, and whether that was written down.
struct Left {
    settlement: Settlement,
    epoch: u64,
    written: bool,
}

/// The end of a task; it leaves nothing if its claim was lost.
type Ended = Result<(Id, Option<Left>), JoinError>;

/// How long after an inbox failed it is asked again.
const INBOX_FAILED: Duration = Duration::from_secs(1);

/// How often it is tried to write down what became of an event. After that, its lease runs out and it is handled again.
const SETTLE_ATTEMPTS: u32 = 5;

// ===== impl WorkerBuilder =====

impl WorkerBuilder {
    /// Sets how many events are handled at once. [`Worker::AT_ONCE`] by default.
    pub fn at_once(mut self, events: usize) -> Self {
        self.settings.at_once = events;
        self
    }

    /// Sets how often an event is handed out before it is parked. [`Worker::MAX_ATTEMPTS`] by default.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.settings.terms.max_attempts = attempts;
        self
    }

    /// Sets how long an event is nobody else's while its worker says nothing. [`Worker::LEASE`] by default; a worker that
    /// lives says so three times in that time.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.settings.terms.lease = lease;
        self
    }

    /// Sets how long a handler may take. [`Worker::PATIENCE`] by default; then it is dropped, and has failed.
    pub fn patience(mut self, time: Duration) -> Self {
        self.settings.patience = time;
        self
    }

    /// Sets how long a failed event waits. [`Worker::backoff`] by default.
    pub fn backoff(mut self, backoff: ExponentialBackoff) -> Self {
        self.settings.backoff = backoff;
        self
    }

    /// Draws jitter from another source.
    pub fn randomness(mut self, random: Randomness) -> Self {
        self.settings.random = random;
        self
    }

    /// Makes the worker.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Zero`] for no events or attempts; [`ConfigError::Duration`] for a lease or a patience outside 1 s to a
    /// day.
    pub fn build<H>(self, handler: H) -> Result<Worker<H>, ConfigError> {
        let settings = self.settings;
        let (at_once, attempts) = (settings.at_once, settings.terms.max_attempts);
        for (setting, is_zero) in [("at_once", at_once == 0), ("max_attempts", attempts == 0)] {
            if is_zero {
                return Err(ConfigError::Zero { setting, least: "1" });
            }
        }
        for (setting, value) in [("lease", settings.terms.lease), ("patience", settings.patience)] {
            check_duration(setting, value, Duration::from_secs(1), ExponentialBackoff::MAX)?;
        }
        Ok(Worker { handler, settings })
    }
}

// ===== impl Worker =====

impl Worker<()> {
    /// How many events are handled at once by default: 8.
    pub const AT_ONCE: usize = 8;

    /// How often an event is handed out by default: 10 times. With [`backoff`](Self::backoff) that is 10 to 40 minutes.
    pub const MAX_ATTEMPTS: u32 = 10;

    /// The lease by default: 60 s.
    pub const LEASE: Duration = Duration::from_secs(60);

    /// How long a handler may take by default: 10 minutes.
    pub const PATIENCE: Duration = Duration::from_secs(600);

    /// How long a failed event waits by default: up to 5 s, doubling to up to 10 minutes, with full jitter.
    pub fn backoff() -> ExponentialBackoff {
        let (base, cap) = (Duration::from_secs(5), Duration::from_secs(600));
        ExponentialBackoff::new(base, cap).unwrap_or(ExponentialBackoff::DIDIT)
    }

    /// A worker on this inbox. Several may share one.
    pub fn builder(inbox: impl Inbox) -> WorkerBuilder {
        let terms = Terms { lease: Self::LEASE, max_attempts: Self::MAX_ATTEMPTS };
        let settings = Settings {
            inbox: Arc::new(inbox),
            clock: Clock::start(),
            at_once: Self::AT_ONCE,
            terms,
            patience: Self::PATIENCE,
            backoff: Self::backoff(),
            random: Randomness::new(),
        };
        WorkerBuilder { settings }
    }
}

impl<H> Worker<H>
where
    H: Service<Delivery, Response = ()> + Clone + Send + 'static,
    H::Error: Into<Failure>,
    H::Future: Send,
{
    /// Handles events until it is dropped. What is being handled then is dropped too, and handled again when its lease is
    /// over.
    pub async fn run(self) {
        self.run_until(pending()).await;
    }

    /// Handles events until `stop` is ready, and then finishes what it has begun.
    pub async fn run_until(self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        let Settings { inbox, clock, .. } = &self.settings;
        let mut tasks = JoinSet::new();
        // Tickets that are held, by the task that holds them.
        let mut held = HashMap::<Id, Held>::new();
        let mut stopping = false;
        while !stopping || !tasks.is_empty() {
            let mut next = None;
            while !stopping && tasks.len() < self.settings.at_once {
                match inbox.claim(self.settings.terms, clock.now()).await {
                    Ok(Claim::Event(claimed)) => {
                        let of_it = |held: &&mut Held| held.ticket.borrow().key == claimed.ticket.key;
                        if let Some(held) = held.values_mut().find(of_it) {
                            // Its lease was not renewed in time, as when all threads were blocked, and it goes on with this
                            // ticket; or its task is just about to end.
                            held.ticket.send_replace(claimed.ticket.clone());
                            held.again = Some(claimed);
                        } else {
                            self.begin(claimed, &mut tasks, &mut held);
                        }
                    }
                    Ok(Claim::Idle { next: due }) => {
                        // Who claims an event tells nobody, and may die with it: nobody else may know when its lease is over.
                        let lease = self.settings.terms.lease;
                        next = Some(due.map_or(lease, |due| due.since(clock.now()).min(lease)));
                        break;
                    }
                    Err(error) => {
                        tracing::error!(%error, "no webhook could be claimed");
                        next = Some(INBOX_FAILED);
                        break;
                    }
                }
            }
            let has_room = !stopping && tasks.len() < self.settings.at_once;
            let due = async move {
                match next {
                    Some(wait) => sleep(wait).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = &mut stop, if !stopping => stopping = true,
                Some(ended) = tasks.join_next_with_id() => {
                    if let Some(again) = self.settings.ended(ended, &mut held).await {
                        self.begin(again, &mut tasks, &mut held);
                    }
                }
                () = inbox.changed(), if has_room => {}
                () = due, if has_room => {}
            }
        }
    }
}

impl<H> Worker<H>
where
    H: Service<Delivery, Response = ()> + Clone + Send + 'static,
    H::Error: Into<Failure>,
    H::Future: Send,
{
    fn begin(&self, claimed: Claimed, tasks: &mut JoinSet<Option<Left>>, held: &mut HashMap<Id, Held>) {
        let (ticket, attempt) = (watch::Sender::new(claimed.ticket.clone()), claimed.attempt);
        let attempting = self.settings.clone().handle(self.handler.clone(), claimed, ticket.subscribe());
        held.insert(tasks.spawn(attempting).id(), Held { ticket, attempt, again: None });
    }
}

// ===== impl Settings =====

impl Settings {
    /// One attempt at one event, to its settlement; `None` if the claim was lost.
    async fn handle<H>(self, mut handler: H, claimed: Claimed, held: watch::Receiver<Ticket>) -> Option<Left>
    where
        H: Service<Delivery, Response = ()> + Send,
        H::Error: Into<Failure>,
        H::Future: Send,
    {
        let Claimed { ticket, payload, correlation_id, attempt, received, origin, test } = claimed;
        let id = correlation_id.parse().unwrap_or_else(|_| CorrelationId::random());
        // Neither can be, unless somebody else wrote into the inbox.
        let Some(event) = Event::read(&payload) else {
            tracing::error!(event = ticket.key, "what was kept of a webhook is no event; parked");
            return Some(self.settle(&ticket, Settlement::Park).await);
        };
        let span = tracing::info_span!(
            parent: None,
            "webhook",
            otel.kind = "consumer",
            correlation_id = id.as_str(),
            session_id = event.session_id,
            event = ticket.key,
            webhook_type = event.webhook_type.as_ref().map(WebhookType::as_str),
            status = event.status,
            attempt,
        );
        let received = received.to_system_time();
        let delivery = Delivery { event, attempt, received, origin, test, correlation_id: id.clone() };
        // In a task of its own, which ends with this one: a handler may block its thread for longer than the lease.
        let mut keeping = JoinSet::new();
        keeping.spawn(self.clone().keep(held.clone()));
        // Let it begin before the handler can block this thread.
        yield_now().await;
        let attempt_of = async {
            let handled = async {
                poll_fn(|cx| handler.poll_ready(cx)).await?;
                handler.call(delivery).await
            };
            let settlement = tokio::select! {
                handled = timeout(self.patience, handled) => match handled {
                    Ok(Ok(())) => Settlement::Done,
                    Ok(Err(failure)) => self.failed(&failure.into(), attempt),
                    Err(_elapsed) => self.failed(&Failure::for_now("the handler takes too long"), attempt),
                },
                Some(Ok(error)) = keeping.join_next() => {
                    tracing::error!(%error, "the claim on a webhook was lost; its handler is stopped");
                    return None;
                }
            };
            let ticket = held.borrow().clone();
            Some(self.settle(&ticket, settlement).await)
        };
        correlation::unlogged_scope(id, attempt_of).instrument(span).await
    }

    /// Renews the lease as long as it can.
    async fn keep(self, held: watch::Receiver<Ticket>) -> InboxError {
        loop {
            sleep(self.terms.lease / 3).await;
            let (ticket, now) = (held.borrow().clone(), self.clock.now());
            match self.inbox.renew(ticket.clone(), now.plus(self.terms.lease), now).await {
                // Tried again in time, twice, before the lease is over.
                Ok(()) | Err(InboxError::Database(_)) => {}
                Err(_) if *held.borrow() != ticket => {}
                Err(error) => return error,
            }
        }
    }

    fn failed(&self, failure: &Failure, attempt: u32) -> Settlement {
        if failure.is_for_good() || attempt >= self.terms.max_attempts {
            tracing::error!(error = %failure, attempt, "a webhook is parked: its handler failed for good");
            return Settlement::Park;
        }
        let wait = self.backoff.delay(attempt, &self.random);
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        tracing::warn!(error = %failure, attempt, wait_ms, "the handler of a webhook failed");
        Settlement::Again { at: self.clock.now().plus(wait) }
    }

    async fn settle(&self, ticket: &Ticket, settlement: Settlement) -> Left {
        let left = |written| Left { settlement, epoch: ticket.epoch, written };
        for attempt in 1..=SETTLE_ATTEMPTS {
            match self.inbox.settle(ticket.clone(), settlement, self.clock.now()).await {
                Ok(()) => return left(true),
                Err(error @ InboxError::Database(_)) if attempt < SETTLE_ATTEMPTS => {
                    tracing::warn!(%error, "what became of a webhook could not be written down yet");
                    sleep_until(Instant::now() + INBOX_FAILED).await;
                }
                Err(error) => {
                    tracing::error!(%error, event = ticket.key, "what became of a webhook is not written down");
                    break;
                }
            }
        }
        left(false)
    }

    /// A task that panicked has not settled its event, and neither has one that used a ticket that was no longer right.
    /// Gives what is to be handled now.
    async fn ended(&self, ended: Ended, held: &mut HashMap<Id, Held>) -> Option<Claimed> {
        let id = match &ended {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        let Held { ticket, attempt, again } = held.remove(&id)?;
        let ticket = ticket.borrow().clone();
        let settlement = match ended {
            Err(error) if error.is_panic() => self.failed(&Failure::for_now("the handler panicked"), attempt),
            Ok((_, Some(left))) if left.epoch == ticket.epoch => return None,
            Ok((_, Some(left))) if !left.written => left.settlement,
            // Nothing is being done about the later claim.
            Ok(_) => return again,
            Err(_) => return None,
        };
        self.settle(&ticket, settlement).await;
        None
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut settings = f.debug_struct("Settings");
        settings.field("inbox", &self.inbox).field("at_once", &self.at_once).field("terms", &self.terms);
        settings.field("patience", &self.patience).field("backoff", &self.backoff).finish_non_exhaustive()
    }
}
