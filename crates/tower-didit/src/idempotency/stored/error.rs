use std::time::Duration;

use http::StatusCode;
use uuid::Uuid;

use crate::{
    error::LayerError,
    idempotency::{reconcile::Undecided, store::StoreError},
    outcome::NeverSent,
};

/// The error of [`StoredIdempotency`](super::StoredIdempotency): the layer sent nothing, or the inner service failed.
pub type Error<E> = LayerError<Refused, E>;

/// Why the layer did not send a call, or gave up one that was sent.
///
/// What ends in a [`NeverSent`] left nothing behind at the server: all but [`LeadLost`](Self::LeadLost), and an
/// [`AlreadyDone`](Self::AlreadyDone) that a call is told which was sent itself before another took it over.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The key belongs to a call with another method, path or body. It is used for one thing only.
    #[error("the idempotency key or operation id was used for another payload")]
    Conflict {
        /// Ends the sources.
        #[source]
        never_sent: NeverSent,
    },
    /// A call with the same key is under way, and has not ended in the time that this one had.
    #[error("a call with the same key did not end within {waited:?}")]
    StillRunning {
        /// How long this call waited.
        waited: Duration,
        /// Ends the sources.
        #[source]
        never_sent: NeverSent,
    },
    /// The inner service did not become ready in the time of the call.
    #[error("the inner service did not become ready within {waited:?}")]
    NotReady {
        /// How long it was waited for.
        waited: Duration,
        /// Ends the sources.
        #[source]
        never_sent: NeverSent,
    },
    /// A call with the same key was answered, and the answer's body was not kept, because replay is off.
    #[error("a call with the same key was answered with {status}, and the answer is not kept")]
    AlreadyDone {
        /// The status of the answer.
        status: StatusCode,
        /// The id of what was made: with it, the rest can be asked for.
        session_id: Option<Uuid>,
        /// Ends the sources; `None` if this call was sent as well.
        #[source]
        never_sent: Option<NeverSent>,
    },
    /// A call with the same key may have been carried out, and whether it was cannot be said.
    #[error("an earlier call with the same key may have been carried out: {why}")]
    Undecided {
        /// Why it cannot be said.
        why: Undecided,
        /// Ends the sources.
        #[source]
        never_sent: NeverSent,
    },
    /// The call **was** sent, and before it was answered the store could vouch no more that nobody else sends it:
    /// another process has taken it over because this one did nothing for longer than its lease, or the store cannot be
    /// asked. What became of it is known to the next call with its key.
    #[error("the call was given up after it was sent, because somebody else may lead")]
    LeadLost {
        /// [`StoreError::Fenced`] if somebody else leads.
        #[source]
        error: StoreError,
    },
    /// The store cannot say whether the call may be sent. It is not, because it might be the second time.
    #[error("the idempotency store cannot be asked: {error}")]
    Store {
        /// What is wrong with it.
        error: StoreError,
        /// Ends the sources.
        #[source]
        never_sent: NeverSent,
    },
}

impl Refused {
    pub(super) fn conflict() -> Self {
        Self::Conflict { never_sent: NeverSent::new() }
    }

    pub(super) fn still_running(waited: Duration) -> Self {
        Self::StillRunning { waited, never_sent: NeverSent::new() }
    }

    pub(super) fn not_ready(waited: Duration) -> Self {
        Self::NotReady { waited, never_sent: NeverSent::new() }
    }

    pub(super) fn already_done(status: StatusCode, session_id: Option<Uuid>) -> Self {
        Self::AlreadyDone { status, session_id, never_sent: Some(NeverSent::new()) }
    }

    /// The same of a call that was sent.
    pub(super) fn after_sending(mut self) -> Self {
        if let Self::AlreadyDone { never_sent, .. } = &mut self {
            *never_sent = None;
        }
        self
    }

    pub(super) fn undecided(why: Undecided) -> Self {
        Self::Undecided { why, never_sent: NeverSent::new() }
    }

    pub(super) fn store(error: StoreError) -> Self {
        Self::Store { error, never_sent: NeverSent::new() }
    }
}
