//! The identifiers of a call, each a header value that is safe to log.

use std::fmt;

use http::HeaderValue;

/// Why a text cannot be an identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidId {
    /// Nothing, or too much.
    #[error("an identifier of {length} bytes; 1 to {most} are allowed")]
    Length {
        /// How long it is.
        length: usize,
        /// How long it may be.
        most: usize,
    },
    /// A byte that could forge a log line, or break a header.
    #[error("byte {position} of the identifier is outside {allowed}")]
    Alphabet {
        /// Where the byte stands, counted from 0.
        position: usize,
        /// What may stand there.
        allowed: &'static str,
    },
}

fn checked(
    value: HeaderValue,
    most: usize,
    allowed: &'static str,
    fits: fn(u8) -> bool,
) -> Result<HeaderValue, InvalidId> {
    let length = value.len();
    if length == 0 || length > most {
        return Err(InvalidId::Length { length, most });
    }
    match value.as_bytes().iter().position(|byte| !fits(*byte)) {
        Some(position) => Err(InvalidId::Alphabet { position, allowed }),
        None => Ok(value),
    }
}

/// The name of one user's journey through every hop.
///
/// At most [`MAX_LEN`](Self::MAX_LEN) bytes of ASCII letters, digits and `-_.:/+=@~`, so that no value can forge a
/// log line or break a query. Clones share their bytes.
///
/// # Example
///
/// ```
/// use tower_didit::call::CorrelationId;
///
/// let id: CorrelationId = "order-7.payment".parse()?;
/// assert_eq!(id.as_str(), "order-7.payment");
/// assert!("two\nlines".parse::<CorrelationId>().is_err());
/// # Ok::<(), tower_didit::call::InvalidId>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CorrelationId(HeaderValue);

impl CorrelationId {
    /// The longest identifier: 128 bytes, room for two UUIDs or a trace id with a prefix.
    pub const MAX_LEN: usize = 128;

    /// A new UUIDv7, for a journey that begins here.
    #[cfg(feature = "correlation")]
    pub fn random() -> Self {
        Self(crate::ids::new_id(&crate::Randomness::new()))
    }

    fn fits(byte: u8) -> bool {
        byte.is_ascii_alphanumeric() || b"-_.:/+=@~".contains(&byte)
    }
}

/// The key under which a server recognises the repetition of a call.
///
/// At most [`MAX_LEN`](Self::MAX_LEN) bytes of visible ASCII. Clones share their bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(HeaderValue);

impl IdempotencyKey {
    /// The longest key: 255 bytes, the most that Didit accepts (its api-errors page).
    pub const MAX_LEN: usize = 255;

    fn fits(byte: u8) -> bool {
        byte.is_ascii_graphic()
    }
}

/// The caller's own name for one business operation: what must happen once, however often it is asked for.
///
/// At most [`MAX_LEN`](Self::MAX_LEN) bytes of ASCII letters, digits and `-_.:/+=@~`. It is logged and may be sent, so
/// it names an order or a row, never a person. Clones share their bytes.
///
/// # Example
///
/// ```
/// use tower_didit::call::{CallOptions, OperationId};
///
/// let id: OperationId = "order-7/verify".parse()?;
/// let request = http::Request::post("/v3/session/").extension(CallOptions::new().operation_id(id));
/// # Ok::<(), tower_didit::call::InvalidId>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct OperationId(HeaderValue);

impl OperationId {
    /// The longest identifier: 128 bytes, room for two UUIDs or a path of names.
    pub const MAX_LEN: usize = 128;

    fn fits(byte: u8) -> bool {
        CorrelationId::fits(byte)
    }
}

macro_rules! identifier {
    ($name:ident, $allowed:literal) => {
        impl $name {
            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                // Checked to be ASCII when it was made.
                self.0.to_str().unwrap_or_default()
            }

            /// The identifier as a header value; shares its bytes.
            pub fn to_header(&self) -> HeaderValue {
                self.0.clone()
            }

            /// Takes a value that was made to fit.
            #[allow(dead_code, reason = "used by the layer that makes this identifier, if its feature is on")]
            pub(crate) fn trusted(value: HeaderValue) -> Self {
                Self(value)
            }
        }

        impl TryFrom<HeaderValue> for $name {
            type Error = InvalidId;

            fn try_from(value: HeaderValue) -> Result<Self, InvalidId> {
                checked(value, Self::MAX_LEN, $allowed, Self::fits).map(Self)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let length = text.len();
                if length > Self::MAX_LEN {
                    return Err(InvalidId::Length { length, most: Self::MAX_LEN });
                }
                match text.bytes().position(|byte| !Self::fits(byte)) {
                    Some(position) => Err(InvalidId::Alphabet { position, allowed: $allowed }),
                    None => {
                        let value = HeaderValue::from_str(text);
                        value.map_err(|_| InvalidId::Alphabet { position: 0, allowed: $allowed })?.try_into()
                    }
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.as_str())
            }
        }
    };
}

identifier!(CorrelationId, "letters, digits and -_.:/+=@~");
identifier!(IdempotencyKey, "visible ASCII");
identifier!(OperationId, "letters, digits and -_.:/+=@~");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_could_forge_a_log_line_is_refused() {
        for text in ["a\nb", "a\"b", "a b", "\u{e9}", "a\u{1b}[31m"] {
            assert!(matches!(text.parse::<CorrelationId>(), Err(InvalidId::Alphabet { .. })), "{text:?}");
        }
        assert!(matches!("".parse::<CorrelationId>(), Err(InvalidId::Length { length: 0, most: 128 })));
        assert!(matches!("x".repeat(10_240).parse::<CorrelationId>(), Err(InvalidId::Length { .. })));
    }

    #[test]
    fn an_operation_is_named_within_bounds() {
        assert!("order-7/verify".parse::<OperationId>().is_ok());
        assert!("o".repeat(128).parse::<OperationId>().is_ok());
        assert!(matches!("o".repeat(129).parse::<OperationId>(), Err(InvalidId::Length { most: 128, .. })));
        assert!(matches!("Ada Example".parse::<OperationId>(), Err(InvalidId::Alphabet { position: 3, .. })));
    }

    #[test]
    fn a_key_may_hold_any_visible_ascii_up_to_255_bytes() {
        assert!("\"quoted\"{}".parse::<IdempotencyKey>().is_ok());
        assert!("k".repeat(255).parse::<IdempotencyKey>().is_ok());
        assert!("k".repeat(256).parse::<IdempotencyKey>().is_err());
    }
}
