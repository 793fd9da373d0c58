//! Identifiers: UUIDs as header values, over shared bytes.

#[cfg(feature = "correlation")]
use std::ops::Range;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::HeaderValue;
use uuid::{Builder, Uuid, fmt::Hyphenated};

#[cfg(feature = "correlation")]
use crate::trace::{self, TraceContext};
use crate::{clock, random::Randomness};

/// A new UUIDv7 (RFC 9562): sorts by time in a log, and its 74 random bits keep it apart from every other.
pub(crate) fn new_id(random: &Randomness) -> HeaderValue {
    to_header(draw(random, now_millis()))
}

fn draw(random: &Randomness, millis: u64) -> Uuid {
    let mut bits = [0; 10];
    let [most, last] = random.many();
    bits[..8].copy_from_slice(&most.to_ne_bytes());
    bits[8..].copy_from_slice(&last.to_ne_bytes()[..2]);
    Builder::from_unix_timestamp_millis(millis, &bits).into_uuid()
}

fn now_millis() -> u64 {
    let since_epoch = clock::wall().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
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
    value(Bytes::from_owner(text))
}

/// Lower-case hex digits and hyphens are always a header value.
fn value(text: Bytes) -> HeaderValue {
    HeaderValue::from_maybe_shared(text).unwrap_or(HeaderValue::from_static("unavailable"))
}

/// What a call begins with, in one block: a new id, a new key, its first place in a trace. That is one allocation and one
/// look at the clock for all of them.
#[cfg(feature = "correlation")]
pub(crate) struct Names {
    text: [u8; KEY.end],
}

#[cfg(feature = "correlation")]
const ID: Range<usize> = 0..Hyphenated::LENGTH;
#[cfg(feature = "correlation")]
const TRACEPARENT: Range<usize> = ID.end..ID.end + trace::LENGTH;
#[cfg(feature = "correlation")]
const KEY: Range<usize> = TRACEPARENT.end..TRACEPARENT.end + Hyphenated::LENGTH;

#[cfg(feature = "correlation")]
impl Names {
    /// Draws an id and a key, if they are wanted.
    pub(crate) fn draw(random: &Randomness, with_id: bool, with_key: bool) -> Self {
        let mut text = [0; KEY.end];
        if with_id || with_key {
            let millis = now_millis();
            let mut write = |range| draw(random, millis).hyphenated().encode_lower(&mut text[range]).len();
            with_id.then(|| write(ID));
            with_key.then(|| write(KEY));
        }
        Self { text }
    }

    /// The id that was drawn.
    pub(crate) fn id(&self) -> &str {
        std::str::from_utf8(&self.text[ID]).unwrap_or_default()
    }

    /// Adds the place in the trace, and shares everything.
    pub(crate) fn share(mut self, place: &TraceContext) -> SharedNames {
        self.text[TRACEPARENT].copy_from_slice(&place.text());
        SharedNames(Bytes::from_owner(self.text))
    }
}

/// [`Names`] over shared bytes.
#[cfg(feature = "correlation")]
pub(crate) struct SharedNames(Bytes);

#[cfg(feature = "correlation")]
impl SharedNames {
    pub(crate) fn id(&self) -> HeaderValue {
        value(self.0.slice(ID))
    }

    pub(crate) fn traceparent(&self) -> HeaderValue {
        value(self.0.slice(TRACEPARENT))
    }

    pub(crate) fn key(&self) -> HeaderValue {
        value(self.0.slice(KEY))
    }
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

    #[cfg(feature = "correlation")]
    #[test]
    fn the_names_of_a_call_are_those_that_were_drawn_each_in_its_place() {
        let random = Randomness::new();
        let place = TraceContext::root(&random, true).child(&random);
        let names = Names::draw(&random, true, true);
        let id = names.id().to_owned();
        let shared = names.share(&place);
        assert_eq!(shared.id(), id);
        assert_eq!(shared.traceparent(), place.to_traceparent());
        let parsed = |value: HeaderValue| Uuid::parse_str(value.to_str().unwrap()).unwrap();
        assert_ne!(parsed(shared.id()), parsed(shared.key()));
        assert!([shared.id(), shared.key()].map(parsed).iter().all(|id| id.get_version_num() == 7));
    }
}
