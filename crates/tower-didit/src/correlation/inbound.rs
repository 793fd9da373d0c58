//! The server's side: takes the id in, keeps it for the task, hands it back.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{HeaderName, Request, Response};
use pin_project_lite::pin_project;
use tower::{Layer, Service};
use tracing::Span;

use super::{CorrelationId, HEADER, context, valid};
use crate::{ids, random::Randomness};

/// Takes the correlation id of incoming requests; see the [module](super).
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
        let (id, replaced) = match valid(received) {
            Some(id) => (id, false),
            None => (CorrelationId::trusted(ids::new_id(&self.layer.random)), received.is_some()),
        };
        let span = tracing::info_span!(
            "request",
            otel.kind = "server",
            http.request.method = request.method().as_str(),
            correlation_id = id.as_str(),
        );
        if replaced {
            tracing::warn!(parent: &span, "the incoming correlation id is not usable and was replaced");
        }
        // Whoever reads the header further in sees what is logged.
        request.headers_mut().insert(self.layer.header.clone(), id.to_header());
        let entered = span.clone().entered();
        let inner = context::enter(id.clone(), || self.inner.call(request));
        drop(entered);
        InboundResponseFuture { inner, span, id, header: self.layer.header.clone() }
    }
}

pin_project! {
    /// The response of [`InboundCorrelation`].
    #[derive(Debug)]
    pub struct InboundResponseFuture<F> {
        #[pin]
        inner: context::Scoped<F>,
        span: Span,
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
        let this = self.project();
        let _entered = this.span.enter();
        let result = ready!(this.inner.poll(cx));
        Poll::Ready(result.map(|mut response| {
            response.headers_mut().insert(this.header.clone(), this.id.to_header());
            response
        }))
    }
}
