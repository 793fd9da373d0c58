//! Keyed hashes: names and payloads are told apart by them, and cannot be read back from them.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The secret of keyed hashes (HMAC-SHA-256, RFC 2104).
///
/// Whoever lacks it cannot test a guess at what was hashed: a name, a date of birth. `Debug` does not show it.
///
/// # Example
///
/// ```
/// use tower_didit::idempotency::HashSecret;
///
/// let secret = HashSecret::random();
/// assert_eq!(format!("{secret:?}"), "HashSecret(…)");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct HashSecret([u8; Self::LEN]);

/// A keyed hash of something.
pub(super) type Hash = [u8; 32];

// ===== impl HashSecret =====

impl HashSecret {
    /// The length of a secret: 32 bytes, the length of the hash, as RFC 2104 section 3 asks.
    pub const LEN: usize = 32;

    /// No secret: the hash is a plain one, the same for everybody.
    pub const NONE: Self = Self([0; Self::LEN]);

    /// A given secret.
    pub const fn new(secret: [u8; Self::LEN]) -> Self {
        Self(secret)
    }

    /// A new secret from the thread's cryptographically secure generator.
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// The secret itself, for a store that has to keep it.
    pub fn expose(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// Hashes some parts under a name that keeps one use of the secret apart from every other. Lengths are hashed too,
    /// so that no two lists of parts run together.
    pub(super) fn hash<const N: usize>(&self, purpose: &str, parts: [&[u8]; N]) -> Hash {
        // HMAC fills a short key up with zeros to the block of its hash.
        let mut block = [0; 64];
        block[..Self::LEN].copy_from_slice(&self.0);
        let mut mac = Hmac::<Sha256>::new(&block.into());
        for part in [purpose.as_bytes()].into_iter().chain(parts) {
            mac.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for HashSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashSecret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_purpose_and_the_borders_of_parts_all_count() {
        let (none, other) = (HashSecret::NONE, HashSecret::new([1; 32]));
        let all = [
            none.hash("a", [b"xy", b"z"]),
            none.hash("a", [b"x", b"yz"]),
            none.hash("b", [b"xy", b"z"]),
            other.hash("a", [b"xy", b"z"]),
        ];
        assert_eq!(std::collections::HashSet::from(all).len(), 4);
        assert_eq!(all[0], none.hash("a", [b"xy", b"z"]));
        assert_ne!(HashSecret::random(), HashSecret::random());
    }

    #[test]
    fn the_hash_is_hmac_sha_256() {
        // Python: hmac.new(bytes(32), (1).to_bytes(8, "little") + b"a", "sha256").hexdigest()
        let hex: String = HashSecret::NONE.hash("a", []).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "e53cc5d96e1639c02813e32a1a7c3c3963d7600a88112c389aabb0b67405d6c6");
    }
}
