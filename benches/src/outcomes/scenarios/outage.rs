//! The server is down for five minutes, and everybody keeps calling.

use std::time::Duration;

use didit_api::Limits;
use didit_sandbox::{Fault, Faults, Rule, When};
use http::StatusCode;

use super::{Scenario, Settings, mean, of_each};
use crate::outcomes::{
    Curve, Problem, Report, Row,
    demand::until,
    strategies::{AnyStrategy, Backon, Failsafe, Quota, ResilienceRetry, Stack, Strategy, TowerRetry},
    tally::{Counts, Tally},
    world::{Leg, MINUTE, SECOND, Server, Wire, read, simulate_with},
};

/// When the server goes down, and when it is back.
pub const DOWN: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(360));

/// How long the run is.
pub const LENGTH: Duration = Duration::from_secs(480);

/// How many clients there are. Each calls again a second after it was answered.
pub const CLIENTS: u32 = 200;

/// A client of the server is served again when ten seconds bring this share of what they brought before.
const BACK: (f64, Duration) = (0.95, Duration::from_secs(10));

/// How many runs there are: when a circuit is asked again is random.
const RUNS: usize = 5;

/// What came out.
#[derive(Clone, Debug)]
pub struct Outage {
    /// What became of the calls.
    pub counts: Counts,
    /// Calls that could be served per minute, had the clients nothing to wait for, over the whole run.
    pub best: f64,
    /// Attempts for each call made while the server was down, after the first minute of it.
    pub attempts_while_down: f64,
    /// Attempts that reached the server in that time.
    pub reached: u64,
    /// Seconds from the return until calls are served as before.
    pub recovery: Option<f64>,
}

/// Runs one strategy.
///
/// # Errors
///
/// If it cannot be set up.
pub fn world(strategy: &dyn Strategy, clients: u32, seed: u64) -> Result<Outage, Problem> {
    simulate_with(strategy, async || {
        let down = Rule::new(Fault::status(StatusCode::SERVICE_UNAVAILABLE)).when(When::Between(DOWN.0, DOWN.1));
        let builder = Server::Lenient.sandbox(seed).limits(Limits::none()).faults(Faults::none().with(down));
        let wire = Wire::new(builder.latency(Leg::Near.latency()).build()?);
        let quota = Quota::of(Server::Lenient, Leg::Near, seed);
        let client = strategy.client(wire.clone(), &quota)?;
        let tally = Tally::start();
        let tasks = (0..clients).map(|number| {
            let (client, tally) = (client.clone(), tally.clone());
            async move {
                // They do not all begin at once.
                tokio::time::sleep(SECOND * number / clients).await;
                loop {
                    tally.call(&client, read()).await;
                    tokio::time::sleep(SECOND).await;
                }
            }
        });
        let so_far = async |time: Duration| {
            tokio::time::sleep_until(tally.began() + time).await;
            (tally.counts().made, wire.sent())
        };
        let ((), before, after) = tokio::join!(until(&tally, LENGTH, tasks), so_far(DOWN.0 + MINUTE), so_far(DOWN.1));
        let counts = tally.counts();
        let per_second = f64::from(clients) / (1.0 + wire.mean_rtt());
        let up = 1.0 - (DOWN.1 - DOWN.0).as_secs_f64() / LENGTH.as_secs_f64();
        let reached = after.1 - before.1;
        Ok(Outage {
            best: per_second * 60.0 * up,
            attempts_while_down: reached as f64 / (after.0 - before.0).max(1) as f64,
            reached,
            recovery: counts.recovery(DOWN.1, BACK.1, BACK.0 * per_second * BACK.1.as_secs_f64(), LENGTH),
            counts,
        })
    })
}

fn strategies() -> Result<Vec<AnyStrategy>, Problem> {
    Ok(vec![
        Box::new(Stack::new(Limits::none())),
        Box::new(Stack { fail_fast: true, health: Some(5 * SECOND), ..Stack::new(Limits::none()) }),
        Box::new(TowerRetry),
        Box::new(ResilienceRetry),
        Box::new(Backon),
        Box::new(Failsafe),
    ])
}

/// All strategies.
pub(super) fn run(settings: Settings) -> Result<Report, Problem> {
    let results = of_each(strategies, &settings.seeds(RUNS), |strategy, seed| world(strategy, CLIENTS, seed))?;
    let (mut rows, mut curves) = (Vec::new(), Vec::new());
    for results in results.chunks(RUNS) {
        let Some((name, first)) = results.first() else { continue };
        curves.push(Curve { strategy: name.clone(), points: first.counts.curve(LENGTH, BACK.1) });
        rows.push(Row {
            goodput: mean(results, |(_, result)| Some(result.counts.per_minute(Duration::ZERO, LENGTH))),
            best: mean(results, |(_, result)| Some(result.best)),
            lost: Some(results.iter().map(|(_, result)| result.counts.lost).sum()),
            attempts_per_call: mean(results, |(_, result)| Some(result.attempts_while_down)),
            recovery_s: mean(results, |(_, result)| result.recovery),
            ..Row::new(Scenario::Outage.name(), name)
        });
    }
    let about = format!(
        "Means of {RUNS} runs; lost calls are of all. {CLIENTS} clients read, each again a second after it was answered; from second {} to second {} of {} every answer is \
         a 503. Goodput is calls served per minute of the whole run. Attempts per call are those while the server was \
         down, after the first minute of it; recovery is from its return until ten seconds bring {:.0} % of what they \
         brought before.",
        DOWN.0.as_secs(),
        DOWN.1.as_secs(),
        LENGTH.as_secs(),
        100.0 * BACK.0,
    );
    Ok(Report { about, rows, curves, ..Report::default() })
}
