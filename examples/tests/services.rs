//! The services behind axum and tonic, and the receiver of webhooks, run as programs.

#![allow(clippy::panic, clippy::unwrap_used, reason = "helpers of tests, which Clippy does not know as such")]

mod support;

use serde_json::Value;
use support::{Said, example, run};

/// Runs a service's demonstration, and checks what both have in common.
fn demonstration(name: &str) -> Said {
    let said = run(&mut example(name));
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
    // Every log line is one JSON object, and says to which journey it belongs.
    assert!(!said.stderr.is_empty());
    for line in said.stderr.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(line["span"]["correlation_id"], "order-7", "{line}");
    }
    // The link is the user's alone.
    assert!(!said.stderr.contains("verify.didit.me"), "{}", said.stderr);
    assert!(!said.stdout.contains("verify.didit.me"), "{}", said.stdout);
    said
}

/// The lines of what Didit saw under the id that came in.
fn seen(said: &Said) -> Vec<Vec<&str>> {
    let (_, seen) = said.stdout.split_once("\nwhat Didit saw of order-7:\n").unwrap();
    seen.lines().map(|line| line.split_whitespace().collect()).collect()
}

#[test]
fn the_axum_service_takes_the_id_from_its_caller_to_didit_and_back() {
    let said = demonstration("axum_service");
    assert_eq!(
        seen(&said),
        [
            ["POST", "session-create", "503"],
            ["POST", "session-create", "201"],
            ["GET", "session-decision", "200"],
            ["GET", "session-decision", "404"],
        ]
    );
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
    assert_eq!(
        seen(&said),
        [["POST", "session-create", "201"], ["GET", "session-decision", "200"], ["GET", "session-decision", "404"]]
    );
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
        lines.filter(|line| line["fields"]["message"] == message).count()
    };
    assert_eq!((logged("session created"), logged("webhook received"), logged("verification settled")), (1, 2, 1));
    assert!(said.stdout.contains("user-7 is Approved, correlation id order-7"), "{}", said.stdout);
    assert!(said.stdout.contains("2 deliveries, 1 handled"), "{}", said.stdout);
}
