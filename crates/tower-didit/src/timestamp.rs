//! Time that means the same before and after a restart, and is still tokio's while a process runs.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::clock;

/// A point in time that means the same in every process: milliseconds since 1970, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// So many milliseconds since 1970, UTC.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970, UTC.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// So much later.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }

    /// So much earlier, and not before 1970.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }

    /// The time from `earlier` to this; zero if it is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The same point in time as the system counts it.
    pub fn to_system_time(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.0)
    }
}

/// Reads the date once and goes on from there by tokio's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    date: Timestamp,
    at: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        let since_epoch = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { date: Timestamp::default().plus(since_epoch), at: Instant::now() }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.date.plus(self.at.elapsed())
    }
}
