//! What an operator sees of a circuit and does to it, and what is counted on request; in virtual time.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use didit_api::{Routes, ServiceGroup};
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tests::{Answer, Body, ReadinessProbe, get, to};
use tokio::time::{Instant, sleep, timeout};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_didit::{
    circuit_breaker::{CircuitBreakerLayer, CircuitState, StateChange, TripPolicy},
    retry::RetryLayer,
};

const SECOND: Duration = Duration::from_secs(1);
const AML: ServiceGroup = ServiceGroup::Aml;

fn aml() -> Request<Body> {
    to(Method::POST, "/v3/aml/")
}

fn breaker(policy: TripPolicy) -> CircuitBreakerLayer {
    CircuitBreakerLayer::new(policy, Routes::didit())
}

/// Everything that a handle tells of, as it comes.
fn changes(breaker: &CircuitBreakerLayer) -> Arc<Mutex<Vec<StateChange>>> {
    let changes = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&changes);
    breaker.handle().on_change(move |change| told.lock().unwrap().push(*change));
    changes
}

fn states(changes: &Mutex<Vec<StateChange>>) -> Vec<&'static str> {
    let name = |state: &CircuitState| match state {
        CircuitState::Closed => "closed",
        CircuitState::Open { .. } => "open",
        CircuitState::HalfOpen => "half open",
        CircuitState::ForcedOpen => "forced open",
        CircuitState::ForcedClosed => "forced closed",
        _ => "unknown",
    };
    let changes = changes.lock().unwrap();
    for pair in changes.windows(2) {
        assert_eq!(pair[0].to, pair[1].from, "a change is missing");
    }
    changes.iter().map(|change| name(&change.to)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_circuit_shows_what_it_counted_and_when_it_will_probe() {
    let breaker = CircuitBreakerLayer::didit();
    let probe = ReadinessProbe::new([Answer::Status(200, None), Answer::Reset, Answer::Reset]);
    let service = breaker.layer(probe.clone());
    for _ in 0..3 {
        let _either = service.clone().oneshot(aml()).await;
    }
    let status = breaker.handle().status(AML).unwrap();
    assert_eq!((status.state, status.calls, status.failures), (CircuitState::Closed, 3, 2));
    assert_eq!((status.consecutive_failures, status.next_probe), (2, None));
    assert!((status.failure_ratio() - 2.0 / 3.0).abs() < 1e-9);
    let failing = breaker.layer(ReadinessProbe::new([Answer::Reset; 3]));
    for _ in 0..3 {
        failing.clone().oneshot(aml()).await.unwrap_err();
    }
    let status = breaker.handle().status(AML).unwrap();
    assert!(matches!(status.state, CircuitState::Open { .. }));
    assert!(status.next_probe.unwrap() > 7 * SECOND);
    assert_eq!(breaker.handle().status(ServiceGroup::Custom("unknown")), None);
    assert_eq!(breaker.handle().groups().count(), 9);
}

#[tokio::test(start_paused = true)]
async fn an_operator_may_hold_a_circuit_open_or_closed_and_let_go() {
    let breaker = CircuitBreakerLayer::didit();
    let (handle, told) = (breaker.handle(), changes(&breaker));
    let service = breaker.layer(ReadinessProbe::new([Answer::Reset; 20]));
    assert!(handle.force_open(AML));
    let error = service.clone().oneshot(aml()).await.unwrap_err();
    assert_eq!(error.as_layer().map(|open| (open.group(), open.retry_at())), Some((AML, None)));
    sleep(3_600 * SECOND).await;
    assert!(service.clone().oneshot(aml()).await.unwrap_err().as_layer().is_some(), "it stays open");
    assert!(handle.force_closed(AML));
    for _ in 0..20 {
        assert!(service.clone().oneshot(aml()).await.unwrap_err().as_inner().is_some(), "every call passes");
    }
    assert!(handle.reset(AML));
    assert!(service.clone().oneshot(aml()).await.is_ok());
    assert!(!handle.force_open(ServiceGroup::Custom("unknown")));
    assert_eq!(states(&told), ["forced open", "forced closed", "closed"]);
}

#[tokio::test(start_paused = true)]
async fn changes_are_told_in_order_and_a_listener_that_panics_or_steers_harms_nobody() {
    let breaker = breaker(TripPolicy::SEED);
    let handle = breaker.handle();
    handle.on_change(|_| panic!("a listener's own trouble"));
    // A listener that uses the handle itself: it is called outside of every lock.
    let steering = handle.clone();
    handle.on_change(move |change| {
        assert!(steering.state(change.group).is_some());
    });
    let told = changes(&breaker);
    let mut channel = handle.subscribe();
    let service = breaker.layer(ReadinessProbe::new([Answer::Reset; 4]));
    for _ in 0..3 {
        service.clone().oneshot(aml()).await.unwrap_err();
    }
    sleep(10 * SECOND).await;
    service.clone().oneshot(aml()).await.unwrap_err();
    sleep(10 * SECOND).await;
    service.clone().oneshot(aml()).await.unwrap();
    assert_eq!(states(&told), ["open", "half open", "open", "half open", "closed"]);
    let first = channel.try_recv().unwrap();
    assert_eq!((first.group, first.from), (AML, CircuitState::Closed));
}

#[tokio::test(start_paused = true)]
async fn the_recipes_breaker_is_one_line() {
    let breaker = breaker(TripPolicy::SEED);
    let service = breaker.layer(ReadinessProbe::new([Answer::Reset; 3]));
    for _ in 0..3 {
        assert_eq!(breaker.state(AML), Some(CircuitState::Closed));
        service.clone().oneshot(aml()).await.unwrap_err();
    }
    let until = service.clone().oneshot(aml()).await.unwrap_err().as_layer().unwrap().retry_at().unwrap();
    let wait = until - Instant::now();
    assert!(wait > 7 * SECOND && wait <= 10 * SECOND, "{wait:?}");
    sleep(wait).await;
    service.oneshot(aml()).await.unwrap();
    assert_eq!(breaker.state(AML), Some(CircuitState::Closed));
}

#[tokio::test(start_paused = true)]
async fn slow_answers_open_the_circuit_if_the_policy_says_so() {
    let policy = TripPolicy::DIDIT.slow_call_ratio(0.5, 2 * SECOND).unwrap();
    let policy = policy.failure_ratio(0.5, 4, 60 * SECOND).unwrap();
    let breaker = breaker(policy);
    let answers = [Answer::After(SECOND), Answer::After(SECOND), Answer::After(3 * SECOND), Answer::After(3 * SECOND)];
    let service = breaker.layer(ReadinessProbe::new(answers));
    for call in 0..4 {
        assert_eq!(breaker.state(AML), Some(CircuitState::Closed), "before call {call}");
        service.clone().oneshot(aml()).await.unwrap();
    }
    assert!(matches!(breaker.state(AML), Some(CircuitState::Open { .. })));
}

#[tokio::test(start_paused = true)]
async fn before_it_opens_it_may_refuse_repetitions_alone() {
    let policy = TripPolicy::DIDIT.failure_ratio(0.9, 4, 60 * SECOND).unwrap();
    let policy = policy.retries_only(0.4).unwrap().consecutive_failures(100).unwrap();
    let breaker = breaker(policy);
    let probe = ReadinessProbe::new([200, 200, 503, 503].map(|status| Answer::Status(status, None)));
    let plain = breaker.layer(probe.clone());
    for _ in 0..4 {
        plain.clone().oneshot(get("/v3/sessions/")).await.unwrap();
    }
    // Half of the calls failed: a first attempt passes, its repetitions are refused.
    let failing = ReadinessProbe::new([Answer::Reset; 10]);
    let layer = RetryLayer::builder().max_attempts(3).build().unwrap();
    let service = ServiceBuilder::new().layer(layer).layer(breaker.clone()).service(failing.clone());
    let error = service.oneshot(get("/v3/sessions/")).await.unwrap_err();
    assert!(error.as_inner().is_some(), "what the caller gets is what came of the attempt that was made: {error:?}");
    assert_eq!(failing.calls(), 1);
    assert_eq!(breaker.state(ServiceGroup::Core), Some(CircuitState::Closed));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_counts_as_a_failure_if_that_is_asked_for() {
    let broken = |_: Request<Body>| async {
        let frames = [Ok(Frame::data(Bytes::from_static(b"half of"))), Err(io::Error::other("torn"))];
        Ok::<_, io::Error>(Response::new(StreamBody::new(tokio_stream::iter(frames))))
    };
    let headers_only = breaker(TripPolicy::SEED);
    let watching = breaker(TripPolicy::SEED);
    let (plain, watched) =
        (headers_only.layer(service_fn(broken)), watching.clone().watching_bodies().layer(service_fn(broken)));
    for _ in 0..3 {
        plain.clone().oneshot(aml()).await.unwrap().into_body().collect().await.unwrap_err();
        watched.clone().oneshot(aml()).await.unwrap().into_body().collect().await.unwrap_err();
    }
    assert_eq!(headers_only.state(AML), Some(CircuitState::Closed));
    assert!(matches!(watching.state(AML), Some(CircuitState::Open { .. })));
    assert!(watched.oneshot(aml()).await.unwrap_err().as_layer().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_watched_body_read_to_its_end_or_dropped_is_a_success() {
    let breaker = breaker(TripPolicy::SEED);
    let service = breaker.clone().watching_bodies().layer(ReadinessProbe::new([Answer::Reset; 3]));
    for _ in 0..3 {
        service.clone().oneshot(aml()).await.unwrap_err();
    }
    sleep(10 * SECOND).await;
    // The probe's body is neither read nor forgotten: its place is free once it is gone, and the circuit closed.
    drop(service.clone().oneshot(aml()).await.unwrap());
    assert_eq!(breaker.state(AML), Some(CircuitState::Closed));
    service.oneshot(aml()).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(breaker.handle().status(AML).map(|status| status.calls), Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_watched_body_that_stalls_is_no_success_however_its_reader_gives_up() {
    let stalls = |_: Request<Body>| async {
        let first = tokio_stream::once(Ok::<_, io::Error>(Frame::data(Bytes::from_static(b"half of"))));
        let stream = tokio_stream::StreamExt::chain(first, tokio_stream::pending());
        Ok::<_, io::Error>(Response::new(StreamBody::new(stream)))
    };
    // An AML check has 60 s, and 5 s of grace. Nobody gave the call a deadline.
    for (patience, opens) in [(70 * SECOND, true), (10 * SECOND, false)] {
        let breaker = breaker(TripPolicy::SEED);
        let service = breaker.clone().watching_bodies().layer(service_fn(stalls));
        for _ in 0..3 {
            let body = service.clone().oneshot(aml()).await.unwrap().into_body();
            timeout(patience, body.collect()).await.unwrap_err();
        }
        let opened = matches!(breaker.state(AML), Some(CircuitState::Open { .. }));
        assert_eq!(opened, opens, "after {patience:?}");
        assert_eq!(breaker.handle().status(AML).map(|status| status.calls), Some(0), "impatience says nothing at all");
    }
    // A probe that is given up frees its place, and closes nothing.
    let breaker = breaker(TripPolicy::SEED);
    let failing = breaker.clone().layer(ReadinessProbe::new([Answer::Reset; 3]));
    for _ in 0..3 {
        failing.clone().oneshot(aml()).await.unwrap_err();
    }
    sleep(10 * SECOND).await;
    let body = breaker.clone().watching_bodies().layer(service_fn(stalls)).oneshot(aml()).await.unwrap().into_body();
    timeout(SECOND, body.collect()).await.unwrap_err();
    assert_ne!(breaker.state(AML), Some(CircuitState::Closed));
    failing.oneshot(aml()).await.unwrap();
    assert_eq!(breaker.state(AML), Some(CircuitState::Closed));
}

#[tokio::test(start_paused = true)]
async fn a_hung_probe_is_replaced_after_its_lease() {
    let breaker = breaker(TripPolicy::SEED);
    let answers = [Answer::Reset, Answer::Reset, Answer::Reset, Answer::After(86_400 * SECOND)];
    let service = breaker.layer(ReadinessProbe::new(answers));
    for _ in 0..3 {
        service.clone().oneshot(aml()).await.unwrap_err();
    }
    sleep(10 * SECOND).await;
    let hung = tokio::spawn(service.clone().oneshot(aml()));
    // An AML check has 60 s, and 5 s of grace.
    sleep(64 * SECOND).await;
    assert!(service.clone().oneshot(aml()).await.unwrap_err().as_layer().is_some());
    sleep(SECOND).await;
    service.oneshot(aml()).await.unwrap();
    assert_eq!(breaker.state(AML), Some(CircuitState::Closed));
    hung.abort();
}

#[tokio::test(start_paused = true)]
async fn a_healthy_answer_of_the_health_check_ends_the_open_time_early() {
    let policy = TripPolicy::SEED.open_for(3_000 * SECOND, 3_000 * SECOND).unwrap();
    let breaker = breaker(policy);
    let service = breaker.layer(ReadinessProbe::new([Answer::Reset; 3]));
    let start = Instant::now();
    let back = start + 60 * SECOND;
    let health = service_fn(move |request: Request<Body>| async move {
        assert_eq!(request.uri(), "http://127.0.0.1:1/system/healthcheck");
        let status = if Instant::now() < back { 503 } else { 200 };
        Response::builder().status(status).body(()).map_err(io::Error::other)
    });
    tokio::spawn(breaker.handle().watch_health(health, "http://127.0.0.1:1", 10 * SECOND));
    for _ in 0..3 {
        service.clone().oneshot(get("/v3/sessions/")).await.unwrap_err();
    }
    sleep(back - start - SECOND).await;
    assert!(service.clone().oneshot(get("/v3/sessions/")).await.unwrap_err().as_layer().is_some());
    sleep(15 * SECOND).await;
    assert!(service.oneshot(get("/v3/sessions/")).await.is_ok(), "at most one interval after the return");
    assert_eq!(breaker.state(ServiceGroup::Core), Some(CircuitState::Closed));
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_is_gone_costs_nothing_more() {
    let breaker = breaker(TripPolicy::SEED);
    let handle = breaker.handle();
    let kept = handle.subscribe();
    drop((0..100).map(|_| handle.subscribe()).collect::<Vec<_>>());
    for _ in 0..2 {
        handle.force_open(AML);
        handle.reset(AML);
    }
    assert_eq!(kept.len(), 4, "whoever still listens hears everything");
    drop(kept);
    handle.force_open(AML);
}
