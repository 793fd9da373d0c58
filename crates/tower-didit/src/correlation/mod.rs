//! One name for a user's journey, on every hop and in every log line.
//!
//! # Why two layers
//!
//! [`InboundCorrelationLayer`] goes around a server (axum, tonic): it takes the id that came in, or makes one, keeps it
//! for everything that runs while the request is answered, and hands it back in the response. [`CorrelationLayer`]
//! goes around a client: it sends that id out. Nothing has to be passed by hand in between.
//!
//! A request is answered when the head of its response is there. The body of a response is polled by the server, outside
//! of the journey and of its span: a body that streams, and calls or logs while it does, takes the journey along with
//! [`InCorrelation`] or [`scope`].
//!
//! The id of an outgoing call is the first of: [`CallOptions::correlation_id`], the request's own header if it is
//! valid, the id of the request being served ([`current`]), a new UUIDv7.
//!
//! An id from outside is taken only if it is at most [`CorrelationId::MAX_LEN`] bytes of a small alphabet; anything else
//! is replaced, so that nobody forges log lines through it.
//!
//! # Traces
//!
//! Beside the id goes the trace, as W3C Trace Context (level 2) carries it: [`InboundCorrelationLayer`] takes
//! `traceparent` and `tracestate` in, or begins a trace; [`CorrelationLayer`] sends them out with a parent id of its own.
//! The id is what people search for and may be anything; the trace id is what tracing systems join by. A header that is not
//! valid counts as absent, `tracestate` is kept within 512 characters, and `baggage` is taken out of what is sent: it is
//! this application's business. A trace that begins here has the *sampled* flag if the span of its beginning is recorded.
//! With the feature `opentelemetry` the ids are those that OpenTelemetry's layer gives the spans.
//!
//! # Tasks
//!
//! A spawned task serves no journey unless it is taken along: [`spawn`] instead of `tokio::spawn`, or
//! [`InCorrelation::in_correlation`] for any other way to hand a future on. Both carry id, trace and span.
//!
//! # Example
//!
//! ```
//! use http::{Request, Response};
//! use tower::{ServiceBuilder, ServiceExt};
//! use tower_didit::correlation::{self, CorrelationLayer, InboundCorrelationLayer};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A client that shows what it was sent.
//! let client = ServiceBuilder::new().layer(CorrelationLayer::new()).service_fn(|request: Request<()>| async move {
//!     let id = request.headers().get("x-correlation-id").cloned();
//!     Ok::<_, std::convert::Infallible>(Response::new(id))
//! });
//! // A handler that calls it, without naming the id.
//! let server = ServiceBuilder::new()
//!     .layer(InboundCorrelationLayer::new())
//!     .service_fn(move |_: Request<()>| client.clone().oneshot(Request::new(())));
//!
//! let request = Request::builder().header("x-correlation-id", "order-7").body(())?;
//! let response = server.oneshot(request).await?;
//! assert_eq!(response.headers()["x-correlation-id"], "order-7");
//! assert_eq!(response.into_body().ok_or("no id went out")?, "order-7");
//! # Ok(())
//! # }
//! ```
//!
//! # Differences from tower-http's request ids
//!
//! An incoming id is checked; the id reaches outgoing calls by itself; it names a journey, so it stays the same over
//! all attempts of a call.

mod context;
mod future;
mod inbound;
mod layer;

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use didit_api::Routes;
use http::{HeaderName, Method, Request, Response};
use tower::Service;
use tracing::{
    Span,
    field::{Empty, display},
};

#[cfg(feature = "webhook")]
pub(crate) use self::context::unlogged_scope;
pub use self::{
    context::{Carried, InCorrelation, current, current_trace, scope, spawn},
    future::ResponseFuture,
    inbound::{InboundCorrelation, InboundCorrelationLayer, InboundResponseFuture, receive},
    layer::CorrelationLayer,
};
pub use crate::{call::CorrelationId, trace::TraceContext};
use crate::{
    call::{
        CallOptions,
        current::{self as call, Scope},
    },
    ids::Names,
    method,
    random::Randomness,
    trace,
};

/// The header that carries the id unless a layer is told otherwise.
pub const HEADER: HeaderName = HeaderName::from_static("x-correlation-id");

/// Sends the id out with every call and opens the call's span; see the [module](self).
#[derive(Clone, Debug)]
pub struct Correlation<S> {
    inner: S,
    header: HeaderName,
    routes: Arc<Routes>,
    random: Randomness,
    attempts_traced: bool,
    calls_keyed: bool,
}

// ===== impl Correlation =====

impl<S> Correlation<S> {
    /// Wraps a service.
    pub fn new(inner: S, layer: &CorrelationLayer) -> Self {
        let CorrelationLayer { header, routes, random, attempts_traced, calls_keyed } = layer.clone();
        Self { inner, header, routes, random, attempts_traced, calls_keyed }
    }

    inner_accessors!();

    /// The id of a call: what the caller says, what the request carries, what is being served. If there is none, it gets a
    /// new one.
    fn known_id<B>(&self, request: &Request<B>) -> Option<CorrelationId> {
        let options = request.extensions().get::<CallOptions>();
        if let Some(id) = options.and_then(|options| options.correlation_id.clone()) {
            return Some(id);
        }
        valid(request.headers().get(&self.header)).or_else(current)
    }

    /// The span of a logical call, named and filled as OpenTelemetry's HTTP client conventions say.
    fn span<'i, B>(&self, request: &Request<B>, id: impl FnOnce() -> &'i str) -> Span {
        // The macro looks at no argument unless somebody listens.
        tracing::info_span!(
            "call",
            otel.kind = if self.attempts_traced { "internal" } else { "client" },
            otel.status_code = Empty,
            http.request.method = method::name(request.method()),
            url.template = self
                .routes
                .find(request.method(), request.uri().path())
                .map(|endpoint| self.routes.get(endpoint).path()),
            server.address = request.uri().host(),
            correlation_id = id(),
            trace_id = Empty,
            session_id = Empty,
            workflow_id = Empty,
            http.response.status_code = Empty,
            error.type = Empty,
        )
    }

    /// The trace of a call: that of its span where OpenTelemetry keeps one, what the application put into the request, the
    /// trace being served, or a new one that is sampled if its beginning is recorded here.
    fn trace_of<B>(&self, request: &mut Request<B>, span: &Span) -> TraceContext {
        let own = trace::take_out(request.headers_mut());
        let trace = TraceContext::of_span(span).or(own).or_else(current_trace);
        let trace = trace.unwrap_or_else(|| TraceContext::root(&self.random, !span.is_disabled()));
        if !span.is_disabled() {
            span.record("trace_id", display(trace.trace_id()));
        }
        trace
    }
}

impl<S, B, RB> Service<Request<B>> for Correlation<S>
where
    S: Service<Request<B>, Response = Response<RB>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let known = self.known_id(&request);
        let is_keyed = self.calls_keyed && matches!(*request.method(), Method::POST | Method::PATCH);
        let names = Names::draw(&self.random, known.is_none(), is_keyed);
        let span = self.span(&request, || known.as_ref().map_or_else(|| names.id(), CorrelationId::as_str));
        let trace = self.trace_of(&mut request, &span);
        let first = trace.child(&self.random);
        let names = names.share(&first);
        let id = known.unwrap_or_else(|| CorrelationId::trusted(names.id()));
        request.headers_mut().insert(self.header.clone(), id.to_header());
        if !self.attempts_traced {
            first.write_to(request.headers_mut(), Some(names.traceparent()));
        }
        let (entered, scope) = (span.enter(), Scope::enter(&request));
        call::with(|call| {
            call.report.correlation_id.get_or_insert(id);
            if self.attempts_traced && call.trace.is_none() {
                call.first_place = Some((first, names.traceparent()));
            }
            call.trace.get_or_insert(trace);
            call.spare_key = is_keyed.then(|| names.key());
        });
        // For as long as the request goes in: what the client asks on its way, of a token service say, is not the call's.
        call::offer_span(Some(&span));
        let inner = self.inner.call(request);
        call::offer_span(None);
        drop(entered);
        ResponseFuture::new(scope.around(inner), span)
    }
}

/// Takes an id from a header, if it is one.
fn valid(header: Option<&http::HeaderValue>) -> Option<CorrelationId> {
    CorrelationId::try_from(header?.clone()).ok()
}
