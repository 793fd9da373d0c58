//! Header fields as lists of members with parameters, taken apart in place.
//!
//! # Why not a parser of structured fields
//!
//! The `sfv` crate reads RFC 9651 well, and rejects a whole field for one fault in it, as the RFC asks of it. For a limit
//! that is the wrong side to err on: a gateway that appends a member of its own would hide that nothing is left. What
//! has to be read here is older than the RFC as well (`100;w=60`, `limit=100, remaining=50`, a bare `7`), so the sixty
//! lines below would not be spared; they copy nothing and stop early.

use http::HeaderMap;

use super::LONGEST;

/// The most members of a field that are looked at, over all its lines. Real servers name two or three policies.
pub const MOST_MEMBERS: usize = 16;

/// The members of a field, over all its lines: what stands between commas.
pub(super) fn members<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = Member<'a>> {
    let lines = headers.get_all(name).into_iter();
    lines
        .flat_map(|line| Split::new(line.as_bytes(), b','))
        .filter(|text| !text.is_empty())
        .take(MOST_MEMBERS)
        .map(Member)
}

/// One member: an item, a key with a value, or either with parameters after it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member<'a>(&'a [u8]);

impl<'a> Member<'a> {
    /// What stands before the parameters.
    pub(super) fn item(self) -> &'a [u8] {
        self.parts().next().unwrap_or_default()
    }

    /// The value of a parameter. Said twice, the last one counts, as in RFC 9651.
    pub(super) fn parameter(self, key: &str) -> Option<&'a [u8]> {
        let pairs = self.parts().skip(1).filter_map(pair);
        pairs.filter(|(found, _)| found.eq_ignore_ascii_case(key.as_bytes())).map(|(_, value)| value).last()
    }

    fn parts(self) -> Split<'a> {
        Split::new(self.0, b';')
    }
}

/// `key=value` taken apart.
pub(super) fn pair(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|byte| *byte == b'=').filter(|_| !text.starts_with(b"\""))?;
    Some((text[..at].trim_ascii(), text[at + 1..].trim_ascii()))
}

/// Reads digits and nothing else; more than any `u64` holds are read as the greatest.
pub(super) fn digits(text: &[u8]) -> Option<u64> {
    let text = text.trim_ascii();
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let push = |number: u64, digit: &u8| number.checked_mul(10)?.checked_add(u64::from(digit - b'0'));
    Some(text.iter().try_fold(0, push).unwrap_or(u64::MAX))
}

/// Reads a count of requests; one that no `u32` holds is no count.
pub(super) fn count(text: &[u8]) -> Option<u32> {
    digits(text).and_then(|number| u32::try_from(number).ok())
}

/// Reads seconds, cut to [`LONGEST`].
pub(super) fn seconds(text: &[u8]) -> Option<std::time::Duration> {
    digits(text).map(|seconds| std::time::Duration::from_secs(seconds).min(LONGEST))
}

/// A text between separators that stand outside quoted strings, without the spaces around each part.
#[derive(Clone, Debug)]
struct Split<'a> {
    rest: Option<&'a [u8]>,
    separator: u8,
}

impl<'a> Split<'a> {
    fn new(text: &'a [u8], separator: u8) -> Self {
        Self { rest: Some(text), separator }
    }
}

impl<'a> Iterator for Split<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let text = self.rest.take()?;
        let (mut quoted, mut escaped) = (false, false);
        let end = text.iter().position(|byte| {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                byte => return *byte == self.separator && !quoted,
            }
            false
        });
        // A quote that is never closed takes the rest of its line with it, and of no other.
        let part = end.map_or(text, |end| {
            self.rest = Some(&text[end + 1..]);
            &text[..end]
        });
        Some(part.trim_ascii())
    }
}
