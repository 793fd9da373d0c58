//! The assembled stack against the local Didit: in process and virtual time, and over real sockets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use didit_api::{Limits, Scope};
use didit_sandbox::{
    Sandbox,
    faults::{Fault, Faults, Rule, When},
};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::BodyExt;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tests::{Answer, Body, ReadinessProbe, create_session, get, limits, sandbox};
use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt};
use tower_didit::{
    DiditLayer, Randomness,
    call::{CallOptions, CallReport},
    correlation::{self, CorrelationId},
    outcome::Outcome,
    stack::{DiditBuilder, ErrorKind},
};

const SECOND: Duration = Duration::from_secs(1);

fn stack() -> DiditBuilder {
    DiditLayer::builder().api_key("key").randomness(Randomness::seeded(11))
}

/// One in ten attempts fails: some before the work, some after it.
fn unreliable() -> Faults {
    let sometimes = |fault, probability| Rule::new(fault).when(When::Probability(probability));
    Faults::none()
        .with(sometimes(Fault::status(StatusCode::SERVICE_UNAVAILABLE), 0.03))
        .with(sometimes(Fault::ResetBeforeWork, 0.03))
        .with(sometimes(Fault::WorkThenDrop, 0.04))
}

#[tokio::test(start_paused = true)]
async fn under_faults_and_a_low_limit_nothing_is_lost_doubled_or_refused() {
    let limits = limits(60, 60 * SECOND).unwrap();
    let sandbox = sandbox(3)
        .limits(limits.clone())
        .faults(unreliable())
        .latency(Duration::from_millis(20)..=Duration::from_millis(120))
        .build()
        .unwrap();
    let didit = stack()
        .limits(limits)
        .deadline(Duration::from_secs(3_600))
        .retry(|retry| retry.max_attempts(12))
        .build()
        .unwrap()
        .layer(sandbox.clone());
    let calls: Vec<_> = (0..400)
        .map(|number| {
            let request = create_session(Some(&format!("user-{number}")), &format!("operation-{number}"));
            tokio::spawn(didit.clone().oneshot(request))
        })
        .collect();
    let mut sessions = BTreeSet::new();
    for call in calls {
        let response = call.await.unwrap().unwrap();
        assert_eq!(response.status(), StatusCode::CREATED);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let created: serde_json::Value = serde_json::from_slice(&body).unwrap();
        sessions.insert(created["session_id"].as_str().unwrap().to_owned());
    }
    let stats = sandbox.stats();
    assert_eq!(sessions.len(), 400, "none lost");
    assert_eq!((stats.sessions_made, stats.duplicates_by_vendor_data), (400, 0), "none doubled");
    assert_eq!(stats.throttled, 0, "none refused");
    assert!(stats.sessions_reused > 0, "the faults did strike");
}

#[tokio::test(start_paused = true)]
async fn without_vendor_data_an_ambiguous_failure_is_surfaced_and_nothing_is_doubled() {
    let faults = Faults::none().with(Rule::new(Fault::WorkThenDrop).when(When::First(1)));
    let sandbox = sandbox(4).faults(faults).build().unwrap();
    let didit = stack().build().unwrap().layer(sandbox.clone());
    let error = didit.oneshot(create_session(None, "once")).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Client(_)), "{error:?}");
    assert_eq!(error.report().map(CallReport::attempts), Some(1));
    assert_eq!(sandbox.stats().sessions_made, 1);
}

#[tokio::test(start_paused = true)]
async fn the_id_of_the_journey_is_on_every_attempt_and_in_the_report() {
    let faults = Faults::none().with(Rule::new(Fault::ResetBeforeWork).when(When::First(2)));
    let sandbox = sandbox(5).faults(faults).build().unwrap();
    let didit = stack().build().unwrap().layer(sandbox.clone());
    let id: CorrelationId = "journey-1".parse().unwrap();
    let call = didit.oneshot(create_session(Some("user"), "one"));
    let response = correlation::scope(id.clone(), call).await.unwrap();
    let report = response.extensions().get::<CallReport>().expect("it was repeated");
    assert_eq!((report.correlation_id(), report.attempts()), (Some(&id), 3));
    let seen: Vec<_> = sandbox.journal().into_iter().map(|entry| entry.correlation_id).collect();
    assert_eq!(seen, vec![Some("journey-1".to_owned()); 3]);
}

#[tokio::test(start_paused = true)]
async fn two_journeys_on_one_thread_never_mix() {
    let sandbox = sandbox(6).latency(SECOND..=SECOND).build().unwrap();
    let didit = stack().build().unwrap().layer(sandbox.clone());
    let journey = |name: &'static str| {
        let didit = didit.clone();
        correlation::scope(name.parse().unwrap(), async move {
            for number in 0..5 {
                let mut request = create_session(Some(name), &format!("{name}-{number}"));
                request.extensions_mut().insert(CallOptions::new().report());
                let response = didit.clone().oneshot(request).await.unwrap();
                let report = response.extensions().get::<CallReport>().unwrap();
                assert_eq!(report.correlation_id().map(CorrelationId::as_str), Some(name));
            }
        })
    };
    tokio::join!(journey("left"), journey("right"));
    let ids: Vec<_> = sandbox.journal().into_iter().filter_map(|entry| entry.correlation_id).collect();
    assert_eq!(ids.iter().filter(|id| *id == "left").count(), 5);
    assert_eq!(ids.iter().filter(|id| *id == "right").count(), 5);
}

#[tokio::test(start_paused = true)]
async fn every_refusal_says_when_to_come_back() {
    let didit = stack().limits(limits(1, 60 * SECOND).unwrap()).deadline(30 * SECOND).build().unwrap();
    let service = didit.layer(ReadinessProbe::new([]));
    service.clone().oneshot(create_session(Some("a"), "one")).await.unwrap();
    let error = service.oneshot(create_session(Some("b"), "two")).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Quota(_)), "{error:?}");
    let wait = error.retry_at().expect("it is known") - Instant::now();
    assert_eq!(wait.as_secs(), 61);
    assert!(error.correlation_id().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_slow_attempt_is_cut_off_by_its_endpoints_timeout_and_repeated() {
    let probe = ReadinessProbe::new([Answer::After(60 * SECOND)]);
    let service = stack().build().unwrap().layer(probe.clone());
    let start = Instant::now();
    assert_eq!(service.oneshot(get("/v3/sessions/")).await.unwrap().status(), 200);
    assert_eq!(probe.calls(), 2);
    // A list has 10 s; the backoff before the repetition is below 1 s.
    assert_eq!(start.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn the_key_goes_to_didit_and_to_nobody_else() {
    let service = stack().build().unwrap().layer(ReadinessProbe::new([]));
    let elsewhere = Request::get("https://didit.example/v3/sessions/").body(Body::default()).unwrap();
    let error = service.oneshot(elsewhere).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::ForeignHost(host) if host.host() == "didit.example"), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_at_any_moment_leaves_the_stack_usable() {
    let sandbox = sandbox(8)
        .limits(limits(20, 60 * SECOND).unwrap())
        .latency(Duration::from_millis(20)..=Duration::from_millis(120))
        .faults(unreliable())
        .build()
        .unwrap();
    let layer = stack().limits(limits(20, 60 * SECOND).unwrap()).build().unwrap();
    let didit = layer.layer(sandbox.clone());
    for millis in 0..200 {
        let request = create_session(Some(&format!("user-{millis}")), "dropped");
        let call = didit.clone().oneshot(request);
        let _gone = tokio::time::timeout(Duration::from_millis(millis), call).await;
    }
    tokio::time::sleep(70 * SECOND).await;
    let usage = layer.pacing().usage();
    assert_eq!((usage[0].used, usage[0].waiting), (0, 0), "nothing is left behind");
    assert_eq!(didit.oneshot(create_session(Some("last"), "last")).await.unwrap().status(), 201);
    assert_eq!(sandbox.stats().throttled, 0);
}

/// The stack around a pooled hyper client, over loopback.
async fn over_sockets(
    sandbox: Sandbox,
    change: impl FnOnce(DiditBuilder) -> DiditBuilder,
) -> (
    didit_sandbox::Server,
    impl Service<
        Request<Body>,
        Response = http::Response<hyper::body::Incoming>,
        Error = tower_didit::stack::Error<hyper_util::client::legacy::Error>,
        Future: Send,
    > + Clone
    + Send
    + 'static,
) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = didit_sandbox::serve(listener, sandbox).unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http();
    let builder = change(stack().base_url(format!("http://{}", server.local_addr())));
    let didit = builder.build().unwrap().layer(client);
    (server, didit)
}

#[tokio::test]
async fn over_sockets_nothing_is_lost_doubled_or_refused() {
    // A short window, so that pacing shows within a test's time: real time, because sockets know no other.
    let window = Duration::from_millis(300);
    let limits = Limits::none()
        .with(Scope::methods("generic-write", 10, ["POST"]).unwrap().with_window(window).unwrap())
        .unwrap();
    let sandbox = sandbox(9).limits(limits.clone()).faults(unreliable()).build().unwrap();
    let quick =
        tower_didit::retry::ExponentialBackoff::new(Duration::from_millis(5), Duration::from_millis(50)).unwrap();
    let (_server, didit) = over_sockets(sandbox.clone(), |builder| {
        builder
            .limits(limits)
            .pacing(|pacing| pacing.epsilon(Duration::from_millis(50)).transit(Duration::from_millis(100)))
            .retry(|retry| retry.max_attempts(20).backoff(quick))
    })
    .await;
    let calls: Vec<_> = (0..40)
        .map(|number| {
            let request = create_session(Some(&format!("user-{number}")), &format!("operation-{number}"));
            tokio::spawn(didit.clone().oneshot(request))
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().status(), StatusCode::CREATED);
    }
    let stats = sandbox.stats();
    assert_eq!((stats.sessions_made, stats.duplicates_by_vendor_data, stats.throttled), (40, 0, 0), "{stats:?}");
}

#[tokio::test]
async fn a_refused_connection_is_known_not_to_have_been_sent() {
    // A port that was free a moment ago.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let client = Client::builder(TokioExecutor::new()).build_http();
    let layer = stack().base_url(format!("http://{address}")).retry(|retry| retry.max_attempts(1));
    let didit = layer.build().unwrap().layer(client);
    let mut request = create_session(None, "never sent");
    request.headers_mut().insert("x-unusual", HeaderValue::from_static("yes"));
    let error = didit.oneshot(request).await.unwrap_err();
    let ErrorKind::Client(client_error) = error.kind() else { panic!("{error:?}") };
    assert!(client_error.is_connect(), "the client's own error is intact");
    let outcome = error.report().and_then(CallReport::outcome).expect("an attempt was made");
    assert_eq!(outcome.name(), "not_sent");
}

#[tokio::test]
async fn a_plain_request_with_absolute_uri_works_over_sockets() {
    let (server, didit) = over_sockets(sandbox(10).build().unwrap(), |builder| builder).await;
    let uri = format!("http://{}/v3/sessions/?limit=3", server.local_addr());
    let response = didit.oneshot(Request::get(uri).body(Body::default()).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let body: Bytes = response.into_body().collect().await.unwrap().to_bytes();
    assert!(body.starts_with(b"{"));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_may_have_been_done_never_reads_as_not_sent() {
    // The check is done and billed, its answer lost; the repetition finds no quota in time.
    let faults = Faults::none().with(Rule::new(Fault::WorkThenDrop).on_route("aml").when(When::First(1)));
    let sandbox = sandbox(12).faults(faults).build().unwrap();
    let one_a_minute = limits(1, 60 * SECOND).unwrap();
    let didit = stack().limits(one_a_minute).deadline(30 * SECOND).build().unwrap().layer(sandbox.clone());
    let mut request = tests::to(http::Method::POST, "/v3/aml/");
    *request.body_mut() = Body::from(r#"{"full_name":"Ada Example"}"#);
    request.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    let error = didit.oneshot(request).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Client(_)), "{error:?}");
    let report = error.report().unwrap();
    assert_eq!((report.attempts(), report.held_back()), (2, 1));
    assert_eq!(report.outcome(), Some(Outcome::Ambiguous));
    assert_eq!(tower_didit::outcome::of_error(&error), Outcome::Ambiguous);
    assert_eq!(sandbox.stats().billed_checks, 1);
}

#[tokio::test(start_paused = true)]
async fn a_real_answer_is_not_lost_when_its_repetition_is_held_back() {
    let probe = ReadinessProbe::new([Answer::Status(503, Some(2))]);
    let limits = Limits::none().with(Scope::methods("generic-get", 1, ["GET"]).unwrap()).unwrap();
    let didit = stack().limits(limits).deadline(30 * SECOND).build().unwrap().layer(probe.clone());
    let response = didit.oneshot(get("/v3/sessions/")).await.unwrap();
    assert_eq!((response.status().as_u16(), probe.calls()), (503, 1));
    assert_eq!(response.headers()[http::header::RETRY_AFTER], "2");
}

#[tokio::test(start_paused = true)]
async fn an_answer_whose_body_was_drained_does_not_claim_to_be_whole() {
    let server = tower::service_fn(|_: Request<tower_didit::body::ReplayBody<Body>>| async {
        let response = http::Response::builder().status(502).header("content-length", "5");
        response.body(Body::from("oops!")).map_err(std::io::Error::other)
    });
    let limits = Limits::none().with(Scope::methods("generic-get", 1, ["GET"]).unwrap()).unwrap();
    let didit = stack().limits(limits).deadline(30 * SECOND).build().unwrap().layer(server);
    let response = didit.oneshot(get("/v3/sessions/")).await.unwrap();
    assert_eq!(response.status(), 502);
    assert!(!response.headers().contains_key("content-length"));
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "");
}

#[tokio::test(start_paused = true)]
async fn repetitions_that_find_no_connection_do_not_hide_an_attempt_that_was_sent() {
    let refused = [Answer::ConnectionRefused; 4];
    let probe = ReadinessProbe::new([Answer::Reset].into_iter().chain(refused));
    let didit = stack().build().unwrap().layer(probe.clone());
    let error = didit.oneshot(create_session(Some("user"), "one")).await.unwrap_err();
    assert_eq!(probe.calls(), 5);
    assert_eq!(tower_didit::outcome::of_error(&error), Outcome::Ambiguous);
    assert_eq!(error.report().and_then(CallReport::outcome), Some(Outcome::Ambiguous));
}

#[tokio::test(start_paused = true)]
async fn a_stack_inside_the_client_of_another_keeps_to_itself() {
    // The outer client fetches a token through a stack of its own before each request.
    let token = stack().build().unwrap().layer(ReadinessProbe::new([Answer::Status(503, None); 2]));
    let outer_probe = ReadinessProbe::new([Answer::Status(503, Some(1))]);
    let client = tower::service_fn({
        let outer_probe = outer_probe.clone();
        move |request: Request<tower_didit::body::ReplayBody<Body>>| {
            let (token, outer_probe) = (token.clone(), outer_probe.clone());
            async move {
                let mut fetch = get("/v3/users/");
                let id: CorrelationId = "inner".parse().unwrap();
                fetch.extensions_mut().insert(CallOptions::new().deadline(5 * SECOND).correlation_id(id));
                assert_eq!(token.oneshot(fetch).await.unwrap().status(), 200, "the inner stack repeats for itself");
                outer_probe.oneshot(request).await
            }
        }
    });
    let outer = stack().build().unwrap().layer(client);
    let mut request = create_session(Some("user"), "outer");
    request.extensions_mut().insert(CallOptions::new().correlation_id("outer".parse().unwrap()));
    let response = outer.oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200, "the outer deadline is its own: the outer stack repeats");
    let report = response.extensions().get::<CallReport>().unwrap();
    assert_eq!(report.correlation_id().map(CorrelationId::as_str), Some("outer"));
    assert_eq!(report.attempts(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_call_without_any_time_is_not_sent() {
    let probe = ReadinessProbe::new([]);
    let didit = stack().build().unwrap().layer(probe.clone());
    let mut request = create_session(None, "no time");
    request.extensions_mut().insert(CallOptions::new().deadline(Duration::ZERO));
    let error = didit.oneshot(request).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Deadline(_)), "{error:?}");
    assert_eq!(probe.calls(), 0);
    assert_eq!(tower_didit::outcome::of_error(&error).name(), "held_back");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_hangs_opens_its_circuit_even_if_deadlines_are_shorter_than_its_timeout() {
    let probe = ReadinessProbe::new([Answer::After(3_600 * SECOND); 20]);
    let layer = stack().deadline(2 * SECOND).build().unwrap();
    let didit = layer.layer(probe.clone());
    for _ in 0..20 {
        didit.clone().oneshot(get("/v3/sessions/")).await.unwrap_err();
    }
    let open = layer.circuit_breaker().state(didit_api::ServiceGroup::Core);
    assert!(matches!(open, Some(tower_didit::circuit_breaker::CircuitState::Open { .. })), "{open:?}");
    assert!(probe.calls() < 20);
}
