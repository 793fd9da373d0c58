//! The services behind axum and tonic, and the receiver of webhooks, run as programs.

#![allow(clippy::panic, clippy::unwrap_used, reason = "helpers of tests, which Clippy does not know as such")]

mod support;

use serde_json::Value;
use support::{Said, example, run};

/// What Didit sees of a session that is created after two failures and read, and of one that does not exist.
const CREATED_AND_READ: [[&str; 3]; 5] = [
    ["POST", "session-create", "503"],
    ["POST", "session-create", "503"],
    ["POST", "session-create", "201"],
    ["GET", "session-decision", "200"],
    ["GET", "session-decision", "404"],
];

/// Runs a service's demonstration, and checks what both have in common.
fn demonstration(name: &str) -> Said {
    let said = run(&mut example(name));
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
    // Every log line is one JSON object, and says to which journey it belongs.
    assert!(!said.stderr.is_empty());
    for line in said.stderr.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(line["spans"][0]["correlation_id"], "order-7", "{line}");
    }
    // The link is the user's alone.
    assert!(!said.stderr.contains("verify.didit.me"), "{}", said.stderr);
    assert!(!said.stdout.contains("verify.didit.me"), "{}", said.stdout);
    said
}

/// The lines of what Didit saw under the id that came in.
fn seen(said: &Said) -> Vec<Vec<&str>> {
    let (_, seen) = said.stdout.split_once("\nwhat Didit saw of order-7:\n").unwrap();
    seen.lines().take_while(|line| !line.is_empty()).map(|line| line.split_whitespace().collect()).collect()
}

/// One search for the id in the log gives the whole story of the session's creation, in order, attempts included.
fn assert_creation_in_order(said: &Said) {
    let lines: Vec<Value> = said
        .stderr
        .lines()
        .filter(|line| line.contains("order-7"))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let created = lines.iter().position(|line| line["message"] == "session created").unwrap();
    let call = &lines[created - 1]["spans"];
    let call = call.as_array().unwrap().iter().find(|span| span["name"] == "call").unwrap();
    assert_eq!((&call["url.template"], &call["http.response.status_code"]), (&"/v3/session/".into(), &201.into()));
    let story: Vec<_> = lines[..=created]
        .iter()
        .filter(|line| line["target"].as_str().unwrap().starts_with("tower_didit") || line["session_id"].is_string())
        // A service of gRPC was itself called through layers of its own.
        .filter(|line| line["spans"].as_array().unwrap().iter().any(|span| span["name"] == "request"))
        .map(|line| (line["message"].as_str().unwrap(), line["http.response.status_code"].as_u64()))
        .collect();
    assert_eq!(
        story,
        [
            ("attempt ended", Some(503)),
            ("attempt failed, repeating", None),
            ("attempt ended", Some(503)),
            ("attempt failed, repeating", None),
            ("attempt ended", Some(201)),
            ("call ended", Some(201)),
            ("session created", None),
        ]
    );
}

#[test]
fn the_axum_service_takes_the_id_from_its_caller_to_didit_and_back() {
    let said = demonstration("axum_service");
    assert_eq!(seen(&said), CREATED_AND_READ);
    assert_creation_in_order(&said);
    assert!(said.stdout.contains("201 Created, correlation id order-7"), "{}", said.stdout);
    assert!(said.stdout.contains("404 Not Found, correlation id order-7"), "{}", said.stdout);
}

#[test]
fn the_axum_service_says_when_to_come_back() {
    let said = demonstration("axum_service");
    let busy = said.stdout.lines().find(|line| line.contains("503 Service Unavailable")).unwrap();
    let (_, wait) = busy.split_once("come back in ").unwrap();
    let seconds: u64 = wait.trim_end_matches(" s").parse().unwrap();
    // The quota is two GETs in 60 s, held for another second.
    assert!((50..=62).contains(&seconds), "{busy}");
}

#[test]
fn the_tonic_service_takes_the_id_along_and_its_client_repeats_what_was_refused() {
    let said = demonstration("tonic_service");
    assert_eq!(seen(&said), CREATED_AND_READ);
    assert_creation_in_order(&said);
    assert!(said.stdout.contains("Start: ok, correlation id order-7, attempts: 2"), "{}", said.stdout);
    assert!(said.stdout.contains("Read: ok, correlation id order-7, attempts: 1"), "{}", said.stdout);
    assert!(said.stdout.contains("Read: NotFound"), "{}", said.stdout);
}

#[test]
fn the_webhook_is_handled_once_under_the_id_of_the_request_that_began_the_session() {
    let said = demonstration("webhooks");
    assert_eq!(
        seen(&said),
        [["POST", "session-create", "503"], ["POST", "session-create", "201"], ["GET", "session-decision", "200"]]
    );
    let logged = |message: &str| {
        let lines = said.stderr.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["message"] == message).count()
    };
    assert_eq!((logged("session created"), logged("webhook received"), logged("verification settled")), (1, 2, 1));
    assert!(said.stdout.contains("user-7 is Approved, correlation id order-7"), "{}", said.stdout);
    assert!(said.stdout.contains("2 deliveries, 1 handled"), "{}", said.stdout);
}

#[test]
fn the_axum_service_shows_prometheus_its_calls() {
    let said = demonstration("axum_service");
    let (_, metrics) = said.stdout.split_once("\nwhat Prometheus sees of its calls:\n").unwrap();
    let count = |route: &str, outcome: &str| -> u64 {
        let lines = metrics.lines().filter(|line| line.contains(route) && line.contains(outcome));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    };
    assert_eq!(count("/v3/session/\"", "answered"), 1);
    assert_eq!(count("/v3/session/{id}/decision/", "status_class=\"2xx\""), 1);
    assert_eq!(count("/v3/session/{id}/decision/", "status_class=\"4xx\""), 1);
    // The one that the quota had no room for.
    assert_eq!(count("/v3/session/{id}/decision/", "held_back"), 1);
}
