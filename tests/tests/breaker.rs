//! The circuit breaker around services, in virtual time.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use didit_api::{Routes, ServiceGroup};
use http::Method;
use tests::{Answer, ReadinessProbe, create_session, get, to};
use tokio::time::Instant;
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_didit::{
    call::CallReport,
    circuit_breaker::{CircuitBreakerLayer, CircuitState, TripPolicy},
    retry::RetryLayer,
};

const SECOND: Duration = Duration::from_secs(1);

fn aml() -> http::Request<tests::Body> {
    to(Method::POST, "/v3/aml/")
}

#[tokio::test(start_paused = true)]
async fn one_failing_group_leaves_the_others_untouched() {
    let breaker = CircuitBreakerLayer::didit();
    let probe = ReadinessProbe::new([Answer::Reset; 5]);
    let service = breaker.layer(probe.clone());
    for _ in 0..5 {
        service.clone().oneshot(aml()).await.unwrap_err();
    }
    let error = service.clone().oneshot(aml()).await.unwrap_err();
    let open = error.as_layer().expect("refused by the breaker");
    assert_eq!(open.group(), ServiceGroup::Aml);
    assert!(open.retry_at().is_some_and(|at| at > Instant::now()));
    assert_eq!(probe.calls(), 5, "the sixth was not sent");
    assert!(service.oneshot(create_session(None, "core")).await.is_ok());
    assert_eq!(breaker.state(ServiceGroup::Core), Some(CircuitState::Closed));
}

#[tokio::test(start_paused = true)]
async fn during_an_outage_one_probe_goes_out_per_open_time_and_the_first_good_one_closes() {
    let breaker = CircuitBreakerLayer::didit();
    // Down for five minutes from the point of view of a client that keeps asking.
    let start = Instant::now();
    let end = start + 300 * SECOND;
    let server = tower::service_fn(move |_: http::Request<tests::Body>| async move {
        let status = if Instant::now() < end { 503 } else { 200 };
        http::Response::builder().status(status).body(()).map_err(std::io::Error::other)
    });
    let sent = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let service = breaker.layer(ServiceBuilder::new().service(server).map_request(move |request| {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        request
    }));
    let mut back = None;
    while back.is_none() {
        if let Ok(response) = service.clone().oneshot(get("/v3/sessions/")).await
            && response.status() == 200
        {
            back = Some(Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let late = back.unwrap() - end;
    // Open times of 7.5 to 10, 15 to 20, then 22.5 to 30 s.
    assert!(late <= 31 * SECOND, "noticed {late:?} after the return");
    let probes = sent.load(std::sync::atomic::Ordering::Relaxed) - 5;
    assert!(probes <= 15, "{probes} probes in five minutes");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_probe_lets_the_next_one_through_at_once() {
    let policy = TripPolicy::DIDIT.consecutive_failures(1).unwrap();
    let breaker = CircuitBreakerLayer::new(policy, Routes::didit());
    let probe = ReadinessProbe::new([Answer::Reset, Answer::After(3_600 * SECOND)]);
    let service = breaker.layer(probe.clone());
    service.clone().oneshot(aml()).await.unwrap_err();
    tokio::time::sleep(11 * SECOND).await;
    let cancelled = tokio::time::timeout(SECOND, service.clone().oneshot(aml())).await;
    assert!(cancelled.is_err());
    assert_eq!(breaker.state(ServiceGroup::Aml), Some(CircuitState::HalfOpen));
    assert!(service.oneshot(aml()).await.is_ok());
    assert_eq!(breaker.state(ServiceGroup::Aml), Some(CircuitState::Closed));
}

#[tokio::test(start_paused = true)]
async fn a_429_opens_no_circuit() {
    let probe = ReadinessProbe::new([Answer::Status(429, Some(1)); 50]);
    let breaker = CircuitBreakerLayer::didit();
    let service = breaker.layer(probe.clone());
    for _ in 0..50 {
        assert_eq!(service.clone().oneshot(aml()).await.unwrap().status(), 429);
    }
    assert_eq!(breaker.state(ServiceGroup::Aml), Some(CircuitState::Closed));
}

#[tokio::test(start_paused = true)]
async fn a_repetition_waits_for_the_circuit_instead_of_burning_its_attempts() {
    let policy = TripPolicy::DIDIT.consecutive_failures(2).unwrap();
    let breaker = CircuitBreakerLayer::new(policy, Routes::didit());
    let probe = ReadinessProbe::new([Answer::Reset; 2]);
    let service = ServiceBuilder::new().layer(RetryLayer::didit()).layer(breaker).service(probe.clone());
    let start = Instant::now();
    let response = service.oneshot(get("/v3/sessions/")).await.unwrap();
    assert_eq!(response.status(), 200);
    let report = response.extensions().get::<CallReport>().expect("it was repeated");
    assert_eq!((report.attempts() - report.held_back(), report.held_back()), (3, 1));
    assert_eq!(probe.calls(), 3, "two failures, and the probe that closed the circuit");
    assert!(start.elapsed() > 7 * SECOND, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn thirty_two_workers_of_a_dead_service_are_refused_at_once_and_back_within_an_open_time() {
    let breaker = CircuitBreakerLayer::didit();
    let (start, down) = (Instant::now(), 300 * SECOND);
    let arrivals = Arc::new(Mutex::new(Vec::new()));
    let service = breaker.layer(tower::service_fn({
        let arrivals = Arc::clone(&arrivals);
        move |_: http::Request<tests::Body>| {
            arrivals.lock().unwrap().push(start.elapsed());
            async move {
                // A dead service takes its time to say so.
                tokio::time::sleep(Duration::from_millis(200)).await;
                let status = if start.elapsed() < down { 503 } else { 200 };
                http::Response::builder().status(status).body(()).map_err(std::io::Error::other)
            }
        }
    }));
    let workers = (0..32).map(|worker| {
        let service = service.clone();
        tokio::spawn(async move {
            let mut first_success = None;
            while start.elapsed() < 360 * SECOND {
                let began = Instant::now();
                match service.clone().oneshot(get("/v3/sessions/")).await {
                    Err(_) => assert_eq!(began.elapsed(), Duration::ZERO, "a refusal waits for nothing"),
                    Ok(response) if response.status() == 200 => {
                        first_success.get_or_insert(start.elapsed());
                    }
                    Ok(_) => {}
                }
                tokio::time::sleep(Duration::from_millis(50 + worker)).await;
            }
            first_success.unwrap()
        })
    });
    let mut back = Vec::new();
    for worker in workers.collect::<Vec<_>>() {
        back.push(worker.await.unwrap());
    }
    let arrivals = arrivals.lock().unwrap();
    let probes = arrivals.iter().filter(|at| (SECOND..down).contains(*at)).count();
    let first = back.iter().min().unwrap().saturating_sub(down);
    println!("probes in five minutes: {probes}; first success {first:?} after the return");
    // Open times of at least 7.5, 15 and then 22.5 s: one probe each.
    assert!(probes <= 2 + 300 / 22, "{probes}");
    assert!(first <= 30 * SECOND + Duration::from_millis(300), "{first:?}");
    let all = back.iter().max().unwrap().saturating_sub(down);
    assert!(all <= first + 2 * SECOND, "the last worker only {all:?} after the return");
}
