//! The pacing layer against the local Didit's exact windows, in virtual time.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use didit_api::{Limits, Scope};
use didit_sandbox::{Sandbox, SandboxBuilder};
use tests::{Answer, ReadinessProbe, create_session, get, limits, sandbox};
use tokio::time::Instant;
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_didit::{
    call::{CallOptions, CallReport},
    circuit_breaker::CircuitBreakerLayer,
    deadline::DeadlineLayer,
    pacing::PacingLayer,
    retry::RetryLayer,
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// The mean of a latency that is uniform between 20 and 120 ms.
const MEAN_RTT: Duration = Duration::from_millis(70);

fn distant() -> SandboxBuilder {
    sandbox(7).latency(Duration::from_millis(20)..=Duration::from_millis(120)).any_workflow(true)
}

/// Session creations without pause from `workers` tasks for `length`; returns how many were answered in that time.
async fn saturate<S>(service: S, workers: usize, length: Duration) -> u64
where
    S: Service<http::Request<tests::Body>, Response: Send, Error: std::fmt::Debug + Send> + Clone + Send + 'static,
    S::Future: Send,
{
    let end = Instant::now() + length;
    let answered = Arc::new(AtomicU64::new(0));
    let workers = (0..workers).map(|worker| {
        let (service, answered) = (service.clone(), Arc::clone(&answered));
        tokio::spawn(tokio::time::timeout_at(end, async move {
            loop {
                let mut request = create_session(None, &format!("worker-{worker}"));
                request.headers_mut().insert("x-api-key", http::HeaderValue::from_static("key"));
                service.clone().oneshot(request).await.unwrap();
                answered.fetch_add(1, Ordering::Relaxed);
            }
        }))
    });
    for worker in workers.collect::<Vec<_>>() {
        let _timed_out = worker.await.unwrap();
    }
    answered.load(Ordering::Relaxed)
}

/// What the ledger promises at the least: L·W / (W + RTT + ε) per window.
fn promised(limit: u32, epsilon: Duration, length: Duration) -> f64 {
    let (window, rtt, epsilon) = (MINUTE.as_secs_f64(), MEAN_RTT.as_secs_f64(), epsilon.as_secs_f64());
    f64::from(limit) * window / (window + rtt + epsilon) * (length.as_secs_f64() / window)
}

async fn saturated(sandbox: Sandbox, epsilon: Duration, length: Duration) -> f64 {
    let layer = PacingLayer::builder().epsilon(epsilon).build().unwrap();
    let answered = saturate(layer.layer(sandbox.clone()), 50, length).await;
    let stats = sandbox.stats();
    assert_eq!(stats.throttled, 0, "{stats:?}");
    answered as f64 / promised(300, epsilon, length)
}

#[tokio::test(start_paused = true)]
async fn ten_saturated_minutes_bring_no_429_and_99_percent_of_what_can_be_had() {
    let share = saturated(distant().build().unwrap(), SECOND, 10 * MINUTE).await;
    println!("share of the theoretical best over 10 minutes: {share:.4}");
    assert!(share >= 0.99, "{share}");
}

#[tokio::test(start_paused = true)]
async fn two_saturated_hours_bring_no_429_and_no_more_than_can_be_had() {
    let share = saturated(distant().build().unwrap(), SECOND, 120 * MINUTE).await;
    println!("share of the theoretical best over 2 hours: {share:.4}");
    assert!((0.99..1.01).contains(&share), "{share}");
}

#[tokio::test(start_paused = true)]
async fn a_server_with_whole_second_stamps_refuses_nothing_either() {
    let sandbox = distant().whole_second_stamps(true).count_rejected(true).build().unwrap();
    let share = saturated(sandbox, SECOND, 60 * MINUTE).await;
    assert!(share >= 0.99, "{share}");
}

#[tokio::test(start_paused = true)]
async fn an_exact_server_allows_a_smaller_epsilon() {
    let share = saturated(distant().build().unwrap(), Duration::from_millis(5), 60 * MINUTE).await;
    assert!(share >= 0.99, "{share}");
}

#[tokio::test(start_paused = true)]
async fn calls_that_were_cancelled_in_flight_keep_their_slots() {
    let sandbox = distant().limits(limits(30, MINUTE).unwrap()).build().unwrap();
    let layer = PacingLayer::builder().limits(limits(30, MINUTE).unwrap()).build().unwrap();
    let service = layer.layer(sandbox.clone());
    for round in 0..300_u64 {
        let mut request = create_session(None, "cancelled");
        request.headers_mut().insert("x-api-key", http::HeaderValue::from_static("key"));
        let call = service.clone().oneshot(request);
        if round % 5 == 0 {
            // Long enough to have arrived in one of two cases.
            let _gone = tokio::time::timeout(Duration::from_millis(60), call).await;
        } else {
            call.await.unwrap();
        }
    }
    assert_eq!(sandbox.stats().throttled, 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_a_narrow_scope_holds_up_nobody_else() {
    let narrow = Scope::endpoints("session-update-kyc", 1, ["session-update-data"]).unwrap();
    let limits = limits(10, MINUTE).unwrap().with(narrow).unwrap();
    let service = PacingLayer::builder().limits(limits).build().unwrap().layer(ReadinessProbe::new([]));
    let update = || tests::to(http::Method::PATCH, "/v3/session/11111111-2222-4333-8444-555555555555/update-data/");
    service.clone().oneshot(update()).await.unwrap();
    let start = Instant::now();
    let waiting = tokio::spawn(service.clone().oneshot(update()));
    tokio::task::yield_now().await;
    for _ in 0..9 {
        service.clone().oneshot(create_session(None, "wide")).await.unwrap();
    }
    assert_eq!(start.elapsed(), Duration::ZERO, "the wide calls went past");
    waiting.await.unwrap().unwrap();
    assert_eq!(start.elapsed().as_secs(), 61);
}

#[tokio::test(start_paused = true)]
async fn calls_of_one_kind_are_served_in_order_and_a_dropped_one_leaves_no_trace() {
    let probe = ReadinessProbe::new([]);
    let layer = PacingLayer::builder().limits(limits(1, MINUTE).unwrap()).build().unwrap();
    let service = layer.layer(probe.clone());
    service.clone().oneshot(create_session(None, "first")).await.unwrap();
    let start = Instant::now();
    let mut calls: Vec<_> = (0..6)
        .map(|_| {
            tokio::spawn({
                let service = service.clone();
                async move { service.oneshot(create_session(None, "next")).await.map(|_| start.elapsed().as_secs()) }
            })
        })
        .collect();
    tokio::time::sleep(SECOND).await;
    assert_eq!(layer.usage()[0].waiting, 6);
    // The first in line and one in the middle go away.
    calls.remove(3).abort();
    calls.remove(0).abort();
    let mut served = Vec::new();
    for call in calls {
        served.push(call.await.unwrap().unwrap());
    }
    assert_eq!(served, [61, 122, 183, 244]);
    assert_eq!(layer.usage()[0].waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_cannot_start_before_its_deadline_is_refused_at_the_door() {
    let probe = ReadinessProbe::new([]);
    let layer = PacingLayer::builder().limits(limits(1, MINUTE).unwrap()).build().unwrap();
    let service = ServiceBuilder::new().layer(DeadlineLayer::new(30 * SECOND)).layer(layer).service(probe.clone());
    service.clone().oneshot(create_session(None, "one")).await.unwrap();
    let start = Instant::now();
    let error = service.clone().oneshot(create_session(None, "two")).await.unwrap_err();
    assert_eq!(start.elapsed(), Duration::ZERO);
    let refused = error.as_inner().and_then(|error| error.as_layer()).expect("refused by pacing");
    assert_eq!((refused.scope(), (refused.retry_at() - start).as_secs()), ("generic-write", 61));
    // Another call may take its time.
    let mut patient = create_session(None, "three");
    patient.extensions_mut().insert(CallOptions::new().deadline(2 * MINUTE));
    service.oneshot(patient).await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 61);
}

#[tokio::test(start_paused = true)]
async fn what_was_never_sent_gives_its_slot_back_at_once() {
    let probe = ReadinessProbe::new([Answer::ConnectionRefused, Answer::ConnectionRefused]);
    let layer = PacingLayer::builder().limits(limits(1, MINUTE).unwrap()).build().unwrap();
    let service = layer.layer(probe);
    let start = Instant::now();
    for _ in 0..2 {
        service.clone().oneshot(create_session(None, "refused")).await.unwrap_err();
    }
    service.oneshot(create_session(None, "sent")).await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_429_pauses_its_scope_and_no_other() {
    let probe = ReadinessProbe::new([Answer::Status(429, Some(20))]);
    let layer = PacingLayer::didit();
    let service = layer.layer(probe.clone());
    let start = Instant::now();
    assert_eq!(service.clone().oneshot(create_session(None, "refused")).await.unwrap().status(), 429);
    service.clone().oneshot(get("/v3/sessions/")).await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO, "reads go on");
    service.oneshot(create_session(None, "paused")).await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_queue_drains_at_once_when_the_circuit_opens() {
    let probe = ReadinessProbe::new(std::iter::repeat_n(Answer::Reset, 100));
    let breaker = CircuitBreakerLayer::didit();
    let pacing = PacingLayer::builder().limits(limits(5, MINUTE).unwrap()).build().unwrap();
    let service = ServiceBuilder::new().layer(breaker.peek()).layer(pacing).layer(breaker).service(probe.clone());
    let start = Instant::now();
    let calls: Vec<_> = (0..50).map(|_| tokio::spawn(service.clone().oneshot(create_session(None, "call")))).collect();
    for call in calls {
        call.await.unwrap().unwrap_err();
    }
    // Five went out and opened the circuit. One slot's time later the first of the queue is refused below the queue,
    // gives its slot to the next, and so all are told within that instant.
    assert_eq!(probe.calls(), 5);
    assert!(start.elapsed() < 70 * SECOND, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_burst_is_spread_if_that_is_asked_for() {
    let burst = std::num::NonZeroU32::new(10).unwrap();
    let layer = PacingLayer::builder().limits(limits(60, MINUTE).unwrap()).burst(burst).build().unwrap();
    let service = layer.layer(ReadinessProbe::new([]));
    let start = Instant::now();
    for _ in 0..20 {
        service.clone().oneshot(create_session(None, "burst")).await.unwrap();
    }
    // Ten at once, then one per 61/60 s.
    assert_eq!(start.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn time_in_the_queue_is_reported() {
    let layer = PacingLayer::builder().limits(limits(1, MINUTE).unwrap()).build().unwrap();
    let service = ServiceBuilder::new().layer(RetryLayer::didit()).layer(layer).service(ReadinessProbe::new([]));
    let first = service.clone().oneshot(create_session(None, "one")).await.unwrap();
    assert!(first.extensions().get::<CallReport>().is_none(), "nothing happened");
    let second = service.oneshot(create_session(None, "two")).await.unwrap();
    let report = second.extensions().get::<CallReport>().expect("it waited");
    assert_eq!((report.queued().as_secs(), report.attempts()), (61, 1));
}

#[tokio::test(start_paused = true)]
async fn what_nothing_counts_waits_for_nothing() {
    let service = PacingLayer::builder().limits(Limits::none()).build().unwrap().layer(ReadinessProbe::new([]));
    let start = Instant::now();
    for _ in 0..1_000 {
        service.clone().oneshot(create_session(None, "free")).await.unwrap();
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
}

/// Real threads and real time, because a lost wake-up shows nowhere else; half of the calls are cut off at random.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_wake_up_is_lost_between_threads() {
    let limits = limits(20, Duration::from_millis(20)).unwrap();
    let builder = PacingLayer::builder().limits(limits).epsilon(Duration::ZERO).transit(Duration::ZERO);
    let layer = builder.build().unwrap();
    let service = layer.layer(ReadinessProbe::new([]));
    let calls = (0..2_000_u64).map(|number| {
        let call = service.clone().oneshot(create_session(None, "threaded"));
        let patience = if number % 2 == 0 { Duration::from_millis(number % 97) } else { MINUTE };
        tokio::spawn(tokio::time::timeout(patience, call))
    });
    let mut answered = 0;
    for (number, call) in calls.collect::<Vec<_>>().into_iter().enumerate() {
        let result = call.await.unwrap();
        assert!(number % 2 == 0 || result.is_ok(), "call {number} was forgotten");
        answered += usize::from(result.is_ok());
    }
    assert!(answered >= 1_000);
    assert_eq!(layer.usage()[0].waiting, 0);
}

/// Polls a call until it stands in its queue: it has nothing to do until somebody wakes it.
fn queue_up<F: Future>(call: &mut tokio_test::task::Spawn<F>) {
    loop {
        assert!(call.poll().is_pending());
        if !call.is_woken() {
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiting_call_that_nobody_polls_holds_up_no_other() {
    let layer = PacingLayer::builder().limits(limits(2, MINUTE).unwrap()).build().unwrap();
    let service = layer.layer(ReadinessProbe::new([]));
    for _ in 0..2 {
        service.clone().oneshot(create_session(None, "first")).await.unwrap();
    }
    let start = Instant::now();
    // First in line, polled once, and then left alone, as a buffered stream does whose reader is busy.
    let mut forgotten = tokio_test::task::spawn(service.clone().oneshot(create_session(None, "forgotten")));
    queue_up(&mut forgotten);
    service.oneshot(create_session(None, "behind it")).await.unwrap();
    assert!(start.elapsed() <= 63 * SECOND, "{:?}", start.elapsed());
    // It was served as well, and only has to be asked.
    assert!(forgotten.await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_absurd_hint_pauses_a_scope_for_a_window_at_the_most() {
    let probe = ReadinessProbe::new([Answer::Status(429, Some(60)), Answer::Status(503, None)]);
    let layer = PacingLayer::builder().classifier(tower_didit::outcome::classify_fn(
        |status: http::StatusCode, _: &http::HeaderMap| match status.as_u16() {
            429 => tower_didit::outcome::Outcome::Refused {
                retry_after: Some(Duration::MAX),
                reason: tower_didit::outcome::Refusal::Throttled { limit: None },
            },
            _ => tower_didit::outcome::Outcome::Answered,
        },
        |error: &std::io::Error| tower_didit::outcome::of_error(error),
    ));
    let service = layer.build().unwrap().layer(probe);
    let start = Instant::now();
    for _ in 0..2 {
        service.clone().oneshot(create_session(None, "absurd")).await.unwrap();
    }
    assert_eq!(start.elapsed().as_secs(), 61);
}

#[tokio::test(start_paused = true)]
async fn with_a_burst_the_door_knows_about_it() {
    let burst = std::num::NonZeroU32::MIN;
    let layer = PacingLayer::builder().limits(limits(60, MINUTE).unwrap()).burst(burst).build().unwrap();
    let service =
        ServiceBuilder::new().layer(DeadlineLayer::new(10 * SECOND)).layer(layer).service(ReadinessProbe::new([]));
    let start = Instant::now();
    let calls: Vec<_> =
        (0..40).map(|_| tokio::spawn(service.clone().oneshot(create_session(None, "shaped")))).collect();
    let mut served = 0;
    for call in calls {
        match call.await.unwrap() {
            Ok(_) => served += 1,
            Err(error) => assert!(error.as_inner().is_some(), "refused at the door, not by the deadline: {error:?}"),
        }
    }
    assert_eq!(served, 10);
    assert!(start.elapsed() <= 10 * SECOND);
}

#[tokio::test]
async fn a_burst_beyond_the_limit_is_the_limit() {
    assert!(PacingLayer::builder().burst(std::num::NonZeroU32::MAX).build().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_came_too_late_for_its_caller_is_given_to_the_next() {
    let layer = PacingLayer::builder().limits(limits(1, MINUTE).unwrap()).build().unwrap();
    let service = layer.layer(ReadinessProbe::new([]));
    service.clone().oneshot(create_session(None, "first")).await.unwrap();
    let mut gone = tokio_test::task::spawn(service.clone().oneshot(create_session(None, "gone")));
    queue_up(&mut gone);
    let mut next = tokio_test::task::spawn(service.oneshot(create_session(None, "next")));
    queue_up(&mut next);
    tokio::time::sleep(62 * SECOND).await;
    // The look of the second serves the first, which is dropped with its slot in hand.
    assert!(next.poll().is_pending());
    drop(gone);
    let start = Instant::now();
    assert!(next.await.is_ok());
    assert!(start.elapsed() < SECOND, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_ambiguous_attempt_holds_its_slot_longer_and_a_refused_one_keeps_it() {
    for (answer, held) in [(Answer::Reset, 66), (Answer::Status(429, Some(1)), 61), (Answer::Status(200, None), 61)] {
        let layer = PacingLayer::builder().limits(limits(1, MINUTE).unwrap()).build().unwrap();
        let service = layer.layer(ReadinessProbe::new([answer]));
        let start = Instant::now();
        let _either = service.clone().oneshot(create_session(None, "first")).await;
        service.oneshot(create_session(None, "second")).await.unwrap();
        assert_eq!(start.elapsed().as_secs(), held, "{answer:?}");
    }
}
