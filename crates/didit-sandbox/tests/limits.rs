//! Rate limits, in virtual time.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic as the test may")]

mod support;

use std::time::Duration;

use didit_api::{Limits, Scope};
use didit_sandbox::{Distribution, Latency, Neighbour, Sandbox, SandboxBuilder};
use http::StatusCode;
use serde_json::{Value, json};
use support::{EPOCH, create, get, request, send, with};
use tokio::time::{Instant, advance, sleep};

fn limited() -> SandboxBuilder {
    let scope = Scope::methods("generic-get", 3, ["GET"]).unwrap();
    Sandbox::builder().epoch(support::epoch()).limits(Limits::none().with(scope).unwrap())
}

async fn list(sandbox: &Sandbox) -> StatusCode {
    send(sandbox, get("/v3/sessions/")).await.status
}

const FULL: StatusCode = StatusCode::TOO_MANY_REQUESTS;

#[tokio::test(start_paused = true)]
async fn a_429_has_the_documented_body_and_headers() {
    let sandbox = limited().build().unwrap();
    advance(Duration::from_millis(500)).await;
    for _ in 0..3 {
        assert!(list(&sandbox).await.is_success());
    }
    advance(Duration::from_millis(10_250)).await;
    let reply = send(&sandbox, get("/v3/sessions/")).await;
    assert_eq!(reply.status, FULL);
    let text = "GET request rate limit exceeded. You can make up to 3 requests per minute.";
    assert_eq!(reply.json(), json!({ "detail": text }));
    // The window frees up at 60.5 s; whole seconds round up, so that whoever waits finds room.
    for (name, value) in [
        ("x-ratelimit-limit", "3".to_owned()),
        ("x-ratelimit-remaining", "0".to_owned()),
        ("x-ratelimit-reset", (EPOCH + 61).to_string()),
        ("retry-after", "50".to_owned()),
    ] {
        assert_eq!(reply.headers[name], value, "{name}");
    }
    advance(Duration::from_secs(50)).await;
    assert!(list(&sandbox).await.is_success());
}

#[tokio::test(start_paused = true)]
async fn windows_are_exact_to_the_millisecond() {
    let sandbox = limited().build().unwrap();
    for _ in 0..3 {
        assert!(list(&sandbox).await.is_success());
        advance(Duration::from_secs(10)).await;
    }
    advance(Duration::from_millis(29_999)).await;
    assert_eq!(list(&sandbox).await, FULL);
    advance(Duration::from_millis(1)).await;
    assert!(list(&sandbox).await.is_success());
    assert_eq!(list(&sandbox).await, FULL);
    let stats = sandbox.stats();
    assert_eq!((stats.accepted, stats.throttled), (4, 2));
    assert_eq!((stats.peak["generic-get"].counted, stats.peak["generic-get"].arrived), (3, 5));
}

#[tokio::test(start_paused = true)]
async fn whole_second_stamps_hold_a_request_for_up_to_a_second_longer() {
    let sandbox = limited().whole_second_stamps(true).build().unwrap();
    for _ in 0..3 {
        assert!(list(&sandbox).await.is_success());
    }
    advance(Duration::from_millis(60_999)).await;
    assert_eq!(list(&sandbox).await, FULL);
    advance(Duration::from_millis(1)).await;
    assert!(list(&sandbox).await.is_success());
}

#[tokio::test(start_paused = true)]
async fn refused_requests_count_only_where_the_switch_says_so() {
    for counted in [false, true] {
        let sandbox = limited().count_rejected(counted).build().unwrap();
        for _ in 0..6 {
            list(&sandbox).await;
            advance(Duration::from_secs(10)).await;
        }
        // At 60 s the first accepted request leaves; counted refusals at 30, 40 and 50 s still fill the window.
        assert_eq!(list(&sandbox).await == FULL, counted);
    }
}

#[tokio::test(start_paused = true)]
async fn each_key_has_windows_of_its_own_and_strangers_share_one() {
    let sandbox = limited().api_key("one").api_key("two").build().unwrap();
    let ask = async |key: &str| send(&sandbox, with(get("/v3/sessions/"), "x-api-key", key)).await.status;
    for _ in 0..3 {
        assert!(ask("one").await.is_success());
        assert_eq!(ask("stranger").await, StatusCode::FORBIDDEN);
    }
    assert_eq!((ask("one").await, ask("another stranger").await), (FULL, FULL));
    assert!(ask("two").await.is_success());
}

#[tokio::test(start_paused = true)]
async fn documented_scopes_add_up_and_ingest_replaces() {
    let sandbox = Sandbox::builder().build().unwrap();
    for _ in 0..300 {
        assert_eq!(send(&sandbox, create(None)).await.status, StatusCode::CREATED);
    }
    let refused = send(&sandbox, create(None)).await;
    assert_eq!(
        refused.text("detail"),
        "Write request rate limit exceeded. You can make up to 300 requests per minute."
    );
    let ingest = || request("POST", "/v3/transactions/", &json!({}));
    for _ in 0..600 {
        assert_eq!(send(&sandbox, ingest()).await.status, StatusCode::CREATED);
    }
    assert_eq!(send(&sandbox, ingest()).await.headers["x-ratelimit-limit"], "600");
    let peak = sandbox.stats().peak;
    assert_eq!((peak["generic-write"].counted, peak["session-v2-create"].counted), (300, 300));
    assert_eq!(peak["ingest-write"].counted, 600);
}

#[tokio::test(start_paused = true)]
async fn creation_can_be_left_out_of_the_write_scope() {
    let limits = Limits::didit();
    let alone = limits.scope("session-v2-create").cloned().unwrap().replacing();
    let sandbox = Sandbox::builder().limits(limits.with(alone).unwrap()).build().unwrap();
    for _ in 0..600 {
        assert_eq!(send(&sandbox, create(None)).await.status, StatusCode::CREATED);
    }
    let refused = send(&sandbox, create(None)).await;
    assert!(refused.text("detail").starts_with("Session creation rate limit exceeded."));
}

#[tokio::test(start_paused = true)]
async fn invalid_requests_count_like_any_other() {
    let sandbox = Sandbox::builder().build().unwrap();
    let id = "11111111-2222-4333-8444-555555555555";
    let update = || request("PATCH", &format!("/v3/session/{id}/update-data/"), &Value::Null).map(|_| "{".into());
    for _ in 0..10 {
        assert_eq!(send(&sandbox, update()).await.status, StatusCode::BAD_REQUEST);
    }
    assert_eq!(send(&sandbox, update()).await.headers["x-ratelimit-limit"], "10");
    // Didit's page counts both methods in one scope.
    let post = request("POST", &format!("/v3/session/{id}/update-data/"), &Value::Null);
    assert_eq!(send(&sandbox, post).await.headers["x-ratelimit-limit"], "10");
}

#[tokio::test(start_paused = true)]
async fn latency_takes_its_time_and_the_arrival_lies_within_it() {
    let (least, most) = (Duration::from_millis(20), Duration::from_millis(120));
    let sandbox = Sandbox::builder().latency(least..=most).build().unwrap();
    for _ in 0..100 {
        let sent = Instant::now();
        assert!(list(&sandbox).await.is_success());
        // Timers round each of the two waits up to a millisecond.
        let took = sent.elapsed();
        assert!(took >= least && took <= most + Duration::from_millis(2), "{took:?}");
    }
    let arrivals: Vec<_> = sandbox.journal().iter().map(|entry| entry.at_ms).collect();
    assert!(arrivals.is_sorted() && arrivals[0] > 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_given_up_before_it_arrives_leaves_no_trace() {
    let sandbox = Sandbox::builder().latency(Duration::from_secs(10)..=Duration::from_secs(10)).build().unwrap();
    let given_up = tokio::time::timeout(Duration::from_nanos(1), list(&sandbox)).await;
    assert!(given_up.is_err());
    sleep(Duration::from_secs(60)).await;
    assert_eq!(sandbox.stats().accepted, 0);
}

#[tokio::test(start_paused = true)]
async fn a_neighbour_fills_the_windows_of_the_key_while_it_is_there() {
    let minute = Duration::from_secs(60);
    let neighbour = Neighbour::new(600).on_route("session-list").from(minute).until(2 * minute);
    let sandbox = limited().neighbour(neighbour).build().unwrap();
    advance(minute).await;
    assert!(list(&sandbox).await.is_success(), "it has not come yet");
    advance(minute / 2).await;
    assert_eq!(list(&sandbox).await, FULL);
    advance(2 * minute).await;
    assert!(list(&sandbox).await.is_success(), "it has gone, and its requests with it");
    let stats = sandbox.stats();
    // It does not know of the limit of three, nor of the request that is there already.
    assert_eq!((stats.neighbour_accepted, stats.accepted, stats.throttled), (2, 2, 1));
    assert!(stats.neighbour_throttled > 500, "{stats:?}");
    assert_eq!(stats.arrivals["session-list"], 3, "its requests are none of the clients'");
}

#[tokio::test(start_paused = true)]
async fn a_neighbour_does_the_same_after_a_reset() {
    let sandbox = limited().neighbour(Neighbour::new(60).on_route("session-list")).build().unwrap();
    let mut seen = Vec::new();
    for _ in 0..2 {
        advance(Duration::from_secs(600)).await;
        let stats = sandbox.stats();
        seen.push((stats.neighbour_accepted, stats.neighbour_throttled));
        sandbox.reset();
    }
    assert_eq!(seen[0], seen[1]);
    assert!(seen[0].0 > 20, "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn each_leg_of_a_latency_takes_its_own_time() {
    let (there, back) = (Duration::from_secs(2), Duration::from_secs(3));
    let latency = Latency::legs(Distribution::Fixed(there), Distribution::Fixed(back));
    let sandbox = Sandbox::builder().latency(latency).build().unwrap();
    let sent = Instant::now();
    assert!(list(&sandbox).await.is_success());
    assert_eq!(sent.elapsed(), there + back);
    assert_eq!(sandbox.journal()[0].at_ms, 2_000);
}
