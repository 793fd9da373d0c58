//! Everything that is measured on one and the same call, in memory.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use benches::Body;
use didit_api::Limits;
use http::{Request, Response};
use tokio::time::Instant;
use tower::{Layer, ServiceBuilder};
use tower_didit::{
    DiditLayer,
    attempt_timeout::AttemptTimeoutLayer,
    call::CallOptions,
    circuit_breaker::CircuitBreakerLayer,
    correlation::CorrelationLayer,
    deadline::DeadlineLayer,
    idempotency::{IdempotencyLayer, store::MemoryStore},
    pacing::PacingLayer,
    retry::RetryLayer,
};
use tower_http::trace::TraceLayer;

use crate::{
    Failure,
    calls::Echo,
    floor::{Floor, gcra, walk},
    measure::Subject,
    peers::{
        CORRELATION, KEY, PLENTY, failsafe_consecutive, failsafe_default, governed, leanest, request_ids, resilience,
        resilient, set_header, tower_retry, towers, usual,
    },
};

/// Names that other rows are compared with.
pub(crate) const BARE: &str = "bare";
pub(crate) const STACK: &str = "tower-didit stack";
pub(crate) const STACK_ONCE: &str = "tower-didit stack, nothing kept";
pub(crate) const FLOOR: &str = "floor: five duties by hand, request kept";
pub(crate) const FLOOR_ONCE: &str = "floor: five duties by hand, nothing kept";
pub(crate) const HEADER: &str = "reference: set-header once";
pub(crate) const HEADERS: &str = "reference: set-header twice";
pub(crate) const CLOCK: &str = "reference: clock read and fetch_add";
pub(crate) const STEP: &str = "reference: GCRA step and header walk";
pub(crate) const CLONE: &str = "reference: one request clone";
pub(crate) const IDS: &str = "tower-didit correlation";
pub(crate) const NAMES: &str = "tower-didit correlation and idempotency";
pub(crate) const BREAKER: &str = "tower-didit breaker";
pub(crate) const PACING: &str = "tower-didit pacing";
pub(crate) const RETRY: &str = "tower-didit retry";
pub(crate) const RETRY_ONCE: &str = "tower-didit retry, nothing kept";

/// Limits that never make anybody wait: what is measured is the ledger, not the queue.
pub(crate) fn wide() -> Limits {
    let widened = Limits::didit().scopes().to_vec().into_iter().map(|scope| {
        // A short window keeps the ledger as full as it is under load, and no fuller.
        scope.with_limit(100_000_000).and_then(|scope| scope.with_window(Duration::from_millis(1)))
    });
    widened.flatten().try_fold(Limits::none(), Limits::with).unwrap_or_else(|_| Limits::none())
}

pub(crate) fn pacing() -> Result<PacingLayer, Failure> {
    Ok(PacingLayer::builder().limits(wide()).epsilon(Duration::ZERO).transit(Duration::ZERO).build()?)
}

/// The assembled stack with wide limits.
pub(crate) fn builder() -> tower_didit::stack::DiditBuilder {
    DiditLayer::builder()
        .api_key("0123456789abcdef")
        .pacing(|pacing| pacing.limits(wide()).epsilon(Duration::ZERO).transit(Duration::ZERO))
}

/// All rows, the bare service first. Called within the runtime that the buffers' workers run on.
pub(crate) fn all() -> Result<Vec<Subject>, Failure> {
    let mut all = vec![Subject::new(BARE, Echo)];
    references(&mut all);
    ours(&mut all)?;
    peers(&mut all)?;
    Ok(all)
}

fn references(all: &mut Vec<Subject>) {
    all.push(Subject::new(FLOOR_ONCE, Floor::new(Echo, false)));
    all.push(Subject::new(FLOOR, Floor::new(Echo, true)));
    all.push(Subject::new(HEADER, set_header(CORRELATION).layer(Echo)));
    all.push(Subject::new(HEADERS, set_header(CORRELATION).layer(set_header(KEY).layer(Echo))));
    let counted = Arc::new(AtomicU64::new(0));
    let count = move |request: Request<Body>| {
        std::hint::black_box(Instant::now());
        counted.fetch_add(1, Ordering::Relaxed);
        request
    };
    all.push(Subject::new(CLOCK, ServiceBuilder::new().map_request(count).service(Echo)));
    let (even, began) = (Arc::new(AtomicU64::new(0)), Instant::now());
    let step = move |request: Request<Body>| {
        std::hint::black_box(gcra(&even, began));
        request
    };
    let look = |response: Response<_>| {
        std::hint::black_box(walk(response.headers()));
        response
    };
    all.push(Subject::new(STEP, ServiceBuilder::new().map_request(step).map_response(look).service(Echo)));
    let copy = |request: Request<Body>| {
        std::hint::black_box(request.clone());
        request
    };
    all.push(Subject::new(CLONE, ServiceBuilder::new().map_request(copy).service(Echo)));
}

fn ours(all: &mut Vec<Subject>) -> Result<(), Failure> {
    all.push(Subject::new(IDS, CorrelationLayer::new().layer(Echo)));
    all.push(Subject::new("tower-didit idempotency", IdempotencyLayer::new().layer(Echo)));
    all.push(Subject::new(NAMES, CorrelationLayer::new().layer(IdempotencyLayer::new().layer(Echo))));
    let stored = IdempotencyLayer::new().store(MemoryStore::new()).layer(Echo);
    all.push(Subject::new("tower-didit idempotency, stored, call named", stored).named());
    all.push(Subject::new("tower-didit deadline", DeadlineLayer::default().layer(Echo)));
    all.push(Subject::new(RETRY, RetryLayer::didit().layer(Echo)));
    all.push(Subject::new(RETRY_ONCE, RetryLayer::builder().max_attempts(1).build()?.layer(Echo)));
    let breaker = CircuitBreakerLayer::didit();
    all.push(Subject::new("tower-didit breaker, peek", breaker.peek().layer(Echo)));
    all.push(Subject::new(PACING, pacing()?.layer(Echo)));
    all.push(Subject::new(BREAKER, breaker.layer(Echo)));
    all.push(Subject::new("tower-didit attempt timeout", AttemptTimeoutLayer::didit().layer(Echo)));
    all.push(Subject::new(STACK, builder().build()?.layer(Echo)));
    let once = builder().retry(|retry| retry.max_attempts(1)).build()?;
    all.push(Subject::new(STACK_ONCE, once.layer(Echo)));
    let stored = || builder().idempotency_store(MemoryStore::new()).build();
    all.push(Subject::new("tower-didit stack with a store, call unnamed", stored()?.layer(Echo)));
    all.push(Subject::new("tower-didit stack with a store, call named", stored()?.layer(Echo)).named());
    Ok(())
}

fn peers(all: &mut Vec<Subject>) -> Result<(), Failure> {
    let build = ServiceBuilder::new;
    let minute = Duration::from_secs(60);
    all.push(Subject::new("tower retry, TpsBudget", tower_retry().layer(Echo)));
    all.push(Subject::new("tower timeout", build().timeout(minute).service(Echo)));
    let limited = build().buffer(1024).rate_limit(u64::from(PLENTY), Duration::from_secs(1)).service(Echo);
    all.push(Subject::new("tower buffer and rate limit", limited));
    all.push(Subject::new("tower load shed", build().load_shed().service(Echo)));
    all.push(Subject::new("tower-http request id, set and propagated", request_ids(CORRELATION)(Echo)));
    all.push(Subject::new("tower-http trace, no subscriber", TraceLayer::new_for_http().layer(Echo)));
    all.push(Subject::new("governor", governed(Echo)));
    all.push(Subject::new("failsafe, consecutive failures", failsafe_consecutive(Echo)));
    all.push(Subject::new("failsafe, default", failsafe_default(Echo)));
    all.push(Subject::new("tower-resilience retry, budget", resilience::retry()?.layer(Echo)));
    all.push(Subject::new("tower-resilience breaker", resilience::breaker()?.layer(Echo)));
    all.push(Subject::new("tower-resilience limiter", resilience::limiter()?.layer(Echo)));
    all.push(Subject::new("tower-resilience time limit", resilience::timeout().layer(Echo)));
    all.push(Subject::new("stack: leanest glue", leanest!(Echo)));
    all.push(Subject::new("stack: what people write", usual!(Echo)));
    all.push(Subject::new("stack: tower alone", towers!(Echo)));
    all.push(Subject::new("stack: tower-resilience, full", resilient!(Echo)));
    Ok(())
}

/// The bare service, and the stack where somebody listens.
pub(crate) fn listened() -> Result<Vec<Subject>, Failure> {
    let stack = |name| -> Result<Subject, Failure> { Ok(Subject::new(name, builder().build()?.layer(Echo))) };
    let registry = stack("tower-didit stack, told to a bare Registry")?.told_to(tracing_subscriber::registry());
    let lines = tracing_subscriber::fmt().json().flatten_event(true).with_current_span(false);
    let json = stack("tower-didit stack, told as JSON")?.told_to(lines.with_writer(std::io::sink).finish());
    Ok(vec![Subject::new(BARE, Echo), registry, json])
}

/// Session creations of one operation after the other.
pub(crate) fn name(request: &mut Request<Body>) {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    if let Ok(id) = format!("operation-{number}").parse() {
        request.extensions_mut().insert(CallOptions::new().operation_id(id));
    }
}
