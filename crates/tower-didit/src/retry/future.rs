use std::{
    cell::RefCell,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    thread::LocalKey,
    time::Duration,
};

use didit_api::{Endpoint, EndpointId};
use http::{
    Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header,
    request::Parts, response,
};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tower::Service;

use super::{Attempt, Backoff, Policy, decision::Repetition, layer::Shared};
use crate::{
    body::{Drain, Kept, ReplayBody},
    call::{
        CallOptions, RetryOverride,
        current::{self, InCall},
    },
    outcome::{self, Classify, NotSent, Outcome, Settled},
    pool::{self, Lease, Pooled},
};

pin_project! {
    /// The response of [`Retry`](super::Retry).
    pub struct ResponseFuture<S, C, P, K, B, RB>
    where
        S: Service<Request<ReplayBody<B>>>,
        B: Body,
    {
        #[pin]
        inner: InCall<Attempts<S, C, P, K, B, RB>>,
    }
}

impl<S, C, P, K, B, RB> ResponseFuture<S, C, P, K, B, RB>
where
    S: Service<Request<ReplayBody<B>>>,
    B: Body,
{
    pub(super) fn new(inner: InCall<Attempts<S, C, P, K, B, RB>>) -> Self {
        Self { inner }
    }
}

impl<S, C, P, K, B, RB> Future for ResponseFuture<S, C, P, K, B, RB>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<RB>>,
    B: Body,
    RB: Body + Unpin,
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
    pub(super) struct Attempts<S, C, P, K, B, RB>
    where
        S: Service<Request<ReplayBody<B>>>,
        B: Body,
    {
        #[pin]
        state: State<S::Future>,
        // What the last attempt that was sent came to, in case the next one is not. Boxed, because few calls have one.
        last: Option<Box<Last<RB, S::Error>>>,
        // What another attempt needs; `None` if there will be none, whatever happens.
        repeat: Option<Repeat<S, B>>,
        shared: Arc<Shared<C, P, K>>,
        attempts: u32,
        // What the last repetition took from the budget.
        taken: u32,
        // When the first attempt failed.
        failed_at: Option<Instant>,
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
        // It failed; the backoff is running, until `at`. While its response is drained, `sleep` bounds that first.
        Wait { #[pin] sleep: Sleep, at: Instant, wait: Duration, draining: bool },
        // The backoff is over; the inner service's readiness is awaited, which was never reserved while sleeping.
        Ready,
    }
}

/// What an attempt came to that is to be repeated.
struct Last<RB, E> {
    outcome: Outcome,
    result: Result<(response::Parts, Drain<RB>), E>,
    cut_off_by: Option<&'static str>,
}

impl<RB, E> Last<RB, E> {
    fn new(outcome: Outcome, result: Result<Response<RB>, E>) -> Self {
        let result = result.map(|response| {
            let (parts, body) = response.into_parts();
            (parts, Drain::new(body))
        });
        Self { outcome, result, cut_off_by: current::cut_off_by() }
    }

    /// The result once more. A body that was read for its connection's sake is not whole any more, and the headers do not
    /// say that it is.
    fn into_result(self) -> Result<Response<RB>, E> {
        self.result.map(|(mut parts, drain)| {
            if drain.has_read() {
                parts.headers.remove(header::CONTENT_LENGTH);
            }
            Response::from_parts(parts, drain.into_inner())
        })
    }
}

impl<RB: Body + Unpin, E> Last<RB, E> {
    fn is_worth_draining(&self) -> bool {
        self.result.as_ref().is_ok_and(|(_, drain)| drain.is_worth_it())
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.result {
            Ok((_, drain)) => drain.poll(cx),
            Err(_) => Poll::Ready(()),
        }
    }
}

/// What the caller gets of a call that is not repeated any more: the last real result. That the final attempt was held
/// back in this process, or found no connection, is no news about the call, least of all that nothing was sent.
fn last_sent<RB, E>(
    result: Result<Response<RB>, E>,
    outcome: Outcome,
    last: Option<Box<Last<RB, E>>>,
) -> Result<Response<RB>, E> {
    match last {
        Some(last) if weight(last.outcome) > weight(outcome) => {
            current::with(|call| call.report.outcome = Some(last.outcome));
            current::cut_off(last.cut_off_by);
            last.into_result()
        }
        _ => result,
    }
}

/// How much an outcome says about the call: what was sent more than what was not, and that more than what never left this
/// process.
fn weight(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::NotSent(NotSent::Local { .. }) => 0,
        Outcome::NotSent(NotSent::Transport) => 1,
        Outcome::Refused { .. } | Outcome::Ambiguous | Outcome::Answered => 2,
    }
}

/// What another attempt needs.
struct Repeat<S, B: Body> {
    service: S,
    head: Lease<Head>,
    body: Kept<B>,
    harmless: bool,
}

/// The head of a request, kept to be built again.
///
/// The headers are a list and no map: no hashes, for what is usually never looked at, and memory that the thread uses again.
#[derive(Default)]
struct Head {
    method: Method,
    uri: Uri,
    version: Version,
    headers: Vec<(HeaderName, HeaderValue)>,
    extensions: Extensions,
}

impl Head {
    fn of(parts: &Parts) -> Lease<Self> {
        let Parts { method, uri, version, headers, extensions, .. } = parts;
        let mut head = Lease::<Self>::new();
        head.method = method.clone();
        head.uri = uri.clone();
        head.version = *version;
        head.headers.reserve_exact(headers.len());
        head.headers.extend(headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        head.extensions = extensions.clone();
        head
    }

    fn headers(&self) -> HeaderMap {
        // A list of values of one name may be longer than any map.
        let mut headers = HeaderMap::with_capacity(self.headers.len().min(MOST_HEADERS));
        for (name, value) in &self.headers {
            headers.append(name, value.clone());
        }
        headers
    }

    /// The request once more.
    fn again<B>(&self, body: B) -> Request<B> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = self.version;
        *request.headers_mut() = self.headers();
        *request.extensions_mut() = self.extensions.clone();
        request
    }
}

thread_local! {
    static SPARE: pool::Spare<Head> = const { RefCell::new(Vec::new()) };
}

impl Pooled for Head {
    fn spare() -> &'static LocalKey<pool::Spare<Self>> {
        &SPARE
    }

    fn clear(&mut self) {
        let Self { method, uri, version, headers, extensions } = self;
        (*method, *uri, *version, *extensions) = Default::default();
        headers.clear();
        headers.shrink_to(MOST_HEADERS);
    }
}

/// For how many headers a list keeps its memory: more than a client sends.
const MOST_HEADERS: usize = 32;

impl<S, C, P, K, B, RB> Attempts<S, C, P, K, B, RB>
where
    S: Service<Request<ReplayBody<B>>> + Clone,
    B: Body,
{
    /// Makes the first attempt with the service that was readied for it.
    pub(super) fn start(inner: &mut S, request: Request<ReplayBody<B>>, shared: &Arc<Shared<C, P, K>>) -> Self {
        let (parts, mut body) = request.into_parts();
        let wanted = parts.extensions.get::<CallOptions>().and_then(|options| options.retry);
        let nested = current::with(|call| {
            call.report.attempts = if call.retried { call.report.attempts } else { 1 };
            call.retried
        });
        let nested = nested.unwrap_or_default();
        let once = nested || wanted == Some(RetryOverride::Never) || shared.max_attempts == 1;
        let kept = if once { None } else { body.keep(shared.replay_cap) };
        let endpoint = kept.as_ref().and_then(|_| shared.routes.find(&parts.method, parts.uri.path()));
        let repeat = kept.map(|body| Repeat {
            service: inner.clone(),
            head: Head::of(&parts),
            body,
            harmless: wanted == Some(RetryOverride::Harmless),
        });
        let repeating = current::repeating();
        let attempt = inner.call(Request::from_parts(parts, body));
        drop(repeating);
        let state = State::Attempt { attempt };
        Self {
            state,
            repeat,
            shared: Arc::clone(shared),
            attempts: 1,
            taken: 0,
            failed_at: None,
            endpoint,
            nested,
            last: None,
        }
    }
}

/// Tells what the final answer means beyond its status.
fn conclude(status: StatusCode, headers: &HeaderMap, attempts: u32) {
    if let Some(hint) = outcome::hint(status, headers) {
        tracing::warn!(http.response.status_code = status.as_u16(), hint, "the answer is not what was asked for");
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
        tracing::info!(http.response.status_code = status.as_u16(), "an earlier attempt had worked");
    }
}

impl<S, C, P, K, B, RB> Future for Attempts<S, C, P, K, B, RB>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<RB>>,
    B: Body,
    RB: Body + Unpin,
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
                    let repeating = current::repeating();
                    let result = ready!(attempt.poll(cx));
                    drop(repeating);
                    let outcome = this.shared.classifier.of(&result);
                    // One that is repeated further out is counted there.
                    if !*this.nested {
                        current::with(|call| call.attempted(outcome));
                    }
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
                    let (headers, body) = (repeat.head.headers(), repeat.body.joined());
                    let (now, attempt) = (Instant::now(), *this.attempts);
                    let failed_at = *this.failed_at.get_or_insert(now);
                    let seen = Attempt {
                        outcome,
                        number: attempt,
                        repeating_for: now.saturating_duration_since(failed_at),
                        endpoint,
                        method: &repeat.head.method,
                        headers: &headers,
                        body: &body,
                    };
                    let deadline = current::deadline();
                    let decide = || this.shared.decide(&seen, repeat.harmless, deadline, now);
                    // The body is asked before anything is paid, and claimed after: what is still sending it may go over
                    // the cap in between, and then the price is given back.
                    let decision = if repeat.body.can_start_over() { decide() } else { None };
                    let decision = decision.filter(|repetition| repeat.body.claim() || this.shared.refund(repetition));
                    let (outcome, endpoint) = (outcome.name(), endpoint.map(Endpoint::name));
                    let Some(Repetition { wait, at, taken }) = decision else {
                        tracing::info!(attempt, outcome, endpoint, "attempt failed, not repeated");
                        return Poll::Ready(last_sent(result, seen.outcome, this.last.take()));
                    };
                    if seen.outcome == Outcome::Ambiguous {
                        current::with(|call| {
                            call.report.route =
                                seen.endpoint.map(|route| (route.method().clone(), route.retry_class()));
                        });
                    }
                    let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                    tracing::info!(attempt, outcome, endpoint, wait_ms, "attempt failed, repeating");
                    *this.taken = taken;
                    let outweighs = |last: &Last<_, _>| weight(seen.outcome) >= weight(last.outcome);
                    let is_news = this.last.as_deref().is_none_or(outweighs);
                    if is_news {
                        *this.last = Some(Box::new(Last::new(seen.outcome, result)));
                    }
                    let draining = is_news && this.last.as_deref().is_some_and(Last::is_worth_draining);
                    let until = if draining { at.min(now + Drain::<RB>::TIME) } else { at };
                    current::backs_off();
                    this.state.set(State::Wait { sleep: sleep_until(until), at, wait, draining });
                }
                (StateProjection::Wait { mut sleep, at, wait, draining }, _) => {
                    if *draining {
                        // Over when all is read or its time is up; either way the rest of the backoff follows.
                        if this.last.as_mut().is_some_and(|last| last.poll_drain(cx).is_pending()) {
                            ready!(sleep.as_mut().poll(cx));
                        }
                        *draining = false;
                        sleep.as_mut().reset(*at);
                    }
                    ready!(sleep.poll(cx));
                    current::with(|call| call.report.backed_off += *wait);
                    current::backed_off();
                    this.state.set(State::Ready);
                }
                (StateProjection::Ready, Some(repeat)) => {
                    if let Err(error) = ready!(repeat.service.poll_ready(cx)) {
                        let outcome = this.shared.classifier.error(&error);
                        return Poll::Ready(last_sent(Err(error), outcome, this.last.take()));
                    }
                    *this.attempts += 1;
                    current::with(|call| call.report.attempts += 1);
                    let request = repeat.head.again(repeat.body.again());
                    if *this.attempts >= this.shared.max_attempts {
                        repeat.body.release();
                    }
                    let repeating = current::repeating();
                    let attempt = repeat.service.call(request);
                    drop(repeating);
                    this.state.set(State::Attempt { attempt });
                }
                (StateProjection::Ready, None) => unreachable!("a wait is begun only with something to repeat"),
            }
        }
    }
}
