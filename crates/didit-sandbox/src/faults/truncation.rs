//! Where a body is cut off.

/// An answer that ends within its body: the head and a part of the body come, then the connection is closed.
///
/// The work is done. An answer without a body comes whole. In a file: `{ "truncated-body": { "at_byte": 100 } }` or
/// `{ "truncated-body": { "at_percent": 50, "chunked": true } }`; `chunked` is `false` if left out.
///
/// # Example
///
/// ```
/// use didit_sandbox::{Fault, Faults, Rule, Truncation};
///
/// let half = Fault::TruncatedBody(Truncation::at_percent(50).chunked());
/// let faults = Faults::none().with(Rule::new(half).on_route("session-list"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncation {
    pub(crate) at: At,
    pub(crate) chunked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    Byte(usize),
    Percent(u8),
}

impl Truncation {
    /// After so many bytes; at the latest before the last one.
    pub fn at_byte(byte: usize) -> Self {
        Self { at: At::Byte(byte), chunked: false }
    }

    /// After so much of the body, from 0 to 100 percent; at the latest before the last byte.
    pub fn at_percent(percent: u8) -> Self {
        Self { at: At::Percent(percent), chunked: false }
    }

    /// Sends the body without `Content-Length`, so that over HTTP/1.1 it is chunked and only its last chunk is
    /// missing; then every byte of it may have come.
    #[must_use]
    pub fn chunked(mut self) -> Self {
        self.chunked = true;
        self
    }

    /// How many bytes come of a body of this length.
    pub(crate) fn of(self, length: usize) -> usize {
        let most = if self.chunked { length } else { length.saturating_sub(1) };
        let at = match self.at {
            At::Byte(byte) => byte,
            At::Percent(percent) => length / 100 * usize::from(percent) + length % 100 * usize::from(percent) / 100,
        };
        at.min(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_with_a_length_always_misses_something() {
        let of = |cut: Truncation| cut.of(250);
        assert_eq!([of(Truncation::at_byte(0)), of(Truncation::at_byte(7)), of(Truncation::at_byte(999))], [0, 7, 249]);
        assert_eq!([0, 1, 50, 100].map(|percent| of(Truncation::at_percent(percent))), [0, 2, 125, 249]);
        assert_eq!(of(Truncation::at_percent(100).chunked()), 250);
    }
}
