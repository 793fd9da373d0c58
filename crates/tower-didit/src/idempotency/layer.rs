use http::HeaderName;
use tower::Layer;

use super::{HashSecret, Idempotency, keys::Keys};
use crate::random::Randomness;

/// Names every POST and PATCH call; see the [module](super).
#[derive(Clone, Debug, Default)]
pub struct IdempotencyLayer {
    pub(super) keys: Keys,
}

impl IdempotencyLayer {
    /// Sends the key as [`HEADER`](super::HEADER), bare, as Didit takes it: made of the call's operation id if it has
    /// one, else a new UUIDv7.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sends the key under another name.
    #[must_use]
    pub fn header(mut self, name: HeaderName) -> Self {
        self.keys.header = name;
        self
    }

    #[cfg(feature = "stack")]
    pub(crate) fn name(&self) -> &HeaderName {
        &self.keys.header
    }

    /// Sends the key as a quoted string (RFC 8941), as the IETF draft asks. A caller's own header is left as it is.
    #[must_use]
    pub fn quoted(mut self, quoted: bool) -> Self {
        self.keys.quoted = quoted;
        self
    }

    /// Whether a POST or PATCH that its caller has not named gets a random key. On by default; without it only calls
    /// with an operation id or a key of their own have one.
    #[must_use]
    pub fn unnamed_calls(mut self, stamp: bool) -> Self {
        self.keys.unnamed = stamp;
        self
    }

    /// Makes random keys from another source of randomness.
    #[must_use]
    pub fn randomness(mut self, random: Randomness) -> Self {
        self.keys.random = random;
        self
    }

    /// Makes keys from operation ids under this secret. By default there is none ([`HashSecret::NONE`]), so that all
    /// processes make the same keys without being told anything.
    ///
    /// A key is a hash of the body too, and it is logged. With a secret, which all processes have to share, nobody who
    /// reads a log can test guesses at a body against it.
    #[must_use]
    pub fn key_secret(mut self, secret: HashSecret) -> Self {
        self.keys.secret = secret;
        self
    }
}

impl<S> Layer<S> for IdempotencyLayer {
    type Service = Idempotency<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Idempotency::new(inner, self)
    }
}
