use http::HeaderName;
use tower::Layer;

use super::{HEADER, Idempotency};
use crate::random::Randomness;

/// Names every POST and PATCH call; see the [module](super).
#[derive(Clone, Debug)]
pub struct IdempotencyLayer {
    pub(super) header: HeaderName,
    pub(super) quoted: bool,
    pub(super) random: Randomness,
}

impl IdempotencyLayer {
    /// Sends a new UUIDv7 as [`HEADER`], bare, as Didit takes it.
    pub fn new() -> Self {
        Self { header: HEADER, quoted: false, random: Randomness::new() }
    }

    /// Sends the key under another name.
    #[must_use]
    pub fn header(mut self, name: HeaderName) -> Self {
        self.header = name;
        self
    }

    /// Sends the key as a quoted string (RFC 8941), as the IETF draft asks. A caller's own header is left as it is.
    #[must_use]
    pub fn quoted(mut self, quoted: bool) -> Self {
        self.quoted = quoted;
        self
    }

    /// Makes keys from another source of randomness.
    #[must_use]
    pub fn randomness(mut self, random: Randomness) -> Self {
        self.random = random;
        self
    }
}

impl Default for IdempotencyLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for IdempotencyLayer {
    type Service = Idempotency<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Idempotency::new(inner, self)
    }
}
