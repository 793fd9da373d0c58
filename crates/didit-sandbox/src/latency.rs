//! How long a request takes to arrive and an answer to come back.

use std::{
    ops::{Range, RangeInclusive},
    time::Duration,
};

use rand::{RngExt, rngs::StdRng};

/// Simulated time between a request and its answer; none by default.
///
/// The total is drawn uniformly between two bounds, and the moment of arrival uniformly within it: that moment is
/// when the request is counted and carried out.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use didit_sandbox::Latency;
///
/// let latency = Latency::from(Duration::from_millis(20)..=Duration::from_millis(120));
/// assert_eq!(latency.bounds(), (Duration::from_millis(20), Duration::from_millis(120)));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    least: Duration,
    most: Duration,
}

impl Latency {
    /// No latency: everything happens at once.
    pub const NONE: Self = Self { least: Duration::ZERO, most: Duration::ZERO };

    /// A total drawn uniformly from `least` to `most`.
    pub fn uniform(least: Duration, most: Duration) -> Self {
        Self { least, most }
    }

    /// The same total for every request; only the moment of arrival within it varies.
    pub fn fixed(total: Duration) -> Self {
        Self::uniform(total, total)
    }

    /// The least and the most that a request may take.
    pub fn bounds(&self) -> (Duration, Duration) {
        (self.least, self.most)
    }

    /// Draws the time before the arrival and the time after it.
    pub(crate) fn draw(&self, rng: &mut StdRng) -> (Duration, Duration) {
        if self.most.is_zero() {
            return (Duration::ZERO, Duration::ZERO);
        }
        let total = rng.random_range(self.least..=self.most.max(self.least));
        let before = rng.random_range(Duration::ZERO..=total);
        (before, total - before)
    }
}

impl From<RangeInclusive<Duration>> for Latency {
    fn from(range: RangeInclusive<Duration>) -> Self {
        Self::uniform(*range.start(), *range.end())
    }
}

impl From<Range<Duration>> for Latency {
    fn from(range: Range<Duration>) -> Self {
        Self::uniform(range.start, range.end)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn the_total_stays_within_its_bounds() {
        let (least, most) = (Duration::from_millis(20), Duration::from_millis(120));
        let mut rng = StdRng::seed_from_u64(7);
        for _ in 0..1_000 {
            let (before, after) = Latency::uniform(least, most).draw(&mut rng);
            assert!((least..=most).contains(&(before + after)));
        }
    }
}
