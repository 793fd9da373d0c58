//! Work that is done late, never, or for a client that is gone; lists that lag behind. In virtual time.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic as the test may")]

mod support;

use std::time::Duration;

use didit_sandbox::{Ending, Fault, Faults, Rule, Sandbox, SandboxBuilder, When};
use http::StatusCode;
use serde_json::{Value, json};
use support::{create, get, request, send, try_send, with};
use tokio::time::{Instant, advance, sleep, timeout};

const SECOND: Duration = Duration::from_secs(1);

fn first(fault: Fault) -> SandboxBuilder {
    let rule = Rule::new(fault).on_route("session-create").when(When::First(1));
    Sandbox::builder().epoch(support::epoch()).faults(Faults::none().with(rule))
}

async fn listed(sandbox: &Sandbox, vendor_data: &str) -> u64 {
    let page = send(sandbox, get(&format!("/v3/sessions/?vendor_data={vendor_data}"))).await;
    page.json()["count"].as_u64().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_late_commit_is_lost_at_once_and_done_at_its_time() {
    let sandbox = first(Fault::late_commit(5 * SECOND)).build().unwrap();
    let sent = Instant::now();
    let lost = try_send(&sandbox, create(Some("user-7"))).await.unwrap_err();
    assert!(!lost.work_done() && lost.work_pending(), "{lost}");
    assert_eq!((sent.elapsed(), sandbox.stats().late_commits_pending), (Duration::ZERO, 1));

    advance(5 * SECOND - Duration::from_millis(1)).await;
    assert_eq!((sandbox.stats().sessions_made, listed(&sandbox, "user-7").await), (0, 0));
    assert_eq!(sandbox.journal()[0].worked_at_ms, None);
    advance(Duration::from_millis(1)).await;
    assert_eq!(listed(&sandbox, "user-7").await, 1);
    let stats = sandbox.stats();
    assert_eq!((stats.sessions_made, stats.late_commits_pending, stats.late_commits_done), (1, 0, 1));
    assert_eq!(stats.arrivals["session-create"], 1);

    let entry = sandbox.journal().remove(0);
    assert_eq!((entry.at_ms, entry.worked_at_ms, entry.status), (0, Some(5_000), None));
    assert_eq!(entry.fault.as_deref(), Some("late-commit"));
    let again = send(&sandbox, create(Some("user-7"))).await;
    assert_eq!(Some(again.text("session_id")), entry.session_id);
}

#[tokio::test(start_paused = true)]
async fn a_late_commit_keeps_its_own_time_however_late_anybody_looks() {
    let sandbox = first(Fault::late_commit(5 * SECOND)).build().unwrap();
    try_send(&sandbox, create(Some("user-7"))).await.unwrap_err();
    advance(60 * SECOND).await;
    let page = send(&sandbox, get("/v3/sessions/")).await.json();
    assert_eq!(page["results"][0]["created_at"], "2026-09-21T14:14:05.000000+00:00");
}

#[tokio::test(start_paused = true)]
async fn a_late_commit_reuses_what_a_repetition_has_made_meanwhile() {
    let sandbox = first(Fault::late_commit(5 * SECOND)).build().unwrap();
    let call = || with(create(Some("user-7")), "x-operation-id", "op-1");
    try_send(&sandbox, call()).await.unwrap_err();
    send(&sandbox, call()).await;
    advance(5 * SECOND).await;
    let stats = sandbox.stats();
    assert_eq!((stats.sessions_made, stats.sessions_reused, stats.duplicates_by_operation_id), (1, 1, 0));
    assert_eq!(sandbox.sessions_made_for("user-7"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_late_commit_after_a_blind_repetition_is_counted_as_a_duplicate() {
    let sandbox = first(Fault::late_commit(5 * SECOND)).build().unwrap();
    let call = || with(create(None), "x-operation-id", "op-1");
    try_send(&sandbox, call()).await.unwrap_err();
    send(&sandbox, call()).await;
    assert_eq!(sandbox.stats().duplicates_by_operation_id, 0);
    advance(5 * SECOND).await;
    let stats = sandbox.stats();
    assert_eq!((stats.duplicates_by_operation_id, stats.operations, stats.effects), (1, 1, 2));
    assert_eq!((sandbox.effects_of("op-1"), sandbox.effects()["op-1"]["session-create"]), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn late_and_missing_commits_can_end_in_a_status_or_in_silence() {
    for late in [true, false] {
        let fault = |ending| {
            let fault = if late { Fault::late_commit(5 * SECOND) } else { Fault::never_commit(5 * SECOND) };
            fault.with_ending(ending)
        };
        let sandbox = first(fault(Ending::Status(StatusCode::GATEWAY_TIMEOUT))).build().unwrap();
        let sent = Instant::now();
        let reply = send(&sandbox, create(Some("user-7"))).await;
        assert_eq!((reply.status, reply.header("content-type")), (StatusCode::GATEWAY_TIMEOUT, "text/html"));
        assert_eq!(sent.elapsed(), if late { Duration::ZERO } else { 5 * SECOND });
        advance(60 * SECOND).await;
        assert_eq!(sandbox.stats().sessions_made, u64::from(late));

        let sandbox = first(fault(Ending::Silence)).build().unwrap();
        let given_up = timeout(30 * SECOND, try_send(&sandbox, create(Some("user-7")))).await;
        assert!(given_up.is_err());
        let stats = sandbox.stats();
        assert_eq!((stats.sessions_made, stats.abandoned_after_arrival), (u64::from(late), 1));
    }
}

#[tokio::test(start_paused = true)]
async fn what_never_commits_is_taken_dropped_and_never_done() {
    let sandbox = first(Fault::never_commit(2 * SECOND)).build().unwrap();
    let sent = Instant::now();
    let lost = try_send(&sandbox, create(Some("user-7"))).await.unwrap_err();
    assert!(!lost.work_done() && !lost.work_pending(), "{lost}");
    assert_eq!(sent.elapsed(), 2 * SECOND);
    sleep(3_600 * SECOND).await;
    let stats = sandbox.stats();
    assert_eq!((stats.accepted, stats.sessions_made, stats.faults["never-commit"]), (1, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_late_commit_does_not_outlive_a_reset() {
    let sandbox = first(Fault::late_commit(5 * SECOND)).build().unwrap();
    try_send(&sandbox, create(Some("user-7"))).await.unwrap_err();
    sandbox.reset();
    advance(5 * SECOND).await;
    assert_eq!((sandbox.stats().sessions_made, sandbox.stats().late_commits_pending), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_session_is_listed_late_and_known_at_once_otherwise() {
    let sandbox = Sandbox::builder().list_delay(3 * SECOND).build().unwrap();
    let id = support::made(&sandbox, Some("user-7")).await;
    assert_eq!(listed(&sandbox, "user-7").await, 0);
    assert!(send(&sandbox, get(&format!("/v3/session/{id}/decision/"))).await.status.is_success());
    assert_eq!(support::made(&sandbox, Some("user-7")).await, id);
    advance(3 * SECOND).await;
    assert_eq!(listed(&sandbox, "user-7").await, 1);
}

fn slow(arrive: bool) -> SandboxBuilder {
    Sandbox::builder().latency(Duration::from_secs(10)..=Duration::from_secs(10)).abandoned_requests_arrive(arrive)
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_request_arrives_only_where_the_switch_says_so() {
    for arrives in [false, true] {
        let sandbox = slow(arrives).build().unwrap();
        let call = try_send(&sandbox, with(create(Some("user-7")), "x-operation-id", "op-1"));
        assert!(timeout(Duration::from_nanos(1), call).await.is_err());
        let stats = sandbox.stats();
        assert_eq!((stats.abandoned_before_arrival, stats.abandoned_pending), (1, u64::from(arrives)));
        assert_eq!((stats.accepted, stats.sessions_made), (0, 0));
        advance(10 * SECOND).await;
        let stats = sandbox.stats();
        assert_eq!((stats.abandoned_before_arrival, stats.abandoned_pending), (1, 0));
        assert_eq!((stats.accepted, sandbox.effects_of("op-1")), (u64::from(arrives), u64::from(arrives)));
        let journal = sandbox.journal();
        assert_eq!(journal.len(), usize::from(arrives));
        assert!(journal.iter().all(|entry| entry.abandoned && entry.status == Some(201) && entry.at_ms <= 10_000));
    }
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_request_meets_limits_and_faults_like_any_other() {
    let limits = didit_api::Limits::none().with(didit_api::Scope::methods("g", 1, ["POST"]).unwrap()).unwrap();
    let faults = Faults::none().with(Rule::new(Fault::late_commit(SECOND)).when(When::First(1)));
    let sandbox = slow(true).limits(limits).faults(faults).build().unwrap();
    for _ in 0..2 {
        assert!(timeout(Duration::from_nanos(1), try_send(&sandbox, create(None))).await.is_err());
    }
    advance(30 * SECOND).await;
    let stats = sandbox.stats();
    assert_eq!((stats.accepted, stats.throttled, stats.peak["g"].arrived), (1, 1, 2));
    assert_eq!((stats.late_commits_done, stats.sessions_made), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn every_operation_can_be_accounted_for() {
    let rule = |fault, probability| Rule::new(fault).on_route("session-create").when(When::Probability(probability));
    let faults = Faults::none()
        .with(rule(Fault::WorkThenDrop, 0.2))
        .with(rule(Fault::ResetBeforeWork, 0.1))
        .with(rule(Fault::status(StatusCode::SERVICE_UNAVAILABLE), 0.1))
        .with(rule(Fault::late_commit(5 * SECOND), 0.05));
    let sandbox = Sandbox::builder().limits(didit_api::Limits::none()).faults(faults).seed(3).build().unwrap();
    for number in 0..1_000 {
        let vendor = format!("user-{number}");
        let call = || {
            let metadata = json!({ "operation_id": format!("op-{number}") });
            let body = json!({ "workflow_id": didit_sandbox::DEFAULT_WORKFLOW_ID, "vendor_data": vendor,
                "metadata": metadata });
            request("POST", "/v3/session/", &body)
        };
        while !try_send(&sandbox, call()).await.is_ok_and(|reply| reply.status == StatusCode::CREATED) {
            advance(Duration::from_millis(100)).await;
        }
    }
    advance(5 * SECOND).await;
    let stats = sandbox.stats();
    assert_eq!((stats.operations, stats.effects, stats.sessions_made), (1_000, 1_000, 1_000));
    assert_eq!((stats.duplicates_by_operation_id, stats.duplicates_by_vendor_data), (0, 0));
    assert_eq!(stats.late_commits_done, stats.faults["late-commit"]);
    assert!(stats.sessions_reused > 100 && stats.late_commits_done > 10, "{stats:?}");
}

#[tokio::test(start_paused = true)]
async fn effects_are_told_over_http() {
    let sandbox = support::sandbox();
    send(&sandbox, with(create(None), "x-operation-id", "op-1")).await;
    let told = send(&sandbox, support::without_key(get("/_sandbox/effects"))).await;
    assert_eq!(told.json(), json!({ "op-1": { "session-create": 1 } }));
    assert_eq!(sandbox.journal()[0].operation_id.as_deref(), Some("op-1"));
    assert_eq!(send(&sandbox, request("POST", "/_sandbox/effects", &Value::Null)).await.status, 405);
}

#[tokio::test(start_paused = true)]
async fn how_late_a_session_is_listed_may_be_random() {
    let sandbox = Sandbox::builder().list_delay(Duration::ZERO..=10 * SECOND).seed(3).build().unwrap();
    for user in 0..20 {
        assert_eq!(send(&sandbox, create(Some(&format!("user-{user}")))).await.status, StatusCode::CREATED);
    }
    let mut listed = Vec::new();
    for _ in 0..=10 {
        listed.push(send(&sandbox, get("/v3/sessions/")).await.json()["count"].as_u64().unwrap());
        advance(SECOND).await;
    }
    assert!(listed.is_sorted() && listed[1] < 10 && listed[5] > 2 && listed[10] == 20, "{listed:?}");
}
