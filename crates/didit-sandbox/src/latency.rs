//! How long a request takes to arrive and an answer to come back.

use std::{
    f64::consts::TAU,
    ops::{Range, RangeInclusive},
    time::Duration,
};

use rand::{RngExt, rngs::StdRng};

/// Simulated time between a request and its answer; none by default.
///
/// Either a total with a moment of arrival somewhere within it, or two legs drawn apart: the request's and the answer's.
/// The moment of arrival is when the request is counted and carried out.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use didit_sandbox::{Distribution, Latency};
///
/// let ms = Duration::from_millis;
/// // A total of 20 to 120 ms, the arrival anywhere within it.
/// let total = Latency::from(ms(20)..=ms(120));
/// assert_eq!(total.bounds(), (ms(20), ms(120)));
/// // Half of the requests arrive within 30 ms and a few take seconds; every answer is back after 50 ms.
/// let request = Distribution::LogNormal { median: ms(30), sigma: 1.0, most: ms(5_000) };
/// let legs = Latency::legs(request, Distribution::Fixed(ms(50)));
/// assert_eq!(legs.bounds(), (ms(50), ms(5_050)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Latency(Legs);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Legs {
    Total(Distribution),
    Apart { request: Distribution, answer: Distribution },
}

/// How a random time is spread.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Distribution {
    /// Always the same.
    Fixed(Duration),
    /// Each time between the bounds is as likely as any other.
    Uniform {
        /// The shortest.
        least: Duration,
        /// The longest.
        most: Duration,
    },
    /// Short times are the likeliest, long ones ever rarer: what waiting for something without a memory takes.
    Exponential {
        /// The mean, were there no longest time.
        mean: Duration,
        /// Whatever would take longer takes this long.
        most: Duration,
    },
    /// The logarithm is normal: most times near the median, and a long tail, as measured on networks.
    LogNormal {
        /// Half take no longer.
        median: Duration,
        /// The standard deviation of the natural logarithm, from 0 to 10.
        sigma: f64,
        /// Whatever would take longer takes this long.
        most: Duration,
    },
}

// ===== impl Latency =====

impl Latency {
    /// No latency: everything happens at once.
    pub const NONE: Self = Self(Legs::Total(Distribution::Fixed(Duration::ZERO)));

    /// A total drawn uniformly from `least` to `most`.
    pub fn uniform(least: Duration, most: Duration) -> Self {
        Self(Legs::Total(Distribution::Uniform { least, most }))
    }

    /// The same total for every request; only the moment of arrival within it varies.
    pub fn fixed(total: Duration) -> Self {
        Self(Legs::Total(Distribution::Fixed(total)))
    }

    /// A leg for the request until it arrives, and one for the answer from then on, each drawn by itself.
    pub fn legs(request: Distribution, answer: Distribution) -> Self {
        Self(Legs::Apart { request, answer })
    }

    /// The same distribution for both legs, each drawn by itself.
    pub fn one_way(leg: Distribution) -> Self {
        Self::legs(leg, leg)
    }

    /// The least and the most that a request may take, there and back.
    pub fn bounds(&self) -> (Duration, Duration) {
        match self.0 {
            Legs::Total(total) => total.bounds(),
            Legs::Apart { request, answer } => {
                let ((least, most), (least_back, most_back)) = (request.bounds(), answer.bounds());
                (least.saturating_add(least_back), most.saturating_add(most_back))
            }
        }
    }

    /// The first part that cannot be drawn from.
    pub(crate) fn unusable(&self) -> Option<Distribution> {
        let parts = match self.0 {
            Legs::Total(total) => [total, total],
            Legs::Apart { request, answer } => [request, answer],
        };
        parts.into_iter().find(|part| !part.is_usable())
    }

    /// Draws the time before the arrival and the time after it.
    pub(crate) fn draw(&self, rng: &mut StdRng) -> (Duration, Duration) {
        match self.0 {
            // Nothing is drawn where there is nothing to draw.
            Legs::Total(total) if total.bounds().1.is_zero() => (Duration::ZERO, Duration::ZERO),
            Legs::Total(total) => {
                let total = total.draw(rng);
                let before = rng.random_range(Duration::ZERO..=total);
                (before, total - before)
            }
            Legs::Apart { request, answer } => (request.draw(rng), answer.draw(rng)),
        }
    }
}

impl Default for Latency {
    fn default() -> Self {
        Self::NONE
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

/// A total that is drawn from it.
impl From<Distribution> for Latency {
    fn from(total: Distribution) -> Self {
        Self(Legs::Total(total))
    }
}

// ===== impl Distribution =====

impl Distribution {
    /// The largest sigma of a log-normal distribution: beyond it every time is nothing or the longest.
    pub const MAX_SIGMA: f64 = 10.0;

    /// The shortest and the longest time.
    pub fn bounds(&self) -> (Duration, Duration) {
        match *self {
            Self::Fixed(time) => (time, time),
            Self::Uniform { least, most } => (least, most),
            Self::Exponential { most, .. } | Self::LogNormal { most, .. } => (Duration::ZERO, most),
        }
    }

    pub(crate) fn is_usable(&self) -> bool {
        match *self {
            Self::Fixed(_) => true,
            Self::Uniform { least, most } | Self::Exponential { mean: least, most } => least <= most,
            Self::LogNormal { median, sigma, most } => median <= most && (0.0..=Self::MAX_SIGMA).contains(&sigma),
        }
    }

    /// Draws a time.
    pub(crate) fn draw(&self, rng: &mut StdRng) -> Duration {
        match *self {
            Self::Fixed(time) => time,
            Self::Uniform { least, most } => rng.random_range(least..=most.max(least)),
            Self::Exponential { mean, most } => stretched(mean, exponential(rng), most),
            Self::LogNormal { median, sigma, most } => stretched(median, (sigma * normal(rng)).exp(), most),
        }
    }
}

impl From<Duration> for Distribution {
    fn from(time: Duration) -> Self {
        Self::Fixed(time)
    }
}

impl From<RangeInclusive<Duration>> for Distribution {
    fn from(range: RangeInclusive<Duration>) -> Self {
        Self::Uniform { least: *range.start(), most: *range.end() }
    }
}

/// An exponential variate of mean 1.
pub(crate) fn exponential(rng: &mut StdRng) -> f64 {
    // 1 − u lies in (0, 1], so the logarithm is finite.
    -(1.0 - rng.random::<f64>()).ln()
}

/// A standard normal variate (Box and Muller 1958).
fn normal(rng: &mut StdRng) -> f64 {
    (2.0 * exponential(rng)).sqrt() * (TAU * rng.random::<f64>()).cos()
}

fn stretched(time: Duration, by: f64, most: Duration) -> Duration {
    Duration::try_from_secs_f64(time.as_secs_f64() * by).map_or(most, |time| time.min(most))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    const DRAWS: u32 = 20_000;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn drawn(distribution: Distribution) -> Vec<Duration> {
        let mut rng = StdRng::seed_from_u64(7);
        let mut times: Vec<_> = (0..DRAWS).map(|_| distribution.draw(&mut rng)).collect();
        times.sort_unstable();
        times
    }

    fn mean(times: &[Duration]) -> f64 {
        times.iter().sum::<Duration>().as_secs_f64() * 1_000.0 / times.len() as f64
    }

    #[test]
    fn the_total_stays_within_its_bounds() {
        let (least, most) = (ms(20), ms(120));
        let mut rng = StdRng::seed_from_u64(7);
        for _ in 0..1_000 {
            let (before, after) = Latency::uniform(least, most).draw(&mut rng);
            assert!((least..=most).contains(&(before + after)));
        }
    }

    #[test]
    fn two_legs_are_drawn_apart() {
        let mut rng = StdRng::seed_from_u64(7);
        let leg = Distribution::Uniform { least: ms(20), most: ms(120) };
        let legs: Vec<_> = (0..1_000).map(|_| Latency::legs(leg, ms(50).into()).draw(&mut rng)).collect();
        assert!(legs.iter().all(|(before, after)| (ms(20)..=ms(120)).contains(before) && *after == ms(50)));
        assert!(legs.iter().any(|(before, _)| *before < ms(30)) && legs.iter().any(|(before, _)| *before > ms(110)));
    }

    #[test]
    fn an_exponential_time_has_its_mean_and_its_bound() {
        let times = drawn(Distribution::Exponential { mean: ms(100), most: ms(300) });
        // Cut at three means, 1 − e⁻³ of the mean is left, and e⁻³ of the times lie on the bound.
        assert!((94.0..96.0).contains(&mean(&times)), "{}", mean(&times));
        let cut = times.iter().filter(|time| **time == ms(300)).count();
        assert!((900..1_100).contains(&cut), "{cut}");
    }

    #[test]
    fn a_log_normal_time_has_its_median_its_tail_and_its_bound() {
        let times = drawn(Distribution::LogNormal { median: ms(30), sigma: 1.0, most: ms(5_000) });
        let at = |share: usize| times[share * times.len() / 1_000].as_secs_f64() * 1_000.0;
        assert!((29.0..31.0).contains(&at(500)), "{}", at(500));
        // One standard deviation up is a factor of e, and two are e².
        assert!((78.0..86.0).contains(&at(841)), "{}", at(841));
        assert!((205.0..240.0).contains(&at(977)), "{}", at(977));
        assert!(times.last().is_some_and(|longest| *longest <= ms(5_000)));
    }

    #[test]
    fn what_cannot_be_drawn_from_is_known() {
        let log_normal = |sigma| Distribution::LogNormal { median: ms(1), sigma, most: ms(2) };
        for unusable in [
            Distribution::Uniform { least: ms(2), most: ms(1) },
            Distribution::Exponential { mean: ms(2), most: ms(1) },
            log_normal(f64::NAN),
            log_normal(-1.0),
            log_normal(11.0),
        ] {
            assert!(!unusable.is_usable(), "{unusable:?}");
            assert!(Latency::legs(ms(1).into(), unusable).unusable().is_some());
        }
        assert!(log_normal(1.0).is_usable());
    }
}
