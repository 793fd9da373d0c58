//! A process is killed again and again, and every operation happens once all the same.
//!
//! 25 kills by default, some seconds; `CRASH_KILLS=200 cargo test -p tests --test crash` takes about a minute.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::{
    collections::HashSet,
    io::Read,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use didit_api::{Limits, SessionStatus};
use didit_sandbox::{Sandbox, serve};
use tests::{File, sandbox};
use tokio::{net::TcpListener, time::sleep};
use tower_didit::Randomness;

/// How many operations each further run has to make.
const NEW_EACH_RUN: usize = 15;

/// How many operations of earlier runs each run asks for again: more than could be unfinished.
const AGAIN_EACH_RUN: usize = 100;

fn start(url: &str, store: &Path, operations: std::ops::Range<usize>) -> Child {
    Command::new(env!("CARGO_BIN_EXE_durable_run"))
        .arg(url)
        .arg(store)
        .arg(operations.start.to_string())
        .arg(operations.end.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// How many operations a run that has ended found in flight.
fn found_in_flight(mut run: Child) -> usize {
    let mut said = String::new();
    run.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    // Killed before it could say anything.
    said.trim().parse().unwrap_or(0)
}

/// Brings every session to its end as soon as it is made, so that asking again with its `vendor_data` makes another.
async fn approve_at_once(sandbox: Sandbox) {
    let mut approved = HashSet::new();
    loop {
        for entry in sandbox.journal() {
            if let (Some(id), "session-create") = (entry.session_id, entry.route.as_str())
                && approved.insert(id.clone())
            {
                sandbox.set_session_status(&id, SessionStatus::Approved).unwrap();
            }
        }
        sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_killed_at_random_moments_makes_every_operation_once() {
    let kills: usize = std::env::var("CRASH_KILLS").map_or(25, |kills| kills.parse().unwrap());
    let sandbox = sandbox(21)
        .limits(Limits::none())
        .latency(Duration::from_millis(2)..=Duration::from_millis(15))
        .journal_capacity(200)
        .build()
        .unwrap();
    let server = serve(TcpListener::bind("127.0.0.1:0").await.unwrap(), sandbox.clone()).unwrap();
    let url = format!("http://{}", server.local_addr());
    let store = File::new("crash");
    let approving = tokio::spawn(approve_at_once(sandbox.clone()));
    let random = Randomness::seeded(21);
    let (mut in_flight, mut end) = (0, 0);
    for _ in 0..kills {
        end += NEW_EACH_RUN;
        let mut run = start(&url, &store.0, end.saturating_sub(AGAIN_EACH_RUN)..end);
        // Real time, because processes know no other: from before the store is open to after everything is done.
        sleep(Duration::from_millis(5) + Duration::from_millis(350).mul_f64(random.unit())).await;
        run.kill().unwrap();
        run.wait().unwrap();
        in_flight += found_in_flight(run);
    }
    // As often as it takes: the last run is left alone.
    let mut last = start(&url, &store.0, 0..end);
    while last.try_wait().unwrap().is_none() {
        sleep(Duration::from_millis(5)).await;
    }
    assert!(last.wait().unwrap().success());
    in_flight += found_in_flight(last);
    approving.abort();

    let stats = sandbox.stats();
    assert_eq!(stats.duplicates_by_operation_id, 0, "done twice: {stats:?}");
    assert_eq!(stats.sessions_made, u64::try_from(end).unwrap(), "lost: {stats:?}");
    println!("{kills} kills, {end} operations, {in_flight} found in flight, {:?}", stats.arrivals);
    // Or nothing was put to the test.
    assert!(in_flight >= kills / 2, "{in_flight} operations were in flight at {kills} kills");
}
