//! Where jitter and identifiers get their randomness from.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// A source of randomness that is shared by all clones of a layer.
///
/// By default the thread's own cryptographically secure generator, so that no two processes, threads or calls draw
/// the same. With [`seeded`](Self::seeded), a reproducible sequence for tests: clones continue it, they never
/// repeat it.
#[derive(Clone, Debug, Default)]
pub struct Randomness {
    seeded: Option<Arc<AtomicU64>>,
}

impl Randomness {
    /// The thread's generator.
    pub fn new() -> Self {
        Self::default()
    }

    /// A reproducible sequence: the same seed and the same order of draws give the same numbers.
    pub fn seeded(seed: u64) -> Self {
        Self { seeded: Some(Arc::new(AtomicU64::new(seed))) }
    }

    /// The next 64 random bits.
    pub fn bits(&self) -> u64 {
        match &self.seeded {
            None => rand::random(),
            Some(state) => split_mix(state.fetch_add(GOLDEN_GAMMA, Ordering::Relaxed)),
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
