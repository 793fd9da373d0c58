//! One provider behind the server hangs for five minutes: what it costs the calls that do not need it.

use std::time::Duration;

use didit_api::Limits;
use didit_sandbox::{Ending, Fault, Faults, Rule, When};
use http::{Request, StatusCode};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::json;

use super::{Scenario, Settings, mean, of_each};
use crate::{
    Body,
    outcomes::{
        Curve, Problem, Report, Row,
        demand::until,
        strategies::{AnyStrategy, Backon, Failsafe, Quota, ResilienceRetry, Stack, Strategy, TowerRetry},
        tally::{Counts, Tally},
        world::{Leg, Server, Wire, post, read, simulate_with},
    },
};

/// When the provider begins to hang, and when it is back.
pub const DOWN: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(360));

/// How long the run is.
pub const LENGTH: Duration = Duration::from_secs(600);

/// How many workers share the work, and how long each rests between two calls.
const WORKERS: (u64, Duration) = (40, Duration::from_millis(200));

/// The share of calls that need the provider.
const NEEDY: f64 = 0.3;

/// How long a call that needs it hangs before it is answered 504.
const HANGS: Duration = Duration::from_secs(20);

/// The calls that need it are served again when half a minute brings this share of what it brought before.
const BACK: (f64, Duration) = (0.9, Duration::from_secs(30));

/// How many runs there are: when a circuit is asked again is random.
const RUNS: usize = 5;

/// What came out.
#[derive(Clone, Debug)]
pub struct ProviderDown {
    /// Calls that do not need the provider.
    pub others: Counts,
    /// Calls that do.
    pub needy: Counts,
    /// Calls per minute that do not need it, were those that do refused at once.
    pub best: f64,
    /// Seconds from the return until calls that need it are served as before.
    pub recovery: Option<f64>,
}

/// Runs one strategy.
///
/// # Errors
///
/// If it cannot be set up.
pub fn world(strategy: &dyn Strategy, seed: u64) -> Result<ProviderDown, Problem> {
    simulate_with(strategy, async || {
        let hang = Fault::never_commit(HANGS).with_ending(Ending::Status(StatusCode::GATEWAY_TIMEOUT));
        let rule = Rule::new(hang).on_route("aml").when(When::Between(DOWN.0, DOWN.1));
        let builder = Server::Lenient.sandbox(seed).limits(Limits::none()).faults(Faults::none().with(rule));
        let wire = Wire::new(builder.latency(Leg::Near.latency()).build()?);
        let quota = Quota::of(Server::Lenient, Leg::Near, seed);
        let client = strategy.client(wire.clone(), &quota)?;
        let (others, needy) = (Tally::start(), Tally::start());
        let workers = (0..WORKERS.0).map(|worker| {
            let (client, others, needy) = (client.clone(), others.clone(), needy.clone());
            let mut rng = StdRng::seed_from_u64(seed.wrapping_add(worker));
            async move {
                loop {
                    if rng.random::<f64>() < NEEDY {
                        needy.call(&client, screening()).await;
                    } else {
                        others.call(&client, read()).await;
                    }
                    tokio::time::sleep(WORKERS.1).await;
                }
            }
        });
        until(&others, LENGTH, workers).await;
        let (others, needy) = (others.counts(), needy.counts());
        // Both legs of `Leg::Near` take 70 ms on average.
        let (rest, trip) = (WORKERS.1.as_secs_f64(), 0.14);
        let before = NEEDY * WORKERS.0 as f64 / (rest + trip);
        Ok(ProviderDown {
            recovery: needy.recovery(DOWN.1, BACK.1, BACK.0 * before * BACK.1.as_secs_f64(), LENGTH),
            best: (1.0 - NEEDY) * 60.0 * WORKERS.0 as f64 / (rest + (1.0 - NEEDY) * trip),
            others,
            needy,
        })
    })
}

fn screening() -> Request<Body> {
    post("/v3/aml/", &json!({ "full_name": "Jane Doe" }))
}

fn strategies() -> Result<Vec<AnyStrategy>, Problem> {
    Ok(vec![
        Box::new(Stack { fail_fast: true, ..Stack::new(Limits::none()) }),
        Box::new(TowerRetry),
        Box::new(ResilienceRetry),
        Box::new(Backon),
        Box::new(Failsafe),
    ])
}

/// All strategies.
pub(super) fn run(settings: Settings) -> Result<Report, Problem> {
    let results = of_each(strategies, &settings.seeds(RUNS), world)?;
    let (mut rows, mut curves) = (Vec::new(), Vec::new());
    for results in results.chunks(RUNS) {
        let Some((name, first)) = results.first() else { continue };
        curves.push(Curve { strategy: name.clone(), points: first.others.curve(LENGTH, BACK.1) });
        rows.push(Row {
            goodput: mean(results, |(_, result)| Some(result.others.per_minute(DOWN.0, DOWN.1))),
            best: mean(results, |(_, result)| Some(result.best)),
            lost: Some(results.iter().map(|(_, result)| result.others.lost).sum()),
            attempts_per_call: mean(results, |(_, result)| Some(result.needy.attempts_per_call())),
            p50_wait_ms: mean(results, |(_, result)| result.others.wait(0.5)),
            p99_wait_ms: mean(results, |(_, result)| result.others.wait(0.99)),
            recovery_s: mean(results, |(_, result)| result.recovery),
            ..Row::new(Scenario::ProviderDown.name(), name)
        });
    }
    let about = format!(
        "Means of {RUNS} runs; lost calls are of all. {} workers; {:.0} % of the calls screen names, and from second {} to second {} these hang for {} s and end in a 504. \
         Goodput is the other calls per minute meanwhile, and the best what it would be if the screenings were refused at once; lost calls and waits are theirs too. Attempts per call are those \
         of the screenings, recovery is from the provider's return until half a minute brings {:.0} % of the screenings it \
         brought before. Ours tells an open circuit at once (`fail_fast`).",
        WORKERS.0,
        100.0 * NEEDY,
        DOWN.0.as_secs(),
        DOWN.1.as_secs(),
        HANGS.as_secs(),
        100.0 * BACK.0,
    );
    Ok(Report { about, rows, curves, ..Report::default() })
}
