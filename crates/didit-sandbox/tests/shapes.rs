//! What the sandbox answers is what `didit-api` reads.

mod support;

use didit_api::{
    ErrorBody, SessionStatus,
    error::ErrorShape,
    shapes::{AmlScreening, CreatedSession, Decision, SessionPage},
};
use serde_json::json;
use support::{create, get, request, sandbox, send};

#[tokio::test(start_paused = true)]
async fn every_success_is_read_by_its_shape() {
    let sandbox = sandbox();
    let created: CreatedSession = serde_json::from_slice(&send(&sandbox, create(Some("user-7"))).await.bytes).unwrap();
    sandbox.set_session_status(&created.session_id, SessionStatus::Declined).unwrap();
    let path = format!("/v3/session/{}/decision/", created.session_id);
    let decision: Decision = serde_json::from_slice(&send(&sandbox, get(&path)).await.bytes).unwrap();
    assert_eq!(decision.status, SessionStatus::Declined);
    let page: SessionPage = serde_json::from_slice(&send(&sandbox, get("/v3/sessions/")).await.bytes).unwrap();
    assert_eq!(page.results.len(), 1);
    let screened = send(&sandbox, request("POST", "/v3/aml/", &json!({ "full_name": "Ada" }))).await;
    serde_json::from_slice::<AmlScreening>(&screened.bytes).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_read_as_an_error_body() {
    let sandbox = sandbox();
    let refused = send(&sandbox, request("POST", "/v3/session/", &json!({}))).await;
    assert_eq!(ErrorBody::parse(&refused.bytes).shape(), ErrorShape::Fields);
    let unknown = send(&sandbox, get("/v3/nothing/")).await;
    assert_eq!(ErrorBody::parse(&unknown.bytes).shape(), ErrorShape::Detail);
}
