//! One request and what comes of it.

use std::{future::poll_fn, time::Duration};

use bytes::Bytes;
use didit_api::{Endpoint, RetryClass};
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use tokio::time::{Instant, timeout};
use tower::Service;

use super::{
    AnswerBody, Error, Refused,
    body::read,
    lead::Lead,
    run::{Run, Stopped},
};
use crate::{
    call::{CallReport, current},
    outcome::{Classify, Outcome, repeated},
};

/// The longest that the body of an answer is waited for: 30 s, within the time of the call. Answers that make something
/// are some hundred bytes, and come with their headers; a connection that brings no more of one for so long is as good
/// as broken, and those who wait for the answer have waited long enough.
const BODY_TIME: Duration = Duration::from_secs(30);

/// A result of the inner service, its body read as far as is needed.
pub(super) struct Came<RB: Body, E> {
    pub(super) result: Result<Response<AnswerBody<RB>>, E>,
    pub(super) outcome: Outcome,
    /// The body of an answer that may be shared, if all of it came.
    pub(super) whole: Option<Bytes>,
    /// Whether the answer says that an earlier attempt worked.
    pub(super) done_before: bool,
    /// Whether an attempt below may have been carried out with no answer to show for it.
    pub(super) in_doubt: bool,
    /// What the route table knows of it.
    pub(super) route: (Method, RetryClass),
}

/// Waits until a service can be called, but no longer than this.
pub(super) async fn ready<S, R>(inner: &mut S, within: Duration) -> Result<(), Error<S::Error>>
where
    S: Service<R>,
{
    match timeout(within, poll_fn(|cx| inner.poll_ready(cx))).await {
        Ok(ready) => ready.map_err(Error::Inner),
        Err(_elapsed) => Err(Error::Layer(Refused::not_ready(within))),
    }
}

impl<S, C> Run<S, C> {
    /// Sends the call, through everything below, which has to be ready within this time.
    pub(super) async fn send<B, RB>(
        &mut self,
        lead: &mut Lead,
        request: Request<B>,
        within: Duration,
    ) -> Result<Came<RB, S::Error>, Stopped<RB, S::Error>>
    where
        S: Service<Request<B>, Response = Response<RB>>,
        C: Classify<S::Error>,
        RB: Body + Unpin,
    {
        lead.hold(ready(&mut self.inner, within)).await?.map_err(Stopped::Ended)?;
        let doubted_before = std::mem::replace(&mut lead.in_doubt, true);
        let mut came = lead.hold(self.attempt(request)).await?;
        lead.in_doubt = doubted_before || came.in_doubt;
        if let (Ok(response), Some(whole), true) = (&came.result, &came.whole, lead.in_doubt) {
            let (method, class) = &came.route;
            came.done_before = repeated(method, *class, response.status(), whole).is_some();
        }
        if came.done_before {
            // Whoever reads the answer is told by whom else it may have been carried out: a process before this one.
            current::with(|call| {
                call.report.doubts = call.report.doubts.max(1);
                call.report.route.get_or_insert(came.route.clone());
            });
        }
        Ok(came)
    }

    /// Calls the service, and reads what has to be read.
    async fn attempt<B, RB>(&mut self, request: Request<B>) -> Came<RB, S::Error>
    where
        S: Service<Request<B>, Response = Response<RB>>,
        C: Classify<S::Error>,
        RB: Body + Unpin,
    {
        self.sent = true;
        let sent = Instant::now();
        let route = (request.method().clone(), self.class(&request));
        // The retry layer counts afresh; what is for the caller to read adds up.
        let before = current::with(|call| (call.report.attempts, call.report.doubts));
        let within_before = current::doubts_within();
        let result = self.inner.call(request).await;
        let doubted_below = current::with(|call| {
            let (attempts, doubts) = before.unwrap_or_default();
            call.report.attempts += attempts;
            call.report.doubts > doubts
        });
        // A whole stack below reports for itself.
        let doubted_within = match &result {
            Ok(response) => response.extensions().get::<CallReport>().is_some_and(|report| report.doubts > 0),
            Err(_) => current::doubts_within() > within_before,
        };
        let mut outcome = self.classifier.of(&result);
        let (result, whole) = match result {
            Ok(response) if outcome == Outcome::Answered && is_shared(response.status()) => {
                let (parts, body) = response.into_parts();
                let read = read(body, self.read_until(sent)).await;
                if read.broken && parts.status.is_success() {
                    // It was done, and what was made is not known.
                    outcome = Outcome::Ambiguous;
                }
                (Ok(Response::from_parts(parts, read.body)), read.whole)
            }
            Ok(response) => (Ok(response.map(AnswerBody::streaming)), None),
            Err(error) => (Err(error), None),
        };
        let in_doubt = doubted_below.unwrap_or_default() || doubted_within || outcome == Outcome::Ambiguous;
        Came { result, outcome, whole, done_before: false, in_doubt, route }
    }

    fn class<B>(&self, request: &Request<B>) -> RetryClass {
        let routes = &self.shared.routes;
        let endpoint = routes.find(request.method(), request.uri().path()).map(|id| routes.get(id));
        endpoint.map_or_else(|| RetryClass::of_method(request.method()), Endpoint::retry_class)
    }

    /// Until when the body of the answer to what was `sent` then is waited for.
    fn read_until(&self, sent: Instant) -> Instant {
        let until = (Instant::now() + BODY_TIME).min(sent + self.total);
        current::deadline().map_or(until, |outer| until.min(outer))
    }
}

impl<RB: Body, E> Came<RB, E> {
    /// Whether the call may have been carried out although nothing says so.
    pub(super) fn is_in_doubt(&self, lead: &Lead) -> bool {
        let succeeded = self.result.as_ref().is_ok_and(|response| response.status().is_success());
        lead.in_doubt && !self.done_before && (self.outcome == Outcome::Ambiguous || !succeeded)
    }
}

/// Whether an answer is given to those who wait for it as well: not a server's failure, and not a 429, which says
/// something about how much was asked and nothing about what.
fn is_shared(status: StatusCode) -> bool {
    !status.is_server_error() && status != StatusCode::TOO_MANY_REQUESTS
}
