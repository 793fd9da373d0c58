//! Answers that mean more than they look like, in virtual time: refusals of a repetition whose first attempt had worked,
//! a business "no", a path without its final slash.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::{
    io,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use didit_api::{SessionStatus, shapes::Decision};
use didit_sandbox::{
    Sandbox,
    faults::{Fault, Faults, Rule, When},
};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tests::{Body, create_session, sandbox, to};
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_didit::{
    body::ReplayBody,
    call::{CallOptions, CallReport},
    circuit_breaker::{CircuitBreakerLayer, CircuitState},
    outcome::{Outcome, Settled},
    retry::RetryLayer,
};
use tracing::{Metadata, field::Visit, instrument::WithSubscriber, span};

/// A local Didit that does its work once on a route and loses the answer.
fn forgetful(route: &str) -> Sandbox {
    let fault = Rule::new(Fault::WorkThenDrop).on_route(route).when(When::First(1));
    sandbox(1).faults(Faults::none().with(fault)).build().unwrap()
}

/// A call with the key, the retry layer and a report.
async fn call(sandbox: &Sandbox, mut request: Request<Body>) -> (StatusCode, CallReport, Bytes) {
    request.headers_mut().insert("x-api-key", HeaderValue::from_static("key"));
    request.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    request.extensions_mut().insert(CallOptions::new().report());
    let response = RetryLayer::didit().layer(sandbox.clone()).oneshot(request).await.unwrap();
    let report = response.extensions().get::<CallReport>().cloned().expect("it was asked for");
    let status = response.status();
    (status, report, response.into_body().collect().await.unwrap().to_bytes())
}

async fn new_session(sandbox: &Sandbox) -> String {
    let (status, _, body) = call(sandbox, create_session(Some("user-7"), "create")).await;
    assert_eq!(status, StatusCode::CREATED);
    let created: serde_json::Value = serde_json::from_slice(&body).unwrap();
    created["session_id"].as_str().unwrap().to_owned()
}

fn on_session(method: Method, id: &str, action: &str, body: &'static str) -> Request<Body> {
    let mut request = to(method, "/");
    *request.uri_mut() = format!("/v3/session/{id}/{action}/").parse().unwrap();
    *request.body_mut() = Body::from(body);
    request
}

#[tokio::test(start_paused = true)]
async fn a_deletion_that_finds_nothing_left_was_done_by_the_attempt_before() {
    let sandbox = forgetful("session-delete");
    let id = new_session(&sandbox).await;
    let (status, report, _) = call(&sandbox, on_session(Method::DELETE, &id, "delete", "")).await;
    assert_eq!((status, report.attempts()), (StatusCode::NOT_FOUND, 2), "the answer is the server's own");
    assert_eq!(report.outcome(), Some(Outcome::Answered));
    assert!(report.ambiguous_before());
    assert_eq!(report.settled(), Some(Settled::EarlierAttempt));
}

#[tokio::test(start_paused = true)]
async fn a_deletion_that_finds_nothing_at_once_is_a_404() {
    let sandbox = sandbox(2).build().unwrap();
    let id = "11111111-2222-4333-8444-555555555555";
    let (status, report, body) = call(&sandbox, on_session(Method::DELETE, id, "delete", "")).await;
    assert_eq!((status, report.attempts()), (StatusCode::NOT_FOUND, 1));
    assert_eq!((report.settled(), report.settled_by(status, &body)), (None, None));
}

#[tokio::test(start_paused = true)]
async fn a_refused_attempt_before_settles_nothing() {
    let busy = Rule::new(Fault::status(StatusCode::SERVICE_UNAVAILABLE).with_retry_after(1)).when(When::First(1));
    let sandbox = sandbox(3).faults(Faults::none().with(busy)).build().unwrap();
    let id = "11111111-2222-4333-8444-555555555555";
    let (status, report, body) = call(&sandbox, on_session(Method::DELETE, id, "delete", "")).await;
    assert_eq!((status, report.attempts()), (StatusCode::NOT_FOUND, 2));
    assert!(!report.ambiguous_before());
    assert_eq!((report.settled(), report.settled_by(status, &body)), (None, None));
}

#[tokio::test(start_paused = true)]
async fn a_status_that_is_set_already_was_set_by_the_attempt_before() {
    let sandbox = forgetful("session-update-status");
    let id = new_session(&sandbox).await;
    sandbox.set_session_status(&id, SessionStatus::InReview).unwrap();
    let decline = r#"{"new_status":"Declined"}"#;
    let (status, report, body) = call(&sandbox, on_session(Method::PATCH, &id, "update-status", decline)).await;
    assert_eq!((status, report.attempts()), (StatusCode::BAD_REQUEST, 2));
    assert_eq!(report.settled(), None, "a 400 has other meanings");
    assert_eq!(report.settled_by(status, &body), Some(Settled::EarlierAttempt));
}

/// A transaction that is made by an attempt whose connection breaks, then refused.
async fn transaction(refusal: StatusCode, text: &'static str) -> (CallReport, Option<Settled>) {
    let first = Arc::new(Mutex::new(true));
    let service = ServiceBuilder::new().layer(RetryLayer::didit()).service_fn(move |_: Request<ReplayBody<Body>>| {
        let first = std::mem::take(&mut *first.lock().unwrap());
        async move {
            if first {
                return Err(io::Error::from(io::ErrorKind::ConnectionReset));
            }
            Response::builder().status(refusal).body(Full::<Bytes>::from(text)).map_err(io::Error::other)
        }
    });
    let response = service.oneshot(to(Method::POST, "/v3/transactions/")).await.unwrap();
    let report = response.extensions().get::<CallReport>().cloned().expect("it was repeated");
    let status = response.status();
    let settled = report.settled_by(status, &response.into_body().collect().await.unwrap().to_bytes());
    (report, settled)
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_exists_was_made_by_the_attempt_before() {
    let duplicate = r#"{"transaction_id":["A transaction with this transaction_id already exists."]}"#;
    for status in [StatusCode::BAD_REQUEST, StatusCode::CONFLICT] {
        let (report, settled) = transaction(status, duplicate).await;
        assert_eq!((report.attempts(), report.settled()), (2, None), "{status}");
        assert_eq!(settled, Some(Settled::EarlierAttempt), "{status}");
    }
    let mistake = r#"{"amount":["This field is required."]}"#;
    let (report, settled) = transaction(StatusCode::BAD_REQUEST, mistake).await;
    assert!(report.ambiguous_before());
    assert_eq!(settled, None, "a mistake is a mistake the second time too");
}

#[tokio::test(start_paused = true)]
async fn a_declined_person_is_a_success() {
    let sandbox = sandbox(4).build().unwrap();
    let id = new_session(&sandbox).await;
    sandbox.set_session_status(&id, SessionStatus::Declined).unwrap();
    let breaker = CircuitBreakerLayer::didit();
    let service = ServiceBuilder::new().layer(RetryLayer::didit()).layer(breaker.clone()).service(sandbox.clone());
    for _ in 0..20 {
        let mut request = on_session(Method::GET, &id, "decision", "");
        request.headers_mut().insert("x-api-key", HeaderValue::from_static("key"));
        request.extensions_mut().insert(CallOptions::new().report());
        let response = service.clone().oneshot(request).await.unwrap();
        let report = response.extensions().get::<CallReport>().cloned().expect("it was asked for");
        assert_eq!((report.attempts(), report.outcome()), (1, Some(Outcome::Answered)));
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let decision: Decision = serde_json::from_slice(&body).unwrap();
        assert_eq!(decision.status, SessionStatus::Declined);
    }
    assert_eq!(breaker.state(didit_api::ServiceGroup::Core), Some(CircuitState::Closed));
}

/// Counts the hints that are logged.
#[derive(Clone, Default)]
struct Hints(Arc<Mutex<Vec<String>>>);

impl Visit for Hints {
    fn record_debug(&mut self, _: &tracing::field::Field, _: &dyn std::fmt::Debug) {}

    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        if field.name() == "hint" {
            self.0.lock().unwrap().push(value.to_owned());
        }
    }
}

impl tracing::Subscriber for Hints {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut self.clone());
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[tokio::test(start_paused = true)]
async fn a_missing_final_slash_is_explained_once_and_never_followed() {
    let (hints, sandbox) = (Hints::default(), sandbox(5).build().unwrap());
    let layers = ServiceBuilder::new().layer(RetryLayer::didit()).layer(RetryLayer::didit());
    let request = tests::get("/v3/sessions?limit=1");
    let response = layers.service(sandbox).oneshot(request).with_subscriber(hints.clone()).await.unwrap();
    assert_eq!(response.status(), StatusCode::MOVED_PERMANENTLY);
    assert_eq!(*hints.0.lock().unwrap(), ["the path lacks its final slash"]);
}
