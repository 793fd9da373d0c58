//! Identifiers and secrets, drawn from a seed so that a run can be repeated.

use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use uuid::Uuid;

/// Draws identifiers.
#[derive(Debug)]
pub(crate) struct Ids(StdRng);

impl Ids {
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    /// A UUID of version 4.
    pub(crate) fn uuid(&mut self) -> Uuid {
        let mut bytes = [0; 16];
        self.0.fill_bytes(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }

    /// A session token: 12 letters and digits, as Didit's are.
    pub(crate) fn token(&mut self) -> String {
        (0..12).map(|_| char::from(self.0.sample(rand::distr::Alphanumeric))).collect()
    }
}
