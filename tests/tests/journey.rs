//! A journey in the log: every line of it has its id, and no line has another's.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use didit_sandbox::{
    Sandbox,
    faults::{Fault, Faults, Rule, When},
};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tests::{Answer, Body, JsonLog, ReadinessProbe, create_session, get, sandbox};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_didit::{
    DiditLayer, Randomness,
    body::ReplayBody,
    correlation::{self, CorrelationLayer, InCorrelation, InboundCorrelationLayer},
    stack::ErrorKind,
    telemetry::TelemetryLayer,
};
use tracing::{Instrument, Level, field::Empty, instrument::WithSubscriber};
use tracing_subscriber::{Layer as _, Registry, filter::Targets, fmt, layer::SubscriberExt};

const SECOND: Duration = Duration::from_secs(1);

/// A local Didit that refuses the first two requests.
fn hesitant() -> Sandbox {
    let busy = Rule::new(Fault::status(StatusCode::SERVICE_UNAVAILABLE)).when(When::First(2));
    sandbox(9).latency(SECOND..=SECOND).faults(Faults::none().with(busy)).build().unwrap()
}

/// A server that creates a session for every request.
fn server(
    sandbox: &Sandbox,
) -> impl Service<Request<Body>, Response = Response<String>, Error = Infallible, Future: Send> + Clone + Send {
    let layer = DiditLayer::builder().api_key("key").randomness(Randomness::seeded(5)).build().unwrap();
    let didit = layer.layer(sandbox.clone());
    ServiceBuilder::new().layer(InboundCorrelationLayer::new()).service_fn(move |request: Request<Body>| {
        let didit = didit.clone();
        async move {
            let user = request.uri().path().trim_start_matches('/').to_owned();
            let response = didit.oneshot(create_session(Some(&user), &user)).await.unwrap();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let created: Value = serde_json::from_slice(&body).unwrap();
            let id = created["session_id"].as_str().unwrap().to_owned();
            tracing::info!(session_id = id, "session created");
            Ok(Response::new(id))
        }
    })
}

fn asking(path: &'static str, id: &'static str) -> Request<Body> {
    let mut request = get(path);
    request.headers_mut().insert(correlation::HEADER, http::HeaderValue::from_static(id));
    request
}

fn message(line: &Value) -> &str {
    line["message"].as_str().unwrap()
}

/// The field of the span with this name.
fn field<'l>(line: &'l Value, span: &str, name: &str) -> &'l Value {
    line["spans"]
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| entry["name"] == span)
        .map_or(&Value::Null, |span| &span[name])
}

#[tokio::test(start_paused = true)]
async fn one_grep_of_the_id_gives_the_whole_journey_in_order() {
    let (log, sandbox) = (JsonLog::default(), hesitant());
    let call = server(&sandbox).oneshot(asking("/user-7", "journey-7"));
    let session_id = call.with_subscriber(log.subscriber(Level::INFO)).await.unwrap().into_body();
    let lines = log.grep("journey-7").unwrap();
    println!("{}", log.text());
    assert_eq!(lines.len(), log.text().lines().count(), "every line has the id");
    assert_eq!(
        lines.iter().map(message).collect::<Vec<_>>(),
        [
            "attempt ended",
            "attempt failed, repeating",
            "attempt ended",
            "attempt failed, repeating",
            "attempt ended",
            "call ended",
            "session created",
        ]
    );
    assert_eq!(lines[6]["session_id"], session_id);
}

#[tokio::test(start_paused = true)]
async fn attempts_say_which_they_are_and_share_the_trace() {
    let (log, sandbox) = (JsonLog::default(), hesitant());
    let mut request = asking("/user-7", "journey-7");
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    request.headers_mut().insert("traceparent", http::HeaderValue::from_static(parent));
    request.headers_mut().insert("tracestate", http::HeaderValue::from_static("vendor=opaque"));
    request.headers_mut().insert("baggage", http::HeaderValue::from_static("user=ada"));
    server(&sandbox).oneshot(request).with_subscriber(log.subscriber(Level::INFO)).await.unwrap();
    let lines = log.grep("\"attempt ended\"").unwrap();
    let resends: Vec<_> =
        lines.iter().map(|line| field(line, "attempt", "http.request.resend_count").as_u64()).collect();
    assert_eq!(resends, [None, Some(1), Some(2)]);
    for line in &lines {
        assert_eq!(field(line, "request", "trace_id"), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(field(line, "call", "trace_id"), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(field(line, "attempt", "correlation_id"), "journey-7");
        assert_eq!(field(line, "attempt", "url.template"), "/v3/session/");
        assert_eq!(field(line, "call", "workflow_id"), didit_sandbox::DEFAULT_WORKFLOW_ID);
    }
    let statuses: Vec<_> =
        lines.iter().map(|line| field(line, "attempt", "http.response.status_code").as_u64()).collect();
    assert_eq!(statuses, [Some(503), Some(503), Some(201)]);
    let mut spans: Vec<_> = lines.iter().map(|line| field(line, "attempt", "span_id").to_string()).collect();
    spans.dedup();
    assert_eq!(spans.len(), 3, "a new parent id each: {spans:?}");
}

#[tokio::test(start_paused = true)]
async fn two_journeys_on_one_thread_and_their_tasks_never_mix() {
    let log = JsonLog::default();
    let _subscribed = tracing::subscriber::set_default(log.subscriber(Level::TRACE));
    let sandbox = sandbox(6).latency(SECOND..=SECOND).build().unwrap();
    let didit = DiditLayer::builder().api_key("key").build().unwrap().layer(sandbox.clone());
    let server = ServiceBuilder::new().layer(InboundCorrelationLayer::new()).service_fn(|request: Request<Body>| {
        let didit = didit.clone();
        async move {
            let name = request.uri().path().trim_start_matches('/').to_owned();
            for number in 0..5 {
                // Half of the calls are made by a task of their own.
                let call = didit.clone().oneshot(create_session(Some(&name), &format!("{name}-{number}")));
                let response = match number % 2 {
                    0 => call.await,
                    _ => correlation::spawn(call).await.unwrap(),
                };
                assert_eq!(response.unwrap().status(), StatusCode::CREATED);
                tracing::info!(name, "made");
            }
            Ok::<_, Infallible>(Response::new(()))
        }
    });
    let (left, right) = tokio::join!(
        server.clone().oneshot(asking("/left", "journey-left")),
        server.clone().oneshot(asking("/right", "journey-right")),
    );
    assert!(left.is_ok() && right.is_ok());
    for (own, other) in [("left", "right"), ("right", "left")] {
        let lines = log.grep(&format!("journey-{own}")).unwrap();
        assert_eq!(lines.iter().filter(|line| message(line) == "attempt ended").count(), 5, "{own}");
        assert_eq!(lines.iter().filter(|line| message(line) == "made" && line["name"] == own).count(), 5, "{own}");
        assert!(lines.iter().all(|line| !line.to_string().contains(&format!("journey-{other}"))), "{own}");
    }
    let sent: Vec<_> = sandbox.journal().into_iter().filter_map(|entry| entry.correlation_id).collect();
    assert_eq!(sent.iter().filter(|id| *id == "journey-left").count(), 5);
    assert_eq!(sent.iter().filter(|id| *id == "journey-right").count(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_call_ends_under_its_own_id_and_leaves_nothing_behind() {
    let log = JsonLog::default();
    let _subscribed = tracing::subscriber::set_default(log.subscriber(Level::INFO));
    let sandbox = sandbox(6).latency(SECOND..=SECOND).build().unwrap();
    let server = server(&sandbox);
    let cancelled = tokio::time::timeout(SECOND / 2, server.clone().oneshot(asking("/gone", "journey-gone"))).await;
    assert!(cancelled.is_err());
    server.oneshot(asking("/next", "journey-next")).await.unwrap();
    let gone = log.grep("journey-gone").unwrap();
    assert_eq!(gone.iter().map(message).collect::<Vec<_>>(), ["attempt ended", "call ended"], "{}", log.text());
    for line in &gone {
        assert_eq!((&line["outcome"], &line["wire_ms"]), (&"cancelled".into(), &500.0.into()), "{line}");
        assert!(!line.to_string().contains("journey-next"));
    }
    let next = log.grep("journey-next").unwrap();
    assert_eq!(next.iter().map(message).collect::<Vec<_>>(), ["attempt ended", "call ended", "session created"]);
    assert_eq!(correlation::current(), None);
}

/// Logs when it is dropped, as a guard of a handler's does.
struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        tracing::info!(current = correlation::current().map(|id| id.to_string()), "guard dropped");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_cancelled_handler_says_as_it_is_dropped_has_its_id() {
    let log = JsonLog::default();
    let _subscribed = tracing::subscriber::set_default(log.subscriber(Level::INFO));
    let guarded = service_fn(|_: Request<ReplayBody<Body>>| async {
        let _guard = Guard;
        tokio::time::sleep(10 * SECOND).await;
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    });
    let didit = DiditLayer::builder().api_key("key").build().unwrap().layer(guarded);
    let server = InboundCorrelationLayer::new().layer(service_fn(move |_: Request<Body>| {
        let didit = didit.clone();
        async move {
            let _guard = Guard;
            Ok::<_, Infallible>(didit.oneshot(get("/v3/sessions/")).await.unwrap())
        }
    }));
    assert!(tokio::time::timeout(SECOND, server.oneshot(asking("/x", "journey-gone"))).await.is_err());
    let dropped = log.grep("guard dropped").unwrap();
    assert_eq!(dropped.len(), 2, "the client's and the handler's");
    for line in &dropped {
        assert_eq!(
            (&line["current"], field(line, "request", "correlation_id")),
            (&"journey-gone".into(), &"journey-gone".into())
        );
    }
    assert_eq!(field(&dropped[0], "call", "correlation_id"), "journey-gone");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_another_journey_drops_ends_under_its_own_id() {
    let log = JsonLog::default();
    let _subscribed = tracing::subscriber::set_default(log.subscriber(Level::INFO));
    let sandbox = sandbox(6).latency(5 * SECOND..=5 * SECOND).build().unwrap();
    let didit = DiditLayer::builder().api_key("key").build().unwrap().layer(sandbox);
    // A call that one request leaves behind, and another takes away.
    let left = Arc::new(Mutex::new(None));
    let server = InboundCorrelationLayer::new().layer(service_fn(|request: Request<Body>| {
        let (didit, left) = (didit.clone(), Arc::clone(&left));
        async move {
            if request.uri().path() == "/begin" {
                let mut call = Box::pin(didit.oneshot(create_session(Some("user"), "user")).in_correlation());
                assert!(tokio::time::timeout(SECOND, &mut call).await.is_err());
                *left.lock().unwrap() = Some(call);
            } else {
                drop(left.lock().unwrap().take());
            }
            Ok::<_, Infallible>(Response::new(()))
        }
    }));
    server.clone().oneshot(asking("/begin", "journey-one")).await.unwrap();
    server.oneshot(asking("/end", "journey-other")).await.unwrap();
    let ended = log.grep(" ended").unwrap();
    assert_eq!(ended.iter().map(message).collect::<Vec<_>>(), ["attempt ended", "call ended"]);
    for line in ended.iter().map(Value::to_string) {
        assert!(line.contains("journey-one") && !line.contains("journey-other"), "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_runs_in_a_scope_logs_under_its_id_within_a_request_and_without_one() {
    let log = JsonLog::default();
    let _subscribed = tracing::subscriber::set_default(log.subscriber(Level::INFO));
    let scoped = |_: Request<Body>| {
        correlation::scope("journey-own".parse().unwrap(), async {
            tracing::info!("said in the scope");
            Ok::<_, Infallible>(Response::new(()))
        })
    };
    scoped(get("/x")).await.unwrap();
    let server = InboundCorrelationLayer::new().layer(service_fn(scoped));
    server.oneshot(asking("/x", "journey-around")).await.unwrap();
    let lines = log.grep("said in the scope").unwrap();
    let ids = |span| lines.iter().map(|line| field(line, span, "correlation_id").as_str()).collect::<Vec<_>>();
    assert_eq!(ids("scope"), [Some("journey-own"); 2]);
    assert_eq!(ids("request"), [None, Some("journey-around")]);
    let traces = ["scope", "request"].map(|span| field(&lines[1], span, "trace_id"));
    assert!(traces[0].is_string() && traces[0] == traces[1], "{}", lines[1]);
}

#[tokio::test(start_paused = true)]
async fn a_hostile_id_is_replaced_and_the_log_says_so_without_repeating_it() {
    let long = "x".repeat(10_240);
    for hostile in ["tab\there", "a\"b\\\"}", "caf\u{e9}", long.as_str()] {
        let log = JsonLog::default();
        let sandbox = sandbox(6).build().unwrap();
        let mut request = get("/user-7");
        let value = http::HeaderValue::from_bytes(hostile.as_bytes()).unwrap();
        request.headers_mut().insert(correlation::HEADER, value);
        let response = server(&sandbox).oneshot(request).with_subscriber(log.subscriber(Level::TRACE)).await.unwrap();
        let id = response.headers()[correlation::HEADER].to_str().unwrap().to_owned();
        let lines = log.grep(&id).unwrap();
        assert_eq!(lines.len(), log.text().lines().count(), "{}", log.text());
        let replaced: Vec<_> = lines.iter().filter(|line| message(line).ends_with("was replaced")).collect();
        assert_eq!(replaced.len(), 1, "{}", log.text());
        assert!(field(replaced[0], "request", "trace_id").is_string(), "{}", replaced[0]);
        let escaped = serde_json::to_string(hostile).unwrap();
        assert!(!log.text().contains(hostile) && !log.text().contains(escaped.trim_matches('"')));
        assert_eq!(sandbox.journal()[0].correlation_id.as_deref(), Some(id.as_str()), "and the new one went out");
    }
}

#[tokio::test(start_paused = true)]
async fn a_method_that_nobody_knows_is_not_repeated_in_the_log() {
    let log = JsonLog::default();
    let didit = DiditLayer::builder().api_key("key").build().unwrap().layer(ReadinessProbe::new([]));
    let server = InboundCorrelationLayer::new().layer(didit);
    let mut request = asking("/x", "journey-7");
    *request.method_mut() = http::Method::from_bytes(&b"STEAL".repeat(1_000)).unwrap();
    server.oneshot(request).with_subscriber(log.subscriber(Level::TRACE)).await.unwrap();
    let line = &log.grep("attempt ended").unwrap()[0];
    for span in ["request", "call", "attempt"] {
        assert_eq!(field(line, span, "http.request.method"), "_OTHER", "{line}");
    }
    assert_eq!(field(line, "attempt", "otel.name"), "HTTP");
    assert!(!log.text().contains("STEAL"));
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_last_real_attempt_timed_out_says_so_whatever_came_after_it() {
    let refused = [Answer::ConnectionRefused; 4];
    for answers in [vec![Answer::After(500 * SECOND); 5], [&[Answer::After(500 * SECOND)], &refused[..]].concat()] {
        let log = JsonLog::default();
        let layer = DiditLayer::builder().api_key("key").randomness(Randomness::seeded(5)).deadline(1000 * SECOND);
        let didit = layer.build().unwrap().layer(ReadinessProbe::new(answers));
        let call = didit.oneshot(get("/v3/sessions/")).with_subscriber(log.subscriber(Level::INFO));
        let error = call.await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::AttemptTimeout(_)), "{error:?}");
        let line = &log.grep("call ended").unwrap()[0];
        assert_eq!((&line["attempts"], &line["error.type"]), (&5.into(), &"timeout".into()), "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_into_a_span_of_the_applications() {
    let log = JsonLog::default();
    // Once without the layer that opens the call's span, once with that span filtered out.
    let telemetry = TelemetryLayer::didit();
    let bare = telemetry.layer(telemetry.attempts().layer(ReadinessProbe::new([Answer::Status(500, None)])));
    let stack = DiditLayer::builder().api_key("key").retry(|retry| retry.max_attempts(1)).build().unwrap();
    let stack = stack.layer(ReadinessProbe::new([Answer::Status(500, None)]));
    let unheard = Targets::new().with_default(Level::INFO).with_target("tower_didit::correlation", Level::WARN);
    let lines = fmt::layer().json().flatten_event(true).with_current_span(false).with_writer(log.clone());
    let _subscribed = tracing::subscriber::set_default(Registry::default().with(lines.with_filter(unheard)));
    for with_stack in [false, true] {
        let own = tracing::info_span!("call", session_id = "mine", http.response.status_code = 200, error.type = Empty);
        let path = "/v3/session/11111111-2222-4333-8444-555555555555/decision/";
        let called = match with_stack {
            false => bare.clone().oneshot(get(path)).instrument(own.clone()).await.unwrap(),
            true => stack.clone().oneshot(get(path)).instrument(own.clone()).await.unwrap(),
        };
        assert_eq!(called.status(), 500);
        own.in_scope(|| tracing::info!("mine is over"));
    }
    let lines = log.grep("mine is over").unwrap();
    assert_eq!(lines.len(), 2);
    for line in lines {
        let fields = ["session_id", "http.response.status_code", "error.type"].map(|name| field(&line, "call", name));
        assert_eq!(fields, [&"mine".into(), &200.into(), &Value::Null], "{line}");
    }
    assert_eq!(log.grep("call ended").unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_call_without_a_span_writes_nothing_into_that_of_the_call_around_it() {
    let log = JsonLog::default();
    let _subscribed = tracing::subscriber::set_default(log.subscriber(Level::INFO));
    // Fetches a token on its way to the client.
    let token = TelemetryLayer::didit().layer(ReadinessProbe::new([Answer::Status(401, None); 3]));
    let client = service_fn(move |_: Request<Body>| {
        let token = token.clone();
        async move {
            let path = "/v3/session/11111111-2222-4333-8444-555555555555/decision/";
            assert_eq!(token.oneshot(get(path)).await.unwrap().status(), 401);
            tracing::info!("token fetched");
            Ok::<_, Infallible>(Response::new(Body::default()))
        }
    });
    let correlation = CorrelationLayer::new();
    let path = "/v3/session/99999999-2222-4333-8444-555555555555/decision/";
    correlation.layer(client.clone()).oneshot(get(path)).await.unwrap();
    let stacked = ServiceBuilder::new().layer(correlation.clone()).layer(TelemetryLayer::didit());
    stacked.service(client.clone()).oneshot(get(path)).await.unwrap();
    correlation.layer(correlation.layer(client)).oneshot(get(path)).await.unwrap();
    let lines = log.grep("token fetched").unwrap();
    assert_eq!(lines.len(), 3);
    for (line, session) in lines.iter().zip([Value::Null, path.split('/').nth(3).into(), Value::Null]) {
        for span in line["spans"].as_array().unwrap() {
            let fields = ["session_id", "http.response.status_code", "error.type"].map(|name| &span[name]);
            assert_eq!(fields, [&session, &Value::Null, &Value::Null], "{line}");
        }
    }
    assert_eq!(log.grep("call ended").unwrap().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_inner_call_leaves_the_outer_calls_times_alone() {
    let log = JsonLog::default();
    let stack = || DiditLayer::builder().api_key("key").randomness(Randomness::seeded(5)).build().unwrap();
    let hanging = stack().layer(service_fn(|_: Request<ReplayBody<Body>>| async {
        tokio::time::sleep(1000 * SECOND).await;
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    }));
    // Asks another stack on its way, no longer than a second, and goes on without an answer.
    let outer = stack().layer(service_fn(move |_: Request<ReplayBody<Body>>| {
        let hanging = hanging.clone();
        async move {
            let asked = tokio::time::timeout(SECOND, hanging.oneshot(get("/v3/sessions/"))).await;
            assert!(asked.is_err());
            tokio::time::sleep(5 * SECOND).await;
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
        }
    }));
    outer.oneshot(get("/v3/sessions/")).with_subscriber(log.subscriber(Level::INFO)).await.unwrap();
    let ended = log.grep("call ended").unwrap();
    let times = |outcome: &str| {
        let line = ended.iter().find(|line| line["outcome"] == outcome).unwrap();
        ["attempts", "queue_ms", "wire_ms"].map(|field| line[field].as_f64().unwrap())
    };
    assert_eq!(times("cancelled"), [1.0, 0.0, 1000.0]);
    assert_eq!(times("answered"), [1.0, 0.0, 6000.0]);
}
