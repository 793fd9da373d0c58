//! Tower's contract, layer by layer: `call` only after readiness, and no readiness reserved while waiting.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::{sync::Arc, time::Duration};

use didit_api::{Limits, Routes, Scope};
use tests::{Answer, Body, ReadinessProbe, create_session, get, limits};
use tower::{Layer, Service, ServiceExt, limit::ConcurrencyLimit};
use tower_didit::{
    DiditLayer,
    attempt_timeout::AttemptTimeoutLayer,
    call::CallOptions,
    circuit_breaker::CircuitBreakerLayer,
    correlation::{CorrelationLayer, InboundCorrelationLayer},
    deadline::DeadlineLayer,
    idempotency::{IdempotencyLayer, store::MemoryStore},
    pacing::PacingLayer,
    retry::RetryLayer,
    telemetry::{SessionIdLayer, TelemetryLayer},
};

const SECOND: Duration = Duration::from_secs(1);

/// Drives a layer over the probe: two calls in a row on one service, then two at once on clones.
async fn passes<L, RB>(layer: L)
where
    L: Layer<ReadinessProbe>,
    L::Service: Service<http::Request<Body>, Response = http::Response<RB>, Error: std::fmt::Debug> + Clone,
{
    let probe = ReadinessProbe::new([]);
    let mut service = layer.layer(probe.clone());
    for _ in 0..2 {
        let response = service.ready().await.unwrap().call(get("/v3/sessions/")).await.unwrap();
        assert_eq!(response.status(), 200);
    }
    let (one, other) = tokio::join!(
        service.clone().oneshot(create_session(Some("user"), "one")),
        service.clone().oneshot(create_session(Some("user"), "two")),
    );
    assert_eq!((one.unwrap().status(), other.unwrap().status()), (http::StatusCode::OK, http::StatusCode::OK));
    assert_eq!(probe.calls(), 4);
    drop(service);
    assert_eq!(probe.reserved(), 0);
}

#[tokio::test(start_paused = true)]
async fn every_layer_calls_only_what_is_ready() {
    let breaker = CircuitBreakerLayer::didit();
    passes(CorrelationLayer::new()).await;
    passes(InboundCorrelationLayer::new()).await;
    passes(TelemetryLayer::didit()).await;
    passes(TelemetryLayer::didit().attempts()).await;
    passes(SessionIdLayer::didit()).await;
    passes(IdempotencyLayer::new()).await;
    passes(DeadlineLayer::default()).await;
    passes(RetryLayer::didit()).await;
    passes(breaker.peek()).await;
    passes(PacingLayer::didit()).await;
    passes(breaker).await;
    passes(AttemptTimeoutLayer::didit()).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_another_with_its_name_reserves_nothing() {
    let probe = ReadinessProbe::new([Answer::After(SECOND)]);
    let service = IdempotencyLayer::new().store(MemoryStore::new()).layer(probe.clone());
    let call = || {
        let mut request = create_session(Some("user"), "one");
        request.extensions_mut().insert(CallOptions::new().operation_id("one".parse().unwrap()));
        tokio::spawn(service.clone().oneshot(request))
    };
    let calls = [call(), call(), call()];
    tokio::time::sleep(SECOND / 2).await;
    assert_eq!((probe.calls(), probe.reserved()), (1, 0));
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().status(), 200);
    }
    assert_eq!((probe.calls(), probe.reserved()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn the_assembled_stack_calls_only_what_is_ready() {
    passes(DiditLayer::builder().api_key("key").build().unwrap()).await;
}

#[tokio::test(start_paused = true)]
async fn every_repetition_readies_a_fresh_clone() {
    let failures = [Answer::Status(503, None), Answer::Reset, Answer::ConnectionRefused, Answer::Status(502, None)];
    for layered in
        [RetryLayer::didit().layer(ReadinessProbe::new(failures)), RetryLayer::didit().layer(ReadinessProbe::new([]))]
    {
        let probe = layered.get_ref().clone();
        assert_eq!(layered.oneshot(get("/v3/sessions/")).await.unwrap().status(), 200);
        assert!(matches!(probe.calls(), 1 | 5), "{}", probe.calls());
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_of_the_inner_service_is_reserved_while_backing_off() {
    let probe = ReadinessProbe::new([Answer::Status(503, Some(30))]);
    let call = tokio::spawn(RetryLayer::didit().layer(probe.clone()).oneshot(get("/v3/sessions/")));
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!((probe.calls(), probe.reserved()), (1, 0));
    assert_eq!(call.await.unwrap().unwrap().status(), 200);
    assert_eq!(probe.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn nothing_of_the_inner_service_is_reserved_while_queueing() {
    let probe = ReadinessProbe::new([]);
    let layer = PacingLayer::builder().limits(limits(1, 60 * SECOND).unwrap()).build().unwrap();
    let service = layer.layer(probe.clone());
    let first = service.clone().oneshot(create_session(None, "one")).await.unwrap();
    assert_eq!(first.status(), 200);
    let call = tokio::spawn(service.oneshot(create_session(None, "two")));
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!((probe.calls(), probe.reserved()), (1, 0));
    assert_eq!(call.await.unwrap().unwrap().status(), 200);
}

/// Calls a service that was readied for it, and is kept while the call runs.
async fn begin<S>(service: &mut S, request: http::Request<Body>) -> S::Future
where
    S: Service<http::Request<Body>, Error: std::fmt::Debug>,
{
    service.ready().await.unwrap().call(request)
}

/// Refused after `ready`, and the service kept: how many readinesses it still holds.
async fn reserved_after_refusal<L, R>(layer: L, answers: &[Answer], before: usize, request: R) -> usize
where
    L: Layer<ReadinessProbe>,
    L::Service: Service<http::Request<Body>, Error: std::fmt::Debug>,
    R: Fn() -> http::Request<Body>,
{
    let probe = ReadinessProbe::new(answers.iter().copied());
    let mut service = layer.layer(probe.clone());
    for _ in 0..before {
        drop(begin(&mut service, create_session(None, "first")).await.await);
    }
    let sent = probe.calls();
    assert!(begin(&mut service, request()).await.await.is_err());
    assert_eq!(probe.calls(), sent, "refused, and not sent");
    probe.reserved()
}

#[tokio::test(start_paused = true)]
async fn whoever_refuses_a_call_gives_back_what_it_was_readied_for() {
    let urgent = || {
        let mut request = create_session(None, "urgent");
        request.extensions_mut().insert(CallOptions::new().deadline(Duration::ZERO));
        request
    };
    let write = || create_session(None, "call");
    let failures = [Answer::Status(500, None); 20];
    let pacing = PacingLayer::builder().limits(limits(1, 60 * SECOND).unwrap()).max_wait(SECOND).build().unwrap();
    let foreign = || http::Request::get("https://elsewhere.example/v3/sessions/").body(Body::default()).unwrap();
    let stack = DiditLayer::builder().api_key("key").build().unwrap();
    assert_eq!(reserved_after_refusal(DeadlineLayer::default(), &[], 0, urgent).await, 0);
    assert_eq!(reserved_after_refusal(pacing, &[], 1, write).await, 0);
    assert_eq!(reserved_after_refusal(stack, &[], 0, foreign).await, 0);
    let breaker = CircuitBreakerLayer::didit();
    assert_eq!(reserved_after_refusal(&breaker, &failures, failures.len(), write).await, 0);
    assert_eq!(reserved_after_refusal(breaker.peek(), &[], 0, write).await, 0);
    let breaker = CircuitBreakerLayer::didit();
    assert_eq!(reserved_after_refusal(breaker.watching_bodies(), &failures, failures.len(), write).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_kept_while_its_call_queues_reserves_nothing_either() {
    let probe = ReadinessProbe::new([]);
    let layer = PacingLayer::builder().limits(limits(1, 60 * SECOND).unwrap()).build().unwrap();
    let mut service = layer.layer(probe.clone());
    assert_eq!(begin(&mut service, create_session(None, "one")).await.await.unwrap().status(), 200);
    let call = tokio::spawn(begin(&mut service, create_session(None, "two")).await);
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!((probe.calls(), probe.reserved()), (1, 0));
    assert_eq!(call.await.unwrap().unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_queued_call_does_not_wait_for_a_permit_that_its_own_service_holds() {
    let layer = PacingLayer::builder().limits(limits(1, 60 * SECOND).unwrap()).build().unwrap();
    let retried = RetryLayer::didit().layer(layer.layer(ConcurrencyLimit::new(ReadinessProbe::new([]), 1)));
    let stack = DiditLayer::builder().api_key("key").limits(limits(1, 60 * SECOND).unwrap()).build().unwrap();
    let stack = stack.layer(ConcurrencyLimit::new(ReadinessProbe::new([]), 1));
    tokio::join!(twice(retried), twice(stack));
}

/// Makes two calls on one service, the second of which has to queue.
async fn twice<S, RB>(mut service: S)
where
    S: Service<http::Request<Body>, Response = http::Response<RB>, Error: std::fmt::Debug>,
{
    for _ in 0..2 {
        let mut request = create_session(None, "call");
        request.extensions_mut().insert(CallOptions::new().deadline(120 * SECOND));
        let call = async { begin(&mut service, request).await.await };
        // One that waits for itself waits for ever.
        let response = tokio::time::timeout(600 * SECOND, call).await.unwrap();
        assert_eq!(response.unwrap().status(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn the_layers_pass_in_any_order() {
    // Pacing over retry, and the breaker over both: unusual, but nobody may be called unready.
    let routes = Arc::new(Routes::blank().build().unwrap());
    let limits = Limits::none().with(Scope::methods("all", 2, ["GET"]).unwrap().with_window(SECOND).unwrap());
    let pacing = PacingLayer::builder().limits(limits.unwrap()).routes(routes).build().unwrap();
    let probe = ReadinessProbe::new([Answer::Status(503, None), Answer::Reset]);
    let retrying = RetryLayer::didit().layer(probe.clone());
    let service = CircuitBreakerLayer::didit().layer(pacing.layer(DeadlineLayer::default().layer(retrying)));
    for _ in 0..5 {
        assert_eq!(service.clone().oneshot(get("/v3/sessions/")).await.unwrap().status(), 200);
    }
    assert_eq!(probe.calls(), 7);
}
