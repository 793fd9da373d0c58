//! The id of a session that was just created, found in the answer while it streams by.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Buf;
use didit_api::Routes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower::{Layer, Service};
use tracing::{Level, Span};

use super::IdScan;

/// Tells which session was created.
///
/// A session has no id before it is created, so nothing that is logged about its creation can name it, until the answer's
/// body is read. This layer reads along: as the application reads the body of a session creation, its `session_id` is
/// recorded in the span that the call was made in, and an event says so. The body is passed on piece by piece; nothing
/// is buffered, kept or waited for, and without a subscriber nothing is looked at.
///
/// It is not part of [`DiditLayer`](crate::DiditLayer), because it changes the type of the response's body. Around the
/// whole stack, it tells the span of the request being served; just inside of correlation, that of the call. A body that
/// lies in memory is looked into by [`TelemetryLayer`](super::TelemetryLayer) already.
///
/// # Example
///
/// ```
/// use tower::ServiceBuilder;
/// use tower_didit::{correlation::CorrelationLayer, telemetry::SessionIdLayer};
/// # async fn client(_: http::Request<()>) -> Result<http::Response<String>, std::convert::Infallible> {
/// #     Ok(http::Response::new(String::new()))
/// # }
///
/// let service = ServiceBuilder::new()
///     .layer(CorrelationLayer::new())
///     .layer(SessionIdLayer::didit())
///     .service_fn(client);
/// ```
#[derive(Clone, Debug)]
pub struct SessionIdLayer {
    routes: Arc<Routes>,
}

impl SessionIdLayer {
    /// Knows session creation by Didit's routes.
    pub fn didit() -> Self {
        Self::new(Routes::didit())
    }

    /// Knows session creation by the route `session-create` of this table.
    pub fn new(routes: Arc<Routes>) -> Self {
        Self { routes }
    }
}

impl<S> Layer<S> for SessionIdLayer {
    type Service = SessionIds<S>;

    fn layer(&self, inner: S) -> Self::Service {
        SessionIds { inner, routes: Arc::clone(&self.routes) }
    }
}

/// Tells which session was created; see [`SessionIdLayer`].
#[derive(Clone, Debug)]
pub struct SessionIds<S> {
    inner: S,
    routes: Arc<Routes>,
}

// ===== impl SessionIds =====

impl<S> SessionIds<S> {
    inner_accessors!();
}

impl<S, B, RB> Service<Request<B>> for SessionIds<S>
where
    S: Service<Request<B>, Response = Response<RB>>,
{
    type Response = Response<SessionIdBody<RB>>;
    type Error = S::Error;
    type Future = SessionIdFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let creates = || {
            let route = self.routes.find(request.method(), request.uri().path());
            route.is_some_and(|id| self.routes.get(id).name() == "session-create")
        };
        let span = (tracing::enabled!(Level::INFO) && creates()).then(Span::current);
        SessionIdFuture { inner: self.inner.call(request), span }
    }
}

pin_project! {
    /// The response of [`SessionIds`].
    #[derive(Debug)]
    pub struct SessionIdFuture<F> {
        #[pin]
        inner: F,
        // The span that is told, if this is a session creation.
        span: Option<Span>,
    }
}

impl<F, B, E> Future for SessionIdFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<SessionIdBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.inner.poll(cx))?;
        let span = this.span.take().filter(|_| response.status().is_success());
        let reading = span.map(|span| Reading { span, scan: IdScan::session() });
        Poll::Ready(Ok(response.map(|inner| SessionIdBody { inner, reading })))
    }
}

pin_project! {
    /// The body of a response, and who wants to know the session in it.
    #[derive(Debug)]
    pub struct SessionIdBody<B> {
        #[pin]
        inner: B,
        // `None` once the id is known, or will not come.
        reading: Option<Reading>,
    }
}

impl<B: Body> Body for SessionIdBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let frame = ready!(this.inner.poll_frame(cx));
        if let (Some(reading), Some(Ok(frame))) = (this.reading.as_mut(), &frame) {
            // The first piece of a frame is nearly always all of it.
            if frame.data_ref().is_some_and(|data| reading.is_over_after(data.chunk())) {
                *this.reading = None;
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[derive(Debug)]
struct Reading {
    span: Span,
    scan: IdScan,
}

impl Reading {
    fn is_over_after(&mut self, data: &[u8]) -> bool {
        let Some(id) = self.scan.feed(data) else { return self.scan.is_over() };
        self.span.record("session_id", id);
        self.span.in_scope(|| tracing::info!(session_id = id, "session known"));
        true
    }
}
