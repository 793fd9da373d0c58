//! Faults, in virtual time.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic as the test may")]

mod support;

use std::{error::Error, io, time::Duration};

use didit_sandbox::{BuildError, Fault, Faults, FaultsError, Rule, Sandbox, When};
use http::StatusCode;
use support::{create, get, send, try_send};
use tokio::time::Instant;

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
    let limits = didit_api::Limits::none().with(didit_api::Scope::methods("g", 1, ["GET"]).unwrap()).unwrap();
    let faults = Faults::none().with(Rule::new(Fault::ResetBeforeWork).when(When::Nth(vec![2])));
    let sandbox = Sandbox::builder().limits(limits).faults(faults).build().unwrap();
    assert!(send(&sandbox, get("/v3/sessions/")).await.status.is_success());
    assert_eq!(send(&sandbox, get("/v3/sessions/")).await.status, StatusCode::TOO_MANY_REQUESTS);
    tokio::time::advance(Duration::from_secs(60)).await;
    try_send(&sandbox, get("/v3/sessions/")).await.unwrap_err();
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
    let faults = Faults::none().with(Rule::new(Fault::WorkThenDrop).on_route("session-creat"));
    let unknown = FaultsError::Route { rule: 1, name: "session-creat".to_owned() };
    assert_eq!(build(Sandbox::builder().faults(faults)), BuildError::Faults(unknown));
}
