//! How long to wait before a repetition.

use std::time::Duration;

use crate::{
    error::{ConfigError, check_duration},
    random::Randomness,
};

/// How long to wait before a repetition.
pub trait Backoff {
    /// The wait before the `retry`th repetition, counted from 1.
    fn delay(&self, retry: u32, random: &Randomness) -> Duration;
}

impl<F: Fn(u32, &Randomness) -> Duration> Backoff for F {
    fn delay(&self, retry: u32, random: &Randomness) -> Duration {
        self(retry, random)
    }
}

/// Full jitter over capped exponential growth: uniform between nothing and `min(cap, base · factor^(retry − 1))`.
///
/// # Why full jitter
///
/// A thousand clients that fail together come back, at the worst, 150 in the same 100 ms; with ±20 % it is 268, without
/// jitter all of them. The cap is applied before the draw, so it holds for every wait, and every draw is new, so no two
/// sessions wait alike.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExponentialBackoff {
    pub(crate) base: Duration,
    pub(crate) factor: f64,
    pub(crate) cap: Duration,
}

impl ExponentialBackoff {
    /// 1 s doubling to 40 s: the base of both common recipes for Didit, and the last step of the waits that Didit's
    /// rate-limiting page recommends.
    pub const DIDIT: Self = Self { base: Duration::from_secs(1), factor: 2.0, cap: Duration::from_secs(40) };

    /// 5 → 10 → 20 → 40 s, what Didit's rate-limiting page asks to add on top of `Retry-After`.
    pub const DIDIT_THROTTLED: Self = Self { base: Duration::from_secs(5), ..Self::DIDIT };

    /// The longest base and cap: a day.
    pub const MAX: Duration = Duration::from_secs(86_400);

    /// A backoff that doubles from `base` to `cap`.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Duration`] if `base` is zero or either is beyond [`MAX`](Self::MAX);
    /// [`ConfigError::CapBelowBase`] if `cap` is below `base`.
    pub fn new(base: Duration, cap: Duration) -> Result<Self, ConfigError> {
        check_duration("the base of a backoff", base, Duration::from_nanos(1), Self::MAX)?;
        if cap < base {
            return Err(ConfigError::CapBelowBase { base, cap });
        }
        check_duration("the cap of a backoff", cap, base, Self::MAX)?;
        Ok(Self { base, factor: 2.0, cap })
    }

    /// Grows by another factor than 2.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Number`] outside 1 to 10.
    pub fn factor(mut self, factor: f64) -> Result<Self, ConfigError> {
        // Written so that NaN is refused.
        if !(1.0..=10.0).contains(&factor) {
            return Err(ConfigError::Number {
                setting: "the factor of a backoff",
                value: factor,
                least: 1.0,
                most: 10.0,
            });
        }
        self.factor = factor;
        Ok(self)
    }

    /// The longest wait before the `retry`th repetition.
    fn ceiling(&self, retry: u32) -> Duration {
        let steps = i32::try_from(retry.saturating_sub(1)).unwrap_or(i32::MAX);
        let grown = self.base.as_secs_f64() * self.factor.powi(steps);
        Duration::try_from_secs_f64(grown).map_or(self.cap, |grown| grown.min(self.cap))
    }
}

impl Backoff for ExponentialBackoff {
    fn delay(&self, retry: u32, random: &Randomness) -> Duration {
        random.jittered(self.ceiling(retry), 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_ceiling_doubles_to_the_cap_and_stays_there() {
        let ceilings: Vec<_> =
            [1, 2, 3, 4, 5, 6, 7, 100, u32::MAX].map(|retry| ExponentialBackoff::DIDIT.ceiling(retry).as_secs()).into();
        assert_eq!(ceilings, [1, 2, 4, 8, 16, 32, 40, 40, 40]);
    }

    #[test]
    fn no_wait_exceeds_the_cap_and_waits_fill_the_whole_range() {
        let random = Randomness::seeded(3);
        let waits: Vec<_> = (0..10_000).map(|_| ExponentialBackoff::DIDIT.delay(9, &random).as_secs_f64()).collect();
        assert!(waits.iter().all(|wait| (0.0..40.0).contains(wait)));
        // Of 10 000 uniform draws each tenth of the range holds 1 000, give or take 90 (three standard deviations).
        for tenth in 0..10 {
            let range = f64::from(tenth) * 4.0..f64::from(tenth + 1) * 4.0;
            let count = waits.iter().filter(|wait| range.contains(wait)).count();
            assert!((900..1_100).contains(&count), "{count} waits in {range:?}");
        }
    }

    #[test]
    fn whole_seconds_are_jittered_too() {
        let random = Randomness::seeded(4);
        let waits: std::collections::HashSet<_> =
            (0..100).map(|_| ExponentialBackoff::DIDIT.delay(1, &random)).collect();
        assert_eq!(waits.len(), 100);
    }

    #[test]
    fn what_cannot_work_is_refused_with_the_value_in_the_error() {
        let cap_below_base = ExponentialBackoff::new(2 * SECOND, SECOND).unwrap_err();
        assert_eq!(cap_below_base, ConfigError::CapBelowBase { base: 2 * SECOND, cap: SECOND });
        assert!(matches!(ExponentialBackoff::new(Duration::ZERO, SECOND), Err(ConfigError::Duration { .. })));
        assert!(matches!(ExponentialBackoff::new(SECOND, Duration::MAX), Err(ConfigError::Duration { .. })));
        for factor in [0.5, 11.0, f64::NAN, f64::INFINITY] {
            let refused = ExponentialBackoff::DIDIT.factor(factor);
            assert!(matches!(refused, Err(ConfigError::Number { .. })), "{factor}");
        }
    }
}
