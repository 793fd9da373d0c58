//! The date in a test whose time is paused.

use std::time::SystemTime;

use tokio::time::Instant;

/// Tells the date as tokio's clock goes on from now, so that it agrees with the local Didit's.
#[expect(clippy::disallowed_methods, reason = "read once, as the date that tokio's clock is anchored to")]
pub fn date() -> impl Fn() -> SystemTime + Send + Sync + 'static {
    let (date, at) = (SystemTime::now(), Instant::now());
    move || date + at.elapsed()
}
