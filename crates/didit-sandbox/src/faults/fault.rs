//! What can go wrong.

use std::time::Duration;

use didit_api::error::OddThrottle;
use http::StatusCode;

use super::{Refusal, Truncation};

/// What goes wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The request is answered with this status and no work is done. In a file:
    /// `{ "status": { "code": 503, "retry_after": 1 } }`.
    Status {
        /// The status, 400 to 599.
        code: StatusCode,
        /// The `Retry-After` header in seconds; without it the answer has none.
        retry_after: Option<u64>,
    },
    /// As [`Status`](Self::Status), with a `Retry-After` in any form and any other headers. In a file also `status`:
    /// see [`Refusal`].
    Refusal(Refusal),
    /// The request is answered with 429 and headers that no server should send, a different choice of negative,
    /// overflowing, empty, malformed and repeated values each time; no work is done. In a file: `"absurd-429"`.
    AbsurdThrottle,
    /// The request is answered with a 429 that is no rate window, as documented, and no work is done. In a file:
    /// `{ "odd-429": "sandbox-quota" }`, or `"phone-attempts"`, or `"import-job"`.
    OddThrottle(OddThrottle),
    /// The work is done at once and the answer comes so much later. In a file: `{ "delay": { "ms": 3000 } }`.
    Delay(Duration),
    /// The connection is reset and no work is done. In a file: `"reset-before-work"`.
    ResetBeforeWork,
    /// The work is done and the connection is closed without an answer. In a file: `"work-then-drop"`.
    WorkThenDrop,
    /// The client gets `ending` and the work is done only later, whether or not the client is still there. In a file:
    /// `{ "late-commit": { "ms": 3000, "ending": "drop" } }`; without `ending`, [`Ending::Drop`].
    LateCommit {
        /// From the arrival of the request to the work.
        after: Duration,
        /// What the client gets, as soon as the request has arrived; a [`Delay`](Self::Delay) holds it back.
        ending: Ending,
    },
    /// The request is taken, then the client gets `ending`, and no work is ever done. In a file:
    /// `{ "never-commit": { "ms": 3000, "ending": "drop" } }`; without `ending`, [`Ending::Drop`].
    NeverCommit {
        /// From the arrival of the request to what the client gets.
        after: Duration,
        /// What the client gets.
        ending: Ending,
    },
    /// The answer is cut off within its body. In a file: see [`Truncation`].
    TruncatedBody(Truncation),
    /// The answer's body dribbles: so many bytes at a time. In a file:
    /// `{ "slow-body": { "bytes": 16, "every_ms": 100 } }`.
    SlowBody {
        /// The size of a piece, at least 1.
        bytes: usize,
        /// The pause before each piece.
        every: Duration,
    },
}

/// What a client gets in place of the answer. Every one of them leaves it in the dark about the work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ending {
    /// The connection is closed without an answer, exactly as with [`Fault::WorkThenDrop`]. In a file: `"drop"`.
    #[default]
    Drop,
    /// Nothing, until the client gives up: the connection is closed after [`Fault::LONGEST_DELAY`]. In a file:
    /// `"silence"`.
    Silence,
    /// A status, 400 to 599, in the words of what stands before the server: 504 for a timeout there. In a file:
    /// `{ "status": 504 }`.
    Status(StatusCode),
}

impl Fault {
    /// The longest [`Delay`](Self::Delay), and the longest of every other time in a fault: a day.
    pub const LONGEST_DELAY: Duration = Duration::from_secs(86_400);

    /// An answer with this status and no `Retry-After`.
    pub fn status(code: StatusCode) -> Self {
        Self::Status { code, retry_after: None }
    }

    /// Adds a `Retry-After` of whole seconds. Without effect on anything but a status.
    #[must_use]
    pub fn with_retry_after(mut self, seconds: u64) -> Self {
        match &mut self {
            Self::Status { retry_after, .. } => *retry_after = Some(seconds),
            Self::Refusal(refusal) => *refusal = refusal.clone().retry_after(seconds),
            _ => {}
        }
        self
    }

    /// The work done so much later, and the connection closed without an answer at once.
    pub fn late_commit(after: Duration) -> Self {
        Self::LateCommit { after, ending: Ending::Drop }
    }

    /// No work at all, and the connection closed without an answer after so long.
    pub fn never_commit(after: Duration) -> Self {
        Self::NeverCommit { after, ending: Ending::Drop }
    }

    /// Sets what the client gets. Without effect on anything but a late commit and one that never comes.
    #[must_use]
    pub fn with_ending(mut self, new: Ending) -> Self {
        if let Self::LateCommit { ending, .. } | Self::NeverCommit { ending, .. } = &mut self {
            *ending = new;
        }
        self
    }

    /// The kind's name, as in [`Stats::faults`](crate::Stats::faults) and the journal.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Status { .. } | Self::Refusal(_) => "status",
            Self::AbsurdThrottle => "absurd-429",
            Self::OddThrottle(_) => "odd-429",
            Self::Delay(_) => "delay",
            Self::ResetBeforeWork => "reset-before-work",
            Self::WorkThenDrop => "work-then-drop",
            Self::LateCommit { .. } => "late-commit",
            Self::NeverCommit { .. } => "never-commit",
            Self::TruncatedBody(_) => "truncated-body",
            Self::SlowBody { .. } => "slow-body",
        }
    }

    /// Every status in it.
    pub(super) fn code(&self) -> Option<StatusCode> {
        match self {
            Self::Refusal(refusal) => Some(refusal.code),
            Self::Status { code, .. }
            | Self::LateCommit { ending: Ending::Status(code), .. }
            | Self::NeverCommit { ending: Ending::Status(code), .. } => Some(*code),
            _ => None,
        }
    }

    /// The longest time in it.
    pub(super) fn time(&self) -> Duration {
        match self {
            Self::Delay(time)
            | Self::LateCommit { after: time, .. }
            | Self::NeverCommit { after: time, .. }
            | Self::SlowBody { every: time, .. } => *time,
            _ => Duration::ZERO,
        }
    }
}
