//! What others publish, put together as their documentation says.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use failsafe::{
    Any, backoff,
    failure_policy::{self, ConsecutiveFailures},
    futures::CircuitBreaker,
};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use http::{HeaderName, HeaderValue, Request, Response};
use pin_project_lite::pin_project;
use tower::{
    BoxError, Layer, Service,
    retry::{
        Policy, RetryLayer,
        budget::{Budget, TpsBudget},
    },
};
use tower_http::{
    request_id::{MakeRequestUuid, PropagateRequestId, PropagateRequestIdLayer, SetRequestId, SetRequestIdLayer},
    set_header::SetRequestHeaderLayer,
};

/// What no measurement reaches in a second.
pub(crate) const PLENTY: u32 = 1_000_000_000;

pub(crate) const CORRELATION: HeaderName = HeaderName::from_static("x-correlation-id");
pub(crate) const KEY: HeaderName = HeaderName::from_static("idempotency-key");

// ===== tower =====

/// The policy of tower's retry documentation, with its budget.
#[derive(Clone)]
pub(crate) struct Repeat {
    budget: Arc<TpsBudget>,
    left: u32,
}

impl<B: Clone, RB, E> Policy<Request<B>, Response<RB>, E> for Repeat {
    type Future = std::future::Ready<()>;

    fn retry(&mut self, _: &mut Request<B>, result: &mut Result<Response<RB>, E>) -> Option<Self::Future> {
        if result.as_ref().is_ok_and(|response| !response.status().is_server_error()) {
            self.budget.deposit();
            return None;
        }
        if self.left == 0 || !self.budget.withdraw() {
            return None;
        }
        self.left -= 1;
        Some(std::future::ready(()))
    }

    fn clone_request(&mut self, request: &Request<B>) -> Option<Request<B>> {
        Some(request.clone())
    }
}

/// tower's retry with its budget's defaults.
pub(crate) fn tower_retry() -> RetryLayer<Repeat> {
    RetryLayer::new(Repeat { budget: Arc::default(), left: 4 })
}

// ===== Identifiers =====

/// A plain header with a UUID of the thread's generator.
pub(crate) fn set_header<B>(
    name: HeaderName,
) -> SetRequestHeaderLayer<impl Fn(&Request<B>) -> Option<HeaderValue> + Clone + Send + Sync> {
    SetRequestHeaderLayer::overriding(name, |_: &Request<B>| {
        let id = uuid::Builder::from_random_bytes(rand::random()).into_uuid();
        HeaderValue::from_str(id.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer())).ok()
    })
}

type RequestIds<S> = SetRequestId<PropagateRequestId<S>, MakeRequestUuid>;

/// tower-http's request ids: made, sent and handed back.
pub(crate) fn request_ids<S>(name: HeaderName) -> impl Fn(S) -> RequestIds<S> {
    move |inner| {
        let inner = PropagateRequestIdLayer::new(name.clone()).layer(inner);
        SetRequestIdLayer::new(name.clone(), MakeRequestUuid).layer(inner)
    }
}

// ===== governor =====

/// governor around a service: a free cell costs a look, anything else a boxed wait.
#[derive(Clone)]
pub(crate) struct Governed<S> {
    inner: S,
    limiter: Arc<DefaultDirectRateLimiter>,
}

pub(crate) fn governed<S>(inner: S) -> Governed<S> {
    let plenty = std::num::NonZeroU32::new(PLENTY).unwrap_or(std::num::NonZeroU32::MAX);
    Governed { inner, limiter: Arc::new(RateLimiter::direct(Quota::per_second(plenty))) }
}

type Boxed<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

impl<S, R> Service<R> for Governed<S>
where
    S: Service<R, Future: Send, Response: Send, Error: Send> + Clone + Send + 'static,
    R: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, Boxed<S::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        if self.limiter.check().is_ok() {
            return Either::Left { inner: self.inner.call(request) };
        }
        let (limiter, inner) = (Arc::clone(&self.limiter), self.inner.clone());
        let mut inner = std::mem::replace(&mut self.inner, inner);
        Either::Right {
            inner: Box::pin(async move {
                limiter.until_ready().await;
                inner.call(request).await
            }),
        }
    }
}

// ===== failsafe =====

/// failsafe around a service.
#[derive(Clone)]
pub(crate) struct Guarded<S, K> {
    inner: S,
    breaker: K,
}

impl<S, R, K> Service<R> for Guarded<S, K>
where
    S: Service<R, Error: Into<BoxError>>,
    K: CircuitBreaker,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Mapped<failsafe::futures::ResponseFuture<S::Future, K::FailurePolicy, K::Instrument, Any>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: R) -> Self::Future {
        Mapped { inner: self.breaker.call(self.inner.call(request)) }
    }
}

/// failsafe with consecutive failures alone, its cheapest.
pub(crate) fn failsafe_consecutive<S>(
    inner: S,
) -> Guarded<S, failsafe::StateMachine<ConsecutiveFailures<backoff::Exponential>, ()>> {
    let waits = backoff::exponential(Duration::from_secs(10), Duration::from_secs(30));
    let breaker = failsafe::Config::new().failure_policy(failure_policy::consecutive_failures(5, waits)).build();
    Guarded { inner, breaker }
}

/// failsafe as its documentation builds it.
pub(crate) fn failsafe_default<S>(inner: S) -> Guarded<S, impl CircuitBreaker + Clone + Send + Sync> {
    Guarded { inner, breaker: failsafe::Config::new().build() }
}

// ===== tower-resilience =====

/// Its layers, each with its window or rate wide open.
pub(crate) mod resilience {
    use tower_resilience_circuitbreaker::{CircuitBreakerLayer, DefaultClassifier};
    use tower_resilience_ratelimiter::RateLimiterLayer;
    use tower_resilience_retry::{RetryBudgetBuilder, RetryLayer};
    use tower_resilience_timelimiter::TimeLimiterLayer;

    use super::Duration;
    use crate::Failure;

    pub(crate) fn breaker() -> Result<CircuitBreakerLayer<DefaultClassifier>, Failure> {
        Ok(CircuitBreakerLayer::builder().failure_rate_threshold(0.5).sliding_window_size(100).build()?)
    }

    pub(crate) fn limiter() -> Result<RateLimiterLayer, Failure> {
        Ok(RateLimiterLayer::builder()
            .limit_for_period(super::PLENTY as usize)
            .refresh_period(Duration::from_secs(1))
            .timeout_duration(Duration::from_millis(500))
            .build()?)
    }

    pub(crate) fn retry<R, T, E>() -> Result<RetryLayer<R, T, E>, Failure> {
        let budget = RetryBudgetBuilder::new().token_bucket().build()?;
        Ok(RetryLayer::builder().max_attempts(5).exponential_backoff(Duration::from_secs(1)).budget(budget).build())
    }

    pub(crate) fn timeout() -> TimeLimiterLayer {
        TimeLimiterLayer::builder().timeout_duration(Duration::from_secs(60)).build()
    }
}

// ===== Futures =====

pin_project! {
    /// One of two futures.
    #[project = EitherProjection]
    pub(crate) enum Either<L, R> {
        Left { #[pin] inner: L },
        Right { inner: R },
    }
}

impl<L: Future, R: Future<Output = L::Output> + Unpin> Future for Either<L, R> {
    type Output = L::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<L::Output> {
        match self.project() {
            EitherProjection::Left { inner } => inner.poll(cx),
            EitherProjection::Right { inner } => Pin::new(inner).poll(cx),
        }
    }
}

pin_project! {
    /// A future whose error is boxed.
    pub(crate) struct Mapped<F> {
        #[pin]
        inner: F,
    }
}

impl<F, T, E> Future for Mapped<F>
where
    F: Future<Output = Result<T, failsafe::Error<E>>>,
    E: Into<BoxError>,
{
    type Output = Result<T, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().inner.poll(cx).map_err(|error| match error {
            failsafe::Error::Inner(inner) => inner.into(),
            failsafe::Error::Rejected => "rejected".into(),
        })
    }
}

// ===== Whole stacks =====

/// The leanest that can be glued together: plain headers, tower's retry, failsafe's cheapest, governor.
macro_rules! leanest {
    ($inner:expr) => {
        tower::ServiceBuilder::new()
            .layer(set_header(CORRELATION))
            .layer(set_header(KEY))
            .layer(tower_retry())
            .layer_fn(governed)
            .layer_fn(failsafe_consecutive)
            .service($inner)
    };
}

/// What people write: tower-http's request ids, tower's retry, failsafe's default, governor.
macro_rules! usual {
    ($inner:expr) => {
        tower::ServiceBuilder::new()
            .layer_fn(request_ids(CORRELATION))
            .layer_fn(request_ids(KEY))
            .layer(tower_retry())
            .layer_fn(governed)
            .layer_fn(failsafe_default)
            .service($inner)
    };
}

/// tower alone, as its documentation stacks it: a buffer, so that what limits the rate can be cloned, and a timeout.
macro_rules! towers {
    ($inner:expr) => {
        tower::ServiceBuilder::new()
            .layer_fn(request_ids(CORRELATION))
            .layer_fn(request_ids(KEY))
            .layer(tower_retry())
            .load_shed()
            .buffer(1024)
            .rate_limit(u64::from(PLENTY), Duration::from_secs(1))
            .timeout(Duration::from_secs(60))
            .service($inner)
    };
}

/// tower-resilience, full: retry with a budget, breaker, limiter, time limit; ids by tower-http.
macro_rules! resilient {
    ($inner:expr) => {
        tower::ServiceBuilder::new()
            .layer_fn(request_ids(CORRELATION))
            .layer_fn(request_ids(KEY))
            .layer(resilience::retry()?)
            .layer(resilience::breaker()?)
            .layer(resilience::limiter()?)
            .layer(resilience::timeout())
            .service($inner)
    };
}

pub(crate) use {leanest, resilient, towers, usual};
