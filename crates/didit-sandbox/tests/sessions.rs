//! Sessions: making, reusing, listing, deciding, deleting.

mod support;

use std::time::Duration;

use didit_api::SessionStatus;
use didit_sandbox::{DEFAULT_WORKFLOW_ID, Sandbox};
use http::StatusCode;
use serde_json::{Value, json};
use support::{create, get, made, request, sandbox, send, with, without_key};

#[tokio::test(start_paused = true)]
async fn a_new_session_has_the_documented_shape() {
    let sandbox = sandbox();
    let body = json!({
        "workflow_id": DEFAULT_WORKFLOW_ID, "vendor_data": "user-7", "metadata": { "corr": "c-1" },
        "callback": "https://shop.example/back",
    });
    let reply = send(&sandbox, request("POST", "/v3/session/", &body)).await;
    assert_eq!(reply.status, StatusCode::CREATED);
    let session = reply.json();
    for (field, value) in [
        ("session_number", json!(1)),
        ("vendor_data", json!("user-7")),
        ("metadata", json!({ "corr": "c-1" })),
        ("status", json!("Not Started")),
        ("workflow_id", json!(DEFAULT_WORKFLOW_ID)),
        ("callback", json!("https://shop.example/back")),
    ] {
        assert_eq!(session[field], value, "{field}");
    }
    let token = session["session_token"].as_str().unwrap();
    assert_eq!(token.len(), 12);
    assert_eq!(session["url"], format!("https://verify.didit.me/en/session/{token}"));
    assert!(reply.headers.keys().all(|name| !name.as_str().starts_with("x-ratelimit")));
}

#[tokio::test(start_paused = true)]
async fn an_unfinished_session_is_returned_again_with_the_new_metadata() {
    let sandbox = sandbox();
    let first = made(&sandbox, Some("user-7")).await;
    sandbox.set_session_status(&first, SessionStatus::InProgress).unwrap();
    let body = json!({ "workflow_id": DEFAULT_WORKFLOW_ID, "vendor_data": "user-7", "metadata": 2, "callback": "c" });
    let again = send(&sandbox, request("POST", "/v3/session/", &body)).await;
    assert_eq!(again.status, StatusCode::CREATED);
    assert_eq!((again.text("session_id"), again.text("status")), (first.clone(), "In Progress".to_owned()));
    let decision = send(&sandbox, get(&format!("/v3/session/{first}/decision/"))).await.json();
    assert_eq!((&decision["metadata"], &decision["callback"]), (&json!(2), &json!("c")));
    let stats = sandbox.stats();
    assert_eq!((stats.sessions_made, stats.sessions_reused, stats.duplicates_by_vendor_data), (1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_decided_session_is_not_returned_again() {
    let sandbox = sandbox();
    let first = made(&sandbox, Some("user-7")).await;
    sandbox.set_session_status(&first, SessionStatus::Approved).unwrap();
    assert_ne!(made(&sandbox, Some("user-7")).await, first);
    assert_eq!(sandbox.stats().duplicates_by_vendor_data, 1);
}

#[tokio::test(start_paused = true)]
async fn without_vendor_data_every_creation_makes_a_session() {
    let sandbox = sandbox();
    assert_ne!(made(&sandbox, None).await, made(&sandbox, None).await);
    assert_eq!(sandbox.stats().sessions_made, 2);
}

#[tokio::test(start_paused = true)]
async fn a_session_nobody_opens_expires() {
    let sandbox = Sandbox::builder().session_lifetime(Duration::from_secs(3_600)).build().unwrap();
    let first = made(&sandbox, Some("user-7")).await;
    tokio::time::advance(Duration::from_secs(3_600)).await;
    let decision = send(&sandbox, get(&format!("/v3/session/{first}/decision/"))).await;
    assert_eq!(decision.text("status"), "Expired");
    assert_ne!(made(&sandbox, Some("user-7")).await, first);
}

#[tokio::test(start_paused = true)]
async fn bad_creations_get_the_documented_400s() {
    let sandbox = sandbox();
    for (body, answer) in [
        (json!({}), json!({ "workflow_id": ["This field is required."] })),
        (json!({ "workflow_id": "seven" }), json!({ "workflow_id": ["Must be a valid UUID."] })),
        (
            json!({ "workflow_id": "11111111-2222-4333-8444-555555555555" }),
            json!({ "workflow_id": "Invalid workflow_id." }),
        ),
        (
            json!({ "workflow_id": DEFAULT_WORKFLOW_ID, "vendor_data": 7 }),
            json!({ "vendor_data": ["Not a valid string."] }),
        ),
        (
            json!({ "workflow_id": DEFAULT_WORKFLOW_ID, "sandbox_scenario": "x" }),
            json!({ "sandbox_scenario": ["Unknown sandbox scenario: 'x'."] }),
        ),
    ] {
        let reply = send(&sandbox, request("POST", "/v3/session/", &body)).await;
        assert_eq!((reply.status, reply.json()), (StatusCode::BAD_REQUEST, answer));
    }
    let broken = request("POST", "/v3/session/", &Value::Null).map(|_| "{".into());
    let reply = send(&sandbox, broken).await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    assert!(reply.text("detail").starts_with("JSON parse error - "));
    assert_eq!(sandbox.stats().sessions_made, 0);
}

#[tokio::test(start_paused = true)]
async fn a_decision_shows_null_until_the_check_has_run() {
    let sandbox = sandbox();
    let id = made(&sandbox, None).await;
    let path = format!("/v3/session/{id}/decision/");
    let before = send(&sandbox, get(&path)).await.json();
    assert_eq!((&before["status"], &before["environment"]), (&json!("Not Started"), &json!("sandbox")));
    assert!(before["id_verifications"].is_null() && before.as_object().unwrap().contains_key("aml_screenings"));
    sandbox.set_session_status(&id, SessionStatus::Approved).unwrap();
    let after = send(&sandbox, get(&path)).await.json();
    assert_eq!(
        after["id_verifications"],
        json!([{ "node_id": "feature_ocr_1", "status": "Approved", "warnings": [] }])
    );
}

#[tokio::test(start_paused = true)]
async fn the_list_is_filtered_and_paged_newest_first() {
    let sandbox = sandbox();
    let mut ids = Vec::new();
    for number in 0..5 {
        ids.push(made(&sandbox, Some(if number % 2 == 0 { "even" } else { "odd & more" })).await);
        let newest = ids.last().unwrap();
        sandbox.set_session_status(newest, SessionStatus::Approved).unwrap();
    }
    sandbox.set_session_status(&ids[0], SessionStatus::KycExpired).unwrap();
    let list = async |query: &str| send(&sandbox, with(get(query), "host", "didit.example")).await.json();
    let shown = |page: &Value| {
        let rows = page["results"].as_array().unwrap();
        rows.iter().map(|row| row["session_number"].as_u64().unwrap()).collect::<Vec<_>>()
    };

    let all = list("/v3/sessions/").await;
    assert_eq!((&all["count"], shown(&all)), (&json!(5), vec![5, 4, 3, 2, 1]));
    assert!(all["results"][0].get("metadata").is_none() && all["next"].is_null() && all["previous"].is_null());

    let odd = list("/v3/sessions/?vendor_data=odd+%26%20more&limit=1").await;
    assert_eq!((&odd["count"], shown(&odd)), (&json!(2), vec![4]));
    let next = "http://didit.example/v3/sessions/?limit=1&offset=1&vendor_data=odd+%26+more";
    assert_eq!(odd["next"], next);
    let second = list(&next["http://didit.example".len()..]).await;
    assert_eq!((shown(&second), &second["next"]), (vec![2], &Value::Null));
    assert!(second["previous"].is_string());

    assert_eq!(shown(&list("/v3/sessions/?status=Kyc%20Expired,Declined").await), [1]);
    assert_eq!(shown(&list("/v3/sessions/?status=approved").await), [0; 0]);
    assert_eq!(shown(&list(&format!("/v3/sessions/?workflow_id={DEFAULT_WORKFLOW_ID}&offset=3")).await), [2, 1]);
    assert_eq!(list("/v3/sessions/?workflow_id=x").await, json!({ "workflow_id": ["Must be a valid UUID."] }));
}

#[tokio::test(start_paused = true)]
async fn update_status_keeps_to_the_documented_transitions() {
    let sandbox = sandbox();
    let id = made(&sandbox, None).await;
    let set = async |status: &str| {
        let path = format!("/v3/session/{id}/update-status/");
        send(&sandbox, request("PATCH", &path, &json!({ "new_status": status }))).await
    };
    let early = set("Approved").await;
    assert_eq!(early.status, StatusCode::BAD_REQUEST);
    assert!(early.text("detail").contains("Not Started"));
    sandbox.set_session_status(&id, SessionStatus::InReview).unwrap();
    let reply = set("Approved").await;
    assert_eq!((reply.status, reply.json()), (StatusCode::OK, json!({ "session_id": id })));
    let same = set("Approved").await;
    assert_eq!(same.json(), json!(["The new status is the same as the current status."]));
    assert_eq!((same.status, set("Declined").await.status), (StatusCode::BAD_REQUEST, StatusCode::OK));
    let bad = set("In Review").await;
    assert_eq!(bad.json(), json!({ "new_status": ["\"In Review\" is not a valid choice."] }));
}

#[tokio::test(start_paused = true)]
async fn a_deleted_session_is_204_once_and_404_from_then_on() {
    let sandbox = sandbox();
    let id = made(&sandbox, Some("user-7")).await;
    let delete = || request("DELETE", &format!("/v3/session/{id}/delete/"), &Value::Null);
    let gone = send(&sandbox, delete()).await;
    assert_eq!((gone.status, gone.bytes.len()), (StatusCode::NO_CONTENT, 0));
    for request in [delete(), get(&format!("/v3/session/{id}/decision/"))] {
        let reply = send(&sandbox, request).await;
        assert_eq!((reply.status, reply.json()), (StatusCode::NOT_FOUND, json!({ "detail": "Not found." })));
    }
    assert_ne!(made(&sandbox, Some("user-7")).await, id);
}

#[tokio::test(start_paused = true)]
async fn a_pdf_is_a_pdf() {
    let sandbox = sandbox();
    let id = made(&sandbox, None).await;
    let reply = send(&sandbox, get(&format!("/v3/session/{id}/generate-pdf/"))).await;
    assert_eq!((reply.status, reply.header("content-type")), (StatusCode::OK, "application/pdf"));
    assert!(reply.bytes.starts_with(b"%PDF-1.4") && reply.bytes.ends_with(b"%%EOF\n"));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_session_is_404_before_the_key_is_looked_at() {
    let sandbox = sandbox();
    let known = made(&sandbox, None).await;
    let unknown = "11111111-2222-4333-8444-555555555555";
    for (method, action) in [("GET", "decision"), ("DELETE", "delete"), ("GET", "generate-pdf")] {
        let ask = |id: &str| without_key(request(method, &format!("/v3/session/{id}/{action}/"), &Value::Null));
        assert_eq!(send(&sandbox, ask(unknown)).await.status, StatusCode::NOT_FOUND, "{action}");
        let refused = send(&sandbox, ask(&known)).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{action}");
        assert_eq!(refused.text("detail"), "Authentication credentials were not provided or are invalid.");
    }
}

#[tokio::test(start_paused = true)]
async fn a_bad_key_is_403_or_by_choice_401() {
    let refused = "You do not have permission to perform this action.";
    let wrong = || with(create(None), "x-api-key", "nobody's");
    let sandbox = sandbox();
    for request in [without_key(create(None)), wrong()] {
        let reply = send(&sandbox, request).await;
        assert_eq!((reply.status, reply.text("detail").as_str()), (StatusCode::FORBIDDEN, refused));
    }
    let newer = Sandbox::builder().wrong_key_is_401(true).build().unwrap();
    assert_eq!(send(&newer, wrong()).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(send(&newer, without_key(create(None))).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_makes_the_same_sessions() {
    let run = async |seed| {
        let sandbox = Sandbox::builder().seed(seed).epoch(support::epoch()).build().unwrap();
        let reply = send(&sandbox, create(None)).await.json();
        sandbox.reset();
        assert_eq!(send(&sandbox, create(None)).await.json(), reply);
        reply
    };
    assert_eq!(run(3).await, run(3).await);
    assert_ne!(run(3).await, run(4).await);
}
