//! Which journey a session belongs to, so that its webhooks are logged under the id of the request that began it.
//!
//! A webhook comes hours after the request that made its session, in another process perhaps, and says nothing of it but
//! what Didit was told. [`JourneyLayer`] goes around the client and does two things when a session is created:
//!
//! - the correlation id is **kept** in the [inbox](super::inbox) for the `session_id` in the answer;
//! - if [asked to](JourneyLayer::stamp), the id is **stamped** into the request: `metadata.correlation_id`, and
//!   `metadata.operation_id` if the caller named the [operation](CallOptions::operation_id).
//!
//! An answer is kept when it was read to its end, which is held back until then. One that nobody reads is not kept.
//!
//! A webhook is handled under the id that was kept; else under the one that was stamped, if it is [valid](CorrelationId);
//! else under a new one.
//!
//! # Sessions that are handed out again
//!
//! With the same `vendor_data`, Didit returns an unfinished session again and **replaces its metadata**. The stamp of the
//! request that began it is lost from the session and from its webhooks. What was kept is not: the first id counts, the
//! second request's log line names it, and the webhook's line names the second as `latest_correlation_id`. If
//! nothing was kept (another process without the inbox, or longer ago than [it keeps](super::inbox::Capacity::journeys)),
//! the webhook is handled under the latest id.
//!
//! # Stamping
//!
//! Only a JSON object that lies in memory is stamped, and only its `metadata`: if that is missing, null or an object
//! without these keys. Whatever else is in the body keeps its bytes. Any other `metadata` stays as it is.
//!
//! # Where it stands
//!
//! Around the whole stack, or between idempotency and deadline in a stack put together by hand. Around the stack, a call
//! with an operation id gets no correlation id stamped: the idempotency key is made of the body, and a correlation id
//! would make another key of every repetition.
//!
//! # Example
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::{BodyExt, Full};
//! use tower::{ServiceBuilder, ServiceExt};
//! use tower_didit::webhook::{inbox::MemoryInbox, journey::JourneyLayer};
//!
//! let client = ServiceBuilder::new()
//!     .layer(JourneyLayer::new(MemoryInbox::new()).stamp(true))
//!     .service_fn(async |request: Request<Full<Bytes>>| Ok::<_, std::convert::Infallible>(Response::new(request.into_body())));
//!
//! let request = Request::post("/v3/session/")
//!     .header("x-correlation-id", "order-7")
//!     .body(Full::from(r#"{"workflow_id":"w", "vendor_data":"user-7"}"#))?;
//! let sent = client.oneshot(request).await?.into_body().collect().await?.to_bytes();
//! assert_eq!(sent, r#"{"workflow_id":"w","vendor_data":"user-7","metadata":{"correlation_id":"order-7"}}"#);
//! # Ok(())
//! # }
//! ```

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use didit_api::Routes;
use http::{HeaderName, HeaderValue, Request, Response, header};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use serde::Deserialize;
use serde_json::{
    Value,
    value::{RawValue, to_raw_value},
};
use tower::{Layer, Service};

use super::inbox::{Inbox, InboxFuture};
use crate::{
    call::{CallOptions, CorrelationId, OperationId, current as call},
    correlation, payload,
    timestamp::Clock,
};

mod object;

use self::object::Object;

/// Keeps, and stamps, the journeys of sessions; see the [module](self).
#[derive(Clone, Debug)]
pub struct JourneyLayer {
    inbox: Arc<dyn Inbox>,
    header: HeaderName,
    routes: Arc<Routes>,
    stamp: bool,
    clock: Clock,
}

/// Keeps, and stamps, the journeys of sessions; see the [module](self).
#[derive(Clone, Debug)]
pub struct Journeys<S> {
    inner: S,
    layer: JourneyLayer,
}

/// The route that makes sessions.
const CREATE: &str = "session-create";

/// The keys in `metadata`. The second is what reconciliation looks for.
const CORRELATION_ID: &str = "correlation_id";
const OPERATION_ID: &str = "operation_id";

/// The longest answer that a `session_id` is looked for in: 64 KiB. A created session has some hundred bytes.
const LONGEST_ANSWER: usize = 64 * 1024;

// ===== impl JourneyLayer =====

impl JourneyLayer {
    /// Keeps the ids of created sessions in the inbox that their webhooks will come into.
    pub fn new(inbox: impl Inbox) -> Self {
        let (routes, clock) = (Routes::didit(), Clock::start());
        Self { inbox: Arc::new(inbox), header: correlation::HEADER, routes, stamp: false, clock }
    }

    /// Stamps the ids into the `metadata` of created sessions. Off by default: it is Didit's copy of the caller's data.
    #[must_use]
    pub fn stamp(mut self, stamp: bool) -> Self {
        self.stamp = stamp;
        self
    }

    /// Reads the id from another header, the one that the correlation layer sends it in.
    #[must_use]
    pub fn header(mut self, name: HeaderName) -> Self {
        self.header = name;
        self
    }

    /// Finds session creation, `session-create`, in other routes.
    #[must_use]
    pub fn routes(mut self, routes: Arc<Routes>) -> Self {
        self.routes = routes;
        self
    }
}

impl<S> Layer<S> for JourneyLayer {
    type Service = Journeys<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Journeys { inner, layer: self.clone() }
    }
}

// ===== impl Journeys =====

impl<S> Journeys<S> {
    inner_accessors!();

    /// The id of the call, and whether a layer further out already gave it.
    fn id_of<B>(&self, request: &Request<B>) -> (CorrelationId, bool) {
        if let Some(id) = call::with(|call| call.report.correlation_id.clone()).flatten() {
            return (id, true);
        }
        let options = request.extensions().get::<CallOptions>();
        let header = || CorrelationId::try_from(request.headers().get(&self.layer.header)?.clone()).ok();
        let id = options.and_then(|options| options.correlation_id.clone()).or_else(header);
        (id.or_else(correlation::current).unwrap_or_else(CorrelationId::random), false)
    }
}

impl<S, B, RB> Service<Request<B>> for Journeys<S>
where
    S: Service<Request<B>, Response = Response<RB>>,
    B: 'static,
{
    type Response = Response<JourneyBody<RB>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let route = self.layer.routes.find(request.method(), request.uri().path());
        let creates = route.is_some_and(|route| self.layer.routes.get(route).name() == CREATE);
        if !creates {
            return ResponseFuture { inner: self.inner.call(request), keeping: None };
        }
        let (id, within) = self.id_of(&request);
        if !within {
            request.headers_mut().insert(self.layer.header.clone(), id.to_header());
        }
        if self.layer.stamp {
            let operation = request.extensions().get::<CallOptions>().and_then(|options| options.operation_id.clone());
            let stamped = Some(&id).filter(|_| within || operation.is_none());
            let stamps = [
                (CORRELATION_ID, stamped.map(CorrelationId::as_str)),
                (OPERATION_ID, operation.as_ref().map(OperationId::as_str)),
            ];
            if stamp(&mut request, &stamps).is_none() {
                tracing::debug!("a session's metadata is not stamped: the body is no JSON object that has room for it");
            }
        }
        let keeping = Keeping { inbox: Arc::clone(&self.layer.inbox), clock: self.layer.clock, id };
        ResponseFuture { inner: self.inner.call(request), keeping: Some(keeping) }
    }
}

/// Writes the stamps into the request's metadata; `None` if it stays as it is.
fn stamp<B: 'static>(request: &mut Request<B>, stamps: &[(&'static str, Option<&str>)]) -> Option<()> {
    if request.headers().contains_key(header::CONTENT_ENCODING) {
        return None;
    }
    let body = payload::in_memory(request.body())?;
    let stamped = Bytes::from(stamped(&body, stamps)?);
    let length = HeaderValue::from(stamped.len());
    *request.body_mut() = payload::of_bytes(stamped)?;
    if let Some(given) = request.headers_mut().get_mut(header::CONTENT_LENGTH) {
        *given = length;
    }
    Some(())
}

/// The body with the stamps in its metadata; everything else keeps its bytes.
fn stamped(body: &[u8], stamps: &[(&'static str, Option<&str>)]) -> Option<String> {
    let mut object: Object<'_> = serde_json::from_slice(body).ok()?;
    let mut metadata = match object.get("metadata") {
        None => Object::default(),
        Some(given) => serde_json::from_str::<Option<Object<'_>>>(given.get()).ok()?.unwrap_or_default(),
    };
    let mut changed = false;
    for (key, value) in stamps {
        // What the caller wrote there is the caller's.
        if let Some(value) = value
            && metadata.get(key).is_none()
        {
            metadata.push(key, to_raw_value(value).ok()?);
            changed = true;
        }
    }
    if !changed {
        return None;
    }
    object.set("metadata", RawValue::from_string(metadata.to_string()).ok()?);
    Some(object.to_string())
}

/// The id that was stamped into a session's metadata. It comes from outside, so it has to be valid.
pub(super) fn stamped_id(metadata: Option<&Value>) -> Option<CorrelationId> {
    metadata?.get(CORRELATION_ID)?.as_str()?.parse().ok()
}

/// A call whose session is to be kept.
#[derive(Clone, Debug)]
struct Keeping {
    inbox: Arc<dyn Inbox>,
    clock: Clock,
    id: CorrelationId,
}

pin_project! {
    /// The response of [`Journeys`].
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
        keeping: Option<Keeping>,
    }
}

impl<F, RB, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<RB>, E>>,
{
    type Output = Result<Response<JourneyBody<RB>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(cx));
        Poll::Ready(result.map(|response| {
            let keeping = this.keeping.take().filter(|_| response.status().is_success());
            let state = keeping.map_or(State::Passing, |keeping| State::Reading { keeping, read: Vec::new() });
            response.map(|inner| JourneyBody { inner, state })
        }))
    }
}

pin_project! {
    /// The response body of [`Journeys`]: the server's own. Its end is held back until the session that it names is kept.
    pub struct JourneyBody<B> {
        #[pin]
        inner: B,
        state: State,
    }
}

enum State {
    // Nothing to be kept, or done with it.
    Passing,
    // Reads along.
    Reading { keeping: Keeping, read: Vec<u8> },
    // Being kept.
    Storing { id: CorrelationId, session: String, stored: InboxFuture<String> },
}

// ===== impl JourneyBody =====

impl<B: Body> Body for JourneyBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        loop {
            match this.state {
                State::Passing => return this.inner.poll_frame(cx),
                State::Storing { id, session, stored } => {
                    match ready!(stored.as_mut().poll(cx)) {
                        Ok(first) if first != id.as_str() => tracing::info!(
                            session_id = session.as_str(),
                            first_correlation_id = first.as_str(),
                            "the session was handed out again; its webhooks belong to the journey that began it",
                        ),
                        Ok(_) => {}
                        Err(error) => {
                            tracing::warn!(%error, session_id = session.as_str(), "the journey of a session is not kept");
                        }
                    }
                    *this.state = State::Passing;
                    return Poll::Ready(None);
                }
                State::Reading { keeping, read } => {
                    let frame = ready!(this.inner.as_mut().poll_frame(cx));
                    let Some(Ok(frame)) = frame else {
                        let session = frame.is_none().then(|| session_of(read)).flatten();
                        *this.state = match session {
                            Some(session) => keeping.store(session),
                            None => State::Passing,
                        };
                        match frame {
                            Some(error) => return Poll::Ready(Some(error)),
                            None => match this.state {
                                State::Storing { .. } => continue,
                                _ => return Poll::Ready(None),
                            },
                        }
                    };
                    return Poll::Ready(Some(Ok(match frame.into_data() {
                        Ok(data) => {
                            // Only data in one piece is read along, which is what every client gives.
                            let piece = data.chunk();
                            if piece.len() == data.remaining() && read.len() + piece.len() <= LONGEST_ANSWER {
                                read.extend_from_slice(piece);
                            } else {
                                *this.state = State::Passing;
                            }
                            Frame::data(data)
                        }
                        Err(frame) => frame,
                    })));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, State::Passing) && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Keeping {
    fn store(&self, session: String) -> State {
        let stored = self.inbox.remember(session.clone(), self.id.clone(), self.clock.now());
        State::Storing { id: self.id.clone(), session, stored }
    }
}

impl<B> fmt::Debug for JourneyBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JourneyBody").finish_non_exhaustive()
    }
}

/// The session that an answer names.
fn session_of(answer: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Created {
        session_id: String,
    }

    /// A UUID has 36 characters.
    const LONGEST_ID: usize = 64;

    let created: Created = serde_json::from_slice(answer).ok()?;
    Some(created.session_id).filter(|id| id.len() <= LONGEST_ID)
}

#[cfg(test)]
mod tests;
