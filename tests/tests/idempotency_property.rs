//! Two processes over one store, whose callers go away, which stand still for longer than their leases, before a server
//! that loses answers, is slow, and does its work late: each operation is done once, whatever happens when. In virtual
//! time, with seeds.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::{pin::pin, time::Duration};

use bytes::Bytes;
use didit_api::Limits;
use didit_sandbox::{
    DEFAULT_WORKFLOW_ID, Sandbox,
    faults::{Ending, Fault, Faults, Rule, When},
};
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use serde_json::json;
use tests::{Body, SECOND, approve_all, of, sandbox, to, with};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tower::{Layer, ServiceExt, service_fn};
use tower_didit::{
    Randomness,
    idempotency::{
        IdempotencyLayer, Refused, StoredIdempotencyLayer, reconcile::DiditReconcile, store::MemoryStore, stored::Error,
    },
};

const SEEDS: u64 = 60;
const OPERATIONS: usize = 9;
const CALLERS: usize = 45;

/// The longest that a request is under way, and then until its work is done: together less than it takes until something
/// counts as absent, which is what is assumed of Didit.
const LATEST_ARRIVAL: Duration = Duration::from_secs(2);
const LATEST_COMMIT: Duration = Duration::from_secs(27);

fn treacherous(random: &Randomness) -> Faults {
    let sometimes =
        |fault, probability| Rule::new(fault).on_route("session-create").when(When::Probability(probability));
    let late = |ending| Fault::late_commit(LATEST_COMMIT.mul_f64(random.unit())).with_ending(ending);
    Faults::none()
        .with(sometimes(Fault::ResetBeforeWork, 0.1))
        .with(sometimes(Fault::WorkThenDrop, 0.2))
        .with(sometimes(Fault::status(StatusCode::SERVICE_UNAVAILABLE), 0.1))
        .with(sometimes(Fault::Delay(SECOND.mul_f64(40.0 * random.unit())), 0.2))
        .with(sometimes(late(Ending::Drop), 0.1))
        .with(sometimes(late(Ending::Status(StatusCode::GATEWAY_TIMEOUT)), 0.1))
}

/// A call for an operation: a third has its id in its metadata, a third a `vendor_data` for itself alone and nothing else,
/// and a third both a `vendor_data` of several and its id.
fn call(number: usize) -> Request<Body> {
    let operation = format!("order-{number}");
    let mut body = json!({ "workflow_id": DEFAULT_WORKFLOW_ID, "vendor_data": format!("user-{number}") });
    match number % 3 {
        0 => body["metadata"] = json!({ "operation_id": operation }),
        1 => {}
        _ => {
            body["metadata"] = json!({ "operation_id": operation });
            body["vendor_data"] = "one person".into();
        }
    }
    let mut request = with(to(Method::POST, "/v3/session/"), of(&operation));
    request.headers_mut().insert("x-operation-id", operation.parse().unwrap());
    *request.body_mut() = Full::from(Bytes::from(body.to_string()));
    request
}

/// Works for so long, then stands still for so long, as a process does that is stopped or blocked.
async fn standing_still<T>(work: impl Future<Output = T>, after: Duration, pause: Duration) -> T {
    let mut work = pin!(work);
    if let Ok(done) = timeout(after, work.as_mut()).await {
        return done;
    }
    sleep(pause).await;
    work.await
}

/// Whether the call is over for good: done, or not to be decided by any further call.
fn is_over<T, E: std::fmt::Debug>(result: &Result<T, Error<E>>, shares_its_name: bool) -> Option<bool> {
    match result {
        Ok(_) | Err(Error::Layer(Refused::AlreadyDone { .. })) => Some(true),
        Err(Error::Layer(Refused::Undecided { .. })) if shares_its_name => Some(false),
        Err(_) => None,
    }
}

/// How often an operation was done, at most; and how many could not be decided.
async fn run(seed: u64) -> (u64, usize) {
    let random = Randomness::seeded(seed);
    let sandbox = sandbox(seed)
        .faults(treacherous(&random))
        .latency(Duration::from_millis(20)..=LATEST_ARRIVAL)
        .limits(Limits::none())
        .build()
        .unwrap();
    // What is sent arrives, and is worked on, whatever becomes of its client.
    let server = service_fn({
        let sandbox: Sandbox = sandbox.clone();
        move |request: Request<Body>| {
            let answer = tokio::spawn(sandbox.clone().oneshot(request));
            async move { answer.await.unwrap() }
        }
    });
    let store = MemoryStore::new();
    let process = |absent_after| -> StoredIdempotencyLayer {
        let reconcile = DiditReconcile::new().absent_after(absent_after).unwrap();
        let layer = IdempotencyLayer::new().store(store.clone()).reconcile(reconcile);
        layer.lease(SECOND + SECOND.mul_f64(30.0 * random.unit()))
    };
    let processes = [process(30 * SECOND).layer(server.clone()), process(45 * SECOND).layer(server)];
    // A finished session is not handed out again, so nothing but this side keeps an operation from being done twice.
    let approving = tokio::spawn({
        let sandbox = sandbox.clone();
        async move {
            loop {
                approve_all(&sandbox);
                sleep(Duration::from_millis(100)).await;
            }
        }
    });
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let service = processes[usize::from(random.unit() < 0.5)].clone();
        let [begins, patience, after, pause] =
            [60.0, 120.0, 40.0, 90.0].map(|most| SECOND.mul_f64(most * random.unit()));
        let stops = random.unit() < 0.4;
        callers.spawn(async move {
            sleep(begins).await;
            let work = service.oneshot(call(caller % OPERATIONS));
            let work = standing_still(work, after, if stops { pause } else { Duration::ZERO });
            let _ = timeout(patience, work).await;
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
    // Those who come last have all the time in the world.
    let mut undecided = 0;
    for number in 0..OPERATIONS {
        let mut tries = 0;
        let done = loop {
            let last = processes[number % 2].clone().oneshot(call(number)).await;
            let over = match &last {
                Ok(response) if !response.status().is_success() => None,
                _ => is_over(&last, number % 3 == 2),
            };
            if let Some(done) = over {
                break done;
            }
            tries += 1;
            assert!(tries < 100, "seed {seed}, operation {number}: {last:?}");
        };
        undecided += usize::from(!done);
    }
    // Whatever was to be done late is done by now.
    sleep(LATEST_COMMIT).await;
    approving.abort();
    let effects = sandbox.effects();
    let times = |number: usize| effects.get(&format!("order-{number}")).map_or(0, |routes| routes.values().sum());
    for number in (0..OPERATIONS).filter(|number| number % 3 != 2) {
        assert_eq!(times(number), 1, "seed {seed}, operation {number}: {effects:?}");
    }
    ((0..OPERATIONS).map(times).max().unwrap_or_default(), undecided)
}

#[tokio::test(start_paused = true)]
async fn two_processes_over_one_store_do_every_operation_once() {
    let (mut most, mut undecided) = (0, 0);
    let seeds = std::env::var("STORE_SEEDS").map_or(SEEDS, |seeds| seeds.parse().unwrap());
    for seed in 0..seeds {
        let (times, open) = run(seed).await;
        (most, undecided) = (most.max(times), undecided + open);
        assert_eq!(times, 1, "seed {seed}: done twice");
    }
    println!("{seeds} seeds: at most {most} times each, {undecided} undecided");
}
