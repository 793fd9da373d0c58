//! Thousands of calls against a server that fails in every ambiguous way: nothing lost, nothing done twice; in virtual time.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use didit_api::Limits;
use didit_sandbox::{
    Sandbox,
    faults::{Fault, Faults, Rule, When},
};
use http::StatusCode;
use tests::{create_session, sandbox};
use tower::{Layer, ServiceExt};
use tower_didit::{DiditLayer, Randomness, call::CallReport, outcome::Outcome, stack::ErrorKind};

const OPERATIONS: u32 = 5_000;
const TASKS: u32 = 32;

/// One call in five is done and not answered, one in ten reset before the work, one in ten refused with 503, and one in
/// twenty done only seconds after the answer was lost.
fn treacherous() -> Faults {
    let sometimes = |fault, probability| Rule::new(fault).when(When::Probability(probability));
    Faults::none()
        .with(sometimes(Fault::WorkThenDrop, 0.20))
        .with(sometimes(Fault::ResetBeforeWork, 0.10))
        .with(sometimes(Fault::status(StatusCode::SERVICE_UNAVAILABLE), 0.10))
        .with(sometimes(Fault::late_commit(Duration::from_secs(3)), 0.05))
}

fn server() -> Sandbox {
    sandbox(21)
        .limits(Limits::none())
        .latency(Duration::from_millis(20)..=Duration::from_millis(120))
        .faults(treacherous())
        .build()
        .unwrap()
}

/// The stack for a server where nearly half of all attempts fail: more attempts, no budget, and a breaker that knows this
/// to be normal.
fn patient() -> DiditLayer {
    let trip = tower_didit::circuit_breaker::TripPolicy::DIDIT
        .consecutive_failures(1_000)
        .and_then(|policy| policy.failure_ratio(1.0, 1_000, Duration::from_secs(30)))
        .unwrap();
    DiditLayer::builder()
        .api_key("key")
        .randomness(Randomness::seeded(8))
        .limits(Limits::none())
        .trip_policy(trip)
        .deadline(Duration::from_secs(3_600))
        .retry(|retry| retry.max_attempts(40).budget(None))
        .build()
        .unwrap()
}

/// Runs every operation once through the stack, from 32 tasks; what is done with the result is up to `then`.
async fn run<T: Send + 'static>(
    sandbox: &Sandbox,
    named: bool,
    then: impl Fn(Result<StatusCode, tower_didit::stack::Error<didit_sandbox::ConnectionLost>>) -> T
    + Clone
    + Send
    + 'static,
) -> Vec<T> {
    let didit = patient().layer(sandbox.clone());
    let next = Arc::new(AtomicU32::new(0));
    let tasks = (0..TASKS).map(|_| {
        let (didit, next, then) = (didit.clone(), Arc::clone(&next), then.clone());
        tokio::spawn(async move {
            let mut results = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= OPERATIONS {
                    return results;
                }
                let user = format!("user-{number}");
                let request = create_session(named.then_some(user.as_str()), &format!("operation-{number}"));
                let result = didit.clone().oneshot(request).await;
                results.push(then(result.map(|response| response.status())));
            }
        })
    });
    let mut results = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        results.extend(task.await.unwrap());
    }
    // Whatever was to be done late is done by now.
    tokio::time::sleep(Duration::from_secs(60)).await;
    results
}

#[tokio::test(start_paused = true)]
async fn with_vendor_data_every_operation_exists_exactly_once() {
    let sandbox = server();
    let statuses = run(&sandbox, true, |result| result.map_err(|error| error.to_string())).await;
    assert!(statuses.iter().all(|status| status.as_ref() == Ok(&StatusCode::CREATED)), "a call was lost");
    let stats = sandbox.stats();
    println!("attempts per call: {:.3}", stats.arrivals["session-create"] as f64 / f64::from(OPERATIONS));
    println!("sessions made: {}, reused: {}", stats.sessions_made, stats.sessions_reused);
    assert_eq!((stats.sessions_made, stats.duplicates_by_vendor_data), (OPERATIONS.into(), 0), "{stats:?}");
    for number in 0..OPERATIONS {
        assert_eq!(sandbox.sessions_made_for(&format!("user-{number}")), 1, "operation {number}");
    }
    assert!(stats.late_commits_done > 100 && stats.late_commits_pending == 0, "{stats:?}");
}

#[tokio::test(start_paused = true)]
async fn without_vendor_data_an_ambiguous_failure_is_surfaced_and_nothing_is_done_twice() {
    let sandbox = server();
    let results = run(&sandbox, false, |result| match result {
        Ok(StatusCode::CREATED) => "made",
        // What the server answers with 503 is handed out; whether it was done is not known to the client.
        Ok(StatusCode::SERVICE_UNAVAILABLE) => "unknown",
        Ok(status) => panic!("unexpected answer {status}"),
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::Client(_)), "{error:?}");
            assert_eq!(error.report().and_then(CallReport::outcome), Some(Outcome::Ambiguous));
            "unknown"
        }
    })
    .await;
    let stats = sandbox.stats();
    let made = results.iter().filter(|result| **result == "made").count();
    println!("made: {made}, surfaced as unknown: {}", results.len() - made);
    assert_eq!(stats.duplicates_by_operation_id, 0, "{stats:?}");
    assert!(results.len() - made > 1_500, "the faults did strike");
    assert!(stats.arrivals["session-create"] == u64::from(OPERATIONS), "nothing ambiguous was repeated");
}
