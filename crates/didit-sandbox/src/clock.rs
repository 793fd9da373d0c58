//! The one clock: tokio's, anchored to a calendar date.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// Tells the time since the Unix epoch, advancing only as tokio's clock does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    epoch: Duration,
    started: Instant,
}

impl Clock {
    /// Starts at `epoch`, or at the system's time if there is none, and goes wrong by `skew` from the beginning.
    pub(crate) fn start(epoch: Option<SystemTime>, skew: Skew) -> Self {
        let right = epoch.unwrap_or_else(system_time).duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let epoch = match skew {
            Skew::Ahead(by) => right.saturating_add(by),
            Skew::Behind(by) => right.saturating_sub(by),
        };
        Self { epoch, started: Instant::now() }
    }

    /// The time since the Unix epoch.
    pub(crate) fn now(&self) -> Duration {
        self.epoch.saturating_add(self.started.elapsed())
    }
}

/// How wrong the sandbox's clock goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Skew {
    Ahead(Duration),
    Behind(Duration),
}

impl Default for Skew {
    fn default() -> Self {
        Self::Ahead(Duration::ZERO)
    }
}

#[expect(clippy::disallowed_methods, reason = "read once, as the date that tokio's clock is anchored to")]
fn system_time() -> SystemTime {
    SystemTime::now()
}

/// A time as Didit's health check writes it: `2026-01-01T00:00:00.000Z`.
pub(crate) fn zulu(now: Duration) -> String {
    let (date, time) = civil(now);
    format!("{date}T{time}.{:03}Z", now.subsec_millis())
}

/// A time as Didit's `created_at` writes it: `2026-01-01T00:00:00.000000+00:00`.
pub(crate) fn with_offset(now: Duration) -> String {
    let (date, time) = civil(now);
    format!("{date}T{time}.{:06}+00:00", now.subsec_micros())
}

/// Date and time of day in the proleptic Gregorian calendar (Howard Hinnant's `civil_from_days`).
fn civil(now: Duration) -> (String, String) {
    let seconds = now.as_secs();
    let days = seconds / 86_400 + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    (format!("{year:04}-{month:02}-{day:02}"), format!("{hour:02}:{minute:02}:{second:02}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_didit_writes_them() {
        assert_eq!(zulu(Duration::from_millis(1_767_225_600_007)), "2026-01-01T00:00:00.007Z");
        assert_eq!(with_offset(Duration::from_millis(1_709_251_199_250)), "2024-02-29T23:59:59.250000+00:00");
        assert_eq!(zulu(Duration::ZERO), "1970-01-01T00:00:00.000Z");
    }

    #[tokio::test(start_paused = true)]
    async fn it_goes_as_wrong_as_it_is_told() {
        let start = |skew| Clock::start(Some(SystemTime::UNIX_EPOCH + Duration::from_secs(50)), skew).now();
        assert_eq!(start(Skew::Ahead(Duration::from_secs(7))), Duration::from_secs(57));
        assert_eq!(start(Skew::Behind(Duration::from_secs(7))), Duration::from_secs(43));
    }

    #[tokio::test(start_paused = true)]
    async fn a_paused_clock_drives_it() {
        let clock = Clock::start(Some(SystemTime::UNIX_EPOCH + Duration::from_secs(5)), Skew::default());
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(clock.now(), Duration::from_secs(12));
    }
}
