//! The lines of the access log, as `log.md` describes them.

#![allow(clippy::panic, clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeSet;

use didit_sandbox::{DEFAULT_API_KEY, DEFAULT_WORKFLOW_ID, Sandbox};
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use support::*;
use tokio::io::AsyncWriteExt;

const GOLDEN: &str = include_str!("golden/access.jsonl");
const TABLE: &str = include_str!("../src/log.md");

fn named(id: &'static str, mut request: Request<Full<bytes::Bytes>>) -> Request<Full<bytes::Bytes>> {
    request.headers_mut().insert("x-correlation-id", http::HeaderValue::from_static(id));
    request
}

/// A session that is made and asked for, a route that nobody knows, and what is refused early and at once. The lines, and
/// the session.
async fn lines() -> (Vec<Value>, String) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = didit_sandbox::serve(listener, Sandbox::builder().build().unwrap()).unwrap();
    let upstream = format!("http://{}", server.local_addr());
    let process = Process::start(&["--upstream", &upstream], &[("DIDIT_API_KEY", DEFAULT_API_KEY)]);
    let body = json!({ "workflow_id": DEFAULT_WORKFLOW_ID, "vendor_data": "user-7" }).to_string();
    let created = send(process.address, named("created", post("/v3/session/", body))).await;
    let session = created.json()["session_id"].as_str().unwrap().to_owned();
    send(process.address, named("decision", get(&format!("/v3/session/{session}/decision/")))).await;
    send(process.address, named("unknown", get("/v3/nothing/"))).await;
    let head = "GET /v3/sessions/ HTTP/1.1\r\nx-correlation-id: elsewhere\r\nhost: evil.example\r\n\r\n";
    raw(process.address, head).await;
    raw(process.address, "no HTTP\r\n\r\n").await;
    let log = process.stop();
    assert!(!log.contains("user-7") && !log.contains(DEFAULT_API_KEY), "{log}");
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    (lines.filter(|line| line["target"] == "didit_gateway::access").collect(), session)
}

/// Takes out what differs from run to run.
fn normalised(mut line: Value) -> Value {
    let random = (line["message"] == "refused").then_some("correlation_id");
    for name in ["timestamp", "duration_ms", "session_id"].into_iter().chain(random) {
        if let Some(value) = line.get_mut(name) {
            *value = format!("<{name}>").into();
        }
    }
    line
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lines_are_the_golden_ones() {
    let (lines, session) = lines().await;
    let about: Vec<_> = lines.iter().filter(|line| line["session_id"] == session).collect();
    assert_eq!(about.len(), 2, "the creation and the decision name the session: {lines:?}");
    let text: String = lines.into_iter().map(|line| format!("{}\n", normalised(line))).collect();
    // Run with BLESS=1 after a change that is meant.
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/access.jsonl"), &text).unwrap();
        return;
    }
    assert_eq!(text, GOLDEN);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_before_its_answer_leaves_a_line() {
    let upstream = tests::Upstream::http(|_, _| std::future::pending::<http::Response<tests::AnyBody>>()).unwrap();
    let process = Process::start(&["--upstream", &base(&upstream)], &[]);
    let mut stream = tokio::net::TcpStream::connect(process.address).await.unwrap();
    let head = "GET /v3/sessions/ HTTP/1.1\r\nhost: localhost\r\nx-correlation-id: gone\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    while send(process.operations, get("/status")).await.json()["calls_in_flight"] != 1 || upstream.accepted() == 0 {}
    drop(stream);
    while send(process.operations, get("/status")).await.json()["calls_in_flight"] != 0 {}
    let log = process.stop();
    let lines: Vec<_> = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect();
    let lines: Vec<_> = lines.iter().filter(|line| line["target"] == "didit_gateway::access").collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    let line = lines[0];
    assert_eq!((&line["message"], &line["correlation_id"]), (&"cancelled".into(), &"gone".into()));
    assert_eq!((&line["attempts"], &line["complete"]), (&1.into(), &false.into()));
    assert_eq!(line.get("http.response.status_code"), None);
}

#[test]
fn every_field_of_the_golden_lines_is_documented_and_the_other_way_round() {
    let lines = GOLDEN.lines().map(|line| serde_json::from_str::<serde_json::Map<String, Value>>(line).unwrap());
    let mut fields: BTreeSet<String> = lines.flatten().map(|(name, _)| name).collect();
    for everywhere in ["timestamp", "level", "message", "target"] {
        assert!(fields.remove(everywhere) && TABLE.contains(&format!("`{everywhere}`")), "{everywhere}");
    }
    let rows = TABLE.lines().filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned()));
    assert_eq!(fields, rows.collect::<BTreeSet<_>>());
}
