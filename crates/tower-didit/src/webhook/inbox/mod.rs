//! Where events wait for their handler, and where it is known which were handled.
//!
//! ```text
//!            accept                claim                done
//!   absent ─────────▶ waiting ─────────────▶ claimed ─────────▶ done     (its body is deleted, its key is kept)
//!                      ▲   ▲  again, later    │ │ │
//!                      │   └──────────────────┘ │ └──────────▶ parked   (too many attempts, or none would help)
//!                      │   the claimant died    │                │
//!                      ├────────────────────────┘                │
//!                      └─────────────────────────────────────────┘ redrive
//! ```
//!
//! # What is promised
//!
//! - An event that was [accepted](Inbox::accept) is handed to the handler **at least once**. In a [`RedbInbox`], accepted
//!   means that it is on the disk; a [`MemoryInbox`] forgets everything with its process.
//! - An event that was handled to its end is not handed out again, however often Didit sends it, until its key is
//!   [forgotten](Capacity::retention). So a handler runs **once**, unless its process dies between its effect and the
//!   note that it is done, or it fails after having had an effect. Whoever cannot bear that writes the effect together
//!   with [`Delivery::key`](super::Delivery::key), in one transaction.
//! - While it is handled, nobody else gets it. A claim has a lease that its worker renews; if the process dies, the lease
//!   runs out, and the event is handed out again. A [`RedbInbox`] that is opened again takes all claims for dead at once.
//! - Of one [stream](didit_api::webhook::Stream) one event is handled at a time, the oldest that is there first. An event
//!   that is older than the last one applied is passed over: it is done without a handler. So is a repetition of what a
//!   [sweep](super::sweep) found.
//!
//! # What is kept
//!
//! | what | how long |
//! |---|---|
//! | the body of an event, as it came: it may hold a decision, which is personal data | until it is done, or a parked one is given up |
//! | its key, stream, time, status, session and correlation id | [`Capacity::retention`] after it is done |
//! | the last time and status of each stream | the same, after the last event |
//! | which session belongs to which correlation id | [`Capacity::journeys`] |
//!
//! The body has to be kept: Didit gives its receiver five seconds, and a handler may take longer or fail. Keep the file of
//! a [`RedbInbox`] as private as the decisions are. What is deleted from it is free to be written over, and not wiped.
//! `Debug` shows nothing of it.

mod book;
mod entry;
mod memory;
#[cfg(feature = "webhook-redb")]
mod redb;

use std::{error::Error as StdError, fmt, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use didit_api::webhook::Event;
use serde::{Deserialize, Serialize};

pub use self::memory::MemoryInbox;
#[cfg(feature = "webhook-redb")]
pub use self::redb::RedbInbox;
pub use crate::timestamp::Timestamp;
use crate::{
    call::CorrelationId,
    error::{ConfigError, check_duration},
};

/// What an inbox's methods return: it borrows nothing, and what is asked for happens even if nobody waits for it.
pub type InboxFuture<T> = Pin<Box<dyn Future<Output = Result<T, InboxError>> + Send>>;

/// Holds events until they are handled; see the [module](self).
///
/// [`MemoryInbox`] and [`RedbInbox`] serve one process. One that several processes share is for the application to write;
/// each of these methods is one step that no other can get between.
pub trait Inbox: fmt::Debug + Send + Sync + 'static {
    /// Takes an event in. When the future is ready, it is as safe as this inbox makes it.
    ///
    /// # Errors
    ///
    /// [`InboxError::Full`] if there is no room; any other [`InboxError`] if it cannot be kept.
    fn accept(&self, arrival: Arrival, now: Timestamp) -> InboxFuture<Receipt>;

    /// Hands out an event that is due.
    ///
    /// # Errors
    ///
    /// Any [`InboxError`] of what it is kept in.
    fn claim(&self, terms: Terms, now: Timestamp) -> InboxFuture<Claim>;

    /// Lets a claim last until then.
    ///
    /// # Errors
    ///
    /// [`InboxError::Fenced`] if somebody else has it by now.
    fn renew(&self, ticket: Ticket, until: Timestamp, now: Timestamp) -> InboxFuture<()>;

    /// Writes down what became of a claimed event.
    ///
    /// # Errors
    ///
    /// [`InboxError::Fenced`] if somebody else has it by now.
    fn settle(&self, ticket: Ticket, settlement: Settlement, now: Timestamp) -> InboxFuture<()>;

    /// Whether no event of the stream is there that waits, or came last and said this status.
    ///
    /// # Errors
    ///
    /// Any [`InboxError`] of what it is kept in.
    fn is_missing(&self, stream: String, status: String) -> InboxFuture<bool>;

    /// Keeps a session's correlation id, and returns the one that counts: the first that was kept for it.
    ///
    /// # Errors
    ///
    /// Any [`InboxError`] of what it is kept in.
    fn remember(&self, session_id: String, correlation_id: CorrelationId, now: Timestamp) -> InboxFuture<String>;

    /// Up to so many parked events, the oldest first.
    ///
    /// # Errors
    ///
    /// Any [`InboxError`] of what it is kept in.
    fn parked(&self, most: usize) -> InboxFuture<Vec<Parked>>;

    /// Lets a parked event be handled again, with all its attempts; `false` if there is none with this key. One that was
    /// overtaken meanwhile is passed over.
    ///
    /// # Errors
    ///
    /// Any [`InboxError`] of what it is kept in.
    fn redrive(&self, key: String, now: Timestamp) -> InboxFuture<bool>;

    /// How full it is.
    ///
    /// # Errors
    ///
    /// Any [`InboxError`] of what it is kept in.
    fn counts(&self) -> InboxFuture<Counts>;

    /// Is ready when an event may be due earlier than the last [`Claim::Idle`] said. An inbox that cannot tell waits for a
    /// while instead.
    fn changed(&self) -> Pin<Box<dyn Future<Output = ()> + Send>>;

    /// Since when it knows of every stream that something happened in: since it was made, or since what it forgot. A sweep
    /// leaves older sessions alone, because nobody knows any more whether their events came.
    ///
    /// # Errors
    ///
    /// Any [`InboxError`] of what it is kept in.
    fn known_since(&self) -> InboxFuture<Timestamp>;
}

/// How much an inbox holds, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    events: usize,
    bytes: usize,
    journeys: usize,
    retention: Duration,
    parked_for: Duration,
    journeys_for: Duration,
}

/// An event to be taken in. `Debug` shows nothing of its body.
#[derive(Clone)]
#[non_exhaustive]
pub struct Arrival {
    /// What names it.
    pub key: String,
    /// The events that it follows; `None` if it stands alone.
    pub stream: Option<String>,
    /// When it was signed, in seconds since 1970.
    pub signed: u64,
    /// What it says.
    pub status: Option<String>,
    /// The session it is about.
    pub session_id: Option<String>,
    /// The correlation id, unless one is [kept](Inbox::remember) for the session.
    pub correlation_id: String,
    /// Where it comes from.
    pub origin: Origin,
    /// Whether it says to be a test.
    pub test: bool,
    /// Its body.
    pub payload: Bytes,
}

/// Where an event comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Origin {
    /// Didit delivered it.
    Delivered,
    /// A [sweep](super::sweep) found that it was missing.
    Swept,
}

/// What came of taking an event in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Whether it was news.
    pub accepted: Accepted,
    /// The correlation id that it will be handled under.
    pub correlation_id: String,
}

/// Whether an event was news.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Accepted {
    /// It will be handled.
    New,
    /// It is here already, handled or not.
    Repeated,
    /// A sweep found it, but what it says came meanwhile.
    NotMissing,
}

/// How events are handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How long nobody else gets it, unless that is renewed.
    pub lease: Duration,
    /// After how many attempts it is parked.
    pub max_attempts: u32,
}

/// The answer to whoever asks for an event.
#[derive(Clone, Debug)]
pub enum Claim {
    /// One that is due.
    Event(Claimed),
    /// None is due.
    Idle {
        /// When the next one is; `None` if nothing waits.
        next: Option<Timestamp>,
    },
}

/// An event that was handed out. `Debug` shows nothing of its body.
#[derive(Clone)]
#[non_exhaustive]
pub struct Claimed {
    /// What proves the claim.
    pub ticket: Ticket,
    /// Its body.
    pub payload: Bytes,
    /// The correlation id to handle it under.
    pub correlation_id: String,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// When it was taken in.
    pub received: Timestamp,
    /// Where it comes from.
    pub origin: Origin,
    /// Whether it says to be a test.
    pub test: bool,
}

/// What proves a claim.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// The event's key.
    pub key: String,
    /// Tells this claim from those before it.
    pub epoch: u64,
}

/// What became of a claimed event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Settlement {
    /// It was handled.
    Done,
    /// To be tried again.
    Again {
        /// Not before this.
        at: Timestamp,
    },
    /// Trying again would not help.
    Park,
}

/// An event whose handler failed for good.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Parked {
    /// Its key, for [`Inbox::redrive`].
    pub key: String,
    /// Its stream.
    pub stream: Option<String>,
    /// The session it is about.
    pub session_id: Option<String>,
    /// The correlation id that it was handled under, where the log says why it failed.
    pub correlation_id: String,
    /// How often that was.
    pub attempts: u32,
    /// Since when it is parked.
    pub since: Timestamp,
}

/// How full an inbox is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Events that wait or are being handled.
    pub pending: usize,
    /// Events that failed for good.
    pub parked: usize,
    /// Events that are done, and not forgotten yet.
    pub done: usize,
    /// What all bodies take, in bytes.
    pub bytes: usize,
    /// How many were passed over because others had overtaken them, since the process began.
    pub passed_over: u64,
}

/// Why an inbox cannot do what it is asked to.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InboxError {
    /// There is no room for another event.
    #[error("the inbox is full of events that are not handled yet")]
    Full,
    /// Somebody else has the event by now.
    #[error("the event was claimed by somebody else, or is done")]
    Fenced,
    /// What it runs on has ended.
    #[error("the inbox is closed")]
    Closed,
    /// What it keeps its events in failed.
    #[error("the inbox's database failed")]
    Database(#[source] Arc<dyn StdError + Send + Sync>),
}

// ===== impl Capacity =====

impl Capacity {
    /// 100 000 events, of some 400 bytes each once they are done; 64 MiB of bodies; 100 000 journeys. All are kept
    /// for 35 days: Didit's sessions live for 28 days at most (`session_expiration_time`), and a reviewer has another week.
    pub const DEFAULT: Self = Self {
        events: 100_000,
        bytes: 64 * 1024 * 1024,
        journeys: 100_000,
        retention: Duration::from_secs(35 * DAY),
        parked_for: Duration::from_secs(35 * DAY),
        journeys_for: Duration::from_secs(35 * DAY),
    };

    /// The shortest time that done events are known: an hour. Didit sends an event for five minutes, and it is taken for
    /// twice the verifier's tolerance, twenty minutes.
    pub const SHORTEST: Duration = Duration::from_secs(3_600);

    /// The longest time that anything is kept: a year.
    pub const LONGEST: Duration = Duration::from_secs(365 * DAY);

    /// Sets how many events it holds, and how many bytes all bodies take together. When it is full of events that are not
    /// done, further ones are refused, which the receiver answers with 503.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Zero`] if either is zero.
    pub fn size(mut self, events: usize, bytes: usize) -> Result<Self, ConfigError> {
        if events == 0 || bytes == 0 {
            return Err(ConfigError::Zero { setting: "the size of an inbox", least: "1" });
        }
        (self.events, self.bytes) = (events, bytes);
        Ok(self)
    }

    /// Sets how long events are known after they are done: for so long, none is handled twice.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Duration`] outside [`SHORTEST`](Self::SHORTEST) to [`LONGEST`](Self::LONGEST).
    pub fn retention(mut self, done: Duration) -> Result<Self, ConfigError> {
        self.retention = check_duration("the retention of an inbox", done, Self::SHORTEST, Self::LONGEST)?;
        Ok(self)
    }

    /// Sets how long parked events are kept, with their bodies.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Duration`] outside [`SHORTEST`](Self::SHORTEST) to [`LONGEST`](Self::LONGEST).
    pub fn parked_for(mut self, parked: Duration) -> Result<Self, ConfigError> {
        self.parked_for = check_duration("the time of parked events", parked, Self::SHORTEST, Self::LONGEST)?;
        Ok(self)
    }

    /// Sets of how many sessions the correlation ids are kept, and how long.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Zero`] for none; [`ConfigError::Duration`] outside [`SHORTEST`](Self::SHORTEST) to
    /// [`LONGEST`](Self::LONGEST).
    pub fn journeys(mut self, sessions: usize, kept: Duration) -> Result<Self, ConfigError> {
        if sessions == 0 {
            return Err(ConfigError::Zero { setting: "the number of journeys", least: "1" });
        }
        self.journeys_for = check_duration("the time of journeys", kept, Self::SHORTEST, Self::LONGEST)?;
        self.journeys = sessions;
        Ok(self)
    }
}

/// Seconds.
const DAY: u64 = 86_400;

impl Default for Capacity {
    fn default() -> Self {
        Self::DEFAULT
    }
}

// ===== impl Arrival =====

impl Arrival {
    /// An event with its body. Where no correlation id is kept for its session, this one counts.
    pub fn new(event: &Event, payload: Bytes, correlation_id: CorrelationId, origin: Origin, test: bool) -> Self {
        Self {
            key: event.key().into(),
            stream: event.stream().map(Into::into),
            signed: event.timestamp,
            status: event.status.clone(),
            session_id: event.session_id.clone().or_else(|| event.business_session_id.clone()),
            correlation_id: correlation_id.to_string(),
            origin,
            test,
            payload,
        }
    }
}

impl fmt::Debug for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arrival").field("key", &self.key).field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl fmt::Debug for Claimed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claimed").field("ticket", &self.ticket).field("attempt", &self.attempt).finish_non_exhaustive()
    }
}
