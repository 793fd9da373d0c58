//! Fifty workers that never have enough of a limit, for a day, over every latency and server.

use std::time::Duration;

use super::{Scenario, Settings};
use crate::outcomes::{
    Job, Problem, Report, Row, Table,
    demand::saturate,
    in_parallel,
    strategies::{
        AnyStrategy, Governor, Pacing, Quota, RateLimited, RetryAfter, RetryJittered, SlidingOrFixed, Strategy,
        WindowType,
    },
    tally::Tally,
    world::{LIMIT, Leg, MINUTE, SECOND, Server, Wire, best, read, reads, simulate},
};

/// How many workers.
pub const WORKERS: usize = 50;

/// What came out of one world.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Saturation {
    /// Calls served per minute.
    pub goodput: f64,
    /// The most per minute with the ε that the server needs.
    pub best: f64,
    /// 429s.
    pub throttled: u64,
    /// Calls that ended without success.
    pub lost: u64,
    /// Calls that ended.
    pub calls: u64,
    /// How often these were sent.
    pub attempts: u64,
    /// Attempts sent, those of calls that had not ended at the end too.
    pub sent: u64,
    /// The most arrivals in one window of the server.
    pub largest: u64,
}

/// Runs one strategy in one world.
///
/// # Errors
///
/// If either cannot be set up.
pub fn world(
    strategy: &dyn Strategy,
    leg: Leg,
    server: Server,
    length: Duration,
    seed: u64,
) -> Result<Saturation, Problem> {
    simulate(async || {
        let sandbox = server.sandbox(seed).limits(reads(LIMIT)?).latency(leg.latency()).build()?;
        let wire = Wire::new(sandbox);
        let quota = Quota::of(server, leg, seed);
        let client = strategy.client(wire.clone(), &quota)?;
        let tally = Tally::start();
        saturate(&client, &tally, WORKERS, length, |_| read()).await;
        let (counts, stats) = (tally.counts(), wire.sandbox().stats());
        Ok(Saturation {
            goodput: counts.per_minute(Duration::ZERO, length),
            best: best(LIMIT, wire.mean_rtt(), server.epsilon()),
            throttled: stats.throttled,
            lost: counts.lost,
            calls: counts.calls,
            attempts: counts.attempts,
            sent: wire.sent(),
            largest: stats.peak.get("wide").map_or(0, |peak| peak.arrived),
        })
    })
}

fn strategies() -> Result<Vec<AnyStrategy>, Problem> {
    let ours = Pacing::new(reads(LIMIT)?);
    Ok(vec![
        Box::new(ours.clone()),
        // What somebody has who does not know the server: ε as it comes.
        Box::new(Pacing { epsilon: Some(SECOND), ..ours }),
        Box::new(RateLimited),
        Box::new(Governor { burst: None, spread: None }),
        Box::new(Governor { burst: std::num::NonZeroU32::new(1), spread: None }),
        Box::new(SlidingOrFixed { window: WindowType::Fixed, spread: None }),
        Box::new(SlidingOrFixed { window: WindowType::SlidingLog, spread: None }),
        Box::new(SlidingOrFixed { window: WindowType::SlidingCounter, spread: None }),
        Box::new(RetryAfter),
        Box::new(RetryJittered),
    ])
}

/// All strategies in all worlds: a row for each strategy, and a table for each server.
pub(super) fn run(settings: Settings) -> Result<Report, Problem> {
    let hours = move |ours: bool| 60 * MINUTE * if ours { settings.hours } else { settings.peer_hours };
    let worlds: Vec<_> =
        [Server::Lenient, Server::Strict].into_iter().flat_map(|server| Leg::ALL.map(|leg| (server, leg))).collect();
    let names: Vec<_> = strategies()?.iter().map(|strategy| strategy.name()).collect();
    let mut jobs: Vec<Job<Saturation>> = Vec::new();
    for number in 0..names.len() {
        for (server, leg) in &worlds {
            let (server, leg) = (*server, *leg);
            jobs.push(Box::new(move || {
                let strategy = strategies()?.swap_remove(number);
                world(strategy.as_ref(), leg, server, hours(number == 0), settings.seed)
            }));
        }
    }
    let results = in_parallel(jobs)?;
    let by_strategy: Vec<_> = names.into_iter().zip(results.chunks(worlds.len())).collect();
    let rows = by_strategy.iter().map(|(name, results)| row(name, results)).collect();
    let tables = [Server::Lenient, Server::Strict].map(|server| {
        let title = format!(
            "Goodput per minute (429s per 100 attempts, most arrivals in one window); server: {}",
            server.name()
        );
        let mut table = Table::new(title, std::iter::once("strategy").chain(Leg::ALL.map(Leg::name)));
        for (name, results) in &by_strategy {
            let cells = worlds.iter().zip(*results).filter(|((of, _), _)| *of == server).map(|(_, result)| {
                let share = 100.0 * result.throttled as f64 / result.sent.max(1) as f64;
                format!("{:.1} ({share:.2}, {})", result.goodput, result.largest)
            });
            table.rows.push(std::iter::once(name.clone()).chain(cells).collect());
        }
        table
    });
    let about = format!(
        "{WORKERS} workers call without end; {LIMIT} a minute are allowed. Eight worlds: four latencies for each way, two \
         servers. Ours for {} h of each, the others for {} h. Goodput and best are per minute, of the world in which the \
         strategy does worst; 429s and lost calls are of all worlds. Only {} and the two that wait after a refusal make \
         up for a 429: for the others it is a lost call.",
        settings.hours, settings.peer_hours, "`tower-didit`, which meets none,",
    );
    Ok(Report { about, rows, tables: tables.into(), curves: Vec::new() })
}

fn row(name: &str, results: &[Saturation]) -> Row {
    let share = |result: &Saturation| result.goodput / result.best;
    let worst = results.iter().min_by(|one, other| share(one).total_cmp(&share(other)));
    let sum = |of: fn(&Saturation) -> u64| results.iter().map(of).sum::<u64>();
    Row {
        goodput: worst.map(|worst| worst.goodput),
        best: worst.map(|worst| worst.best),
        throttled: Some(sum(|result| result.throttled)),
        lost: Some(sum(|result| result.lost)),
        attempts_per_call: Some(sum(|result| result.attempts) as f64 / sum(|result| result.calls).max(1) as f64),
        ..Row::new(Scenario::Saturated.name(), name)
    }
}
