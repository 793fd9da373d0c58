use std::{
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use didit_api::{Endpoint, EndpointId};
use http::{HeaderMap, Request, Response, StatusCode, request::Parts};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tower::Service;

use super::{Attempt, Backoff, Policy, decision::Repetition, layer::Shared};
use crate::{
    body::{Kept, ReplayBody},
    call::{
        CallOptions, RetryOverride,
        current::{self, InCall},
    },
    outcome::{self, Classify, NotSent, Outcome, Settled},
};

pin_project! {
    /// The response of [`Retry`](super::Retry).
    pub struct ResponseFuture<S, C, P, K, B>
    where
        S: Service<Request<ReplayBody<B>>>,
        B: Body,
    {
        #[pin]
        inner: InCall<Attempts<S, C, P, K, B>>,
    }
}

impl<S, C, P, K, B> ResponseFuture<S, C, P, K, B>
where
    S: Service<Request<ReplayBody<B>>>,
    B: Body,
{
    pub(super) fn new(inner: InCall<Attempts<S, C, P, K, B>>) -> Self {
        Self { inner }
    }
}

impl<S, C, P, K, B, RB> Future for ResponseFuture<S, C, P, K, B>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<RB>>,
    B: Body,
    C: Classify<S::Error>,
    P: Policy,
    K: Backoff,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().inner.poll(cx)
    }
}

pin_project! {
    /// One attempt after another.
    pub(super) struct Attempts<S, C, P, K, B>
    where
        S: Service<Request<ReplayBody<B>>>,
        B: Body,
    {
        #[pin]
        state: State<S::Future>,
        // What another attempt needs; `None` if there will be none, whatever happens.
        repeat: Option<Repeat<S>>,
        shared: Arc<Shared<C, P, K>>,
        attempts: u32,
        // What the last repetition took from the budget.
        taken: u32,
        endpoint: Option<EndpointId>,
        // Whether a layer further out repeats this call.
        nested: bool,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F> {
        // The attempt is under way.
        Attempt { #[pin] attempt: F },
        // It failed; the backoff is running.
        Wait { #[pin] sleep: Sleep, wait: Duration },
        // The backoff is over; the inner service's readiness is awaited, which was never reserved while sleeping.
        Ready,
    }
}

/// What another attempt needs.
struct Repeat<S> {
    service: S,
    parts: Parts,
    body: Kept,
    harmless: bool,
}

impl<S, C, P, K, B> Attempts<S, C, P, K, B>
where
    S: Service<Request<ReplayBody<B>>> + Clone,
    B: Body,
{
    /// Makes the first attempt with the service that was readied for it.
    pub(super) fn start(inner: &mut S, request: Request<ReplayBody<B>>, shared: &Arc<Shared<C, P, K>>) -> Self {
        let (parts, body) = request.into_parts();
        let wanted = parts.extensions.get::<CallOptions>().and_then(|options| options.retry);
        let nested = current::with(|call| mem::replace(&mut call.retried, true)).unwrap_or_default();
        if !nested {
            current::with(|call| call.report.attempts = 1);
        }
        let once = nested || wanted == Some(RetryOverride::Never) || shared.max_attempts == 1;
        let kept = if once { None } else { body.keep() };
        let endpoint = kept.as_ref().and_then(|_| shared.routes.find(&parts.method, parts.uri.path()));
        let repeat = kept.map(|body| Repeat {
            service: inner.clone(),
            parts: parts.clone(),
            body,
            harmless: wanted == Some(RetryOverride::Harmless),
        });
        let state = State::Attempt { attempt: inner.call(Request::from_parts(parts, body)) };
        Self { state, repeat, shared: Arc::clone(shared), attempts: 1, taken: 0, endpoint, nested }
    }
}

/// Tells what the final answer means beyond its status.
fn conclude(status: StatusCode, headers: &HeaderMap, attempts: u32) {
    if let Some(hint) = outcome::hint(status, headers) {
        tracing::warn!(status = status.as_u16(), hint, "the answer is not what was asked for");
    }
    if attempts == 1 {
        return;
    }
    let settled = current::with(|call| {
        // The body belongs to the caller, so the status has to do here.
        call.report.settled = call.report.settled_by(status, b"");
        call.report.settled
    });
    if let Some(Some(Settled::EarlierAttempt)) = settled {
        tracing::info!(status = status.as_u16(), "an earlier attempt had worked");
    }
}

impl<S, C, P, K, B, RB> Future for Attempts<S, C, P, K, B>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<RB>>,
    B: Body,
    C: Classify<S::Error>,
    P: Policy,
    K: Backoff,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match (this.state.as_mut().project(), this.repeat.as_mut()) {
                (StateProjection::Attempt { attempt }, repeat) => {
                    let result = ready!(attempt.poll(cx));
                    let outcome = this.shared.classifier.of(&result);
                    current::with(|call| {
                        call.report.outcome = Some(outcome);
                        call.report.held_back += u32::from(matches!(outcome, Outcome::NotSent(NotSent::Local { .. })));
                    });
                    if outcome == Outcome::Answered {
                        if let Some(budget) = &this.shared.budget {
                            budget.deposit(*this.taken);
                        }
                        if let (Ok(response), false) = (&result, *this.nested) {
                            conclude(response.status(), response.headers(), *this.attempts);
                        }
                    }
                    let (Some(repeat), true) = (repeat, outcome != Outcome::Answered) else {
                        return Poll::Ready(result);
                    };
                    let endpoint = this.endpoint.map(|id| this.shared.routes.get(id));
                    let seen = Attempt {
                        outcome,
                        endpoint,
                        method: &repeat.parts.method,
                        headers: &repeat.parts.headers,
                        body: repeat.body.as_bytes(),
                    };
                    let (now, attempt) = (Instant::now(), *this.attempts);
                    let deadline = current::deadline();
                    let decision = this.shared.decide(&seen, repeat.harmless, attempt, deadline, now);
                    let (outcome, endpoint) = (outcome.name(), endpoint.map(Endpoint::name));
                    let Some(Repetition { wait, at, taken }) = decision else {
                        tracing::info!(attempt, outcome, endpoint, "attempt failed, not repeated");
                        return Poll::Ready(result);
                    };
                    if seen.outcome == Outcome::Ambiguous {
                        current::with(|call| {
                            call.report.ambiguous_before = true;
                            call.report.route =
                                seen.endpoint.map(|route| (route.method().clone(), route.retry_class()));
                        });
                    }
                    let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                    tracing::info!(attempt, outcome, endpoint, wait_ms, "attempt failed, repeating");
                    *this.taken = taken;
                    this.state.set(State::Wait { sleep: sleep_until(at), wait });
                }
                (StateProjection::Wait { sleep, wait }, _) => {
                    ready!(sleep.poll(cx));
                    current::with(|call| call.report.backed_off += *wait);
                    this.state.set(State::Ready);
                }
                (StateProjection::Ready, Some(repeat)) => {
                    if let Err(error) = ready!(repeat.service.poll_ready(cx)) {
                        return Poll::Ready(Err(error));
                    }
                    *this.attempts += 1;
                    current::with(|call| call.report.attempts += 1);
                    let request = Request::from_parts(repeat.parts.clone(), repeat.body.again());
                    let attempt = repeat.service.call(request);
                    this.state.set(State::Attempt { attempt });
                }
                (StateProjection::Ready, None) => unreachable!("a wait is begun only with something to repeat"),
            }
        }
    }
}
