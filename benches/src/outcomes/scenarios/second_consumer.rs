//! Somebody else uses the key for an hour, and nobody told this client.

use std::time::Duration;

use didit_sandbox::Neighbour;

use super::{Scenario, Settings};
use crate::outcomes::{
    Curve, Job, Problem, Report, Row, Table,
    demand::saturate,
    in_parallel,
    strategies::{
        AnyStrategy, Governor, Pacing, Quota, RateLimited, RetryAfter, RetryJittered, ScopePause, SlidingOrFixed,
        Strategy, WindowType,
    },
    tally::Tally,
    world::{LIMIT, Leg, MINUTE, Server, Wire, best, read, reads, simulate},
};

/// How many requests a minute the other one sends.
pub const OTHER: u32 = 60;

/// When the other one comes, and when it goes.
pub const STAY: (Duration, Duration) = (Duration::from_secs(600), Duration::from_secs(4_200));

/// How long the run is.
pub const LENGTH: Duration = Duration::from_secs(6_000);

/// How long a client may take to notice the other one before it is measured.
const SETTLED: Duration = Duration::from_secs(600);

/// A client is back when it gets this share of the best over this long.
const BACK: (f64, Duration) = (0.98, Duration::from_secs(180));

const WORKERS: usize = 50;

/// What came out.
#[derive(Clone, Debug, PartialEq)]
pub struct Shared {
    /// Calls served per minute while the other one is there, once the client had time to notice.
    pub goodput: f64,
    /// The most that can be had then.
    pub best: f64,
    /// Calls served per minute before.
    pub alone: f64,
    /// 429s per minute, before and while.
    pub throttled_per_minute: (f64, f64),
    /// 429s, all in all.
    pub throttled: u64,
    /// Calls that ended without success.
    pub lost: u64,
    /// Attempts for each call.
    pub attempts_per_call: f64,
    /// How much the other one got through per minute.
    pub other: f64,
    /// Seconds from when it goes until the client is at the full rate; `None` if it never is.
    pub recovery: Option<f64>,
    /// Calls served per minute, by the minute.
    pub curve: Vec<(f64, f64)>,
}

/// Runs one strategy beside the other one.
///
/// # Errors
///
/// If it cannot be set up.
pub fn world(strategy: &dyn Strategy, server: Server, seed: u64) -> Result<Shared, Problem> {
    simulate(async || {
        let other = Neighbour::new(OTHER).on_route("workflow-list").from(STAY.0).until(STAY.1);
        let builder = server.sandbox(seed).limits(reads(LIMIT)?).latency(Leg::Near.latency()).neighbour(other);
        // Stamps are exact either way: what matters here is whether refusals count.
        let wire = Wire::new(builder.whole_second_stamps(false).build()?);
        let epsilon = Server::Lenient.epsilon();
        let quota = Quota::of(Server::Lenient, Leg::Near, seed);
        let client = strategy.client(wire.clone(), &quota)?;
        let tally = Tally::start();
        let throttled_until = async |until: Duration| {
            tokio::time::sleep_until(tally.began() + until).await;
            wire.sandbox().stats().throttled
        };
        let settled = STAY.0 + SETTLED;
        let (_, before, from, until) = tokio::join!(
            saturate(&client, &tally, WORKERS, LENGTH, |_| read()),
            throttled_until(STAY.0),
            throttled_until(settled),
            throttled_until(STAY.1),
        );
        let (counts, stats) = (tally.counts(), wire.sandbox().stats());
        let minutes = |span: Duration| span.as_secs_f64() / 60.0;
        let full = best(LIMIT, wire.mean_rtt(), epsilon);
        Ok(Shared {
            goodput: counts.per_minute(settled, STAY.1),
            best: full - f64::from(OTHER),
            alone: counts.per_minute(Duration::ZERO, STAY.0),
            throttled_per_minute: (before as f64 / minutes(STAY.0), (until - from) as f64 / minutes(STAY.1 - settled)),
            throttled: stats.throttled,
            lost: counts.lost,
            attempts_per_call: counts.attempts_per_call(),
            other: stats.neighbour_accepted as f64 / minutes(STAY.1 - STAY.0),
            recovery: counts.recovery(STAY.1, BACK.1, BACK.0 * full * minutes(BACK.1), LENGTH),
            curve: counts.curve(LENGTH, MINUTE),
        })
    })
}

fn strategies() -> Result<Vec<AnyStrategy>, Problem> {
    Ok(vec![
        Box::new(Pacing::new(reads(LIMIT)?)),
        Box::new(RateLimited),
        Box::new(Governor { burst: None, spread: None }),
        Box::new(SlidingOrFixed { window: WindowType::SlidingLog, spread: None }),
        Box::new(RetryAfter),
        Box::new(RetryJittered),
        Box::new(ScopePause),
    ])
}

/// All strategies beside the other one, on servers that count refusals and that do not.
pub(super) fn run(settings: Settings) -> Result<Report, Problem> {
    let names: Vec<_> = strategies()?.iter().map(|strategy| strategy.name()).collect();
    let mut jobs: Vec<Job<Shared>> = Vec::new();
    for server in [Server::Strict, Server::Lenient] {
        for number in 0..names.len() {
            jobs.push(Box::new(move || world(strategies()?.swap_remove(number).as_ref(), server, settings.seed)));
        }
    }
    let mut strict = in_parallel(jobs)?;
    let lenient = strict.split_off(names.len());
    let columns = ["strategy", "alone, free", "other, free", "alone, counted", "other, counted", "its share, counted"];
    let mut table = Table::new(
        "Served per minute / 429s per minute, alone and beside the other one, on servers where refusals are free and where \
         they count; and what the other one gets through of its 60",
        columns,
    );
    let (mut rows, mut curves) = (Vec::new(), Vec::new());
    for ((name, strict), lenient) in names.into_iter().zip(strict).zip(lenient) {
        let cell = |served: f64, throttled: f64| format!("{served:.1} / {throttled:.1}");
        table.rows.push(vec![
            name.clone(),
            cell(lenient.alone, lenient.throttled_per_minute.0),
            cell(lenient.goodput, lenient.throttled_per_minute.1),
            cell(strict.alone, strict.throttled_per_minute.0),
            cell(strict.goodput, strict.throttled_per_minute.1),
            format!("{:.1}", strict.other),
        ]);
        curves.push(Curve { strategy: name.clone(), points: strict.curve });
        rows.push(Row {
            goodput: Some(strict.goodput),
            best: Some(strict.best),
            throttled: Some(strict.throttled),
            lost: Some(strict.lost),
            attempts_per_call: Some(strict.attempts_per_call),
            recovery_s: strict.recovery,
            ..Row::new(Scenario::SecondConsumer.name(), name)
        });
    }
    let about = format!(
        "{WORKERS} workers call without end; from minute {} to minute {} somebody else sends {OTHER} a minute with the same \
         key. Refusals count. Goodput is calls per minute while the other one is there, after {} min to notice; recovery \
         is from when it goes until three minutes bring {:.0} % of what can be had alone.",
        STAY.0.as_secs() / 60,
        STAY.1.as_secs() / 60,
        SETTLED.as_secs() / 60,
        100.0 * BACK.0,
    );
    Ok(Report { about, rows, tables: vec![table], curves })
}
