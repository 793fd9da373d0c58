//! An attempt that is watched.

use std::{fmt, ptr, sync::Arc};

use http::{HeaderValue, Method, Request, Response};
use tokio::time::Instant;
use tracing::{
    Span,
    field::{Empty, display},
};

use super::{
    instruments::{Ending, Series, Shared},
    millis,
};
use crate::{
    call::{
        CorrelationId, current,
        phases::{Phase, Phases},
    },
    method,
    outcome::Outcome,
    trace::{self, TraceContext},
};

/// An attempt under way. Dropped before its end, it was cancelled.
#[derive(Debug)]
pub(super) struct AttemptWatch {
    shared: Arc<Shared>,
    series: Series,
    span: Span,
    started: Instant,
    again: bool,
    ended: bool,
    // Where the phases of its call lie, if it is timed: what is dropped may be dropped while another call runs.
    phases: Option<usize>,
}

impl AttemptWatch {
    /// Gives a request its place in the trace, and watches what becomes of it if anybody wants to know.
    pub(super) fn begin<B>(shared: &Arc<Shared>, request: &mut Request<B>) -> Option<Box<Self>> {
        let resends = current::with(|call| {
            call.sent += 1;
            call.cut_off = None;
            call.sent - 1
        })
        .unwrap_or_default();
        let span = span(shared, request, resends);
        let (trace, written) = place(shared, request, &span);
        trace.write_to(request.headers_mut(), written);
        if !span.is_disabled() {
            span.record("span_id", display(trace.parent_id()));
        }
        let phases = current::with_phases(|phases| {
            phases.attempts += 1;
            address(phases)
        });
        if phases.is_none() && span.is_disabled() && shared.instruments().is_none() {
            return None;
        }
        let started = Instant::now();
        current::enter(Phase::Wire, Some(started));
        let (series, _) = shared.series(request.method(), request.uri().path());
        let (shared, again) = (Arc::clone(shared), resends > 0);
        Some(Box::new(Self { shared, series, span, started, again, ended: false, phases }))
    }

    /// The attempt's span; of an attempt that nobody watches, none.
    pub(super) fn span(watch: Option<&Self>) -> Option<tracing::span::Entered<'_>> {
        watch.map(|watch| watch.span.enter())
    }

    /// Notes what came of it.
    pub(super) fn end<RB, E>(&mut self, outcome: Outcome, result: &Result<Response<RB>, E>, error_type: &str) {
        let status = result.as_ref().ok().map(Response::status);
        self.conclude(Ending { outcome: Some(outcome), status }, error_type);
    }

    fn conclude(&mut self, ending: Ending, error_type: &str) {
        self.ended = true;
        let now = Instant::now();
        let wire = now.saturating_duration_since(self.started);
        current::with_phases(|phases| {
            if self.phases == Some(address(phases)) {
                phases.leave_wire(now);
            }
        });
        if let Some(instruments) = self.shared.instruments() {
            instruments.attempt_ended(self.series, &self.shared.routes, ending, wire, self.again);
        }
        let status = ending.status.map(|status| status.as_u16());
        super::record_ending(&self.span, status, error_type);
        // Entered, and not named as the parent: formatters list the spans around the current one.
        self.span.in_scope(|| {
            tracing::info!(
                outcome = ending.name(),
                http.response.status_code = status,
                error.type = (!error_type.is_empty()).then_some(error_type),
                wire_ms = millis(wire),
                "attempt ended",
            );
        });
    }
}

impl Drop for AttemptWatch {
    fn drop(&mut self) {
        if !self.ended {
            self.conclude(Ending::CANCELLED, super::names::CANCELLED);
        }
    }
}

/// What tells the phases of one call from those of another: they stay where they are as long as the call is under way.
fn address(phases: &Phases) -> usize {
    ptr::from_ref(phases).addr()
}

/// The span of an attempt, named and filled as OpenTelemetry's HTTP client conventions say.
fn span<B>(shared: &Shared, request: &Request<B>, resends: u32) -> Span {
    // The macro looks at no argument unless somebody listens.
    let template = || {
        let endpoint = shared.routes.find(request.method(), request.uri().path())?;
        Some(shared.routes.get(endpoint).path())
    };
    tracing::info_span!(
        "attempt",
        otel.name = display(Name { method: request.method(), template: template() }),
        otel.kind = "client",
        otel.status_code = Empty,
        http.request.method = method::name(request.method()),
        url.template = template(),
        server.address = request.uri().host(),
        server.port = request.uri().port_u16(),
        // Absent on the first, as the conventions have it.
        http.request.resend_count = (resends > 0).then_some(resends),
        correlation_id = current::with(|call| call.report.correlation_id.clone())
            .flatten()
            .as_ref()
            .map(CorrelationId::as_str),
        span_id = Empty,
        http.response.status_code = Empty,
        error.type = Empty,
    )
}

/// What OpenTelemetry calls an attempt's span: the method, or `HTTP` for one that has no name, and, if it is known, the
/// route.
struct Name<'r> {
    method: &'r Method,
    template: Option<&'r str>,
}

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let method = match method::name(self.method) {
            method::OTHER => "HTTP",
            known => known,
        };
        match self.template {
            Some(template) => write!(f, "{method} {template}"),
            None => f.write_str(method),
        }
    }
}

/// The place of an attempt in the trace: its span's where OpenTelemetry keeps one, otherwise a new one below the call,
/// below what the request carries, or in a new trace.
///
/// With it comes what it is written as, if that was made before.
fn place<B>(shared: &Shared, request: &mut Request<B>, span: &Span) -> (TraceContext, Option<HeaderValue>) {
    let random = &shared.random;
    let below_call = || current::with(|call| call.trace.as_ref().map(|trace| trace.child(random))).flatten();
    let (place, written) = match current::with(|call| call.first_place.take()).flatten() {
        Some((trace, written)) => (Some(trace), Some(written)),
        None => (below_call(), None),
    };
    // Of a call that correlation opened, it has taken out what must not go on.
    let carried = if place.is_none() { trace::take_out(request.headers_mut()) } else { None };
    if let Some(trace) = TraceContext::of_span(span) {
        return (trace, None);
    }
    if let Some(place) = place {
        return (place, written);
    }
    (carried.unwrap_or_else(|| TraceContext::root(random, !span.is_disabled())).child(random), None)
}
