//! How calls go, for whoever operates them: spans, log lines and metrics.
//!
//! # Why two layers
//!
//! A call is what the application makes, an attempt is one request on the wire, and a dashboard needs both: the success
//! rate of calls says what users see, that of attempts says how Didit fares, and the time in between is spent in queues
//! and backoffs that only the client knows of. [`TelemetryLayer`] stands around everything that a call does, just inside
//! of [correlation](crate::correlation), whose span it completes; [`TelemetryLayer::attempts`] stands around the attempt
//! timeout and the client, below every wait. A layer in between that hands the request on later, or to another task, as
//! tower's `Buffer` does, leaves the span as correlation made it; nothing tells it from that of another call there.
//!
//! Time is told in three parts that add up to the call's duration: *queue*, in this process before an attempt; *backoff*,
//! between attempts; *wire*, with an attempt under way.
//!
//! # What it costs
//!
//! Spans and events are those of `tracing`, metrics those of the [`metrics`] facade. Without a subscriber and a recorder
//! neither clock nor route table is asked. The handles of the metrics are made once, with the first recorder that is
//! installed when a call is made. The facade does not say whether there is one; its own, which records nothing, is known
//! by having no size, and so is any other that keeps everything in statics: it needs a field. What has no event, such as how full a quota is, is read on demand: [`Gauges`].
//!
//! # Traces
//!
//! Every attempt carries a `traceparent` ([W3C Trace Context], level 2) of its own: one trace id for the journey, a new
//! parent id each. The trace is that of the call's span if OpenTelemetry's layer keeps one (feature `opentelemetry`),
//! what the application put into the request, that of the request being served, or a new one. A new one has the
//! *sampled* flag if the span of its beginning is recorded here, since that is what the flag says; one that is continued
//! keeps its flag. `baggage` is never sent.
//!
//! # Example
//!
//! ```
//! use http::{Request, Response};
//! use tower::{ServiceBuilder, ServiceExt};
//! use tower_didit::telemetry::TelemetryLayer;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let telemetry = TelemetryLayer::didit();
//! let service = ServiceBuilder::new()
//!     .layer(telemetry.clone())
//!     // whatever waits and repeats stands here
//!     .layer(telemetry.attempts())
//!     .service_fn(|request: Request<()>| async move {
//!         assert!(request.headers().contains_key("traceparent"));
//!         Ok::<_, std::io::Error>(Response::new(()))
//!     });
//! service.oneshot(Request::get("/v3/sessions/").body(())?).await?;
//! # Ok(())
//! # }
//! ```
//!
//! [W3C Trace Context]: https://www.w3.org/TR/trace-context-2/
#![doc = include_str!("schema.md")]

mod attempt;
mod call;
mod found;
mod future;
mod gauges;
mod instruments;
mod layer;
pub mod names;
mod scan;
mod session;

use std::{
    borrow::Cow,
    error::Error as StdError,
    io,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use metrics::with_recorder;
use tower::Service;
use tracing::Span;

use self::{attempt::AttemptWatch, call::CallWatch, future::Watched, instruments::Shared, names::Kind};
pub use self::{
    found::session_in_path,
    future::{AttemptFuture, ResponseFuture},
    gauges::Gauges,
    layer::{AttemptLayer, TelemetryLayer},
    scan::IdScan,
    session::{SessionIdBody, SessionIdFuture, SessionIdLayer, SessionIds},
};
pub use crate::trace::TraceContext;
use crate::{
    call::current::{self, Scope},
    outcome::{Classify, DiditClassifier, Outcome},
};

/// Tells how calls went; see the [module](self).
#[derive(Clone, Debug)]
pub struct Telemetry<S, C = DiditClassifier> {
    inner: S,
    shared: Arc<Shared>,
    classifier: C,
}

// ===== impl Telemetry =====

impl<S, C> Telemetry<S, C> {
    inner_accessors!();
}

impl<S, C, B, RB> Service<Request<B>> for Telemetry<S, C>
where
    S: Service<Request<B>, Response = Response<RB>>,
    S::Error: StdError + 'static,
    C: Classify<S::Error> + Clone,
    B: 'static,
    RB: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut watch = CallWatch::begin(&self.shared, &request);
        let scope = Scope::enter(&request);
        let lent = watch.as_mut().map(|watch| current::lend_phases(&mut watch.phases));
        let inner = self.inner.call(request);
        drop(lent);
        ResponseFuture::new(scope.around(Watched::new(inner, watch, self.classifier.clone())))
    }
}

/// Tells how attempts went, and sends `traceparent` with each; see the [module](self).
#[derive(Clone, Debug)]
pub struct AttemptTelemetry<S, C = DiditClassifier> {
    inner: S,
    shared: Arc<Shared>,
    classifier: C,
}

// ===== impl AttemptTelemetry =====

impl<S, C> AttemptTelemetry<S, C> {
    inner_accessors!();
}

impl<S, C, B, RB> Service<Request<B>> for AttemptTelemetry<S, C>
where
    S: Service<Request<B>, Response = Response<RB>>,
    S::Error: StdError + 'static,
    C: Classify<S::Error> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = AttemptFuture<S::Future, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let watch = AttemptWatch::begin(&self.shared, &mut request);
        AttemptFuture::start(watch, self.classifier.clone(), || self.inner.call(request))
    }
}

// ===== What both layers say =====

/// Tells the installed recorder what each metric means. The layers do so with their first call and [`Gauges::record`]
/// each time; an application that renders its metrics before either may want to do so earlier.
pub fn describe() {
    with_recorder(|recorder| {
        for metric in names::METRICS {
            let (name, unit, text) = (metric.name.into(), Some(metric.unit), metric.description.into());
            match metric.kind {
                Kind::Counter => recorder.describe_counter(name, unit, text),
                Kind::Gauge => recorder.describe_gauge(name, unit, text),
                Kind::Histogram => recorder.describe_histogram(name, unit, text),
            }
        }
    });
}

/// Describes the metrics, and begins at 0 what an alert looks for the first of.
fn introduce() {
    describe();
    #[cfg(feature = "correlation")]
    instruments::counter(&names::IDS_REPLACED, &[], &[]).increment(0);
}

/// Counts an incoming id that was replaced.
#[cfg(feature = "correlation")]
pub(crate) fn count_replaced_id() {
    instruments::counter(&names::IDS_REPLACED, &[], &[]).increment(1);
}

/// Counts an answer that the server did not give to this call.
#[cfg(feature = "idempotency")]
fn count_provenance(provenance: crate::idempotency::Provenance) {
    use crate::idempotency::Provenance;

    let provenance = match provenance {
        Provenance::Replayed => "replayed",
        Provenance::Coalesced => "coalesced",
        Provenance::Adopted => "adopted",
    };
    let labels = [metrics::Label::new(names::PROVENANCE, provenance)];
    instruments::counter(&names::IDEMPOTENCY_ANSWERS, &labels, &[]).increment(1);
}

/// What a failure is called in `error.type`: a status, the kind of an I/O error, or the outcome; nothing for a success.
fn error_type<B, E: StdError + 'static>(result: &Result<Response<B>, E>, outcome: Outcome) -> Cow<'static, str> {
    let error = match result {
        Ok(response) if response.status().as_u16() >= 400 => return response.status().as_str().to_owned().into(),
        Ok(_) => return "".into(),
        Err(error) => error,
    };
    // The error of a layer of this process says more than what it was made of.
    if let Some(Some(by)) = current::with(|call| call.cut_off) {
        return by.into();
    }
    let mut source: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            let named = match error.kind() {
                io::ErrorKind::ConnectionRefused => "connection_refused",
                io::ErrorKind::ConnectionReset => "connection_reset",
                io::ErrorKind::ConnectionAborted => "connection_aborted",
                io::ErrorKind::BrokenPipe => "broken_pipe",
                io::ErrorKind::TimedOut => "timeout",
                io::ErrorKind::UnexpectedEof => "unexpected_eof",
                _ => "",
            };
            if !named.is_empty() {
                return named.into();
            }
        }
        source = error.source();
    }
    outcome.name().into()
}

/// Completes a span with what came of it.
fn record_ending(span: &Span, status: Option<u16>, error_type: &str) {
    if span.is_disabled() {
        return;
    }
    if let Some(status) = status {
        span.record("http.response.status_code", status);
    }
    if !error_type.is_empty() {
        span.record("error.type", error_type);
        span.record("otel.status_code", "ERROR");
    }
}

/// Milliseconds, to the microsecond.
fn millis(time: Duration) -> f64 {
    time.as_micros() as f64 / 1_000.0
}
