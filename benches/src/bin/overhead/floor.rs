//! The five duties by hand: what a call costs at least if nothing is layered, named, shared or configurable.
//!
//! One service and one future do what the stack does on a call that succeeds: a correlation id and an idempotency key
//! in one block of bytes, the breaker's gate, a slot of the rate (GCRA), the attempt, one walk over the response's
//! headers, the breaker's window, and the decision whether to repeat, with a budget. A failed attempt is really repeated.
//! It knows one route, one scope and one circuit, logs nothing, and has neither deadline nor timeout.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header};
use rand::RngExt;
use tokio::time::{Instant, Sleep, sleep};
use tower::Service;

const CORRELATION: HeaderName = HeaderName::from_static("x-correlation-id");
const KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// What the budget of repetitions holds at most.
const BUDGET: u32 = 500;

/// A word on a cache line of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Line<T>(T);

/// What all clones share.
#[derive(Debug)]
struct Shared {
    began: Instant,
    // 0 while the circuit is closed.
    gate: Line<AtomicU64>,
    // Calls and failures of the window.
    window: Line<AtomicU64>,
    // When the rate is even again, in nanoseconds.
    even: Line<AtomicU64>,
    tokens: Line<AtomicU32>,
}

/// See the [module](self).
#[derive(Clone, Debug)]
pub(crate) struct Floor<S> {
    inner: S,
    keeps: bool,
    shared: Arc<Shared>,
}

impl<S> Floor<S> {
    /// `keeps` says whether the request is kept for a repetition.
    pub(crate) fn new(inner: S, keeps: bool) -> Self {
        let shared = Shared {
            began: Instant::now(),
            gate: Line(AtomicU64::new(0)),
            window: Line(AtomicU64::new(0)),
            even: Line(AtomicU64::new(0)),
            tokens: Line(AtomicU32::new(BUDGET)),
        };
        Self { inner, keeps, shared: Arc::new(shared) }
    }
}

/// One step of the generic cell rate algorithm: a nanosecond each, a second at once.
pub(crate) fn gcra(even: &AtomicU64, began: Instant) -> bool {
    const STEP: u64 = 1;
    const BURST: u64 = 1_000_000_000;
    let now = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let next = |even: u64| (even <= now + BURST).then(|| even.max(now) + STEP);
    even.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
}

/// How long the server wants to be left alone, and what is left of the quota, in one walk.
pub(crate) fn walk(headers: &HeaderMap) -> (Option<u64>, Option<u64>) {
    let number = |value: &HeaderValue| value.to_str().ok().and_then(|text| text.parse().ok());
    let mut found = (None, None);
    for (name, value) in headers {
        if name == header::RETRY_AFTER {
            found.0 = number(value);
        } else if name.as_str().len() == 21 && name == "x-ratelimit-remaining" {
            found.1 = number(value);
        }
    }
    found
}

/// Two UUIDs in one allocation.
pub(crate) fn two_ids() -> (HeaderValue, HeaderValue) {
    let mut text = [0; 72];
    let bits: [[u8; 16]; 2] = rand::rng().random();
    for (bits, text) in bits.into_iter().zip(text.chunks_exact_mut(36)) {
        if let Ok(text) = <&mut [u8; 36]>::try_from(text) {
            uuid::Builder::from_random_bytes(bits).into_uuid().hyphenated().encode_lower(text);
        }
    }
    let block = Bytes::from_owner(text);
    let value = |range| HeaderValue::from_maybe_shared(block.slice(range));
    (value(0..36).unwrap_or(HeaderValue::from_static("")), value(36..72).unwrap_or(HeaderValue::from_static("")))
}

impl<S, B, RB> Service<Request<B>> for Floor<S>
where
    S: Service<Request<B>, Response = Response<RB>> + Clone + Unpin,
    S::Future: Unpin,
    B: Clone + Unpin,
{
    type Response = S::Response;
    type Error = Option<S::Error>;
    type Future = FloorFuture<S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Some)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let (correlation, key) = two_ids();
        let headers = request.headers_mut();
        headers.reserve(2);
        headers.insert(CORRELATION, correlation);
        headers.insert(KEY, key);
        let is_closed = self.shared.gate.0.load(Ordering::Acquire) == 0;
        let kept = self.keeps.then(|| (self.inner.clone(), request.clone()));
        let attempt = (is_closed && gcra(&self.shared.even.0, self.shared.began)).then(|| self.inner.call(request));
        FloorFuture { shared: Arc::clone(&self.shared), attempt, kept, sleep: None, attempts: 1 }
    }
}

/// The response of [`Floor`].
pub(crate) struct FloorFuture<S, B>
where
    S: Service<Request<B>>,
{
    shared: Arc<Shared>,
    // `None` if it was refused, or waits for a repetition.
    attempt: Option<S::Future>,
    kept: Option<(S, Request<B>)>,
    sleep: Option<Pin<Box<Sleep>>>,
    attempts: u32,
}

impl<S, B, RB> Future for FloorFuture<S, B>
where
    S: Service<Request<B>, Response = Response<RB>> + Unpin,
    S::Future: Unpin,
    B: Clone + Unpin,
{
    type Output = Result<S::Response, Option<S::Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            if let Some(attempt) = &mut this.attempt {
                let result = ready!(Pin::new(attempt).poll(cx));
                let (good, wait) = match &result {
                    Ok(response) => {
                        let (wait, _left) = walk(response.headers());
                        (!response.status().is_server_error() && response.status().as_u16() != 429, wait)
                    }
                    Err(_) => (false, None),
                };
                this.shared.window.0.fetch_add(if good { 1 } else { 1 << 32 | 1 }, Ordering::Relaxed);
                if good {
                    if this.shared.tokens.0.load(Ordering::Relaxed) < BUDGET {
                        this.shared.tokens.0.fetch_add(1, Ordering::Relaxed);
                    }
                    return Poll::Ready(result.map_err(Some));
                }
                let pays = |tokens: u32| tokens.checked_sub(5);
                let may = this.kept.is_some() && this.attempts < 5;
                if !may || this.shared.tokens.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pays).is_err() {
                    return Poll::Ready(result.map_err(Some));
                }
                this.attempt = None;
                let most = 1_000 << this.attempts;
                let wait = wait.map_or(Duration::ZERO, Duration::from_secs)
                    + Duration::from_millis(rand::rng().random_range(0..most));
                this.sleep = Some(Box::pin(sleep(wait)));
            }
            let (Some(sleep), Some((service, request))) = (&mut this.sleep, &mut this.kept) else {
                return Poll::Ready(Err(None));
            };
            ready!(sleep.as_mut().poll(cx));
            ready!(service.poll_ready(cx)).map_err(Some)?;
            this.attempts += 1;
            this.attempt = Some(service.call(request.clone()));
        }
    }
}
