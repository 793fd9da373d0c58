//! How the sandbox's own 429s say when to come back.

use http::HeaderValue;

use crate::faults::RetryAfter;

/// The `Retry-After` of a 429 that a rate limit makes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RetryAfterForm {
    /// Whole seconds, as Didit's page says.
    #[default]
    Seconds,
    /// An HTTP date on the sandbox's clock, as RFC 9110 allows.
    HttpDate,
    /// None.
    Omitted,
    /// This one, whatever the window says.
    Instead(RetryAfter),
}

/// The `X-RateLimit-Reset` of a 429 that a rate limit makes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResetForm {
    /// Seconds since the Unix epoch, as Didit's page says.
    #[default]
    EpochSeconds,
    /// Milliseconds since the Unix epoch.
    EpochMillis,
    /// Seconds from now.
    SecondsLeft,
    /// Milliseconds from now.
    MillisLeft,
    /// None.
    Omitted,
    /// This text, whatever the window says.
    Instead(HeaderValue),
}

/// Both.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hints {
    pub(crate) retry_after: RetryAfterForm,
    pub(crate) reset: ResetForm,
}
