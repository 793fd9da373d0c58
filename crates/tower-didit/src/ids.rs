//! Identifiers: UUIDs as header values, in one allocation.

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::HeaderValue;
use uuid::{Builder, Uuid, fmt::Hyphenated};

use crate::{clock, random::Randomness};

/// A new UUIDv7 (RFC 9562): sorts by time in a log, and its 74 random bits keep it apart from every other.
pub(crate) fn new_id(random: &Randomness) -> HeaderValue {
    let mut bits = [0; 10];
    bits[..8].copy_from_slice(&random.bits().to_ne_bytes());
    bits[8..].copy_from_slice(&random.bits().to_ne_bytes()[..2]);
    let since_epoch = clock::wall().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let millis = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
    to_header(Builder::from_unix_timestamp_millis(millis, &bits).into_uuid())
}

/// A UUIDv8 (RFC 9562) made of a hash: the same bytes give the same identifier, and 122 of their bits count.
#[cfg(feature = "idempotency")]
pub(crate) fn hashed_id(hash: [u8; 32]) -> HeaderValue {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    to_header(Builder::from_custom_bytes(bytes).into_uuid())
}

fn to_header(id: Uuid) -> HeaderValue {
    let mut text = [0; Hyphenated::LENGTH];
    id.hyphenated().encode_lower(&mut text);
    // NOTE: `from_owner` shares from the start; a copied `Bytes` allocates a second time when it is first cloned.
    // Lower-case hex digits and hyphens are always a header value.
    HeaderValue::from_maybe_shared(Bytes::from_owner(text)).unwrap_or(HeaderValue::from_static("unavailable"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_version_7_uuid_and_no_two_are_alike() {
        let random = Randomness::new();
        let ids: std::collections::HashSet<_> =
            (0..1_000).map(|_| new_id(&random).to_str().unwrap().to_owned()).collect();
        assert_eq!(ids.len(), 1_000);
        assert!(ids.iter().all(|id| Uuid::parse_str(id).unwrap().get_version_num() == 7));
    }
}
