//! Tower's contract, layer by layer: `call` only after readiness, and no readiness reserved while waiting.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::{sync::Arc, time::Duration};

use didit_api::{Limits, Routes, Scope};
use tests::{Answer, Body, ReadinessProbe, create_session, get, limits};
use tower::{Layer, Service, ServiceExt};
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
