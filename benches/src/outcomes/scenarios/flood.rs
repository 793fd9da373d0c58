//! A batch job floods the key while people wait for calls of their own.

use std::time::Duration;

use http::Request;
use tower_didit::call::{CallOptions, Priority};

use super::{Scenario, Settings, of_each};
use crate::{
    Body,
    outcomes::{
        Problem, Report, Row,
        demand::{open, poisson, saturate},
        strategies::{
            AnyStrategy, Governor, Pacing, Quota, RateLimited, RetryAfter, SlidingOrFixed, Strategy, WindowType,
        },
        tally::{Counts, Tally},
        world::{LIMIT, Leg, MINUTE, Server, Wire, best, read, reads, simulate},
    },
};

/// Calls of the batch that wait at any time.
pub const BATCH: usize = 400;

/// Calls per minute that somebody waits for.
pub const INTERACTIVE: f64 = 30.0;

/// How long the batch goes on after the last of them, so that it does not go at once.
const GRACE: Duration = Duration::from_secs(600);

/// What came out.
#[derive(Clone, Debug)]
pub struct Flood {
    /// Calls per minute, of both kinds.
    pub goodput: f64,
    /// The most of both.
    pub best: f64,
    /// 429s.
    pub throttled: u64,
    /// What became of the calls that somebody waited for.
    pub interactive: Counts,
}

/// Runs one strategy.
///
/// # Errors
///
/// If it cannot be set up.
pub fn world(strategy: &dyn Strategy, length: Duration, seed: u64) -> Result<Flood, Problem> {
    simulate(async || {
        let server = Server::Lenient;
        let wire = Wire::new(server.sandbox(seed).limits(reads(LIMIT)?).latency(Leg::Near.latency()).build()?);
        let quota = Quota::of(server, Leg::Near, seed);
        let client = strategy.client(wire.clone(), &quota)?;
        let (batch, interactive) = (Tally::start(), Tally::start());
        let arrivals = poisson(INTERACTIVE, length, seed);
        tokio::join!(
            saturate(&client, &batch, BATCH, length + GRACE, |_| with_priority(Priority::Low)),
            open(&client, &interactive, arrivals, GRACE, |_| with_priority(Priority::High)),
        );
        let (batch, interactive) = (batch.counts(), interactive.counts());
        Ok(Flood {
            goodput: batch.per_minute(Duration::ZERO, length) + interactive.per_minute(Duration::ZERO, length),
            best: best(LIMIT, wire.mean_rtt(), server.epsilon()),
            throttled: wire.sandbox().stats().throttled,
            interactive,
        })
    })
}

/// A request that says how urgent it is; only ours reads that.
fn with_priority(priority: Priority) -> Request<Body> {
    let mut request = read();
    request.extensions_mut().insert(CallOptions::new().priority(priority));
    request
}

fn strategies() -> Result<Vec<AnyStrategy>, Problem> {
    Ok(vec![
        Box::new(Pacing::new(reads(LIMIT)?)),
        // What somebody has who knows how many calls are waited for: half as many again.
        Box::new(Pacing { reserved: Some(1.5 * INTERACTIVE / f64::from(LIMIT)), ..Pacing::new(reads(LIMIT)?) }),
        Box::new(RateLimited),
        Box::new(Governor { burst: None, spread: None }),
        Box::new(SlidingOrFixed { window: WindowType::SlidingLog, spread: None }),
        Box::new(RetryAfter),
    ])
}

/// All strategies.
pub(super) fn run(settings: Settings) -> Result<Report, Problem> {
    let length = 60 * MINUTE * settings.peer_hours;
    let results = of_each(strategies, &settings.seeds(1), move |strategy, seed| world(strategy, length, seed))?;
    let rows = results.into_iter().map(|(name, result)| Row {
        goodput: Some(result.goodput),
        best: Some(result.best),
        throttled: Some(result.throttled),
        lost: Some(result.interactive.lost),
        attempts_per_call: Some(result.interactive.attempts_per_call()),
        p50_wait_ms: result.interactive.wait(0.5),
        p99_wait_ms: result.interactive.wait(0.99),
        ..Row::new(Scenario::Flood.name(), name)
    });
    let about = format!(
        "A batch keeps {BATCH} calls waiting at all times, and {INTERACTIVE} a minute come that somebody waits for; {LIMIT} a \
         minute are allowed, for {} h. Ours is told the priority of each call, and keeps a share of the limit from the \
         batch, which the batch does not get if nobody else needs it. Goodput is calls per minute of both kinds; lost, attempts and waits are those of \
         the {INTERACTIVE}.",
        settings.peer_hours,
    );
    Ok(Report { about, rows: rows.collect(), ..Report::default() })
}
