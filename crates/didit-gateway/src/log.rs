//! The access log: one line for each request that was answered, whoever answered it, or that was refused unread.
//!
//! Those that went through the layers have lines of theirs before it, one for the call and one for each attempt
//! ([`tower_didit::telemetry`]). All are events of [`tracing`], so that they go where the rest of the log goes, and all
//! have the correlation id. They name the route by its template and never the path, the query, a header's value or a
//! body: paths hold ids, and all else may hold worse. `log.md` says what each has.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use didit_api::{EndpointId, Routes};
use http::{Method, Request, StatusCode};
use tokio::time::Instant;
use tower_didit::{call::CorrelationId, telemetry};

use crate::attempts::Sent;

/// The target of the lines, for filters.
pub(crate) const TARGET: &str = "didit_gateway::access";

/// The names that a call goes by.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) id: CorrelationId,
    pub(crate) routes: Arc<Routes>,
    /// `None` for a path that the routes do not have.
    pub(crate) endpoint: Option<EndpointId>,
    /// The session that the call is about, once it is known.
    pub(crate) session: Option<String>,
    /// The workflow that a creation asks for, once its body has gone by.
    pub(crate) workflow: Option<Arc<OnceLock<String>>>,
}

/// The line of a call, written when it is dropped: at the end of its answer, or when nobody is there to have one.
#[derive(Debug)]
pub(crate) struct CallLine {
    pub(crate) named: Named,
    pub(crate) method: Method,
    /// `None` until there is an answer.
    pub(crate) status: Option<StatusCode>,
    /// Who decided, if it was not the upstream.
    pub(crate) layer: Option<&'static str>,
    pub(crate) sent: Sent,
    pub(crate) began: Instant,
    /// Bytes of the answer's body.
    pub(crate) bytes: u64,
    /// Whether the answer was handed out to its end.
    pub(crate) complete: bool,
}

/// An error with all its sources, in one line.
pub(crate) struct Chain<'e>(pub(crate) &'e (dyn std::error::Error + 'static));

const UNKNOWN: &str = "unknown";

/// The route that creates sessions.
const CREATION: &str = "session-create";

/// The line of a request that nobody was asked about, because HTTP's own rules refuse it. What it was is not known.
pub(crate) fn refused(id: &CorrelationId, status: Option<StatusCode>, reason: &dyn fmt::Display) {
    tracing::info!(
        target: TARGET,
        correlation_id = id.as_str(),
        http.response.status_code = status.map(|status| status.as_u16()),
        layer = "gateway",
        reason = %reason,
        "refused",
    );
}

// ===== impl Named =====

impl Named {
    pub(crate) fn new<B>(id: CorrelationId, routes: &Arc<Routes>, request: &Request<B>) -> Self {
        let path = request.uri().path();
        let endpoint = routes.find(request.method(), path);
        let route = endpoint.map(|endpoint| routes.get(endpoint));
        let session = route.and_then(|route| telemetry::session_in_path(route.path(), path)).map(str::to_owned);
        let workflow = route.filter(|route| route.name() == CREATION).map(|_| Arc::default());
        Self { id, routes: Arc::clone(routes), endpoint, session, workflow }
    }

    /// Whether a session may come of the call.
    pub(crate) fn creates(&self) -> bool {
        self.workflow.is_some()
    }

    fn route(&self) -> &str {
        self.endpoint.map_or(UNKNOWN, |endpoint| self.routes.get(endpoint).path())
    }
}

// ===== impl CallLine =====

impl Drop for CallLine {
    fn drop(&mut self) {
        let Self { named, method, status, layer, sent, began, bytes, complete } = self;
        tracing::info!(
            target: TARGET,
            correlation_id = named.id.as_str(),
            http.request.method = method.as_str(),
            url.template = named.route(),
            http.response.status_code = status.map(|status| status.as_u16()),
            http.response.body.size = *bytes,
            complete = *complete,
            layer,
            attempts = sent.count(),
            duration_ms = began.elapsed().as_secs_f64() * 1_000.0,
            session_id = named.session,
            workflow_id = named.workflow.as_ref().and_then(|workflow| workflow.get()),
            "{}",
            if status.is_some() { "answered" } else { "cancelled" },
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
