//! When a circuit opens, how long it stays open, and what closes it.

use std::time::Duration;

use super::window::Totals;
use crate::error::{ConfigError, check_duration};

/// When a circuit opens, how long it stays open, and what closes it.
///
/// Two rules open it, whichever comes first. *Consecutive failures* notice a hard outage within a few calls, but hardly
/// ever a service that fails half of the time. The *ratio* over a sliding window notices that, but needs a minimum of
/// calls, or bad luck would trip it: at 10 % background failures and 20 calls, one window in 140 000 does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TripPolicy {
    pub(crate) consecutive: u32,
    pub(crate) ratio: Option<f64>,
    pub(crate) slow: Option<(Duration, f64)>,
    pub(crate) retries_only: Option<f64>,
    pub(crate) min_calls: u32,
    pub(crate) window: Duration,
    pub(crate) open: Duration,
    pub(crate) open_cap: Duration,
    pub(crate) probes: u32,
    pub(crate) successes: u32,
}

impl TripPolicy {
    /// The defaults for Didit:
    ///
    /// | setting | default |
    /// |---|---|
    /// | consecutive failures | 5 |
    /// | failure ratio | 0.5 of at least 20 calls within 30 s |
    /// | open time | 10 s doubling to 30 s, of which up to a quarter is taken off by jitter |
    /// | probes at once | 1 |
    /// | successes to close | 1 |
    pub const DIDIT: Self = Self {
        consecutive: 5,
        ratio: Some(0.5),
        slow: None,
        retries_only: None,
        min_calls: 20,
        window: Duration::from_secs(30),
        open: Duration::from_secs(10),
        open_cap: Duration::from_secs(30),
        probes: 1,
        successes: 1,
    };

    /// The breaker of the well-known recipe for Didit: open after 3 failures in a row, for 10 s, until 1 probe succeeds.
    pub const SEED: Self = Self { consecutive: 3, ratio: None, open_cap: Duration::from_secs(10), ..Self::DIDIT };

    /// A circuit that nothing opens.
    pub const NEVER: Self = Self { consecutive: u32::MAX, ratio: None, ..Self::DIDIT };

    /// The longest window and open time: an hour.
    pub const MAX: Duration = Duration::from_secs(3_600);

    /// Opens after this many failures in a row.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Zero`] for 0, which would mean an open circuit from the start.
    pub fn consecutive_failures(mut self, failures: u32) -> Result<Self, ConfigError> {
        self.consecutive = at_least_one("consecutive_failures", failures)?;
        Ok(self)
    }

    /// Opens when at least `ratio` of at least `min_calls` calls within `window` failed.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Number`] for a ratio outside 0.01 to 1; [`ConfigError::Zero`] for no calls;
    /// [`ConfigError::Duration`] for a window outside 100 ms to an hour.
    pub fn failure_ratio(mut self, ratio: f64, min_calls: u32, window: Duration) -> Result<Self, ConfigError> {
        self.ratio = Some(check_ratio("failure_ratio", ratio)?);
        self.min_calls = at_least_one("min_calls", min_calls)?;
        self.window = check_duration("window", window, Duration::from_millis(100), Self::MAX)?;
        Ok(self)
    }

    /// Opens as well when at least `ratio` of the window's calls took `threshold` or longer, whatever they came to.
    ///
    /// The time is counted from admission to the response's headers. The window and its minimum of calls are those of
    /// [`failure_ratio`](Self::failure_ratio).
    ///
    /// # Errors
    ///
    /// [`ConfigError::Duration`] for a threshold outside 1 ms to an hour; [`ConfigError::Number`] for a ratio outside 0.01
    /// to 1.
    pub fn slow_call_ratio(mut self, ratio: f64, threshold: Duration) -> Result<Self, ConfigError> {
        let threshold = check_duration("slow call threshold", threshold, Duration::from_millis(1), Self::MAX)?;
        self.slow = Some((threshold, check_ratio("slow_call_ratio", ratio)?));
        Ok(self)
    }

    /// Before the circuit opens, lets first attempts pass and refuses repetitions, once at least `ratio` of the window's
    /// calls failed. The service is spared the load that does the least good.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Number`] for a ratio outside 0.01 to 1.
    pub fn retries_only(mut self, ratio: f64) -> Result<Self, ConfigError> {
        self.retries_only = Some(check_ratio("retries_only", ratio)?);
        Ok(self)
    }

    /// Stays open for `first`, doubling each time it opens again soon after, up to `cap`.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Duration`] outside 1 ms to an hour, or if `cap` is below `first`.
    pub fn open_for(mut self, first: Duration, cap: Duration) -> Result<Self, ConfigError> {
        self.open = check_duration("open time", first, Duration::from_millis(1), Self::MAX)?;
        self.open_cap = check_duration("open time cap", cap, first, Self::MAX)?;
        Ok(self)
    }

    /// Lets at most `at_once` probes through, and closes after `successes` of them succeeded.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Zero`] if either is 0: the circuit could never close again.
    pub fn probes(mut self, at_once: u32, successes: u32) -> Result<Self, ConfigError> {
        self.probes = at_least_one("probes", at_once)?;
        self.successes = at_least_one("successes", successes)?;
        Ok(self)
    }

    /// Whether a call that took this long was slow.
    pub(super) fn is_slow(&self, took: impl FnOnce() -> Duration) -> bool {
        self.slow.is_some_and(|(threshold, _)| took() >= threshold)
    }

    /// Whether these failures in a row, or this window, open the circuit.
    pub(super) fn trips(&self, row: u32, totals: Totals) -> bool {
        row >= self.consecutive
            || self.reaches(self.ratio, totals.failures, totals)
            || self.reaches(self.slow.map(|(_, ratio)| ratio), totals.slow, totals)
    }

    /// Whether any window refuses repetitions.
    pub(super) fn blocks_repeats(&self) -> bool {
        self.retries_only.is_some()
    }

    /// Whether this window refuses repetitions.
    pub(super) fn blocks(&self, totals: Totals) -> bool {
        self.reaches(self.retries_only, totals.failures, totals)
    }

    fn reaches(&self, ratio: Option<f64>, part: u64, totals: Totals) -> bool {
        let enough = totals.calls >= u64::from(self.min_calls);
        ratio.is_some_and(|ratio| enough && part as f64 >= ratio * totals.calls as f64)
    }
}

fn check_ratio(setting: &'static str, ratio: f64) -> Result<f64, ConfigError> {
    // Written so that NaN is refused.
    if !(0.01..=1.0).contains(&ratio) {
        return Err(ConfigError::Number { setting, value: ratio, least: 0.01, most: 1.0 });
    }
    Ok(ratio)
}

fn at_least_one(setting: &'static str, value: u32) -> Result<u32, ConfigError> {
    if value == 0 { Err(ConfigError::Zero { setting, least: "1" }) } else { Ok(value) }
}
