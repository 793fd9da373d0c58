//! What is repeated, when, and what the caller gets to see; in virtual time.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use didit_api::ServiceGroup;
use didit_sandbox::faults::{Fault, Faults, Rule, When};
use http::{Method, Request, StatusCode, header::RETRY_AFTER};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tests::{Answer, Body, ReadinessProbe, create_session, get, sandbox, to};
use tokio::time::Instant;
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_didit::{
    Randomness,
    body::ReplayBody,
    call::{CallOptions, CallReport, RetryOverride},
    circuit_breaker::CircuitBreakerLayer,
    correlation::CorrelationLayer,
    deadline::DeadlineLayer,
    idempotency::IdempotencyLayer,
    outcome::{Outcome, classify_fn, of_error},
    retry::{Budget, ExponentialBackoff, PolicyExt, RetryLayer, RoutePolicy},
};

const SECOND: Duration = Duration::from_secs(1);

fn keyed(mut request: Request<Body>) -> Request<Body> {
    request.headers_mut().insert("x-api-key", http::HeaderValue::from_static("key"));
    request
}

/// How often a call reaches a service that gives these answers.
async fn attempts(request: Request<Body>, answers: impl IntoIterator<Item = Answer>) -> usize {
    let probe = ReadinessProbe::new(answers);
    let _outcome = RetryLayer::didit().layer(probe.clone()).oneshot(request).await;
    probe.calls()
}

#[tokio::test(start_paused = true)]
async fn a_permanent_answer_is_never_repeated() {
    for status in [200, 201, 207, 301, 400, 401, 402, 403, 404, 409, 410, 415, 501] {
        assert_eq!(attempts(get("/v3/sessions/"), [Answer::Status(status, None)]).await, 1, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_transient_failure_of_a_read_is_repeated() {
    let failures = [
        Answer::Status(500, None),
        Answer::Status(502, None),
        Answer::Status(503, None),
        Answer::Status(504, None),
        Answer::Status(503, Some(2)),
        Answer::Status(429, Some(2)),
        Answer::Reset,
        Answer::ConnectionRefused,
    ];
    for failure in failures {
        assert_eq!(attempts(get("/v3/sessions/"), [failure]).await, 2, "{failure:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_creation_that_may_have_been_done_is_repeated_only_under_its_vendor_data() {
    for failure in [Answer::Reset, Answer::Status(500, None), Answer::Status(504, None)] {
        assert_eq!(attempts(create_session(None, "anonymous"), [failure]).await, 1, "{failure:?}");
        assert_eq!(attempts(create_session(Some("user-7"), "named"), [failure]).await, 2, "{failure:?}");
    }
    // What was not done may always be repeated.
    for refusal in [Answer::ConnectionRefused, Answer::Status(429, Some(1)), Answer::Status(503, Some(1))] {
        assert_eq!(attempts(create_session(None, "anonymous"), [refusal]).await, 2, "{refusal:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_check_that_bills_is_sent_once_when_bytes_may_have_left() {
    let check = || to(Method::POST, "/v3/face-match/");
    assert_eq!(attempts(check(), [Answer::Reset]).await, 1);
    assert_eq!(attempts(check(), [Answer::ConnectionRefused]).await, 2);
}

#[tokio::test(start_paused = true)]
async fn every_attempt_carries_the_same_key_and_the_caller_learns_it() {
    let faults = Faults::none().with(Rule::new(Fault::WorkThenDrop).on_route("aml").when(When::First(3)));
    let sandbox = sandbox(1).faults(faults).build().unwrap();
    let service =
        ServiceBuilder::new().layer(IdempotencyLayer::new()).layer(RetryLayer::didit()).service(sandbox.clone());
    let mut request = keyed(to(Method::POST, "/v3/aml/"));
    *request.body_mut() = Body::from(r#"{"full_name":"Ada Example"}"#);
    request.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let report = response.extensions().get::<CallReport>().expect("it was repeated");
    let key = report.idempotency_key().expect("a POST has a key").as_str();
    let sent: Vec<_> = sandbox.journal().into_iter().map(|entry| entry.idempotency_key).collect();
    assert_eq!(sent, vec![Some(key.to_owned()); 4]);
    assert_eq!(sandbox.stats().billed_checks, 1, "done once, answered the fourth time");
}

#[tokio::test(start_paused = true)]
async fn the_servers_hint_is_the_floor_and_jitter_goes_on_top() {
    let mut waits = Vec::new();
    for _ in 0..50 {
        let start = Instant::now();
        attempts(get("/v3/sessions/"), [Answer::Status(429, Some(7))]).await;
        waits.push(start.elapsed());
    }
    assert!(waits.iter().all(|wait| (7 * SECOND..=12 * SECOND + Duration::from_millis(1)).contains(wait)), "{waits:?}");
    assert!(waits.iter().any(|wait| *wait > 8 * SECOND), "all came back at once: {waits:?}");
}

#[tokio::test(start_paused = true)]
async fn a_hint_beyond_the_longest_wait_hands_out_the_response_at_once() {
    let probe = ReadinessProbe::new([Answer::Status(503, Some(91))]);
    let start = Instant::now();
    let response = RetryLayer::didit().layer(probe.clone()).oneshot(get("/v3/sessions/")).await.unwrap();
    assert_eq!((response.status().as_u16(), &response.headers()[RETRY_AFTER]), (503, &"91".parse().unwrap()));
    assert_eq!((probe.calls(), start.elapsed()), (1, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_would_end_after_the_deadline_is_not_begun() {
    let probe = ReadinessProbe::new([Answer::Status(503, Some(30))]);
    let service =
        ServiceBuilder::new().layer(DeadlineLayer::new(20 * SECOND)).layer(RetryLayer::didit()).service(probe.clone());
    let start = Instant::now();
    assert_eq!(service.oneshot(get("/v3/sessions/")).await.unwrap().status(), 503);
    assert_eq!((probe.calls(), start.elapsed()), (1, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_a_call_that_hangs() {
    let probe = ReadinessProbe::new([Answer::After(60 * SECOND)]);
    let service =
        ServiceBuilder::new().layer(DeadlineLayer::new(20 * SECOND)).layer(RetryLayer::didit()).service(probe.clone());
    let start = Instant::now();
    let error = service.oneshot(get("/v3/sessions/")).await.unwrap_err();
    assert_eq!(error.as_layer().map(tower_didit::deadline::Elapsed::after), Some(20 * SECOND));
    assert_eq!(start.elapsed(), 20 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn attempts_end_and_the_last_real_answer_is_handed_out() {
    let probe = ReadinessProbe::new([500, 502, 503, 504, 500, 200].map(|status| Answer::Status(status, None)));
    let response = RetryLayer::didit().layer(probe.clone()).oneshot(get("/v3/sessions/")).await.unwrap();
    assert_eq!((response.status().as_u16(), probe.calls()), (500, 5));
    let report = response.extensions().get::<CallReport>().expect("it was repeated");
    assert_eq!((report.attempts(), report.outcome()), (5, Some(Outcome::Ambiguous)));
    assert!(!report.backed_off().is_zero());
}

#[tokio::test(start_paused = true)]
async fn the_clients_error_comes_out_as_it_is() {
    let probe = ReadinessProbe::new([Answer::ConnectionRefused; 5]);
    let error: io::Error = RetryLayer::didit().layer(probe).oneshot(get("/v3/sessions/")).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test(start_paused = true)]
async fn a_caller_may_forbid_or_vouch_for_a_repetition() {
    let mut request = get("/v3/sessions/");
    request.extensions_mut().insert(CallOptions::new().retry(RetryOverride::Never));
    assert_eq!(attempts(request, [Answer::Reset]).await, 1);
    let mut request = to(Method::POST, "/v3/face-match/");
    request.extensions_mut().insert(CallOptions::new().retry(RetryOverride::Harmless));
    assert_eq!(attempts(request.clone(), [Answer::Reset]).await, 2);
    assert_eq!(attempts(request, [Answer::Status(404, None)]).await, 1, "an answer stays an answer");
}

#[tokio::test(start_paused = true)]
async fn a_call_inside_another_retry_is_not_retried_again() {
    let probe = ReadinessProbe::new([Answer::Reset; 100]);
    let service = ServiceBuilder::new()
        .layer(RetryLayer::didit())
        .map_request(|request: Request<ReplayBody<Body>>| request.map(BodyExt::boxed))
        .layer(RetryLayer::didit())
        .service(probe.clone());
    service.oneshot(get("/v3/sessions/")).await.unwrap_err();
    assert_eq!(probe.calls(), 5);
}

#[tokio::test(start_paused = true)]
async fn each_call_within_an_outer_call_is_repeated() {
    for side_by_side in [false, true] {
        // Each comes to 200 with its second attempt.
        let answers: &[u16] = if side_by_side { &[503, 503] } else { &[503, 200, 503] };
        let probe = ReadinessProbe::new(answers.iter().map(|status| Answer::Status(*status, None)));
        let retried = RetryLayer::didit().layer(probe.clone());
        // A token that is asked for first, say.
        let outer = service_fn(move |_: Request<Body>| {
            let call = || retried.clone().oneshot(get("/v3/sessions/"));
            let (one, other) = (call(), call());
            async move {
                if side_by_side {
                    let (one, other) = tokio::join!(one, other);
                    assert_eq!(one?.status(), StatusCode::OK);
                    return other;
                }
                assert_eq!(one.await?.status(), StatusCode::OK);
                other.await
            }
        });
        let response = CorrelationLayer::new().layer(outer).oneshot(get("/v3/sessions/")).await.unwrap();
        assert_eq!((response.status(), probe.calls()), (StatusCode::OK, 4), "side by side: {side_by_side}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_streaming_body_that_is_not_recorded_goes_out_once_and_whole() {
    let received = Arc::new(Mutex::new(Vec::new()));
    let layer = RetryLayer::builder().replay_cap(0).build().unwrap();
    let service = layer.layer(service_fn({
        let received = Arc::clone(&received);
        move |request: Request<ReplayBody<_>>| {
            let received = Arc::clone(&received);
            async move {
                let body = BodyExt::collect(request.into_body()).await.map_err(io::Error::other)?.to_bytes();
                received.lock().unwrap().push(body);
                Err::<http::Response<Body>, io::Error>(io::ErrorKind::ConnectionReset.into())
            }
        }
    }));
    let frames =
        ["one ", "two ", "three"].map(|text| Ok::<_, io::Error>(Frame::data(Bytes::from_static(text.as_bytes()))));
    let body = StreamBody::new(tokio_stream::iter(frames));
    service.oneshot(Request::get("/v3/sessions/").body(body).unwrap()).await.unwrap_err();
    assert_eq!(*received.lock().unwrap(), ["one two three"]);
}

#[tokio::test(start_paused = true)]
async fn when_everything_fails_the_budget_ends_the_repetitions() {
    let probe = ReadinessProbe::new([Answer::Status(503, None); 10_000]);
    let layer = RetryLayer::builder().budget(Some(Budget::new(140))).build().unwrap();
    for _ in 0..100 {
        let response = layer.layer(probe.clone()).oneshot(get("/v3/sessions/")).await.unwrap();
        assert_eq!(response.status(), 503);
    }
    assert_eq!(probe.calls(), 110, "140 tokens pay for ten repetitions at 14");
}

#[tokio::test(start_paused = true)]
async fn one_seed_gives_one_run() {
    let run = || async {
        let layer = RetryLayer::builder().randomness(Randomness::seeded(5)).build().unwrap();
        let start = Instant::now();
        let service = layer.layer(ReadinessProbe::new([Answer::Reset; 4]));
        service.oneshot(get("/v3/sessions/")).await.unwrap();
        start.elapsed()
    };
    assert_eq!(run().await, run().await);
}

#[tokio::test(start_paused = true)]
async fn another_api_brings_its_own_reading() {
    // Conflicts are transient here, and nothing else is.
    let classifier = classify_fn(
        |status: StatusCode, _: &http::HeaderMap| match status {
            StatusCode::CONFLICT => Outcome::Ambiguous,
            _ => Outcome::Answered,
        },
        |error: &io::Error| of_error(error),
    );
    let layer = RetryLayer::builder()
        .classifier(classifier)
        .policy(|attempt: &tower_didit::retry::Attempt<'_>| attempt.method == Method::PUT)
        .backoff(ExponentialBackoff::new(SECOND, SECOND).unwrap())
        .build()
        .unwrap();
    let probe = ReadinessProbe::new([409, 409, 503].map(|status| Answer::Status(status, None)));
    let response = layer.layer(probe.clone()).oneshot(to(Method::PUT, "/anything")).await.unwrap();
    assert_eq!((response.status().as_u16(), probe.calls()), (503, 3));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_below_the_retry_layer_bounds_each_attempt_and_not_the_call() {
    let probe = ReadinessProbe::new([Answer::After(60 * SECOND)]);
    let service =
        ServiceBuilder::new().layer(RetryLayer::didit()).layer(DeadlineLayer::new(5 * SECOND)).service(probe.clone());
    assert_eq!(service.oneshot(get("/v3/sessions/")).await.unwrap().status(), 200);
    assert_eq!(probe.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_earlier_of_two_deadlines_counts() {
    let probe = ReadinessProbe::new([Answer::After(60 * SECOND)]);
    let service = ServiceBuilder::new()
        .layer(DeadlineLayer::new(5 * SECOND))
        .layer(DeadlineLayer::new(50 * SECOND))
        .layer(RetryLayer::didit())
        .service(probe.clone());
    let start = Instant::now();
    service.oneshot(get("/v3/sessions/")).await.unwrap_err();
    assert_eq!(start.elapsed(), 5 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_policy_may_be_limited_by_attempts_and_by_time() {
    let slow = |_: u32, _: &Randomness| 10 * SECOND;
    let by_attempts = RetryLayer::builder().policy(RoutePolicy.with_attempt_limit(3)).build().unwrap();
    let probe = ReadinessProbe::new([Answer::Reset; 10]);
    by_attempts.layer(probe.clone()).oneshot(get("/v3/sessions/")).await.unwrap_err();
    assert_eq!(probe.calls(), 3);
    let by_time = RetryLayer::builder().policy(RoutePolicy.with_time_limit(25 * SECOND)).backoff(slow);
    let probe = ReadinessProbe::new([Answer::Reset; 10]);
    let start = Instant::now();
    by_time.build().unwrap().layer(probe.clone()).oneshot(get("/v3/sessions/")).await.unwrap_err();
    // Repetitions at 10, 20 and 30 s; the one after that would begin beyond the limit.
    assert_eq!((probe.calls(), start.elapsed()), (4, 30 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn whoever_wants_to_know_at_once_does_not_wait_for_an_open_circuit() {
    let breaker = CircuitBreakerLayer::didit();
    breaker.handle().force_open(ServiceGroup::Core);
    let retry = RetryLayer::builder().fail_fast(true).build().unwrap();
    let service = ServiceBuilder::new().layer(retry).layer(breaker).service(ReadinessProbe::new([]));
    let start = Instant::now();
    assert!(service.oneshot(get("/v3/sessions/")).await.unwrap_err().as_layer().is_some());
    assert_eq!(start.elapsed(), Duration::ZERO);
}

/// What a server would see of a request's header, after the idempotency layer.
async fn key_sent(layer: IdempotencyLayer, request: Request<Body>) -> Option<String> {
    let service = layer.layer(service_fn(|request: Request<Body>| async move {
        Ok::<_, io::Error>(http::Response::new(request.headers().get("idempotency-key").cloned()))
    }));
    let key = service.oneshot(request).await.unwrap().into_body()?;
    Some(key.to_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_callers_own_key_always_wins() {
    let aml = || to(Method::POST, "/v3/aml/");
    let mut in_header = aml();
    in_header.headers_mut().insert("idempotency-key", http::HeaderValue::from_static("order-7"));
    let mut both = in_header.clone();
    for request in [&mut in_header, &mut both] {
        assert_eq!(key_sent(IdempotencyLayer::new(), request.clone()).await.as_deref(), Some("order-7"));
    }
    both.extensions_mut().insert(CallOptions::new().idempotency_key("order-8".parse().unwrap()));
    assert_eq!(key_sent(IdempotencyLayer::new(), both).await.as_deref(), Some("order-7"), "the header is nearest");
    let mut in_options = aml();
    in_options
        .extensions_mut()
        .insert(CallOptions::new().idempotency_key("say \"hi\"".replace(' ', "-").parse().unwrap()));
    assert_eq!(key_sent(IdempotencyLayer::new(), in_options.clone()).await.as_deref(), Some("say-\"hi\""));
    let quoted = key_sent(IdempotencyLayer::new().quoted(true), in_options).await;
    assert_eq!(quoted.as_deref(), Some(r#""say-\"hi\"""#), "a quoted string of RFC 8941");
}

#[tokio::test]
async fn only_methods_that_need_a_key_get_one() {
    for (method, needs) in [(Method::POST, true), (Method::PATCH, true), (Method::GET, false), (Method::DELETE, false)]
    {
        let key = key_sent(IdempotencyLayer::new(), to(method.clone(), "/v3/aml/")).await;
        assert_eq!(key.is_some(), needs, "{method}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_with_very_many_values_of_one_header_is_repeated_as_it_was() {
    let script = [Answer::Status(503, None), Answer::Status(200, None)];
    let service = RetryLayer::didit().layer(ReadinessProbe::new(script));
    let mut request = get("/v3/sessions/");
    (0..25_000_u32).for_each(|value| _ = request.headers_mut().append("x-many", value.into()));
    assert_eq!(service.oneshot(request).await.unwrap().status(), StatusCode::OK);
}
