//! The one place that reads the wall clock.
//!
//! Everything that waits uses `tokio::time`, which a paused clock drives. Two things need the date all the same:
//! an absolute time in a header, when the response carries no `Date`, and the time part of a new identifier.

use std::time::SystemTime;

#[expect(clippy::disallowed_methods, reason = "a header with an absolute date can be measured against nothing else")]
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}
