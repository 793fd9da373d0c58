//! `traceparent`: `version-traceid-parentid-flags`, all of it lower-case hexadecimal.

use std::num::{NonZeroU64, NonZeroU128};

use super::TraceContext;

/// How long version 00 is.
pub(crate) const LENGTH: usize = 55;

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

/// The value in version 00: digits and hyphens.
pub(super) fn write(context: &TraceContext) -> [u8; LENGTH] {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    let trace_id = context.trace_id.get();
    text[3..19].copy_from_slice(&digits((trace_id >> 64) as u64));
    text[19..35].copy_from_slice(&digits(trace_id as u64));
    text[36..52].copy_from_slice(&digits(context.parent_id.get()));
    text[53..].copy_from_slice(&digits(context.flags.into())[14..]);
    text
}

/// All sixteen digits of a number, eight at a time.
fn digits(number: u64) -> [u8; 16] {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let eight = |half: u64| {
        let nibbles = (half | half << 16) & 0x0000_ffff_0000_ffff;
        let nibbles = (nibbles | nibbles << 8) & 0x00ff_00ff_00ff_00ff;
        let nibbles = (nibbles | nibbles << 4) & (0x0f * EACH);
        // What is above nine reaches the next nibble with six more.
        let letters = (nibbles + 6 * EACH) >> 4 & EACH;
        (nibbles + u64::from(b'0') * EACH + letters * u64::from(b'a' - b'9' - 1)).to_be_bytes()
    };
    let mut text = [0; 16];
    text[..8].copy_from_slice(&eight(number >> 32));
    text[8..].copy_from_slice(&eight(number & 0xffff_ffff));
    text
}
