//! Two thirds of what can be had, some of it in bursts: how long calls wait.

use std::{num::NonZeroU32, time::Duration};

use super::{Scenario, Settings, of_each};
use crate::outcomes::{
    Problem, Report, Row,
    demand::{open, poisson},
    strategies::{AnyStrategy, Governor, Pacing, Quota, RateLimited, RetryAfter, SlidingOrFixed, Strategy, WindowType},
    tally::{Counts, Tally},
    world::{LIMIT, Leg, MINUTE, Server, Wire, read, reads, simulate},
};

/// Calls per minute that come by themselves.
const STEADY: f64 = 180.0;

/// How many come at once, and how often they do.
const BURST: (usize, Duration) = (100, Duration::from_secs(300));

/// Calls per minute, all in all.
pub const OFFERED: f64 = STEADY + 20.0;

/// Runs one strategy; the counts of its calls, and the 429s.
///
/// # Errors
///
/// If it cannot be set up.
pub fn world(strategy: &dyn Strategy, length: Duration, seed: u64) -> Result<(Counts, u64), Problem> {
    simulate(async || {
        let server = Server::Lenient;
        let sandbox = server.sandbox(seed).limits(reads(LIMIT)?).latency(Leg::Near.latency()).build()?;
        let wire = Wire::new(sandbox);
        let quota = Quota::of(server, Leg::Near, seed);
        let client = strategy.client(wire.clone(), &quota)?;
        let tally = Tally::start();
        open(&client, &tally, arrivals(length, seed), 10 * MINUTE, |_| read()).await;
        Ok((tally.counts(), wire.sandbox().stats().throttled))
    })
}

fn arrivals(length: Duration, seed: u64) -> Vec<Duration> {
    let mut times = poisson(STEADY, length, seed);
    let mut burst = BURST.1;
    while burst < length {
        times.extend(std::iter::repeat_n(burst, BURST.0));
        burst += BURST.1;
    }
    times.sort_unstable();
    times
}

fn strategies() -> Result<Vec<AnyStrategy>, Problem> {
    let ours = Pacing::new(reads(LIMIT)?);
    let burst = NonZeroU32::new;
    let safe = |cells| Box::new(Governor { burst: burst(cells), spread: Some(Leg::Near.spread()) });
    Ok(vec![
        Box::new(ours.clone()),
        Box::new(Pacing { burst: burst(100), ..ours.clone() }),
        Box::new(Pacing { burst: burst(30), ..ours }),
        safe(1),
        safe(30),
        safe(60),
        safe(100),
        Box::new(Governor { burst: None, spread: None }),
        Box::new(RateLimited),
        Box::new(SlidingOrFixed { window: WindowType::Fixed, spread: None }),
        Box::new(SlidingOrFixed { window: WindowType::SlidingLog, spread: None }),
        Box::new(RetryAfter),
    ])
}

/// All strategies.
pub(super) fn run(settings: Settings) -> Result<Report, Problem> {
    let length = 60 * MINUTE * settings.hours;
    let results = of_each(strategies, &settings.seeds(1), move |strategy, seed| world(strategy, length, seed))?;
    let rows = results.into_iter().map(|(name, (counts, throttled))| Row {
        goodput: Some(counts.served.len() as f64 * 60.0 / length.as_secs_f64()),
        best: Some(counts.calls as f64 * 60.0 / length.as_secs_f64()),
        throttled: Some(throttled),
        lost: Some(counts.lost),
        attempts_per_call: Some(counts.attempts_per_call()),
        p50_wait_ms: counts.wait(0.5),
        p99_wait_ms: counts.wait(0.99),
        ..Row::new(Scenario::Bursts.name(), name)
    });
    let about = format!(
        "{STEADY} calls a minute at random and {} at once every {} s, of {LIMIT} a minute that are allowed, for {} h. One way \
         takes 20–120 ms; the server is exact. Goodput is calls per minute; the best is what was called.",
        BURST.0,
        BURST.1.as_secs(),
        settings.hours,
    );
    Ok(Report { about, rows: rows.collect(), ..Report::default() })
}
