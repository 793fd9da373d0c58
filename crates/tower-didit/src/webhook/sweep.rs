//! Finds sessions whose webhook never came.
//!
//! # Why
//!
//! Didit tries three times within five minutes, and then drops the event. A deployment, a wrong secret or a proxy that
//! answers 403 loses events for good, and nothing tells. A sweep asks Didit what sessions there are, and hands to the same
//! handler what the [inbox](super::inbox) does not know.
//!
//! # What it does
//!
//! It reads the list of sessions, newest first, page by page, as far back as its [horizon](SweepBuilder::horizon). A
//! session is *missing* if it has one of the [statuses](SweepBuilder::statuses), and the inbox has neither an event of its
//! stream to be handled, nor was this status what came last. Such a session is first noted. If it is still missing after
//! the [grace](SweepBuilder::grace), when all of Didit's own attempts are over, its decision is read, and a
//! `status.updated` event is made of it: signed by nobody, with the status, the metadata and the decision that Didit's
//! decision endpoint gives. It is dated before that was read, by the `Date` of the list, so that no event that Didit
//! signed afterwards is older.
//!
//! # Once
//!
//! Whether it is missing is asked again when the event is taken in, in one step. If the real event comes all the same, it is
//! passed over: it is older than what was applied, or, sent again by hand with a new time, it says the status that the
//! sweep found, and nothing came in between. So an event that a session reaches the same status by *twice*, of which the
//! step in between and its event were missed as well, is passed over too.
//!
//! What is older than what the inbox [knows](super::inbox::Inbox::known_since) is left alone, because nobody can tell any
//! more whether it was handled. So are sessions from before the inbox was made, unless
//! [asked for](SweepBuilder::unknown_too).
//!
//! # What it costs
//!
//! One request for a page of 50 sessions and one for each that is missing, all reads of low
//! [priority](Priority), so many [a minute](SweepBuilder::reads_per_minute) at most. A round goes on where it was stopped, by the [bound of a
//! pass](SweepBuilder::reads_per_pass) or by an error of the list or the inbox. A decision that cannot be read stops
//! nothing: it is tried again with the next round. Its place is in memory: a new process begins a new round, and its grace
//! begins anew.
//!
//! # Example
//!
//! ```no_run
//! # use bytes::Bytes;
//! # use http::{Request, Response};
//! # use http_body_util::Full;
//! # use tower_didit::webhook::inbox::MemoryInbox;
//! use tower_didit::webhook::sweep::Sweep;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let inbox = MemoryInbox::new();
//! # let didit = tower::service_fn(async |_: Request<Full<Bytes>>| Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::default())));
//! let sweep = Sweep::builder(inbox).build(didit)?;
//! let mut progress = sweep.progress();
//! tokio::spawn(sweep.run());
//!
//! progress.changed().await?;
//! let seen = progress.borrow().clone();
//! println!("{} found, {} wait; next in {:?}", seen.found, seen.noted, seen.next_in);
//! # Ok(())
//! # }
//! ```

use std::{
    collections::{HashMap, HashSet},
    error::Error as StdError,
    fmt,
    future::poll_fn,
    marker::PhantomData,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use bytes::Bytes;
use didit_api::{
    SessionStatus,
    shapes::{ListSessions, SessionKind, SessionPage, SessionRow},
    webhook::Event,
};
use http::{Request, Response, StatusCode, Uri, header};
use http_body::Body;
use http_body_util::{BodyExt, Full, Limited};
use serde_json::{Map, Value, json};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};
use tower::Service;
use uuid::Uuid;

use super::{
    inbox::{Accepted, Arrival, Inbox, InboxError, Origin, Timestamp},
    journey,
};
use crate::{
    call::{CallOptions, CorrelationId, Priority},
    created_at,
    error::{ConfigError, check_duration},
    outcome::of_error,
    timestamp::Clock,
};

/// Finds sessions whose webhook never came; see the [module](self).
///
/// `B` is the request body of the client; [`with_body`](Self::with_body) changes it.
#[must_use = "nothing is found unless `pass` is called or `run` runs"]
pub struct Sweep<S, B = Full<Bytes>> {
    didit: S,
    settings: SweepBuilder,
    clock: Clock,
    // What was missing when it was first seen, and since when.
    noted: HashMap<String, (SessionStatus, Timestamp)>,
    // What this round has come by.
    seen: HashSet<String>,
    offset: u64,
    next_read: Instant,
    progress: watch::Sender<Progress>,
    body: PhantomData<fn() -> B>,
}

/// Makes a [`Sweep`]: [`Sweep::builder`].
#[derive(Clone, Debug)]
#[must_use]
pub struct SweepBuilder {
    inbox: Arc<dyn Inbox>,
    base: String,
    statuses: Vec<SessionStatus>,
    grace: Duration,
    horizon: Duration,
    interval: Duration,
    reads_per_minute: u32,
    reads_per_pass: u32,
    unknown_too: bool,
}

/// How far a sweep has come. Numbers count from its beginning, but those of the current round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// How many rounds are complete: every session of the horizon was looked at.
    pub rounds: u64,
    /// Requests that were made.
    pub reads: u64,
    /// Sessions that this round has looked at.
    pub looked_at: u64,
    /// Sessions that are noted as missing, and wait for their grace to end.
    pub noted: usize,
    /// Events that were handed to the inbox.
    pub found: u64,
    /// Passes that ended in an error.
    pub failed: u64,
    /// How long until the next pass begins.
    pub next_in: Duration,
}

/// Why a pass did not come to its end, and the next one goes on from there; or the first decision that could not be read,
/// whose session the next round looks at again.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum SweepError {
    /// A request failed.
    #[error("Didit could not be asked")]
    Client(#[source] Box<dyn StdError + Send + Sync>),
    /// Didit answered with an error.
    #[error("Didit answered {0}")]
    Status(StatusCode),
    /// The answer did not come within 30 s, broke off, is longer than 8 MiB, or is not what was expected.
    #[error("Didit's answer cannot be read")]
    Unreadable,
    /// The inbox failed, or is full.
    #[error("the inbox failed")]
    Inbox(#[from] InboxError),
}

/// Sessions of a page; Didit's default.
const PAGE: u32 = 50;

/// The longest answer that is read: 8 MiB. A decision lists every check with its warnings.
const LONGEST: usize = 8 * 1024 * 1024;

/// The longest that one read may take: 30 s. Didit's own samples give it 15.
const READ_TIME: Duration = Duration::from_secs(30);

/// The client's error is left out, as in the log: what it says may have the URL.
impl fmt::Debug for SweepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(_) => f.debug_tuple("Client").finish_non_exhaustive(),
            Self::Status(status) => f.debug_tuple("Status").field(status).finish(),
            Self::Unreadable => f.write_str("Unreadable"),
            Self::Inbox(error) => f.debug_tuple("Inbox").field(error).finish(),
        }
    }
}

// ===== impl SweepBuilder =====

impl SweepBuilder {
    /// The longest of all its times: a year.
    pub const LONGEST: Duration = Duration::from_secs(365 * 86_400);

    /// Sends requests to this origin, such as `http://127.0.0.1:8484`. None by default, which suits
    /// [`DiditLayer`](crate::stack).
    pub fn base_url(mut self, origin: impl Into<String>) -> Self {
        self.base = origin.into();
        self
    }

    /// Sets which statuses have an event that counts. By default those that end or interrupt a session: Approved, Declined,
    /// In Review, Resubmitted, Abandoned, Expired, Kyc Expired.
    pub fn statuses(mut self, statuses: impl IntoIterator<Item = SessionStatus>) -> Self {
        self.statuses = statuses.into_iter().collect();
        self
    }

    /// Sets how long a session has to be missing before it is read. 10 minutes by default, twice what Didit's own attempts
    /// take.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Sets how old a session may be. 28 days by default, the longest that one is open.
    pub fn horizon(mut self, horizon: Duration) -> Self {
        self.horizon = horizon;
        self
    }

    /// Sets how long after a pass the next one begins. 15 minutes by default.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Sets how many requests it makes a minute, evenly spaced. 30 by default: a twentieth of Didit's 600.
    pub fn reads_per_minute(mut self, reads: u32) -> Self {
        self.reads_per_minute = reads;
        self
    }

    /// Sets after how many requests a pass ends, whether the round is complete or not. 300 by default.
    pub fn reads_per_pass(mut self, reads: u32) -> Self {
        self.reads_per_pass = reads;
        self
    }

    /// Looks at sessions too that are older than what the inbox knows. Off by default: the handler may get what it has
    /// handled, before the inbox was made or before it forgot.
    pub fn unknown_too(mut self, too: bool) -> Self {
        self.unknown_too = too;
        self
    }

    /// Makes the sweep, which asks through this client.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Zero`] for no reads or statuses; [`ConfigError::Duration`] for a time beyond
    /// [`LONGEST`](Self::LONGEST), and for an interval below 1 s.
    pub fn build<S>(self, didit: S) -> Result<Sweep<S>, ConfigError> {
        let zero = [
            ("reads_per_minute", self.reads_per_minute == 0),
            ("reads_per_pass", self.reads_per_pass < 2),
            ("statuses", self.statuses.is_empty()),
        ];
        for (setting, is_zero) in zero {
            if is_zero {
                return Err(ConfigError::Zero { setting, least: if setting == "reads_per_pass" { "2" } else { "1" } });
            }
        }
        check_duration("grace", self.grace, Duration::ZERO, Self::LONGEST)?;
        check_duration("horizon", self.horizon, Duration::from_secs(1), Self::LONGEST)?;
        check_duration("interval", self.interval, Duration::from_secs(1), Self::LONGEST)?;
        Ok(Sweep {
            didit,
            settings: self,
            clock: Clock::start(),
            noted: HashMap::new(),
            seen: HashSet::new(),
            offset: 0,
            next_read: Instant::now(),
            progress: watch::Sender::new(Progress::default()),
            body: PhantomData,
        })
    }
}

// ===== impl Sweep =====

impl Sweep<()> {
    /// A sweep that feeds this inbox.
    pub fn builder(inbox: impl Inbox) -> SweepBuilder {
        use SessionStatus::{Abandoned, Approved, Declined, Expired, InReview, KycExpired, Resubmitted};
        SweepBuilder {
            inbox: Arc::new(inbox),
            base: String::new(),
            statuses: vec![Approved, Declined, InReview, Resubmitted, Abandoned, Expired, KycExpired],
            grace: Duration::from_secs(600),
            horizon: Duration::from_secs(28 * 86_400),
            interval: Duration::from_secs(900),
            reads_per_minute: 30,
            reads_per_pass: 300,
            unknown_too: false,
        }
    }
}

impl<S, B> Sweep<S, B> {
    /// Sends another type of request body, which can be made empty.
    pub fn with_body<T>(self) -> Sweep<S, T> {
        let Self { didit, settings, clock, noted, seen, offset, next_read, progress, body: _ } = self;
        Sweep { didit, settings, clock, noted, seen, offset, next_read, progress, body: PhantomData }
    }

    /// How far it has come, while it runs.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }
}

impl<S, B, RB> Sweep<S, B>
where
    S: Service<Request<B>, Response = Response<RB>, Error: Into<Box<dyn StdError + Send + Sync>>>,
    B: Default,
    RB: Body<Error: Into<Box<dyn StdError + Send + Sync>>>,
{
    /// Makes passes until it is dropped. What fails is logged, and tried again with the next pass.
    pub async fn run(mut self) {
        loop {
            if let Err(error) = self.pass().await {
                // What a client says of its error may have the URL.
                let (outcome, source) = match &error {
                    SweepError::Client(client) => (Some(of_error(&**client).name()), None),
                    ours => (None, ours.source().map(ToString::to_string)),
                };
                tracing::warn!(%error, outcome, source, "a sweep for missed webhooks did not come to its end");
            }
            sleep(self.settings.interval).await;
        }
    }

    /// Goes on with the round: to its end, or as far as a pass goes.
    ///
    /// # Errors
    ///
    /// [`SweepError`] says what stopped it, or what could not be read. Calling it again goes on from there.
    pub async fn pass(&mut self) -> Result<Progress, SweepError> {
        let result = self.pages().await;
        let (noted, interval) = (self.noted.len(), self.settings.interval);
        self.progress.send_modify(|progress| {
            progress.failed += u64::from(result.is_err());
            (progress.noted, progress.next_in) = (noted, interval);
        });
        result.map(|()| self.progress.borrow().clone())
    }

    async fn pages(&mut self) -> Result<(), SweepError> {
        let known = self.settings.inbox.known_since().await?;
        let horizon = self.clock.now().minus(self.settings.horizon);
        let oldest = if self.settings.unknown_too { horizon } else { horizon.max(known) };
        let mut reads = self.settings.reads_per_pass;
        let mut unread = None;
        // A page and at least one decision, or the pass would come to nothing.
        while reads >= 2 {
            reads -= 1;
            let list = ListSessions::new()
                .session_kind(SessionKind::All)
                .status(self.settings.statuses.clone())
                .limit(PAGE)
                .offset(self.offset);
            let (listed, page) =
                self.read(&format!("/v3/sessions/?{}", list.to_query())).await?.ok_or(SweepError::Unreadable)?;
            let page: SessionPage = serde_json::from_slice(&page).map_err(|_| SweepError::Unreadable)?;
            if self.offset == 0 {
                self.seen.clear();
                self.progress.send_modify(|progress| progress.looked_at = 0);
            }
            let is_old = |row: &SessionRow| {
                row.created_at.as_deref().and_then(created_at::parse).is_some_and(|made| made < oldest)
            };
            // Newest first, but each kind for itself: behind a page of nothing but old sessions all are older still.
            let is_last = page.next.is_none() || page.results.iter().all(is_old);
            for row in page.results {
                if is_old(&row) || self.seen.contains(&row.session_id) {
                    continue;
                }
                let read = match self.look_at(&row, listed).await {
                    Ok(read) => read,
                    Err(error @ SweepError::Inbox(_)) => return Err(error),
                    // One of many: the others must not wait for it.
                    Err(error) => {
                        unread.get_or_insert(error);
                        true
                    }
                };
                self.seen.insert(row.session_id);
                self.progress.send_modify(|progress| progress.looked_at += 1);
                reads -= u32::from(read);
                if reads == 0 {
                    // The next pass begins with this page again.
                    return unread.map_or(Ok(()), Err);
                }
            }
            if is_last {
                self.end_round();
                break;
            }
            // Sessions that are made meanwhile move others back, and some are seen twice. Sessions that leave the list
            // meanwhile, deleted or with another status, move others forward: those are passed by, until the next round.
            self.offset += u64::from(PAGE);
        }
        unread.map_or(Ok(()), Err)
    }

    fn end_round(&mut self) {
        self.offset = 0;
        let seen = std::mem::take(&mut self.seen);
        self.noted.retain(|session, _| seen.contains(session));
        self.progress.send_modify(|progress| progress.rounds += 1);
    }

    /// Whether the session's decision was read; the list had been answered at `listed`.
    async fn look_at(&mut self, row: &SessionRow, listed: u64) -> Result<bool, SweepError> {
        // What stands in a path is what was read from an answer: a UUID or nothing.
        let Ok(id) = Uuid::try_parse(&row.session_id) else { return Ok(false) };
        let (session, now) = (row.session_id.as_str(), self.clock.now());
        if !self.is_missing(session, &row.status).await? {
            self.noted.remove(session);
            return Ok(false);
        }
        let (status, since) = self.noted.entry(session.to_owned()).or_insert_with(|| (row.status.clone(), now));
        if *status != row.status {
            (*status, *since) = (row.status.clone(), now);
        }
        if now.since(*since) < self.settings.grace {
            return Ok(false);
        }
        let Some((_, decision)) = self.read(&format!("/v3/session/{id}/decision/")).await? else {
            // Deleted meanwhile.
            self.noted.remove(session);
            return Ok(true);
        };
        let decision: Map<String, Value> = serde_json::from_slice(&decision).map_err(|_| SweepError::Unreadable)?;
        if decision.get("status").and_then(Value::as_str) != Some(row.status.as_str()) {
            // Something is happening right now, and its event is on its way.
            self.noted.insert(session.to_owned(), (row.status.clone(), now));
            return Ok(true);
        }
        // No later than the decision was looked at, by Didit's own clock if it tells.
        self.take_in(session, listed, decision).await?;
        self.noted.remove(session);
        Ok(true)
    }

    async fn is_missing(&self, session: &str, status: &SessionStatus) -> Result<bool, SweepError> {
        let event = json!({ "timestamp": 0, "webhook_type": STATUS_UPDATED, "session_id": session });
        let event: Event = serde_json::from_value(event).map_err(|_| SweepError::Unreadable)?;
        let stream = event.stream().map_or_else(String::new, Into::into);
        Ok(self.settings.inbox.is_missing(stream, status.as_str().to_owned()).await?)
    }

    /// Makes an event of what the decision says, and takes it in.
    async fn take_in(&self, session: &str, at: u64, decision: Map<String, Value>) -> Result<(), SweepError> {
        let mut event = json!({ "timestamp": at, "webhook_type": STATUS_UPDATED, "session_id": session });
        for field in ["status", "session_kind", "environment", "workflow_id", "vendor_data", "metadata"] {
            if let Some(value) = decision.get(field) {
                event[field] = value.clone();
            }
        }
        event["decision"] = Value::Object(decision);
        let payload = Bytes::from(event.to_string());
        let event: Event = serde_json::from_value(event).map_err(|_| SweepError::Unreadable)?;
        let id = journey::stamped_id(event.metadata.as_ref()).unwrap_or_else(CorrelationId::random);
        let arrival = Arrival::new(&event, payload, id, Origin::Swept, false);
        let receipt = self.settings.inbox.accept(arrival, self.clock.now()).await?;
        if receipt.accepted == Accepted::New {
            let correlation_id = receipt.correlation_id.as_str();
            let span = tracing::info_span!(parent: None, "sweep", correlation_id, session_id = session);
            tracing::warn!(parent: &span, status = event.status, "a webhook never came; a sweep found what it would say");
            self.progress.send_modify(|progress| progress.found += 1);
        }
        Ok(())
    }

    /// Reads at Didit: when that was answered by its `Date`, or else asked, in seconds since 1970, and what came; `None` if
    /// there is no such thing.
    async fn read(&mut self, target: &str) -> Result<Option<(u64, Bytes)>, SweepError> {
        sleep_until(self.next_read).await;
        self.next_read = Instant::now() + Duration::from_secs(60) / self.settings.reads_per_minute;
        self.progress.send_modify(|progress| progress.reads += 1);
        let before = self.clock.now().to_system_time();
        let asked = timeout(READ_TIME, self.ask(target)).await;
        let (parts, body) = asked.unwrap_or(Err(SweepError::Unreadable))?.into_parts();
        match parts.status {
            StatusCode::NOT_FOUND => Ok(None),
            status if !status.is_success() => Err(SweepError::Status(status)),
            _ => {
                let date = parts
                    .headers
                    .get(header::DATE)
                    .and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
                Ok(Some((date.unwrap_or(before).duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(), body)))
            }
        }
    }

    async fn ask(&mut self, target: &str) -> Result<Response<Bytes>, SweepError> {
        let mut request = Request::new(B::default());
        let uri: Uri =
            format!("{}{target}", self.settings.base).parse().map_err(|error| SweepError::Client(Box::new(error)))?;
        *request.uri_mut() = uri;
        request.extensions_mut().insert(options());
        poll_fn(|cx| self.didit.poll_ready(cx)).await.map_err(|error| SweepError::Client(error.into()))?;
        let response = self.didit.call(request).await.map_err(|error| SweepError::Client(error.into()))?;
        let (parts, body) = response.into_parts();
        let body = Box::pin(Limited::new(body, LONGEST)).collect().await.map_err(|_| SweepError::Unreadable)?;
        Ok(Response::from_parts(parts, body.to_bytes()))
    }
}

/// Nobody waits for these calls.
fn options() -> CallOptions {
    CallOptions::new().deadline(READ_TIME).priority(Priority::Low)
}

/// The type of the events that are made.
const STATUS_UPDATED: &str = "status.updated";

impl<S, B> fmt::Debug for Sweep<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sweep = f.debug_struct("Sweep");
        sweep.field("settings", &self.settings).field("progress", &*self.progress.borrow()).finish_non_exhaustive()
    }
}
