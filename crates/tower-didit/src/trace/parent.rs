//! `traceparent`: `version-traceid-parentid-flags`, all of it lower-case hexadecimal.

use std::num::{NonZeroU64, NonZeroU128};

use http::HeaderValue;

use super::TraceContext;

/// How long version 00 is.
pub(super) const LENGTH: usize = 55;

/// The most that is looked at. Later versions may be longer; none is known that is.
const MOST: usize = 512;

pub(super) fn parse(value: &[u8]) -> Option<TraceContext> {
    let (known, rest) = value.split_at_checked(LENGTH)?;
    let version = u8::try_from(hex(&known[..2])?).ok()?;
    let more = match version {
        // Reserved: it says that the header is not valid.
        0xff => return None,
        0 => rest.is_empty(),
        // What a later version adds comes after another hyphen, and is not for us to read.
        _ => rest.len() + LENGTH <= MOST && (rest.is_empty() || rest[0] == b'-'),
    };
    let hyphens = [2, 35, 52].iter().all(|place| known[*place] == b'-');
    if !more || !hyphens {
        return None;
    }
    let flags = u8::try_from(hex(&known[53..])?).ok()?;
    Some(TraceContext {
        trace_id: NonZeroU128::new(hex(&known[3..35])?)?,
        parent_id: NonZeroU64::new(u64::try_from(hex(&known[36..52])?).ok()?)?,
        // The flags that this version knows; the others must not be sent on.
        flags: flags & (TraceContext::SAMPLED | TraceContext::RANDOM),
        state: None,
    })
}

/// At most 32 digits. Upper-case ones are not valid.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |value, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some((value << 4) | u128::from(digit))
    })
}

pub(super) fn write(context: &TraceContext) -> HeaderValue {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    fill(&mut text[3..35], &context.trace_id.get().to_be_bytes());
    fill(&mut text[36..52], &context.parent_id.get().to_be_bytes());
    fill(&mut text[53..], &[context.flags]);
    // Not shared from the start, as ids are: it is of one request and seldom cloned. Digits and hyphens are always a
    // header value.
    HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("unavailable"))
}

fn fill(text: &mut [u8], bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 0xf)];
    }
}
