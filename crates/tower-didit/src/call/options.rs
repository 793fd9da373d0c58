//! What a caller may ask of one call.

use std::time::Duration;

use super::{CorrelationId, IdempotencyKey, OperationId};

/// What a caller asks of one call, put into the request's extensions. Absent, it costs nothing.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct CallOptions {
    pub(crate) deadline: Option<Duration>,
    pub(crate) priority: Priority,
    pub(crate) operation_id: Option<OperationId>,
    pub(crate) idempotency_key: Option<IdempotencyKey>,
    pub(crate) correlation_id: Option<CorrelationId>,
    pub(crate) retry: Option<RetryOverride>,
    pub(crate) report: bool,
}

impl CallOptions {
    /// Asks for nothing: every layer does what it was configured to.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives the whole call this long, waiting and repeating included. Read by the deadline layer.
    ///
    /// With an [idempotency store](crate::idempotency::stored#time), waiting for another call with the same name is
    /// included too. Looking up what became of a call in doubt is not: it has time of its own, and so has what is sent
    /// again after it.
    pub fn deadline(mut self, total: Duration) -> Self {
        self.deadline = Some(total);
        self
    }

    /// Lets the call wait for quota before or after others. Read by the pacing layer.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Names the business operation that the call belongs to, so that the same call has the same idempotency key in
    /// every process and after every restart. Read by the idempotency layer, for POST and PATCH.
    pub fn operation_id(mut self, id: OperationId) -> Self {
        self.operation_id = Some(id);
        self
    }

    /// Names the call to the server. Read by the idempotency layer; a key in the request's header does the same.
    pub fn idempotency_key(mut self, key: IdempotencyKey) -> Self {
        self.idempotency_key = Some(key);
        self
    }

    /// Names the journey that the call belongs to. Read by the correlation layer.
    pub fn correlation_id(mut self, id: CorrelationId) -> Self {
        self.correlation_id = Some(id);
        self
    }

    /// Overrides whether the call may be repeated. Read by the retry layer.
    pub fn retry(mut self, retry: RetryOverride) -> Self {
        self.retry = Some(retry);
        self
    }

    /// Asks for a [`CallReport`](super::CallReport) even if nothing happened.
    pub fn report(mut self) -> Self {
        self.report = true;
        self
    }
}

/// Who goes first when the quota does not suffice for everybody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Priority {
    /// Somebody is watching the screen: before everybody else.
    High,
    /// Neither of the others.
    #[default]
    Normal,
    /// Batch work: after everybody else, and never in the share of the quota that is reserved for them.
    Low,
}

/// What a caller knows about repeating one call that the route table does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RetryOverride {
    /// Send it once, whatever happens.
    Never,
    /// The caller vouches that a second execution does no harm.
    Harmless,
}
