//! What an error means, found by walking its sources.

use std::{error::Error as StdError, io};

use tokio::time::Instant;

use super::{NotSent, Outcome};

/// Ends the source chain of an error that a layer made *instead of* sending the request.
///
/// It is what tells a local refusal from a failure of the server. A layer of the user's own that refuses requests
/// (a concurrency limit, say) puts it at the end of its error's sources, and retry, breaker and pacer understand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request was not sent")]
pub struct NeverSent {
    retry_at: Option<Instant>,
}

impl NeverSent {
    /// A refusal that does not know when it will end.
    pub const fn new() -> Self {
        Self { retry_at: None }
    }

    /// A refusal that ends at `retry_at`.
    pub const fn until(retry_at: Instant) -> Self {
        Self { retry_at: Some(retry_at) }
    }

    /// When to come back, if the layer knows.
    pub fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }
}

impl Default for NeverSent {
    fn default() -> Self {
        Self::new()
    }
}

/// What an error means, by what is found on the way down its [`source`](StdError::source)s:
///
/// | found | outcome |
/// |---|---|
/// | [`NeverSent`] | `NotSent`, by a layer of this process |
/// | a connect error of hyper-util (feature `hyper`) | `NotSent`, by the transport |
/// | an I/O error of kind `ConnectionRefused` | `NotSent`, by the transport |
/// | anything else | `Ambiguous`: bytes may have left |
pub fn of_error(error: &(dyn StdError + 'static)) -> Outcome {
    let mut link = Some(error);
    while let Some(error) = link {
        if let Some(outcome) = of_link(error) {
            return outcome;
        }
        link = error.source();
    }
    Outcome::Ambiguous
}

fn of_link(error: &(dyn StdError + 'static)) -> Option<Outcome> {
    if let Some(NeverSent { retry_at }) = error.downcast_ref() {
        return Some(Outcome::NotSent(NotSent::Local { retry_at: *retry_at }));
    }
    #[cfg(feature = "hyper")]
    if let Some(error) = error.downcast_ref::<hyper_util::client::legacy::Error>()
        && error.is_connect()
    {
        return Some(Outcome::NotSent(NotSent::Transport));
    }
    let io: &io::Error = error.downcast_ref()?;
    (io.kind() == io::ErrorKind::ConnectionRefused).then_some(Outcome::NotSent(NotSent::Transport))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer<E: StdError + 'static>(#[source] E);

    #[test]
    fn a_refused_connection_was_not_sent_however_deep_it_lies() {
        let error = Outer(Outer(io::Error::from(io::ErrorKind::ConnectionRefused)));
        assert_eq!(of_error(&error), Outcome::NotSent(NotSent::Transport));
    }

    #[test]
    fn a_reset_connection_is_ambiguous() {
        assert_eq!(of_error(&io::Error::from(io::ErrorKind::ConnectionReset)), Outcome::Ambiguous);
    }

    #[test]
    fn a_local_refusal_says_when_to_come_back() {
        let retry_at = Instant::now();
        let outcome = of_error(&Outer(NeverSent::until(retry_at)));
        assert_eq!(outcome, Outcome::NotSent(NotSent::Local { retry_at: Some(retry_at) }));
    }
}
