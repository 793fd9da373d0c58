//! Where jitter and identifiers get their randomness from.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// A source of randomness that is shared by all clones of a layer.
///
/// By default the thread's own cryptographically secure generator, so that no two processes, threads or calls draw
/// the same. With [`seeded`](Self::seeded), a reproducible sequence for tests: clones continue it, they never
/// repeat it.
#[derive(Clone, Debug, Default)]
pub struct Randomness {
    seeded: Option<Arc<AtomicU64>>,
    still: bool,
}

impl Randomness {
    /// The thread's generator.
    pub fn new() -> Self {
        Self::default()
    }

    /// A reproducible sequence: the same seed and the same order of draws give the same numbers.
    pub fn seeded(seed: u64) -> Self {
        Self { seeded: Some(Arc::new(AtomicU64::new(seed))), still: false }
    }

    /// The same source, with which every wait is as long as its jitter would have let it be at most. Identifiers stay
    /// random. For watching what happens, and for tests: clients that wait alike come back together.
    #[must_use]
    pub fn without_jitter(self) -> Self {
        Self { still: true, ..self }
    }

    /// What is left of a wait of which jitter may take off up to `share`.
    #[allow(dead_code, reason = "each layer that waits has its own feature")]
    pub(crate) fn jittered(&self, longest: Duration, share: f64) -> Duration {
        if self.still { longest } else { longest.mul_f64(1.0 - share * (1.0 - self.unit())) }
    }

    /// The next 64 random bits.
    pub fn bits(&self) -> u64 {
        match &self.seeded {
            None => rand::random(),
            Some(state) => split_mix(state.fetch_add(GOLDEN_GAMMA, Ordering::Relaxed)),
        }
    }

    /// The next numbers of 64 random bits: to find the thread's generator costs more than to draw from it.
    #[cfg(any(feature = "correlation", feature = "idempotency", feature = "telemetry"))]
    pub(crate) fn many<const N: usize>(&self) -> [u64; N] {
        match &self.seeded {
            None => rand::random(),
            Some(_) => std::array::from_fn(|_| self.bits()),
        }
    }

    /// A number uniform in `0.0..1.0`.
    pub fn unit(&self) -> f64 {
        // 53 bits are what an f64 holds exactly.
        const STEP: f64 = 1.0 / (1u64 << 53) as f64;
        (self.bits() >> 11) as f64 * STEP
    }
}

/// The increment of SplitMix64 (Steele, Lea, Flood 2014): 2^64 divided by the golden ratio, made odd.
const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// The output function of SplitMix64: a counter goes in, so one atomic addition is the whole generator.
fn split_mix(state: u64) -> u64 {
    let mut mixed = state.wrapping_add(GOLDEN_GAMMA);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_sequence_and_clones_continue_it() {
        let (one, other) = (Randomness::seeded(7), Randomness::seeded(7));
        let first: Vec<_> = (0..4).map(|_| one.bits()).collect();
        let clone = other.clone();
        let second = [other.bits(), clone.bits(), other.bits(), clone.bits()];
        assert_eq!(first, second);
        #[cfg(any(feature = "correlation", feature = "idempotency", feature = "telemetry"))]
        assert_eq!(Randomness::seeded(7).many::<4>(), second);
    }

    #[test]
    fn jitter_takes_off_its_share_and_no_more_and_can_be_left_out() {
        let (second, random) = (Duration::from_secs(1), Randomness::seeded(7));
        let whole: Vec<_> = (0..1_000).map(|_| random.jittered(second, 1.0)).collect();
        assert!(whole.iter().all(|wait| *wait < second) && whole.iter().any(|wait| *wait < second / 10));
        let quarter: Vec<_> = (0..1_000).map(|_| random.jittered(second, 0.25)).collect();
        assert!(quarter.iter().all(|wait| *wait >= second * 3 / 4 && *wait < second));
        let still = random.without_jitter();
        assert_eq!(still.jittered(second, 1.0), second);
        assert_ne!(still.bits(), still.bits());
    }

    #[test]
    fn split_mix_gives_its_published_sequence() {
        let random = Randomness::seeded(1_234_567);
        assert_eq!(random.bits(), 6_457_827_717_110_365_317);
        assert_eq!(random.bits(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn units_stay_below_one_and_spread() {
        let random = Randomness::new();
        let units: Vec<_> = (0..1_000).map(|_| random.unit()).collect();
        assert!(units.iter().all(|unit| (0.0..1.0).contains(unit)));
        let mean = units.iter().sum::<f64>() / 1_000.0;
        assert!((0.4..0.6).contains(&mean), "{mean}");
    }
}
