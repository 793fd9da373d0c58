//! Everything that is not about sessions.

mod support;

use bytes::Bytes;
use didit_api::Routes;
use didit_sandbox::Stats;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use support::{get, made, request, sandbox, send, with, without_key};

fn aml(body: &Value, key: &str) -> Request<Full<Bytes>> {
    with(request("POST", "/v3/aml/", body), "idempotency-key", key)
}

#[tokio::test(start_paused = true)]
async fn an_idempotency_key_replays_the_answer_and_bills_once() {
    let sandbox = sandbox();
    let body = json!({ "full_name": "Ada", "metadata": { "operation_id": "op-1" } });
    let first = send(&sandbox, aml(&body, "k-1")).await;
    assert_eq!((first.status, &first.json()["aml"]["status"]), (StatusCode::OK, &json!("Approved")));
    let again = send(&sandbox, aml(&body, "k-1")).await;
    assert_eq!((again.status, &again.bytes), (first.status, &first.bytes));
    assert_eq!((sandbox.stats().billed_checks, sandbox.stats().duplicates_by_operation_id), (1, 0));

    let other = send(&sandbox, aml(&json!({ "full_name": "Bob" }), "k-1")).await;
    assert_eq!(other.status, StatusCode::CONFLICT);
    assert_eq!(send(&sandbox, aml(&body, &"k".repeat(255))).await.status, StatusCode::OK);
    assert_eq!(send(&sandbox, aml(&body, &"k".repeat(256))).await.status, StatusCode::BAD_REQUEST);
    assert_eq!((sandbox.stats().billed_checks, sandbox.stats().duplicates_by_operation_id), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_leaves_its_key_unused() {
    let sandbox = sandbox();
    let refused = send(&sandbox, aml(&json!({}), "k-1")).await;
    assert_eq!(refused.json(), json!({ "full_name": ["This field is required."] }));
    assert_eq!(send(&sandbox, aml(&json!({ "full_name": "Ada" }), "k-1")).await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn without_a_key_every_check_bills() {
    let sandbox = sandbox();
    let body = json!({ "full_name": "Ada" });
    for _ in 0..2 {
        let call = with(request("POST", "/v3/aml/", &body), "x-operation-id", "op-1");
        assert_eq!(send(&sandbox, call).await.status, StatusCode::OK);
    }
    assert_eq!((sandbox.stats().billed_checks, sandbox.stats().duplicates_by_operation_id), (2, 1));
}

fn upload(fields: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let part = |(name, value): &(&str, &str)| {
        format!("--B\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"f\"\r\n\r\n{value}\r\n")
    };
    let body = fields.iter().map(part).collect::<String>() + "--B--\r\n";
    let request = request("POST", "/v3/id-verification/", &Value::Null).map(|_| Full::from(body));
    with(request, "content-type", "multipart/form-data; boundary=B")
}

#[tokio::test(start_paused = true)]
async fn id_verification_wants_a_front_image() {
    let sandbox = sandbox();
    let fields = [("front_image", "png"), ("vendor_data", "user-7"), ("metadata", "{\"operation_id\":\"op-1\"}")];
    let reply = send(&sandbox, upload(&fields)).await;
    assert_eq!((reply.status, reply.text("vendor_data")), (StatusCode::OK, "user-7".to_owned()));
    assert_eq!(reply.json()["id_verification"]["status"], "Approved");
    assert_eq!(send(&sandbox, upload(&fields)).await.status, StatusCode::OK);
    assert_eq!((sandbox.stats().billed_checks, sandbox.stats().duplicates_by_operation_id), (2, 1));

    let no_file = json!({ "front_image": ["No file was submitted."] });
    assert_eq!(send(&sandbox, upload(&[("back_image", "png")])).await.json(), no_file);
    let not_a_form = send(&sandbox, request("POST", "/v3/id-verification/", &json!({}))).await;
    assert_eq!((not_a_form.status, not_a_form.json()), (StatusCode::BAD_REQUEST, no_file));
}

#[tokio::test(start_paused = true)]
async fn the_health_check_asks_for_nothing() {
    let sandbox = sandbox();
    for path in ["/system/healthcheck", "/system/healthcheck/"] {
        let reply = send(&sandbox, without_key(get(path))).await;
        assert_eq!(reply.status, StatusCode::OK);
        assert_eq!(reply.json(), json!({ "status": "ok", "timestamp": "2026-09-21T14:14:00.000Z" }));
    }
    assert_eq!(sandbox.stats().peak["generic-get"].arrived, 0);
}

#[tokio::test(start_paused = true)]
async fn a_missing_final_slash_is_301_with_the_query_kept() {
    let sandbox = sandbox();
    let reply = send(&sandbox, get("/v3/sessions?limit=2")).await;
    assert_eq!((reply.status, reply.header("location")), (StatusCode::MOVED_PERMANENTLY, "/v3/sessions/?limit=2"));
    assert_eq!(sandbox.stats().arrivals["redirect"], 1);
}

#[tokio::test(start_paused = true)]
async fn unknown_paths_methods_and_types_are_refused_as_documented() {
    let sandbox = sandbox();
    let unknown = send(&sandbox, get("/v3/nothing/")).await;
    assert_eq!((unknown.status, unknown.json()), (StatusCode::NOT_FOUND, json!({ "detail": "Not found." })));
    let not_a_uuid = send(&sandbox, get("/v3/session/7/decision/")).await;
    assert_eq!(not_a_uuid.status, StatusCode::NOT_FOUND);
    let method = send(&sandbox, request("DELETE", "/v3/sessions/", &Value::Null)).await;
    assert_eq!((method.status, method.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, "GET"));
    assert_eq!(method.text("detail"), "Method \"DELETE\" not allowed.");
    let text = with(request("POST", "/v3/workflows/", &json!({})), "content-type", "text/plain");
    assert_eq!(send(&sandbox, text).await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let user = send(&sandbox, without_key(get("/v3/users/"))).await;
    assert_eq!(user.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(start_paused = true)]
async fn every_route_of_the_table_answers() {
    let sandbox = sandbox();
    let id = "11111111-2222-4333-8444-555555555555";
    let routes = Routes::didit();
    for (_, endpoint) in routes.iter() {
        let segment = |part: &str| if part.starts_with('{') { id.to_owned() } else { part.to_owned() };
        let path = endpoint.path().split('/').map(segment).collect::<Vec<_>>().join("/");
        let body = if endpoint.method() == Method::POST { json!({}) } else { Value::Null };
        let reply = send(&sandbox, request(endpoint.method().as_str(), &path, &body)).await;
        let strict =
            ["session-create", "aml", "id-verification", "event-create", "event-batch"].contains(&endpoint.name());
        let of_session = ["session-decision", "session-generate-pdf", "session-delete", "session-update-status"];
        if strict {
            assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{}", endpoint.name());
        } else if of_session.contains(&endpoint.name()) {
            assert_eq!(reply.status, StatusCode::NOT_FOUND, "{}", endpoint.name());
        } else {
            assert!(reply.status.is_success(), "{}: {}", endpoint.name(), reply.status);
        }
        assert_eq!(sandbox.stats().arrivals[endpoint.name()], 1, "{}", endpoint.name());
    }
}

#[tokio::test(start_paused = true)]
async fn statistics_are_told_without_a_key_and_without_being_counted() {
    let sandbox = sandbox();
    let id = made(&sandbox, Some("user-7")).await;
    let admin = |method: &str, path: &str, body: Value| without_key(request(method, path, &body));
    let stats = send(&sandbox, admin("GET", "/_sandbox/stats", Value::Null)).await;
    assert_eq!(serde_json::from_slice::<Stats>(&stats.bytes).unwrap(), sandbox.stats());

    let path = format!("/_sandbox/session/{id}/status");
    let set = async |status: &str| send(&sandbox, admin("POST", &path, json!({ "status": status }))).await.status;
    assert_eq!((set("Approved").await, set("approved").await), (StatusCode::OK, StatusCode::BAD_REQUEST));
    let decision = send(&sandbox, get(&format!("/v3/session/{id}/decision/"))).await;
    assert_eq!(decision.text("status"), "Approved");

    assert_eq!(send(&sandbox, admin("POST", "/_sandbox/reset", Value::Null)).await.status, StatusCode::NO_CONTENT);
    assert_eq!((sandbox.stats().arrivals.len(), sandbox.journal().len()), (0, 0));
    assert_eq!(send(&sandbox, admin("DELETE", "/_sandbox/stats", Value::Null)).await.status, 405);
}

#[tokio::test(start_paused = true)]
async fn the_journal_tells_what_arrived_and_no_secret() {
    let sandbox = sandbox();
    let call = with(support::create(Some("user-7")), "x-correlation-id", "c-1");
    let id = send(&sandbox, with(call, "idempotency-key", "k-1")).await.text("session_id");
    tokio::time::advance(std::time::Duration::from_millis(250)).await;
    send(&sandbox, get(&format!("/v3/session/{id}/decision/"))).await;

    let [create, decision] = sandbox.journal().try_into().unwrap();
    assert_eq!((create.at_ms, create.method.as_str(), create.route.as_str()), (0, "POST", "session-create"));
    assert_eq!((create.status, create.fault), (Some(201), None));
    assert_eq!(create.correlation_id.as_deref(), Some("c-1"));
    assert_eq!(create.idempotency_key.as_deref(), Some("k-1"));
    assert_eq!((create.session_id.as_ref(), decision.session_id.as_ref()), (Some(&id), Some(&id)));
    assert_eq!((decision.at_ms, decision.route.as_str(), decision.status), (250, "session-decision", Some(200)));

    let shown = send(&sandbox, get("/_sandbox/journal")).await;
    let text = std::str::from_utf8(&shown.bytes).unwrap();
    assert!(!text.contains(didit_sandbox::DEFAULT_API_KEY) && !text.contains("verify.didit.me"));
}
