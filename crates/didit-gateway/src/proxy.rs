//! One request: taken or refused, sent through the layers, answered.

use std::{
    future::poll_fn,
    sync::{Arc, atomic::AtomicUsize},
    task::Poll,
};

use didit_api::Routes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, Uri, Version, header, uri::PathAndQuery};
use hyper::body::Incoming;
use tokio::{sync::watch, time::Instant};
use tower::ServiceExt;
use tower_didit::{
    DiditService, Randomness,
    call::{CallOptions, CorrelationId, OperationId, Priority},
    correlation,
};
use tracing::Span;

use crate::{
    attempts::{CountAttempts, Sent},
    body::{Answer, Progress, Upload},
    conversation::{Conversation, InFlight},
    hop,
    log::{CallLine, Named},
    problem::Problem,
    refuse::{Doorkeeper, pass_on},
    settings::Settings,
    upstream::Upstream,
};

/// Says how often the call was sent.
pub(crate) const ATTEMPTS: HeaderName = HeaderName::from_static("x-didit-attempts");

/// Names the business operation that a call belongs to, so that its idempotency key is the same in every process.
pub(crate) const OPERATION: HeaderName = HeaderName::from_static("x-operation-id");

/// Who goes before whom while calls wait for quota: `high`, `normal` or `low`.
pub(crate) const PRIORITY: HeaderName = HeaderName::from_static("x-didit-priority");

/// Where the gateway is on its way to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Calls are taken.
    Serving,
    /// Attempts under way go on; calls that wait for one, and new ones, are told to come back.
    Stopping,
    /// Nothing is waited for any more.
    Over,
}

/// Everything that a request needs.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) service: DiditService<CountAttempts<Upstream>>,
    pub(crate) doorkeeper: Doorkeeper,
    pub(crate) settings: Settings,
    pub(crate) routes: Arc<Routes>,
    pub(crate) correlation: HeaderName,
    pub(crate) random: Randomness,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) in_flight: Arc<AtomicUsize>,
}

// ===== impl Proxy =====

impl Proxy {
    /// Answers a request, whatever it is.
    pub(crate) async fn answer(
        &self,
        request: Request<Incoming>,
        conversation: &Conversation,
        in_flight: InFlight,
    ) -> Response<Answer> {
        let (http1, progress, sent) =
            (request.version() < Version::HTTP_2, Progress::of(request.body()), Sent::default());
        // Written by its end, whatever that is: a client that leaves ends this future.
        let mut line = CallLine {
            named: self.name(&request),
            method: request.method().clone(),
            status: None,
            layer: None,
            sent: sent.clone(),
            began: Instant::now(),
            bytes: 0,
            complete: false,
        };
        let framed = if http1 { conversation.next_request() } else { Ok(()) };
        let framed = framed.map_err(|violation| {
            Problem::refused(
                StatusCode::BAD_REQUEST,
                "framing",
                "The request's length is not clear",
                violation.reason(),
            )
        });
        let outcome = match framed {
            Ok(()) => self.pass(request, &line.named, &sent, &progress).await,
            Err(problem) => Err(problem),
        };
        let is_last = outcome.as_ref().is_err_and(|problem| problem.is_last);
        let (layer, mut response) = match outcome {
            Ok(response) => (None, response),
            Err(problem) => (Some(problem.layer), problem.into_response(Some(&line.named.id), sent.count())),
        };
        if http1 && (is_last || !progress.is_ended()) {
            // Whoever answers: what is left of the request is not worth reading, or cannot be told from the next one.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            conversation.linger();
        }
        (line.status, line.layer) = (Some(response.status()), layer);
        let headers = response.headers_mut();
        headers.insert(self.correlation.clone(), header_of(&line.named.id));
        headers.insert(ATTEMPTS, sent.count().into());
        response.map(|answer| answer.ending(line, in_flight))
    }

    /// The names that the call goes by, here and at Didit.
    fn name(&self, request: &Request<Incoming>) -> Named {
        let received = request.headers().get(&self.correlation);
        let (id, _) = correlation::receive(received, &self.random, |_| Span::none());
        Named::new(id, &self.routes, request)
    }

    async fn pass(
        &self,
        request: Request<Incoming>,
        named: &Named,
        sent: &Sent,
        progress: &Progress,
    ) -> Result<Response<Answer>, Problem> {
        let mut phase = self.phase.clone();
        if *phase.borrow_and_update() > Phase::Serving {
            return Err(Problem::stopped(sent));
        }
        let request = self.prepare(request, named, sent, progress)?;
        let mut call = std::pin::pin!(self.service.clone().oneshot(request));
        let mut now = Phase::Serving;
        let result = loop {
            // Once the gateway stops, whatever waits without an attempt under way is not waited for: in a queue, for a
            // circuit, between attempts. Between this look and its end nothing sends it: this task would have to.
            let answered = poll_fn(|cx| match call.as_mut().poll(cx) {
                Poll::Pending if now == Phase::Stopping && !sent.is_under_way() => Poll::Ready(None),
                polled => polled.map(Some),
            });
            now = tokio::select! {
                biased;
                result = answered => break result.ok_or_else(|| Problem::stopped(sent))?,
                // An error means that there is no server any more.
                changed = phase.changed() => changed.map_or(Phase::Over, |()| *phase.borrow_and_update()),
            };
            if now == Phase::Over {
                return Err(Problem::stopped(sent));
            }
        };
        let response = result.map_err(|error| Problem::of_call(&error, progress.wait().is_set()))?;
        let (mut parts, body) = response.into_parts();
        if parts.status.is_informational() {
            // Nobody asked for another protocol: the request's Upgrade stays here.
            return Err(Problem::unasked_upgrade());
        }
        hop::remove(&mut parts.headers);
        let mut answered = Response::new(Answer::upstream(body, self.settings.body_timeout.0));
        (*answered.status_mut(), *answered.headers_mut()) = (parts.status, parts.headers);
        Ok(answered)
    }

    /// What goes to the layers.
    fn prepare(
        &self,
        request: Request<Incoming>,
        named: &Named,
        sent: &Sent,
        progress: &Progress,
    ) -> Result<Request<Upload>, Problem> {
        let (mut parts, body) = request.into_parts();
        self.doorkeeper.check(&parts)?;
        let mut options = CallOptions::new().correlation_id(named.id.clone());
        if let Some(operation) = parts.headers.remove(OPERATION) {
            let id = operation.to_str().ok().and_then(|text| text.parse::<OperationId>().ok());
            let id = id.ok_or_else(|| {
                let (title, detail) = ("The operation id is no use", "x-operation-id is too long or not visible ASCII");
                Problem::refused(StatusCode::BAD_REQUEST, "operation-id", title, detail)
            })?;
            options = options.operation_id(id);
        }
        if let Some(priority) = parts.headers.remove(PRIORITY) {
            options = options.priority(match priority.as_bytes() {
                b"high" => Priority::High,
                b"normal" => Priority::Normal,
                b"low" => Priority::Low,
                _ => {
                    let (title, detail) = ("The priority is no use", "x-didit-priority is high, normal or low");
                    return Err(Problem::refused(StatusCode::BAD_REQUEST, "priority", title, detail));
                }
            });
        }
        let path = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        // The layers fill in where it goes.
        parts.uri = Uri::from(path);
        let version = parts.version;
        let Settings { max_body, body_timeout, .. } = &self.settings;
        let upload = Upload::new(body, progress.clone(), *max_body, body_timeout.0, named.workflow.clone());
        let mut request = Request::new(upload);
        (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (parts.method, parts.uri, parts.headers);
        *request.version_mut() = version;
        pass_on(&mut request, self.doorkeeper.name());
        *request.version_mut() = Version::HTTP_11;
        let extensions = request.extensions_mut();
        extensions.insert(options);
        extensions.insert(sent.clone());
        extensions.insert(progress.wait().clone());
        Ok(request)
    }
}

fn header_of(id: &CorrelationId) -> HeaderValue {
    // What an id may hold, a header may.
    HeaderValue::from_str(id.as_str()).unwrap_or(HeaderValue::from_static("invalid"))
}
