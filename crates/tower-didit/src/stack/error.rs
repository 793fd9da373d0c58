use std::{error::Error as StdError, fmt};

use tokio::time::Instant;

use super::ForeignHost;
use crate::{
    attempt_timeout,
    call::{CallReport, CorrelationId},
    circuit_breaker, deadline,
    error::{LayerError, Unseen},
    idempotency, pacing,
};

/// Why a call came to no response: what kind of failure, and how it came about.
///
/// # What it tells
///
/// `Display` and `Debug` say nothing of the request: no path, no query, no header. A client's error is named by its type
/// there, and is itself the [`source`](StdError::source), as the client made it. Those of hyper's clients name no URL;
/// reqwest's do, path and query included, unless the service around the client takes it out:
///
#[cfg_attr(feature = "reqwest", doc = "```")]
#[cfg_attr(not(feature = "reqwest"), doc = "```ignore")]
/// use http::{Request, Response};
/// use tower_didit::{DiditLayer, body::ReplayBody};
/// use tower::Layer;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
/// let client = tower::service_fn(move |request: Request<ReplayBody<reqwest::Body>>| {
///     let request = reqwest::Request::try_from(request.map(reqwest::Body::wrap));
///     let client = client.clone();
///     async move {
///         let response = client.execute(request?).await.map_err(reqwest::Error::without_url)?;
///         Ok::<_, reqwest::Error>(Response::<reqwest::Body>::from(response))
///     }
/// });
/// let didit = DiditLayer::builder().api_key("secret").build()?.layer(client);
/// # let _ = didit;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Error<E> {
    kind: ErrorKind<E>,
    // Boxed, because an error is moved often and read once.
    report: Option<Box<CallReport>>,
}

/// All the ways in which a call can come to no response, so that an application matches once.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind<E> {
    /// The request names another host.
    #[error(transparent)]
    ForeignHost(ForeignHost),
    /// Another call has this one's name, or had it: with an idempotency store only.
    #[error(transparent)]
    Idempotency(idempotency::Refused),
    /// The call's total time ran out.
    #[error(transparent)]
    Deadline(deadline::Elapsed),
    /// The circuit of the service group is open.
    #[error(transparent)]
    CircuitOpen(circuit_breaker::Open),
    /// The quota lets the call start only after its deadline.
    #[error(transparent)]
    Quota(pacing::Refused),
    /// The last attempt was not answered in time.
    #[error(transparent)]
    AttemptTimeout(attempt_timeout::Elapsed),
    /// The client failed.
    #[error("the client failed")]
    Client(#[source] E),
}

// ===== impl Error =====

impl<E> Error<E> {
    pub(super) fn new(kind: ErrorKind<E>, report: Option<CallReport>) -> Self {
        Self { kind, report: report.map(Box::new) }
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> &ErrorKind<E> {
        &self.kind
    }

    /// What kind of failure it is, owned.
    pub fn into_kind(self) -> ErrorKind<E> {
        self.kind
    }

    /// How it came about; `None` if the call never began.
    pub fn report(&self) -> Option<&CallReport> {
        self.report.as_deref()
    }

    /// The name of the journey that the call belongs to.
    pub fn correlation_id(&self) -> Option<&CorrelationId> {
        self.report()?.correlation_id()
    }

    /// When to come back, if a layer refused the call and knows.
    pub fn retry_at(&self) -> Option<Instant> {
        match &self.kind {
            ErrorKind::CircuitOpen(open) => open.retry_at(),
            ErrorKind::Quota(refused) => Some(refused.retry_at()),
            _ => None,
        }
    }
}

impl<E: StdError + 'static> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl<E: StdError + 'static> StdError for Error<E> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.kind.source()
    }
}

// ===== impl ErrorKind =====

/// The client's error is shown by its type only.
impl<E> fmt::Debug for ErrorKind<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, what): (_, &dyn fmt::Debug) = match self {
            Self::ForeignHost(error) => ("ForeignHost", error),
            Self::Idempotency(error) => ("Idempotency", error),
            Self::Deadline(error) => ("Deadline", error),
            Self::CircuitOpen(error) => ("CircuitOpen", error),
            Self::Quota(error) => ("Quota", error),
            Self::AttemptTimeout(error) => ("AttemptTimeout", error),
            Self::Client(_) => ("Client", &Unseen::<E>::NEW),
        };
        f.debug_tuple(name).field(what).finish()
    }
}

/// The errors of the layers, as they lie in one another.
type Nested<E> =
    deadline::Error<circuit_breaker::Error<pacing::Error<circuit_breaker::Error<attempt_timeout::Error<E>>>>>;

/// What the layers return as an error, one inside the other.
///
/// Implemented for the layers of a stack, with and without a store.
pub trait Flatten {
    /// The error of the client inside.
    type Client;

    /// The one error that it is.
    fn flatten(self) -> ErrorKind<Self::Client>;
}

impl<E> Flatten for LayerError<idempotency::Refused, Nested<E>> {
    type Client = E;

    fn flatten(self) -> ErrorKind<E> {
        match self {
            Self::Layer(refused) => ErrorKind::Idempotency(refused),
            Self::Inner(inner) => inner.flatten(),
        }
    }
}

impl<E> Flatten for Nested<E> {
    type Client = E;

    fn flatten(self) -> ErrorKind<E> {
        let error = match self {
            LayerError::Layer(elapsed) => return ErrorKind::Deadline(elapsed),
            LayerError::Inner(inner) => inner,
        };
        let error = match error {
            LayerError::Layer(open) => return ErrorKind::CircuitOpen(open),
            LayerError::Inner(inner) => inner,
        };
        let error = match error {
            LayerError::Layer(refused) => return ErrorKind::Quota(refused),
            LayerError::Inner(inner) => inner,
        };
        let error = match error {
            LayerError::Layer(open) => return ErrorKind::CircuitOpen(open),
            LayerError::Inner(inner) => inner,
        };
        match error {
            LayerError::Layer(elapsed) => ErrorKind::AttemptTimeout(elapsed),
            LayerError::Inner(inner) => ErrorKind::Client(inner),
        }
    }
}
