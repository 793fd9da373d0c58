//! What the result of one attempt *means*: one verdict that every layer reads.
//!
//! # Why one verdict
//!
//! Retry, breaker and pacer each have to look at a result and decide. If each had its own idea of "failure", they
//! would contradict one another: a breaker that opens on a 429 while the pacer is already waiting, a retry that
//! repeats what the pacer counts as done. So there are four meanings, one pure function per kind of result, and
//! each layer only decides what a meaning is worth to it:
//!
//! | outcome | meaning | retry | breaker | pacer |
//! |---|---|---|---|---|
//! | [`NotSent`](Outcome::NotSent) | provably never reached Didit | always allowed | failure (a local refusal: nothing) | slot back at once |
//! | [`Refused`](Outcome::Refused) | Didit looked and did nothing | allowed, never before the server's hint | 429 nothing, 503 failure | scope paused after a 429 |
//! | [`Ambiguous`](Outcome::Ambiguous) | may or may not have been done | only if repeating is safe | failure (of the request's own body: nothing) | slot held longer |
//! | [`Answered`](Outcome::Answered) | done, or finally rejected | never | success | slot held for a window |
//!
//! # Example
//!
//! ```
//! use http::{HeaderMap, StatusCode};
//! use tower_didit::outcome::{self, Outcome};
//!
//! // A business "no" is an answer, and so is a request that can never succeed.
//! assert_eq!(outcome::of_response(StatusCode::OK, &HeaderMap::new()), Outcome::Answered);
//! assert_eq!(outcome::of_response(StatusCode::BAD_REQUEST, &HeaderMap::new()), Outcome::Answered);
//! // A gateway that gave up says nothing about what the server behind it did.
//! assert_eq!(outcome::of_response(StatusCode::BAD_GATEWAY, &HeaderMap::new()), Outcome::Ambiguous);
//! ```
//!
//! # After an ambiguous attempt
//!
//! Where repeating is safe, the server may refuse the repetition *because* the first attempt worked: a transaction that
//! exists, a session that is gone. The refusal stays [`Answered`](Outcome::Answered) and is handed out as it came; that
//! it is good news stands in the [`CallReport`](crate::call::CallReport), where [`repeated`] has put it.
//!
//! Another API brings its own reading with [`classify_fn`] or an implementation of [`Classify`].

mod classify;
mod error;
mod hint;
mod repeated;
mod response;

use std::time::Duration;

use tokio::time::Instant;

pub use self::{
    classify::{Classify, ClassifyFn, DiditClassifier, classify_fn},
    error::{NeverSent, of_error},
    hint::hint,
    repeated::{Settled, repeated},
    response::of_response,
};

/// What the result of one attempt means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// Provably never reached the server.
    NotSent(NotSent),
    /// The server looked at the request and did nothing.
    Refused {
        /// How long the server wants to be left alone, if it said so.
        retry_after: Option<Duration>,
        /// Why it refused.
        reason: Refusal,
    },
    /// May or may not have been done.
    Ambiguous,
    /// Done, or finally rejected.
    Answered,
}

/// Who kept a request from being sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotSent {
    /// The transport: no address, no connection, no TLS, or an HTTP/2 peer that did not take the request up.
    Transport,
    /// A layer of this process: no quota in time, an open circuit.
    Local {
        /// When the layer expects to let the request through, if it knows.
        retry_at: Option<Instant>,
    },
}

/// Why a server refused a request unprocessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// 429: a rate window is full.
    Throttled {
        /// The limit of the scope that was breached (`X-RateLimit-Limit`), the only thing that tells scopes apart.
        limit: Option<u32>,
    },
    /// 503 with a hint: the service itself asks for a pause.
    Unavailable,
}

impl Outcome {
    /// A short, stable name, used in spans, events and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotSent(NotSent::Transport) => "not_sent",
            Self::NotSent(NotSent::Local { .. }) => "held_back",
            Self::Refused { reason: Refusal::Throttled { .. }, .. } => "throttled",
            Self::Refused { reason: Refusal::Unavailable, .. } => "unavailable",
            Self::Ambiguous => "ambiguous",
            Self::Answered => "answered",
        }
    }
}
