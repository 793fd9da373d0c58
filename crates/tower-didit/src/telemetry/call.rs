//! A call that is watched: what it is about, what its time goes into, and what came of it.

use std::sync::Arc;

use didit_api::EndpointId;
use http::{Request, Response};
use tokio::time::Instant;
use tracing::Span;

use super::{
    found,
    instruments::{Ending, Series, Shared},
    millis, names,
};
use crate::{
    call::{current, phases::Phases},
    in_memory::in_memory,
    outcome::Outcome,
};

/// A call under way. Dropped before its end, it was cancelled.
#[derive(Debug)]
pub(super) struct CallWatch {
    pub(super) phases: Option<Box<Phases>>,
    shared: Arc<Shared>,
    series: Series,
    endpoint: Option<EndpointId>,
    // The one that is current, and whether that is this call's: another is not to be written into, be it the application's
    // or that of a call around this one.
    span: Span,
    is_own: bool,
    ended: bool,
}

impl CallWatch {
    /// Watches a call, if anybody wants to know.
    pub(super) fn begin<B: 'static>(shared: &Arc<Shared>, request: &Request<B>) -> Option<Box<Self>> {
        let logged = tracing::enabled!(tracing::Level::INFO);
        let instruments = shared.instruments();
        if !logged && instruments.is_none() {
            return None;
        }
        let (series, endpoint) = shared.series(request.method(), request.uri().path());
        if let Some(instruments) = instruments {
            instruments.begins(series, &shared.routes);
        }
        let span = if logged { Span::current() } else { Span::none() };
        let is_own = logged && current::claims_span(&span);
        if is_own {
            let template = endpoint.map(|id| shared.routes.get(id).path());
            if let Some(id) = template.and_then(|template| found::session_in_path(template, request.uri().path())) {
                span.record("session_id", id);
            }
            if let Some(id) = in_memory(request.body()).as_deref().and_then(found::workflow) {
                span.record("workflow_id", &*id);
            }
        }
        let phases = Some(Box::new(Phases::new(Instant::now())));
        Some(Box::new(Self { phases, shared: Arc::clone(shared), series, endpoint, span, is_own, ended: false }))
    }

    /// Notes what came of it.
    pub(super) fn end<RB: 'static, E>(&mut self, outcome: Outcome, result: &Result<Response<RB>, E>, error_type: &str) {
        let status = result.as_ref().ok().map(Response::status);
        if let Ok(response) = result {
            self.look_into(response);
        }
        self.conclude(Ending { outcome: Some(outcome), status }, error_type);
    }

    fn look_into<RB: 'static>(&self, response: &Response<RB>) {
        #[cfg(feature = "idempotency")]
        if let (Some(provenance), Some(_)) =
            (response.extensions().get::<crate::idempotency::Provenance>(), self.shared.instruments())
        {
            super::count_provenance(*provenance);
        }
        let creates = || self.endpoint.is_some_and(|id| self.shared.routes.get(id).name() == "session-create");
        if self.is_own
            && response.status().is_success()
            && creates()
            && let Some(id) = in_memory(response.body()).as_deref().and_then(found::session)
        {
            self.span.record("session_id", &*id);
        }
    }

    fn conclude(&mut self, ending: Ending, error_type: &str) {
        self.ended = true;
        let Some(phases) = self.phases.take() else { return };
        let (attempts, split) = (phases.attempts, phases.split(Instant::now()));
        if let Some(instruments) = self.shared.instruments() {
            instruments.call_ended(self.series, &self.shared.routes, ending, split);
        }
        let status = ending.status.map(|status| status.as_u16());
        if self.is_own {
            super::record_ending(&self.span, status, error_type);
        }
        // Entered, and not named as the parent: formatters list the spans around the current one.
        self.span.in_scope(|| {
            tracing::info!(
                outcome = ending.name(),
                http.response.status_code = status,
                error.type = (!error_type.is_empty()).then_some(error_type),
                attempts,
                queue_ms = millis(split.queue),
                backoff_ms = millis(split.backoff),
                wire_ms = millis(split.wire),
                "call ended",
            );
        });
    }
}

impl Drop for CallWatch {
    fn drop(&mut self) {
        if !self.ended {
            self.conclude(Ending::CANCELLED, names::CANCELLED);
        }
    }
}
