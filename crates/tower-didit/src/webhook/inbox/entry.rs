//! What an inbox holds: one event, and what is known of its stream.

use std::{collections::BTreeSet, fmt};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Arrival, Origin};
use crate::timestamp::Timestamp;

/// One event, from its arrival until it is forgotten.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// The stream it belongs to, or a name of its own.
    pub(super) line: Line,
    /// When it was signed, in seconds since 1970.
    pub(super) signed: u64,
    /// Events arrived in this order.
    pub(super) number: u64,
    pub(super) status: Option<String>,
    pub(super) session: Option<String>,
    pub(super) correlation_id: String,
    pub(super) origin: Origin,
    pub(super) test: bool,
    #[serde(with = "millis")]
    pub(super) received: Timestamp,
    /// How often it was handed to the handler.
    pub(super) attempts: u32,
    pub(super) state: State,
    /// Empty once it is done. Kept apart, so that a change of state does not write it again.
    #[serde(skip)]
    pub(super) payload: Bytes,
}

/// The stream of an event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Line {
    /// Events of this stream follow one another.
    Stream(String),
    /// It stands alone.
    Alone(String),
}

/// Where an event stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum State {
    /// To be handled, not before this.
    Waiting {
        #[serde(with = "millis")]
        due: Timestamp,
    },
    /// Being handled. Whoever does so is taken for dead after this.
    Claimed {
        #[serde(with = "millis")]
        until: Timestamp,
        epoch: u64,
    },
    /// Its handler failed for good.
    Parked {
        #[serde(with = "millis")]
        at: Timestamp,
    },
    /// Handled, or passed over.
    Done {
        #[serde(with = "millis")]
        at: Timestamp,
    },
}

/// What is known of a stream.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Stream {
    /// When the last event that was applied had been signed, in seconds since 1970.
    pub(super) applied: Option<u64>,
    /// The status that came last.
    pub(super) status: Option<String>,
    /// Whether that status was found by a sweep, so that its event may still come.
    pub(super) swept: bool,
    /// When something happened last.
    #[serde(with = "millis")]
    pub(super) touched: Timestamp,
    /// Events to be handled, the oldest first: when they were signed, their number and key.
    #[serde(skip)]
    pub(super) queue: BTreeSet<(u64, u64, String)>,
    /// The one that is being handled.
    #[serde(skip)]
    pub(super) claimed: Option<String>,
    /// Where the stream stands in the order of what is to be handled next.
    #[serde(skip)]
    pub(super) staged: Option<(Timestamp, u64)>,
}

/// A session's journey.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Journey {
    pub(super) correlation_id: String,
    #[serde(with = "millis")]
    pub(super) since: Timestamp,
}

// ===== impl Entry =====

impl Entry {
    pub(super) fn new(arrival: Arrival, number: u64, now: Timestamp) -> Self {
        let line = arrival.stream.map_or_else(|| Line::Alone(arrival.key), Line::Stream);
        Self {
            line,
            signed: arrival.signed,
            number,
            status: arrival.status,
            session: arrival.session_id,
            correlation_id: arrival.correlation_id,
            origin: arrival.origin,
            test: arrival.test,
            received: now,
            attempts: 0,
            state: State::Waiting { due: now },
            payload: arrival.payload,
        }
    }

    #[cfg(feature = "webhook-redb")]
    pub(super) fn is_pending(&self) -> bool {
        matches!(self.state, State::Waiting { .. } | State::Claimed { .. })
    }
}

// ===== impl Line =====

impl Line {
    /// Its name among all streams. Names of streams have a slash, and keys a colon first.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Stream(name) | Self::Alone(name) => name,
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Times as milliseconds since 1970.
mod millis {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::timestamp::Timestamp;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
    pub(super) fn serialize<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(at.as_millis())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        u64::deserialize(deserializer).map(Timestamp::from_millis)
    }
}
