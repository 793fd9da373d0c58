//! What an error means, found by walking its sources.

use std::{error::Error as StdError, io};

use tokio::time::Instant;

use super::{NotSent, Outcome};
use crate::call::SenderSlow;

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

/// What an error means, by the first telling thing found on the way down its [`source`](StdError::source)s:
///
/// | found | outcome | why |
/// |---|---|---|
/// | [`NeverSent`] | `NotSent`, by a layer of this process | it says so |
/// | tower's `load_shed` error | `NotSent`, by a layer of this process | made instead of a call |
/// | I/O: connection refused, address not available, address in use | `NotSent` | only the making of a connection fails so |
/// | any other I/O error, and a failed lookup outside a connector, which looks like one | `Ambiguous` | an established connection may fail so too |
/// | `hyper`: a connect error of hyper-util: lookup, connection, its timeout, TLS handshake | `NotSent` | no request without a connection |
/// | `hyper`: cancelled or closed before the connection took the request | `NotSent` | hyper says so only of requests it has not begun |
/// | `hyper`: an error of the request's own body | `Ambiguous` | the head was sent, and what the body failed of says nothing about it |
/// | `hyper`: incomplete, malformed or oversized answers, timeouts, everything else | `Ambiguous` | the request, or some of it, was sent |
/// | `h2`: the server reset the stream with `REFUSED_STREAM` | `NotSent` | RFC 9113 section 8.7: nothing was processed |
/// | `h2`: the server's GOAWAY, for whatever reason | `NotSent` | h2 ends with it only streams beyond the last that the server takes |
/// | `h2`: every other reset, and streams that break after a GOAWAY took them | `Ambiguous` | the server may have acted |
/// | `reqwest`: the request cannot be built | `NotSent`, by this process | it had no address to go to |
/// | `reqwest`: a status made an error | as [`of_response`](super::of_response), without headers | |
/// | `reqwest`: a redirection not followed | `Answered` | the redirection was the answer |
/// | `reqwest`: the body of the answer | `Ambiguous` | its status is lost |
/// | anything else, tower's timeouts and buffers included | `Ambiguous` | bytes may have left |
///
/// Without a feature, errors of its row are `Ambiguous`, unless something telling lies further down.
///
/// # What cannot be told
///
/// A TLS error outside the connector may come long after the handshake: with TLS 1.3 a server's "no certificate was
/// given" follows the first request. A reused connection that the server closed while it was idle looks like one that
/// broke under the request, unless hyper noticed in time (and then hyper-util takes another connection by itself).
///
/// A client that follows redirections spoils the proof: an error of the second request says nothing about the first.
/// hyper's clients never do; for reqwest it is switched off with `redirect(Policy::none())`.
pub fn of_error(error: &(dyn StdError + 'static)) -> Outcome {
    let mut link = Some(error);
    for _ in 0..MOST_LINKS {
        match link.map(read) {
            Some(Reading::Means(outcome)) => return outcome,
            Some(Reading::Inside(next)) => link = next,
            None => break,
        }
    }
    Outcome::Ambiguous
}

/// Far more links than real errors have; an error that is its own source must not hang the call.
const MOST_LINKS: usize = 64;

/// Whether an attempt failed of the request's own body, of how slowly that came, or of what else the client was given.
///
/// The request is [`Ambiguous`](Outcome::Ambiguous), for its head was sent; but the server has no part in it. hyper says
/// so itself on HTTP/1, and on HTTP/2 the stream was then reset from this side.
pub(super) fn is_own(error: &(dyn StdError + 'static)) -> bool {
    let mut link = Some(error);
    for _ in 0..MOST_LINKS {
        let Some(error) = link else { break };
        if error.is::<SenderSlow>() {
            return true;
        }
        #[cfg(feature = "hyper")]
        if let Some(error) = error.downcast_ref::<hyper_util::client::legacy::Error>()
            && error.is_connect()
        {
            return false;
        }
        #[cfg(feature = "hyper")]
        if error.downcast_ref().is_some_and(hyper::Error::is_user) {
            return true;
        }
        #[cfg(feature = "h2")]
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return error.is_reset() && !error.is_remote() && !error.is_library();
        }
        link = match error.downcast_ref::<io::Error>() {
            Some(error) => error.get_ref().map(|inner| inner as _),
            None => error.source(),
        };
    }
    false
}

/// What one link of the chain says.
enum Reading<'a> {
    /// Enough; what lies deeper is not looked at.
    Means(Outcome),
    /// Nothing by itself, or what lies deeper says more.
    Inside(Option<&'a (dyn StdError + 'static)>),
}

impl Reading<'_> {
    const UNSENT: Self = Self::Means(Outcome::NotSent(NotSent::Transport));

    /// Kept back in this process.
    const fn local(retry_at: Option<Instant>) -> Self {
        Self::Means(Outcome::NotSent(NotSent::Local { retry_at }))
    }
}

fn read<'a>(error: &'a (dyn StdError + 'static)) -> Reading<'a> {
    if let Some(NeverSent { retry_at }) = error.downcast_ref() {
        return Reading::local(*retry_at);
    }
    if error.is::<tower::load_shed::error::Overloaded>() {
        return Reading::local(None);
    }
    #[cfg(feature = "reqwest")]
    if let Some(error) = error.downcast_ref() {
        return read_reqwest(error);
    }
    #[cfg(feature = "hyper")]
    if let Some(error) = error.downcast_ref::<hyper_util::client::legacy::Error>() {
        return if error.is_connect() { Reading::UNSENT } else { Reading::Inside(error.source()) };
    }
    #[cfg(feature = "hyper")]
    if let Some(error) = error.downcast_ref() {
        return read_hyper(error);
    }
    #[cfg(feature = "h2")]
    if let Some(error) = error.downcast_ref() {
        return read_h2(error);
    }
    match error.downcast_ref() {
        Some(error) => read_io(error),
        None => Reading::Inside(error.source()),
    }
}

fn read_io(error: &io::Error) -> Reading<'_> {
    use io::ErrorKind::{AddrInUse, AddrNotAvailable, ConnectionRefused};

    // NOTE: "unreachable" and "timed out" are not here: an established connection ends so too, when its way is gone.
    if matches!(error.kind(), ConnectionRefused | AddrNotAvailable | AddrInUse) {
        return Reading::UNSENT;
    }
    // The `source` of an I/O error is the source of what it wraps: that itself is skipped.
    Reading::Inside(error.get_ref().map(|inner| inner as _))
}

#[cfg(feature = "hyper")]
fn read_hyper(error: &hyper::Error) -> Reading<'_> {
    if error.is_user() {
        // NOTE: what a request's body failed of must not be read: a connection refused to whoever *it* reads from
        // does not mean that our request was not sent.
        Reading::Means(Outcome::Ambiguous)
    } else if error.is_canceled() || error.is_closed() {
        Reading::UNSENT
    } else {
        Reading::Inside(error.source())
    }
}

#[cfg(feature = "h2")]
fn read_h2(error: &h2::Error) -> Reading<'_> {
    let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    // h2 gives the server's GOAWAY to streams above its last stream id and to requests that it has not opened a stream
    // for; streams at or below it go on, and if they break it is an I/O error.
    //
    // NOTE: hyper asks h2 once more whether it is ready right after it has opened a stream. A GOAWAY that announces a
    // later shutdown and arrives between those two lines reaches a stream that the server may still take; hyper resets
    // it at once. Nothing in the error tells, and the window is a few instructions wide.
    if error.is_remote() && (refused || error.is_go_away()) {
        return Reading::UNSENT;
    }
    Reading::Inside(error.get_io().map(|error| error as _))
}

#[cfg(feature = "reqwest")]
fn read_reqwest(error: &reqwest::Error) -> Reading<'_> {
    if let Some(status) = error.status() {
        Reading::Means(super::of_response(status, &http::HeaderMap::new()))
    } else if error.is_redirect() {
        Reading::Means(Outcome::Answered)
    } else if error.is_builder() {
        Reading::local(None)
    } else if error.is_body() || error.is_decode() || error.is_upgrade() {
        Reading::Means(Outcome::Ambiguous)
    } else {
        Reading::Inside(error.source())
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    const UNSENT: Outcome = Outcome::NotSent(NotSent::Transport);

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer<E: StdError + 'static>(#[source] E);

    #[test]
    fn only_the_making_of_a_connection_proves_by_its_kind_that_nothing_was_sent() {
        use io::ErrorKind::*;

        for kind in [ConnectionRefused, AddrNotAvailable, AddrInUse] {
            assert_eq!(of_error(&io::Error::from(kind)), UNSENT, "{kind:?}");
        }
        let ambiguous = [
            ConnectionReset,
            ConnectionAborted,
            NotConnected,
            BrokenPipe,
            HostUnreachable,
            NetworkUnreachable,
            NetworkDown,
            TimedOut,
            UnexpectedEof,
            WriteZero,
            Interrupted,
            InvalidData,
            NotFound,
            PermissionDenied,
            Other,
        ];
        for kind in ambiguous {
            assert_eq!(of_error(&io::Error::from(kind)), Outcome::Ambiguous, "{kind:?}");
        }
    }

    #[test]
    fn a_refused_connection_was_not_sent_however_deep_it_lies() {
        let error = Outer(Outer(io::Error::from(io::ErrorKind::ConnectionRefused)));
        assert_eq!(of_error(&error), UNSENT);
    }

    #[test]
    fn what_an_io_error_wraps_is_seen_although_its_source_skips_it() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(of_error(&io::Error::other(refused)), UNSENT);
        assert_eq!(of_error(&Outer(io::Error::other(Outer(NeverSent::new())))).name(), "held_back");
        assert_eq!(of_error(&io::Error::other("a text")), Outcome::Ambiguous);
    }

    #[test]
    fn a_local_refusal_says_when_to_come_back() {
        let retry_at = Instant::now();
        let outcome = of_error(&Outer(NeverSent::until(retry_at)));
        assert_eq!(outcome, Outcome::NotSent(NotSent::Local { retry_at: Some(retry_at) }));
    }

    #[test]
    fn a_shed_load_was_never_sent() {
        let outcome = of_error(&Outer(tower::load_shed::error::Overloaded::new()));
        assert_eq!(outcome, Outcome::NotSent(NotSent::Local { retry_at: None }));
    }

    #[test]
    fn an_error_that_is_its_own_source_ends() {
        #[derive(Debug)]
        struct Ouroboros;

        impl fmt::Display for Ouroboros {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("itself")
            }
        }

        impl StdError for Ouroboros {
            fn source(&self) -> Option<&(dyn StdError + 'static)> {
                Some(self)
            }
        }

        assert_eq!(of_error(&Ouroboros), Outcome::Ambiguous);
    }

    #[test]
    #[cfg(feature = "h2")]
    fn a_reason_that_nobody_sent_proves_nothing() {
        for reason in [h2::Reason::REFUSED_STREAM, h2::Reason::NO_ERROR, h2::Reason::HTTP_1_1_REQUIRED] {
            assert_eq!(of_error(&h2::Error::from(reason)), Outcome::Ambiguous, "{reason:?}");
        }
    }

    #[test]
    #[cfg(feature = "reqwest")]
    fn a_request_that_cannot_be_built_was_not_sent() {
        let error = reqwest::Client::new().get("not a url").build().unwrap_err();
        assert_eq!(of_error(&error), Outcome::NotSent(NotSent::Local { retry_at: None }));
    }
}
