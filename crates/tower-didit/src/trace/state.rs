//! `tracestate`: a list of `key=value`, one for each vendor along the way, the latest first.

use http::HeaderValue;

/// The most entries of a list; more make it invalid.
const MOST_MEMBERS: usize = 32;
/// How much is sent on: what the recommendation asks everybody to carry.
const MOST_BYTES: usize = 512;
/// Entries above this go first when there is too much.
const LARGE: usize = 128;
/// The longest key, and the longest value.
const LONGEST: usize = 256;

/// What is to be sent on of all headers of this name; `None` if there is nothing, or anything is not valid.
pub(super) fn read<'h>(values: impl Iterator<Item = &'h HeaderValue>) -> Option<HeaderValue> {
    let mut members: Vec<&[u8]> = Vec::new();
    for value in values {
        for member in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            // Empty ones are allowed, and mean nothing.
            if member.is_empty() {
                continue;
            }
            let key = key_of(member)?;
            if members.len() == MOST_MEMBERS {
                return None;
            }
            // A key stands for one vendor: the latest entry is the one that counts.
            if members.iter().all(|known| key_of(known) != Some(key)) {
                members.push(member);
            }
        }
    }
    shorten(&mut members);
    if members.is_empty() { None } else { HeaderValue::from_bytes(&members.join(&b',')).ok() }
}

/// Brings a list down to what is sent on.
fn shorten(members: &mut Vec<&[u8]>) {
    let too_much = |members: &[&[u8]]| {
        let bytes: usize = members.iter().map(|member| member.len() + 1).sum();
        bytes > MOST_BYTES + 1
    };
    while too_much(members) {
        match members.iter().rposition(|member| member.len() > LARGE) {
            Some(large) => drop(members.remove(large)),
            None => drop(members.pop()),
        }
    }
}

/// The key of an entry, if key and value are valid.
fn key_of(member: &[u8]) -> Option<&[u8]> {
    let split = member.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (&member[..split], &member[split + 1..]);
    let first = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let key_fits = key.first().is_some_and(first)
        && key.len() <= LONGEST
        && key.iter().all(|byte| first(byte) || b"_-*/@".contains(byte));
    // Visible ASCII and spaces, without the two that separate, and not a space at the end, which is trimmed away.
    let value_fits = !value.is_empty()
        && value.len() <= LONGEST
        && value.iter().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b',' | b'='));
    (key_fits && value_fits).then_some(key)
}
