//! Looking up whether something was done, before it is done again.
//!
//! # Why
//!
//! After a timeout, a reset or a crash nobody on this side knows whether the server acted. Sending the call again may
//! do it twice, and giving up may lose it. What can be known is on the server: a [`Reconcile`] asks there, and says
//! what it [found](Verdict).
//!
//! It runs in two cases: a call ended in doubt, after the retry layer had done what it may; or a call finds that an
//! earlier one with its key was cancelled, or died with its process, before its result was known.
//!
//! | verdict | what the layer does |
//! |---|---|
//! | [`Found`](Verdict::Found) | answers with what was found, [marked](super::Provenance::Adopted) as adopted |
//! | [`Absent`](Verdict::Absent) | sends the call; after a call that ended in doubt, once |
//! | [`Harmless`](Verdict::Harmless) | sends a call that was found in doubt; one that ended in doubt is left to the next |
//! | [`Undecided`](Verdict::Undecided) | sends nothing: hands out the last real result, or refuses |
//!
//! # How far "absent" goes
//!
//! [`Absent`](Verdict::Absent) proves that nothing was done only as far as what was sent before has settled by the time
//! of the last look. A server that goes on working on a request whose connection is gone, and is done with it later
//! than that, has done it twice: once late, once for the call that was sent again.
//!
//! Didit documents no bound: neither how long it works on a request nor how far its list lags. [`DiditReconcile`]
//! therefore assumes what the stack assumes of every answer: that Didit is done with a request within the route's
//! [attempt timeout](didit_api::Endpoint::attempt_timeout), 30 s for a session creation, counted from when the call
//! ended in doubt. Nothing counts as absent before. What is there is found sooner: the first look is after 2 s, and
//! each pause is as long as all before it. Whoever knows Didit to be slower, or its list to lag further, sets
//! [more](DiditReconcile::absent_after).
//!
//! A creation that settles later still does not have to be a second session: Didit answers it with the unfinished
//! session of the same `vendor_data`. Two come into being only if that person is through with the one before the other
//! is done.
//!
//! # Example
//!
//! [`DiditReconcile`] is the one for Didit. Another API brings its own:
//!
//! ```
//! use http::StatusCode;
//! use tower_didit::idempotency::reconcile::{Doubt, Found, Lookup, LookupFuture, Reconcile, Undecided, Verdict};
//!
//! /// Orders can be asked for by the key they were made with.
//! #[derive(Debug)]
//! struct Orders;
//!
//! impl Reconcile for Orders {
//!     fn reconcile<'a>(&'a self, doubt: &'a Doubt, lookup: &'a mut dyn Lookup) -> LookupFuture<'a, Verdict> {
//!         Box::pin(async move {
//!             let Some(operation) = &doubt.operation_id else { return Verdict::Undecided(Undecided::NoTrace) };
//!             match lookup.get(&format!("/orders/{operation}")).await {
//!                 Ok(order) if order.status() == StatusCode::OK => {
//!                     Verdict::Found(Found::new(StatusCode::CREATED, None, order.into_body()))
//!                 }
//!                 Ok(order) if order.status() == StatusCode::NOT_FOUND => Verdict::Absent,
//!                 _ => Verdict::Undecided(Undecided::LookupFailed),
//!             }
//!         })
//!     }
//! }
//! ```
//!
//! The look-ups go through everything below the layer: they are paced, timed and
//! repeated like any other call. Each ends after 30 s, its body included, however much time the layers below give it;
//! one that has not come to an answer by then [failed](LookupFailed).

mod didit;

use std::{fmt, pin::Pin, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode, Uri};
use uuid::Uuid;

pub use self::didit::DiditReconcile;
use super::store::Timestamp;
use crate::{call::OperationId, created_at};

/// A call of which it is not known whether it was carried out. `Debug` shows neither headers nor body nor query.
#[derive(Clone)]
#[non_exhaustive]
pub struct Doubt {
    /// Its method.
    pub method: Method,
    /// Its URI.
    pub uri: Uri,
    /// Its headers, the idempotency key included.
    pub headers: HeaderMap,
    /// Its body; `None` if it does not lie in memory.
    pub body: Option<Bytes>,
    /// The operation it belongs to, if the caller named one.
    pub operation_id: Option<OperationId>,
    /// When it may have been sent for the first time.
    pub since: Timestamp,
    /// Now.
    pub now: Timestamp,
}

impl fmt::Debug for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Doubt")
            .field("method", &self.method)
            .field("path", &self.uri.path())
            .field("operation_id", &self.operation_id)
            .field("since", &self.since)
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

/// What is known after looking.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Verdict {
    /// It was done, and this came of it.
    Found(Found),
    /// It was not done; see [how far that goes](self#how-far-absent-goes).
    Absent,
    /// It may have been done, and doing it again has no further effect.
    Harmless,
    /// It cannot be said.
    Undecided(Undecided),
}

/// What a look-up found of a call's effect; what the caller gets instead of the lost answer.
#[derive(Clone)]
#[non_exhaustive]
pub struct Found {
    /// The status to answer with.
    pub status: StatusCode,
    /// The id of what was made.
    pub session_id: Option<Uuid>,
    /// A JSON body.
    pub body: Bytes,
    /// Whether it is the call's only because nothing else is left that could be. It is not adopted then if the store
    /// knows it for another operation's.
    pub inferred: bool,
}

impl Found {
    /// Answers with this status and JSON body.
    pub fn new(status: StatusCode, session_id: Option<Uuid>, body: Bytes) -> Self {
        Self { status, session_id, body, inferred: false }
    }

    /// Says that nothing on it names the call; see [`inferred`](Self::inferred).
    #[must_use]
    pub fn by_elimination(mut self) -> Self {
        self.inferred = true;
        self
    }
}

/// Shows no byte of the body: it may hold a session's link.
impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut found = f.debug_struct("Found");
        found.field("status", &self.status).field("session_id", &self.session_id);
        found.field("inferred", &self.inferred).finish_non_exhaustive()
    }
}

/// Why it cannot be said whether a call was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Undecided {
    /// Nothing on the server tells it from others.
    #[error("nothing at the server would tell its effect from others")]
    NoTrace,
    /// The body that names it cannot be read again.
    #[error("its body does not lie in memory, so that what it names is not known")]
    NoBody,
    /// More than one thing could have come of it.
    #[error("{candidates} things that were made since could have come of it")]
    Several {
        /// How many.
        candidates: usize,
    },
    /// What could have come of it carries the name of another operation, which may have replaced this one's.
    #[error("what was made since carries the name of another operation")]
    Renamed,
    /// What could have come of it was taken for another operation's while it was looked at.
    #[error("what was found belongs to another operation")]
    Taken,
    /// It seems to have been sent at a time that is still to come, so that what was made since cannot be told from what
    /// was made before: the clocks of those who share the store differ, or one was set back.
    #[error("by this clock it is still to be sent, so that what was made since cannot be told from what was before")]
    Clocks,
    /// What could have come of it may be what was made for an operation whose answer could not be read.
    #[error("what was made since may be another operation's, whose answer could not be read")]
    Unread,
    /// The server forgets what it was asked after a while, and this may be longer ago.
    #[error("it is so long ago that the server may have forgotten its key")]
    TooOld,
    /// The look-up itself failed.
    #[error("it could not be looked up")]
    LookupFailed,
}

/// Sends look-ups.
///
/// They carry the headers of the call they are about, so that key and correlation id are right; without its idempotency
/// key, and without those that are about its body or the form of its answer. They ask for an answer that is not
/// compressed.
pub trait Lookup: Send {
    /// Reads `target`, a path with a query, at the host of the call; the response's body is read whole.
    ///
    /// # Errors
    ///
    /// [`LookupFailed`] if there is no response within 30 s, or its body is broken, too slow or larger than 1 MiB.
    fn get<'a>(&'a mut self, target: &'a str) -> LookupFuture<'a, Result<Response<Bytes>, LookupFailed>>;

    /// Whether the [store](super::store::Store::holder) knows an id for another operation's. By default there is no
    /// store to ask: `false`.
    ///
    /// # Errors
    ///
    /// [`LookupFailed`] if the store does not say within 30 s.
    fn is_anothers(&mut self, id: Uuid) -> LookupFuture<'_, Result<bool, LookupFailed>> {
        let _ = id;
        Box::pin(async { Ok(false) })
    }

    /// Whether the store knows of sessions with this `vendor_data` that were made for other operations and whose ids
    /// could not be read, so that [`is_anothers`](Self::is_anothers) says nothing about them. By default: `false`.
    ///
    /// # Errors
    ///
    /// As [`is_anothers`](Self::is_anothers).
    fn has_unread(&mut self, vendor_data: &str) -> LookupFuture<'_, Result<bool, LookupFailed>> {
        let _ = vendor_data;
        Box::pin(async { Ok(false) })
    }
}

/// What [`Lookup`] and [`Reconcile`] return.
pub type LookupFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A look-up that came to no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the look-up came to no response")]
pub struct LookupFailed;

/// Finds out whether a call was carried out; see the [module](self).
pub trait Reconcile: fmt::Debug + Send + Sync + 'static {
    /// Looks, waits if that helps, looks again, and decides.
    ///
    /// It has the total time of the call for that, and what it [waits](Self::waits) on purpose. If it takes longer it
    /// is dropped, and the verdict is [`Undecided`](Verdict::Undecided).
    fn reconcile<'a>(&'a self, doubt: &'a Doubt, lookup: &'a mut dyn Lookup) -> LookupFuture<'a, Verdict>;

    /// The longest that it waits on purpose: nothing by default.
    fn waits(&self) -> Duration {
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn debug_shows_no_secret_and_nothing_personal() {
        let doubt = Doubt {
            method: Method::POST,
            uri: Uri::from_static("/v3/session/?canary=1"),
            headers: HeaderMap::from_iter([(http::header::AUTHORIZATION, HeaderValue::from_static("canary"))]),
            body: Some(Bytes::from_static(b"canary")),
            operation_id: None,
            since: Timestamp::default(),
            now: Timestamp::default(),
        };
        assert!(!format!("{doubt:?}").contains("canary"));
        let found = Found::new(StatusCode::OK, None, Bytes::from_static(b"canary"));
        assert!(!format!("{:?}", Verdict::Found(found)).contains("canary"));
    }
}
