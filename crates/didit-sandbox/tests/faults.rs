//! Faults, in virtual time.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic as the test may")]

mod support;

use std::{error::Error, io, time::Duration};

use didit_api::{Limits, Scope};
use didit_sandbox::{BuildError, Fault, Faults, FaultsError, Rule, Sandbox, Truncation, When};
use http::StatusCode;
use http_body_util::BodyExt;
use support::{create, get, send, try_send};
use tokio::time::Instant;
use tower::ServiceExt;

fn with_faults(faults: Faults) -> Sandbox {
    Sandbox::builder().faults(faults).build().unwrap()
}

fn on_create(fault: Fault) -> Faults {
    Faults::none().with(Rule::new(fault).on_route("session-create").when(When::First(1)))
}

#[tokio::test(start_paused = true)]
async fn a_status_is_answered_counted_and_nothing_is_done() {
    let sandbox = with_faults(on_create(Fault::status(StatusCode::SERVICE_UNAVAILABLE).with_retry_after(3)));
    let reply = send(&sandbox, create(Some("user-7"))).await;
    assert_eq!((reply.status, reply.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "3"));
    assert!(!reply.headers.contains_key("x-ratelimit-limit"));
    let stats = sandbox.stats();
    assert_eq!((stats.sessions_made, stats.faults["status"]), (0, 1));
    assert_eq!((stats.accepted, stats.peak["generic-write"].counted), (1, 1));
    assert_eq!(send(&sandbox, create(Some("user-7"))).await.status, StatusCode::CREATED);
}

#[tokio::test(start_paused = true)]
async fn a_delayed_answer_comes_late_but_the_work_is_done_at_once() {
    let sandbox = with_faults(on_create(Fault::Delay(Duration::from_secs(30))));
    let sent = Instant::now();
    let given_up = tokio::time::timeout(Duration::from_secs(5), send(&sandbox, create(None))).await;
    assert!(given_up.is_err());
    assert_eq!((sandbox.stats().sessions_made, sent.elapsed()), (1, Duration::from_secs(5)));
}

#[tokio::test(start_paused = true)]
async fn a_reset_before_the_work_leaves_nothing_done() {
    let sandbox = with_faults(on_create(Fault::ResetBeforeWork));
    let lost = try_send(&sandbox, create(None)).await.unwrap_err();
    assert!(!lost.work_done());
    assert_eq!(sandbox.stats().sessions_made, 0);
    let source = lost.source().and_then(|source| source.downcast_ref::<io::Error>()).unwrap();
    assert_eq!(source.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test(start_paused = true)]
async fn work_followed_by_a_drop_is_done_and_told_to_nobody() {
    let sandbox = with_faults(on_create(Fault::WorkThenDrop));
    let lost = try_send(&sandbox, create(Some("user-7"))).await.unwrap_err();
    assert!(lost.work_done());
    let entry = sandbox.journal().remove(0);
    assert_eq!((entry.status, entry.fault.as_deref()), (None, Some("work-then-drop")));
    // The second try finds what the first one made.
    let again = send(&sandbox, create(Some("user-7"))).await;
    assert_eq!(Some(again.text("session_id")), entry.session_id);
    assert_eq!((sandbox.stats().sessions_made, sandbox.stats().sessions_reused), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_blind_repetition_without_vendor_data_is_counted_as_a_duplicate() {
    let sandbox = with_faults(on_create(Fault::WorkThenDrop));
    let call = || support::with(create(None), "x-operation-id", "op-1");
    try_send(&sandbox, call()).await.unwrap_err();
    send(&sandbox, call()).await;
    assert_eq!((sandbox.stats().sessions_made, sandbox.stats().duplicates_by_operation_id), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_throttled_request_draws_no_fault() {
    let limits = Limits::none().with(Scope::methods("g", 1, ["GET"]).unwrap()).unwrap();
    let faults = Faults::none().with(Rule::new(Fault::ResetBeforeWork).when(When::Nth(vec![2])));
    let sandbox = Sandbox::builder().limits(limits).faults(faults).build().unwrap();
    assert!(send(&sandbox, get("/v3/sessions/")).await.status.is_success());
    assert_eq!(send(&sandbox, get("/v3/sessions/")).await.status, StatusCode::TOO_MANY_REQUESTS);
    tokio::time::advance(Duration::from_secs(60)).await;
    try_send(&sandbox, get("/v3/sessions/")).await.unwrap_err();
}

/// The body of an answer, as far as it comes, what it ended in, and how long it took.
async fn body_of(faults: Faults) -> (String, Option<io::ErrorKind>, Duration) {
    let sandbox = with_faults(faults);
    let response = sandbox.clone().oneshot(get("/v3/sessions/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let (began, mut body, mut text) = (Instant::now(), response.into_body(), Vec::new());
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => text.extend_from_slice(&frame.into_data().unwrap()),
            Err(error) => return (String::from_utf8(text).unwrap(), Some(error.kind()), began.elapsed()),
        }
    }
    (String::from_utf8(text).unwrap(), None, began.elapsed())
}

const EMPTY_LIST: &str = r#"{"count":0,"next":null,"previous":null,"results":[]}"#;

#[tokio::test(start_paused = true)]
async fn a_truncated_body_ends_in_an_error_where_it_was_told_to() {
    for (cut, comes) in [
        (Truncation::at_byte(9), 9),
        (Truncation::at_byte(9_000), EMPTY_LIST.len() - 1),
        (Truncation::at_percent(50), EMPTY_LIST.len() / 2),
        (Truncation::at_percent(0).chunked(), 0),
        (Truncation::at_percent(100).chunked(), EMPTY_LIST.len()),
    ] {
        let (text, error, _) = body_of(Faults::none().with(Rule::new(Fault::TruncatedBody(cut)))).await;
        assert_eq!((text.as_str(), error), (&EMPTY_LIST[..comes], Some(io::ErrorKind::UnexpectedEof)), "{cut:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_body_dribbles_and_comes_whole() {
    let every = Duration::from_millis(100);
    let slow = Rule::new(Fault::SlowBody { bytes: 5, every });
    let (text, error, took) = body_of(Faults::none().with(slow.clone())).await;
    assert_eq!((text.as_str(), error, took), (EMPTY_LIST, None, every * 11));
    let cut = Rule::new(Fault::TruncatedBody(Truncation::at_byte(7)));
    let (text, error, took) = body_of(Faults::none().with(slow).with(cut)).await;
    assert_eq!((text.len(), error, took), (7, Some(io::ErrorKind::UnexpectedEof), every * 2));
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_a_body_cannot_be_cut_off() {
    let cut = Rule::new(Fault::TruncatedBody(Truncation::at_byte(0))).on_route("session-delete");
    let sandbox = with_faults(Faults::none().with(cut));
    let id = support::made(&sandbox, None).await;
    let path = format!("/v3/session/{id}/delete/");
    let reply = send(&sandbox, support::request("DELETE", &path, &serde_json::Value::Null)).await;
    assert_eq!((reply.status, reply.bytes.len()), (StatusCode::NO_CONTENT, 0));
}

#[test]
fn what_cannot_be_built_says_why_and_hides_keys() {
    let build = |builder: didit_sandbox::SandboxBuilder| builder.build().unwrap_err();
    let key = build(Sandbox::builder().api_key("fine").api_key("top secret\n"));
    assert_eq!(key, BuildError::ApiKey { number: 2 });
    assert!(!key.to_string().contains("secret"));
    assert!(!format!("{:?}", Sandbox::builder().api_key("top-secret")).contains("secret"));
    assert_eq!(build(Sandbox::builder().api_key("a").api_key("a")), BuildError::DuplicateApiKey { number: 2 });
    assert!(build(Sandbox::builder().workflow("seven")).to_string().contains("\"seven\""));
    let bounds = Duration::from_secs(2)..=Duration::from_secs(1);
    assert!(build(Sandbox::builder().latency(bounds)).to_string().contains("from 2s to 1s"));
    assert_eq!(build(Sandbox::builder().session_lifetime(Duration::ZERO)), BuildError::SessionLifetime);
    let limits = Limits::didit().with(Scope::endpoints("mine", 1, ["session-creat"]).unwrap()).unwrap();
    let unlimited = build(Sandbox::builder().limits(limits));
    assert!(matches!(&unlimited, BuildError::UnknownEndpoint(unknown) if unknown.endpoint == "session-creat"));
    assert_eq!(unlimited.to_string(), r#"scope "mine" counts endpoint "session-creat", which is not a known route"#);
    let faults = Faults::none().with(Rule::new(Fault::WorkThenDrop).on_route("session-creat"));
    let unknown = FaultsError::Route { rule: 1, name: "session-creat".to_owned() };
    assert_eq!(build(Sandbox::builder().faults(faults)), BuildError::Faults(unknown));
}
