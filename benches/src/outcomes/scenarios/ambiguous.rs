//! A server that fails in every ambiguous way: what is lost, and what is done twice.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use didit_api::Limits;
use didit_sandbox::{DEFAULT_WORKFLOW_ID, Fault, Faults, Rule, Stats, When};
use http::{Request, StatusCode};
use serde_json::json;

use super::{Scenario, Settings, of_each};
use crate::{
    Body,
    outcomes::{
        Problem, Report, Row,
        demand::until,
        strategies::{AnyStrategy, Backon, Failsafe, Quota, ResilienceRetry, Stack, Strategy, TowerRetry},
        tally::{Counts, Tally},
        world::{Leg, MINUTE, Server, Wire, post, simulate_with},
    },
};

/// How many operations there are: every other one makes a session, and every other one screens a name.
pub const OPERATIONS: u32 = 10_000;

const WORKERS: usize = 32;

/// Longer than the operations take, however often they are repeated.
const LONG_ENOUGH: Duration = Duration::from_secs(86_400);

/// One in twenty is done and not answered, and fewer are reset before the work, refused with 503, or done late.
fn faults() -> Faults {
    let sometimes = |fault, probability| Rule::new(fault).when(When::Probability(probability));
    Faults::none()
        .with(sometimes(Fault::WorkThenDrop, 0.05))
        .with(sometimes(Fault::ResetBeforeWork, 0.02))
        .with(sometimes(Fault::status(StatusCode::SERVICE_UNAVAILABLE), 0.01))
        .with(sometimes(Fault::late_commit(Duration::from_secs(3)), 0.01))
}

/// Runs every operation once through a strategy.
///
/// # Errors
///
/// If it cannot be set up.
pub fn world(strategy: &dyn Strategy, operations: u32, seed: u64) -> Result<(Counts, Stats), Problem> {
    simulate_with(strategy, async || {
        let builder = Server::Lenient.sandbox(seed).limits(Limits::none()).faults(faults());
        let wire = Wire::new(builder.latency(Leg::Near.latency()).build()?);
        let quota = Quota::of(Server::Lenient, Leg::Near, seed);
        let client = strategy.client(wire.clone(), &quota)?;
        let tally = Tally::start();
        let next = Arc::new(AtomicU32::new(0));
        let workers = (0..WORKERS).map(|_| {
            let (client, tally, next) = (client.clone(), tally.clone(), Arc::clone(&next));
            async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= operations {
                        return;
                    }
                    tally.call(&client, operation(number)).await;
                }
            }
        });
        until(&tally, LONG_ENOUGH, workers).await;
        // Whatever is to be done late is done by then.
        tokio::time::sleep(MINUTE).await;
        Ok((tally.counts(), wire.sandbox().stats()))
    })
}

fn operation(number: u32) -> Request<Body> {
    let metadata = json!({ "operation_id": format!("operation-{number}") });
    let user = format!("user-{number}");
    if number.is_multiple_of(2) {
        let body = json!({ "workflow_id": DEFAULT_WORKFLOW_ID, "vendor_data": user, "metadata": metadata });
        post("/v3/session/", &body)
    } else {
        post("/v3/aml/", &json!({ "full_name": user, "metadata": metadata }))
    }
}

fn strategies() -> Result<Vec<AnyStrategy>, Problem> {
    Ok(vec![
        Box::new(Stack::new(Limits::none())),
        Box::new(TowerRetry),
        Box::new(ResilienceRetry),
        Box::new(Backon),
        Box::new(Failsafe),
    ])
}

/// All strategies.
pub(super) fn run(settings: Settings) -> Result<Report, Problem> {
    let results = of_each(strategies, &settings.seeds(1), |strategy, seed| world(strategy, OPERATIONS, seed))?;
    let rows = results.into_iter().map(|(name, (counts, stats))| Row {
        goodput: Some(counts.served.len() as f64),
        best: Some(f64::from(OPERATIONS)),
        throttled: Some(stats.throttled),
        duplicates: Some(stats.duplicates_by_operation_id),
        lost: Some(counts.lost),
        attempts_per_call: Some(counts.attempts_per_call()),
        p50_wait_ms: counts.wait(0.5),
        p99_wait_ms: counts.wait(0.99),
        ..Row::new(Scenario::Ambiguous.name(), name)
    });
    let about = format!(
        "{OPERATIONS} operations from {WORKERS} workers: one half makes sessions, with `vendor_data`, the other screens names, \
         which is billed each time. Of the attempts 5 % are done and not answered, 2 % reset before the work, 1 % answered \
         503, 1 % done 3 s after the connection broke. Goodput is operations whose caller saw them succeed; duplicates are \
         effects beyond the first."
    );
    Ok(Report { about, rows: rows.collect(), ..Report::default() })
}
