//! The quickstart, run as a program.

#![allow(clippy::panic, clippy::unwrap_used, reason = "helpers of tests, which Clippy does not know as such")]

mod support;

use std::{net::Ipv4Addr, time::Duration};

use didit_api::{Limits, Scope};
use didit_sandbox::{DEFAULT_WORKFLOW_ID, Sandbox};
use serde_json::{Map, Value};
use support::{Said, example, run};
use tokio::net::TcpListener;

const KEYS: [&str; 8] =
    ["attempts", "calls", "duplicates", "lost", "retries", "sessions_made", "succeeded", "throttled"];

fn object(said: &Said) -> Map<String, Value> {
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
    assert_eq!(said.stdout.lines().count(), 1, "{}", said.stdout);
    let object: Map<String, Value> = serde_json::from_str(&said.stdout).unwrap();
    let mut keys: Vec<_> = object.keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(keys, KEYS);
    assert!(object.values().all(Value::is_u64), "{object:?}");
    object
}

fn nothing_is_lost_done_twice_or_refused(seed: u64) {
    let said = run(example("quickstart").args(["--json", "--seed", &seed.to_string()]));
    let object = object(&said);
    let number = |key: &str| object[key].as_u64().unwrap();
    assert_eq!((number("calls"), number("succeeded")), (80, 80), "{object:?}");
    assert_eq!((number("sessions_made"), number("duplicates")), (40, 0), "{object:?}");
    assert_eq!((number("lost"), number("throttled")), (0, 0), "{object:?}");
    // With these seeds something does go wrong.
    assert!(number("retries") > 0, "{object:?}");
    assert_eq!(number("attempts"), number("calls") + number("retries"), "{object:?}");
}

#[test]
fn with_seed_1_nothing_is_lost_done_twice_or_refused() {
    nothing_is_lost_done_twice_or_refused(1);
}

#[test]
fn with_seed_2_nothing_is_lost_done_twice_or_refused() {
    nothing_is_lost_done_twice_or_refused(2);
}

#[test]
fn with_seed_3_nothing_is_lost_done_twice_or_refused() {
    nothing_is_lost_done_twice_or_refused(3);
}

#[test]
fn the_table_counts_and_one_id_is_followed_through_its_attempts() {
    let said = run(&mut example("quickstart"));
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
    for row in ["calls", "succeeded", "attempts", "retries", "waited for quota", "backed off", "429s", "duplicates"] {
        assert!(said.stdout.lines().any(|line| line.trim_start().starts_with(row)), "{row} in {}", said.stdout);
    }
    let (_, followed) = said.stdout.split_once("\nfollowed: ").unwrap();
    let mut lines = followed.lines();
    assert!(lines.next().unwrap().starts_with("run-1.user-"), "{followed}");
    // At least one attempt failed, and both calls succeeded in the end.
    let attempts: Vec<_> = lines.collect();
    assert!(attempts.len() > 2 && followed.contains("fault: "), "{followed}");
    assert!(attempts.iter().any(|line| line.contains("session-create") && line.ends_with("201")), "{followed}");
    assert!(attempts.iter().any(|line| line.contains("session-decision") && line.ends_with("200")), "{followed}");
    // Not on a terminal: progress comes in plain lines.
    assert!(said.stderr.lines().count() > 1, "{}", said.stderr);
    assert!(!said.stderr.contains(['\r', '\x1b']), "{:?}", said.stderr);
}

#[test]
fn live_without_a_key_or_a_workflow_says_what_is_missing() {
    let said = run(example("quickstart").arg("--live"));
    assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""));
    assert!(said.stderr.contains("DIDIT_API_KEY") && said.stderr.contains("not set"), "{}", said.stderr);

    let said = run(example("quickstart").arg("--live").env("DIDIT_API_KEY", "canary-key"));
    assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""));
    assert!(said.stderr.contains("DIDIT_WORKFLOW_ID"), "{}", said.stderr);
    assert!(!said.stderr.contains("canary"), "{}", said.stderr);
}

#[test]
fn what_the_command_line_gets_wrong_is_named() {
    for (arguments, named) in
        [(&["--sede", "1"][..], "--sede"), (&["--seed", "x"], "\"x\""), (&["--sessions", "0"], "0")]
    {
        let said = run(example("quickstart").args(arguments));
        assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(said.stderr.contains(named), "{arguments:?}: {}", said.stderr);
    }
    let said = run(example("quickstart").arg("--help"));
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""));
    assert!(said.stdout.contains("--live"), "{}", said.stdout);
}

/// `--live`, pointed at a local server: the key is sent and works, and neither it nor a link is printed.
#[tokio::test(flavor = "multi_thread")]
async fn live_shows_neither_the_key_nor_a_link() {
    let sandbox = Sandbox::builder().api_key("canary-key").build().unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let server = didit_sandbox::serve(listener, sandbox.clone()).unwrap();
    let base_url = format!("http://{}", server.local_addr());
    let live = move |arguments: &'static [&'static str]| {
        let mut command = example("quickstart");
        command.arg("--live").args(arguments).env("DIDIT_BASE_URL", &base_url);
        command.env("DIDIT_API_KEY", "canary-key").env("DIDIT_WORKFLOW_ID", DEFAULT_WORKFLOW_ID);
        tokio::task::spawn_blocking(move || run(&mut command))
    };

    let table = live(&[]).await.unwrap();
    assert_eq!(table.code, Some(0), "{}{}", table.stdout, table.stderr);
    assert!(table.stdout.contains("\nfollowed: run-1.user-"), "{}", table.stdout);
    assert!(table.stdout.contains("outcome: answered"), "{}", table.stdout);

    // Once more: the sessions are unfinished, so the same two come back.
    let json = live(&["--json"]).await.unwrap();
    let object = object(&json);
    assert_eq!((&object["calls"], &object["succeeded"]), (&4.into(), &4.into()), "{object:?}");
    assert_eq!((&object["sessions_made"], &object["duplicates"]), (&2.into(), &0.into()), "{object:?}");
    assert_eq!((sandbox.stats().sessions_made, sandbox.stats().sessions_reused), (2, 2));

    for said in [table, json] {
        for secret in ["canary-key", "verify.didit.me"] {
            assert!(!said.stdout.contains(secret) && !said.stderr.contains(secret), "{}{}", said.stdout, said.stderr);
        }
    }
}

/// The server allows less than the stack believes, so that a call is refused before it succeeds. That takes the seconds
/// that the server and the stack ask for: the program is another process, with a clock of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_refused_is_no_success() {
    let narrow = Scope::methods("generic-write", 1, ["POST"]).unwrap().with_window(Duration::from_secs(1)).unwrap();
    let sandbox = Sandbox::builder().limits(Limits::none().with(narrow).unwrap()).build().unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let server = didit_sandbox::serve(listener, sandbox).unwrap();
    let mut command = example("quickstart");
    command.args(["--live", "--json"]).env("DIDIT_BASE_URL", format!("http://{}", server.local_addr()));
    command.env("DIDIT_API_KEY", didit_sandbox::DEFAULT_API_KEY).env("DIDIT_WORKFLOW_ID", DEFAULT_WORKFLOW_ID);
    let said = tokio::task::spawn_blocking(move || run(&mut command)).await.unwrap();
    let object: Map<String, Value> = serde_json::from_str(&said.stdout).unwrap();
    let number = |key: &str| object[key].as_u64().unwrap();
    assert_eq!((number("calls"), number("succeeded"), number("lost")), (4, 4, 0), "{object:?}");
    assert!(number("throttled") > 0, "{object:?}");
    assert_eq!(said.code, Some(1), "{}", said.stderr);
}
