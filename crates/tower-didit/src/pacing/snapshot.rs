//! What a layer knows, for the process after this one.

use std::time::{Duration, SystemTime};

use super::{keys::KeyId, ledger::ScopeRecord};

/// What a [`PacingLayer`](super::PacingLayer) knows: which slots are taken under which credential, and until when.
///
/// Plain data, anchored to the wall clock, so that another process can go on from it; with the feature `serde` it can be
/// written to a file. It holds no credential, but a keyed hash of each and the key of that hash, by which another process
/// knows them again. Whoever has a snapshot can check a guess at a credential, and keys of an API cannot be guessed.
///
/// To be taken when no more calls are sent: what goes out later, from a queue say, is unknown to whoever goes on. And to be
/// restored once: two processes that go on from the same snapshot send twice what it has room for.
///
/// # Example
///
/// ```
/// use tower_didit::pacing::PacingLayer;
///
/// let snapshot = PacingLayer::didit().handle().snapshot();
/// // In the next process:
/// let layer = PacingLayer::builder().restore(snapshot).build()?;
/// # Ok::<(), tower_didit::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PacingSnapshot {
    pub(super) taken_at: SystemTime,
    pub(super) hash_key: [u64; 2],
    pub(super) keys: Vec<KeyRecord>,
}

/// What is known under one credential.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct KeyRecord {
    /// Whose it is.
    pub key: KeyId,
    /// What is known, scope by scope.
    pub scopes: Vec<ScopeRecord>,
}

// ===== impl PacingSnapshot =====

impl PacingSnapshot {
    /// When it was taken.
    pub fn taken_at(&self) -> SystemTime {
        self.taken_at
    }

    /// What is known, credential by credential.
    pub fn keys(&self) -> &[KeyRecord] {
        &self.keys
    }

    /// How long ago it was taken. A clock that was set back in between says that it is not yet: then nothing has become
    /// free. One that was set forward cannot be told from time that has passed.
    pub(super) fn age(&self, now: SystemTime) -> Duration {
        now.duration_since(self.taken_at).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_back_makes_nothing_older() {
        let taken_at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let snapshot = PacingSnapshot { taken_at, hash_key: [0; 2], keys: Vec::new() };
        assert_eq!(snapshot.age(taken_at + Duration::from_secs(20)), Duration::from_secs(20));
        assert_eq!(snapshot.age(taken_at - Duration::from_secs(20)), Duration::ZERO);
    }
}
