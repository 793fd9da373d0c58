//! The access log: one line for each call, and one for each attempt.
//!
//! The lines are events of [`tracing`], so that they go where the rest of the log goes. They name the route by its
//! template and never the path, the query, a header's value or a body: paths hold ids, and all else may hold worse.

use std::{fmt, sync::Arc};

use didit_api::{EndpointId, Routes};
use http::{Method, Request, StatusCode};
use tokio::time::Instant;
use tower_didit::call::CorrelationId;

/// The target of the lines, for filters.
pub(crate) const TARGET: &str = "didit_gateway::access";

/// What the lines of a call and of its attempts have in common; in the extensions of the call's request.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) id: CorrelationId,
    pub(crate) routes: Arc<Routes>,
    /// `None` for a path that the routes do not have.
    pub(crate) endpoint: Option<EndpointId>,
}

/// The line of a call, written when it is dropped: at the end of its answer.
#[derive(Debug)]
pub(crate) struct CallLine {
    pub(crate) named: Named,
    pub(crate) method: Method,
    pub(crate) status: StatusCode,
    /// Who decided, if it was not the upstream.
    pub(crate) layer: Option<&'static str>,
    pub(crate) attempts: u32,
    pub(crate) began: Instant,
    /// Bytes of the answer's body.
    pub(crate) bytes: u64,
    /// Whether the answer was handed out to its end.
    pub(crate) complete: bool,
}

/// The line of an attempt, written when it ends or is given up.
#[derive(Debug)]
pub(crate) struct AttemptLine {
    named: Option<Named>,
    method: Method,
    number: u32,
    began: Instant,
    outcome: Option<Result<StatusCode, String>>,
}

/// An error with all its sources, in one line.
pub(crate) struct Chain<'e>(pub(crate) &'e (dyn std::error::Error + 'static));

const UNKNOWN: &str = "unknown";

// ===== impl Named =====

impl Named {
    fn route(&self) -> &str {
        self.endpoint.map_or(UNKNOWN, |endpoint| self.routes.get(endpoint).path())
    }
}

// ===== impl CallLine =====

impl Drop for CallLine {
    fn drop(&mut self) {
        let Self { named, method, status, layer, attempts, began, bytes, complete } = self;
        tracing::info!(
            target: TARGET,
            kind = "call",
            correlation_id = named.id.as_str(),
            http.request.method = method.as_str(),
            url.template = named.route(),
            http.response.status_code = status.as_u16(),
            http.response.body.size = *bytes,
            complete = *complete,
            layer,
            attempts,
            duration_ms = milliseconds(*began),
        );
    }
}

// ===== impl AttemptLine =====

impl AttemptLine {
    pub(crate) fn new<B>(number: u32, request: &Request<B>) -> Self {
        let named = request.extensions().get::<Named>().cloned();
        Self { named, method: request.method().clone(), number, began: Instant::now(), outcome: None }
    }

    pub(crate) fn ended<E: std::error::Error + 'static>(mut self, result: Result<StatusCode, &E>) {
        self.outcome = Some(result.map_err(|error| Chain(error).to_string()));
    }
}

impl Drop for AttemptLine {
    fn drop(&mut self) {
        let Self { named, method, number, began, outcome } = self;
        let (status, error) = match outcome {
            Some(Ok(status)) => (Some(status.as_u16()), None),
            Some(Err(error)) => (None, Some(error.as_str())),
            None => (None, Some("given up before it was answered")),
        };
        tracing::info!(
            target: TARGET,
            kind = "attempt",
            correlation_id = named.as_ref().map(|named| named.id.as_str()),
            http.request.method = method.as_str(),
            url.template = named.as_ref().map_or(UNKNOWN, Named::route),
            http.response.status_code = status,
            error,
            attempt = *number,
            duration_ms = milliseconds(*began),
        );
    }
}

// ===== impl Chain =====

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// More than real errors have.
        const MOST: usize = 16;

        write!(f, "{}", self.0)?;
        let sources = std::iter::successors(self.0.source(), |error| error.source());
        sources.take(MOST).try_for_each(|source| write!(f, ": {source}"))
    }
}

fn milliseconds(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1_000.0
}
