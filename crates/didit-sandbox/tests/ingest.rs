//! Transactions and events, in virtual time.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic as the test may")]

mod support;

use std::time::Duration;

use didit_api::ErrorBody;
use didit_sandbox::{Fault, Faults, Rule, Sandbox, When};
use http::StatusCode;
use serde_json::{Value, json};
use support::{request, sandbox, send, try_send, with, without_key};
use tokio::time::advance;

fn transaction(id: &str) -> http::Request<http_body_util::Full<bytes::Bytes>> {
    request("POST", "/v3/transactions/", &json!({ "transaction_id": id }))
}

fn first(fault: Fault) -> Sandbox {
    let rule = Rule::new(fault).on_route("transaction-create").when(When::First(1));
    Sandbox::builder().faults(Faults::none().with(rule)).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_transaction_id_is_accepted_once() {
    let sandbox = sandbox();
    let made = send(&sandbox, with(transaction("t-1"), "x-operation-id", "op-1")).await;
    assert_eq!((made.status, made.text("txn_id")), (StatusCode::CREATED, "t-1".to_owned()));
    let again = send(&sandbox, with(transaction("t-1"), "x-operation-id", "op-1")).await;
    let text = "A transaction with this transaction_id already exists.";
    assert_eq!((again.status, again.json()), (StatusCode::BAD_REQUEST, json!({ "transaction_id": [text] })));
    assert_eq!(send(&sandbox, transaction("t-2")).await.status, StatusCode::CREATED);
    let stats = sandbox.stats();
    assert_eq!((stats.transactions_made, stats.transactions_refused, stats.effects), (2, 1, 1));
    assert_eq!(stats.duplicates_by_operation_id, 0);
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_races_with_its_like_is_409() {
    let sandbox = Sandbox::builder().latency(Duration::from_secs(2)..=Duration::from_secs(2)).build().unwrap();
    let (one, other) = tokio::join!(send(&sandbox, transaction("t-1")), send(&sandbox, transaction("t-1")));
    let mut codes = [one.status.as_u16(), other.status.as_u16()];
    codes.sort_unstable();
    assert_eq!((codes, sandbox.stats().transactions_made), ([201, 409], 1));
    let refused = if one.status == StatusCode::CONFLICT { &one } else { &other };
    assert!(ErrorBody::parse(&refused.bytes).is_duplicate_transaction());
    assert_eq!(send(&sandbox, transaction("t-1")).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test(start_paused = true)]
async fn a_transaction_whose_answer_was_lost_is_there() {
    let sandbox = first(Fault::WorkThenDrop);
    try_send(&sandbox, transaction("t-1")).await.unwrap_err();
    assert_eq!(send(&sandbox, transaction("t-1")).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test(start_paused = true)]
async fn a_late_transaction_holds_its_id_until_it_is_there() {
    let sandbox = first(Fault::late_commit(Duration::from_secs(5)));
    try_send(&sandbox, transaction("t-1")).await.unwrap_err();
    assert_eq!(send(&sandbox, transaction("t-1")).await.status, StatusCode::CONFLICT);
    assert_eq!(sandbox.stats().transactions_made, 0);
    advance(Duration::from_secs(5)).await;
    assert_eq!(send(&sandbox, transaction("t-1")).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(sandbox.stats().transactions_made, 1);
}

#[tokio::test(start_paused = true)]
async fn a_transaction_id_that_cannot_be_is_refused_and_a_stranger_too() {
    let sandbox = sandbox();
    let long = send(&sandbox, transaction(&"t".repeat(129))).await;
    let text = "Ensure this field has no more than 128 characters.";
    assert_eq!((long.status, long.json()), (StatusCode::BAD_REQUEST, json!({ "transaction_id": [text] })));
    assert!(!ErrorBody::parse(&long.bytes).is_duplicate_transaction());
    assert_eq!(send(&sandbox, without_key(transaction("t-1"))).await.status, StatusCode::FORBIDDEN);
    assert_eq!(sandbox.stats().transactions_made, 0);
}

#[tokio::test(start_paused = true)]
async fn an_event_is_accepted_once_and_replayed_after() {
    let sandbox = sandbox();
    let event = || with(request("POST", "/v3/events/", &json!({ "event_id": "e-1" })), "x-operation-id", "op-1");
    for outcome in ["accepted", "replayed", "replayed"] {
        let reply = send(&sandbox, event()).await;
        assert_eq!((reply.status, reply.text("outcome")), (StatusCode::CREATED, outcome.to_owned()));
    }
    let stats = sandbox.stats();
    assert_eq!((stats.events_accepted, stats.events_replayed), (1, 2));
    assert_eq!((stats.effects, stats.duplicates_by_operation_id), (1, 0));
    let nameless = send(&sandbox, request("POST", "/v3/events/", &json!({}))).await;
    assert_eq!(nameless.json(), json!({ "event_id": ["This field is required."] }));
}

#[tokio::test(start_paused = true)]
async fn a_batch_says_of_each_event_what_became_of_it() {
    let sandbox = sandbox();
    let batch = async |events: &Value| {
        let reply = send(&sandbox, request("POST", "/v3/events/batch/", events)).await;
        let outcomes: Vec<_> = reply.json()["results"].as_array().into_iter().flatten().cloned().collect();
        let outcomes: Vec<_> = outcomes.iter().map(|item| item["outcome"].as_str().unwrap().to_owned()).collect();
        (reply.status.as_u16(), outcomes.join(" "))
    };
    let events = json!({ "events": [{ "event_id": "e-1" }, { "event_id": "e-2" }] });
    assert_eq!(batch(&events).await, (201, "accepted accepted".to_owned()));
    assert_eq!(batch(&events).await, (201, "replayed replayed".to_owned()));
    let mixed = json!([{ "event_id": "e-3" }, { "event_id": "e-1" }, {}, 7, { "event_id": "e-3" }]);
    assert_eq!(batch(&mixed).await, (207, "accepted replayed rejected rejected replayed".to_owned()));
    for bad in [json!({}), json!([]), json!({ "events": 7 }), json!(vec![json!({ "event_id": "e" }); 501])] {
        assert_eq!(batch(&bad).await.0, 400);
    }
    let stats = sandbox.stats();
    assert_eq!((stats.events_accepted, stats.events_replayed, stats.events_rejected), (3, 4, 2));
}
