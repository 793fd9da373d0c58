//! The server's side: takes the id in, keeps it for the task, hands it back.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{HeaderName, HeaderValue, Request, Response};
use pin_project_lite::pin_project;
use tower::{Layer, Service};
use tracing::{
    Instrument, Span,
    field::{Empty, display},
    instrument::Instrumented,
};

use super::{CorrelationId, HEADER, TraceContext, context, context::Journey, valid};
use crate::{ids, method, random::Randomness};

/// Takes the correlation id and the trace of incoming requests; see the [module](super).
///
/// Works around any HTTP server that takes tower layers: axum's `Router::layer`, tonic's `Server::layer`.
#[derive(Clone, Debug)]
pub struct InboundCorrelationLayer {
    header: HeaderName,
    random: Randomness,
}

impl InboundCorrelationLayer {
    /// Reads and answers with [`HEADER`].
    pub fn new() -> Self {
        Self { header: HEADER, random: Randomness::new() }
    }

    /// Reads and answers with another header.
    #[must_use]
    pub fn header(mut self, name: HeaderName) -> Self {
        self.header = name;
        self
    }

    /// Makes new ids from another source of randomness.
    #[must_use]
    pub fn randomness(mut self, random: Randomness) -> Self {
        self.random = random;
        self
    }
}

impl Default for InboundCorrelationLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for InboundCorrelationLayer {
    type Service = InboundCorrelation<S>;

    fn layer(&self, inner: S) -> Self::Service {
        InboundCorrelation { inner, layer: self.clone() }
    }
}

/// Serves every request under its correlation id; see the [module](super).
#[derive(Clone, Debug)]
pub struct InboundCorrelation<S> {
    inner: S,
    layer: InboundCorrelationLayer,
}

// ===== impl InboundCorrelation =====

impl<S> InboundCorrelation<S> {
    inner_accessors!();

    /// The trace of a request: the one it brings, or a new one that is sampled if its beginning is recorded here.
    fn trace_of<B>(&self, request: &Request<B>, span: &Span) -> TraceContext {
        let random = &self.layer.random;
        let brought = TraceContext::from_headers(request.headers());
        if let Some(brought) = &brought {
            brought.adopt(span);
        }
        let trace = TraceContext::of_span(span)
            .or(brought)
            .unwrap_or_else(|| TraceContext::root(random, !span.is_disabled()).child(random));
        if !span.is_disabled() {
            span.record("trace_id", display(trace.trace_id()));
        }
        trace
    }
}

impl<S, B, RB> Service<Request<B>> for InboundCorrelation<S>
where
    S: Service<Request<B>, Response = Response<RB>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = InboundResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let received = request.headers().get(&self.layer.header);
        // Begun with the span, so that a line about a replaced id has it too.
        let mut trace = None;
        let (id, span) = receive(received, &self.layer.random, |id| {
            let span = tracing::info_span!(
                "request",
                otel.kind = "server",
                http.request.method = method::name(request.method()),
                correlation_id = id.as_str(),
                trace_id = Empty,
                session_id = Empty,
                http.response.status_code = Empty,
            );
            trace = Some(self.trace_of(&request, &span));
            span
        });
        // Whoever reads the header further in sees what is logged.
        request.headers_mut().insert(self.layer.header.clone(), id.to_header());
        let entered = span.clone().entered();
        let inner = context::enter(Journey { id: id.clone(), trace }, || self.inner.call(request));
        drop(entered);
        InboundResponseFuture { inner: inner.instrument(span), id, header: self.layer.header.clone() }
    }
}

/// The id that a request is served under, and its span: the id that the request brought if it can be used, or a new one.
///
/// One that cannot be used is counted, and a line within the span says that it was replaced, without repeating it. For
/// servers that are no tower service; [`InboundCorrelationLayer`] does the same.
pub fn receive(
    received: Option<&HeaderValue>,
    random: &Randomness,
    span: impl FnOnce(&CorrelationId) -> Span,
) -> (CorrelationId, Span) {
    if let Some(id) = valid(received) {
        let span = span(&id);
        return (id, span);
    }
    let id = CorrelationId::trusted(ids::new_id(random));
    let span = span(&id);
    if received.is_some() {
        #[cfg(feature = "telemetry")]
        crate::telemetry::count_replaced_id();
        // Entered, and not named as the parent: formatters list the spans around the current one.
        span.in_scope(|| {
            tracing::warn!(correlation_id = id.as_str(), "the incoming correlation id is not usable and was replaced");
        });
    }
    (id, span)
}

pin_project! {
    /// The response of [`InboundCorrelation`], on the journey and inside the request's span: when it is dropped, too.
    #[derive(Debug)]
    pub struct InboundResponseFuture<F> {
        #[pin]
        inner: Instrumented<context::Scoped<F>>,
        id: CorrelationId,
        header: HeaderName,
    }
}

impl<F, B, E> Future for InboundResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let result = ready!(this.inner.as_mut().poll(cx));
        Poll::Ready(result.map(|mut response| {
            this.inner.span().record("http.response.status_code", response.status().as_u16());
            response.headers_mut().insert(this.header.clone(), this.id.to_header());
            response
        }))
    }
}
