//! Callers that give up one call in five while it is in flight. What was sent arrives all the same.

use std::time::Duration;

use super::{Scenario, Settings};
use crate::outcomes::{
    Job, Problem, Report, Row,
    demand::saturate_and_cancel,
    in_parallel,
    strategies::{AnyStrategy, Governor, Pacing, Quota, RateLimited, RetryAfter, SlidingOrFixed, Strategy, WindowType},
    tally::Tally,
    world::{LIMIT, Leg, MINUTE, SECOND, Server, Wire, best, read, reads, simulate},
};

/// The share of calls that is given up.
pub const SHARE: f64 = 0.2;

/// The longest time after sending at which a call is given up: about when its answer would be there.
const LONGEST: Duration = Duration::from_millis(140);

const WORKERS: u64 = 50;

/// What came out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cancelled {
    /// Requests per minute that the server accepted, those among them that nobody waited for.
    pub accepted: f64,
    /// The most it could have.
    pub best: f64,
    /// 429s.
    pub throttled: u64,
    /// How many calls were given up in flight.
    pub given_up: u64,
    /// Calls that were waited for and ended without success.
    pub lost: u64,
}

/// Runs one strategy.
///
/// # Errors
///
/// If it cannot be set up.
pub fn world(strategy: &dyn Strategy, length: Duration, seed: u64) -> Result<Cancelled, Problem> {
    simulate(async || {
        let server = Server::Lenient;
        let builder = server.sandbox(seed).limits(reads(LIMIT)?).latency(Leg::Near.latency());
        let wire = Wire::new(builder.abandoned_requests_arrive(true).build()?);
        let quota = Quota::of(server, Leg::Near, seed);
        let client = strategy.client(wire.clone(), &quota)?;
        let tally = Tally::start();
        saturate_and_cancel(&client, &tally, WORKERS, length, (SHARE, LONGEST, seed), read).await;
        let (counts, stats) = (tally.counts(), wire.sandbox().stats());
        Ok(Cancelled {
            accepted: stats.accepted as f64 * 60.0 / length.as_secs_f64(),
            best: best(LIMIT, wire.mean_rtt(), server.epsilon()),
            throttled: stats.throttled,
            given_up: stats.abandoned_before_arrival + stats.abandoned_after_arrival,
            lost: counts.lost,
        })
    })
}

fn strategies() -> Result<Vec<AnyStrategy>, Problem> {
    Ok(vec![
        Box::new(Pacing::new(reads(LIMIT)?)),
        // What somebody has who does not know the network: the transit time as it comes.
        Box::new(Pacing { transit: Some(5 * SECOND), ..Pacing::new(reads(LIMIT)?) }),
        Box::new(RateLimited),
        Box::new(Governor { burst: None, spread: None }),
        Box::new(SlidingOrFixed { window: WindowType::SlidingLog, spread: None }),
        Box::new(RetryAfter),
    ])
}

/// All strategies.
pub(super) fn run(settings: Settings) -> Result<Report, Problem> {
    let hours = |number: usize| if number == 0 { settings.hours } else { settings.peer_hours };
    let names: Vec<_> = strategies()?.iter().map(|strategy| strategy.name()).collect();
    let job = |number: usize| -> Job<Cancelled> {
        let length = 60 * MINUTE * hours(number);
        Box::new(move || world(strategies()?.swap_remove(number).as_ref(), length, settings.seed))
    };
    let results = in_parallel((0..names.len()).map(job).collect())?;
    let rows = names.into_iter().zip(results).map(|(name, result)| Row {
        goodput: Some(result.accepted),
        best: Some(result.best),
        throttled: Some(result.throttled),
        lost: Some(result.lost),
        ..Row::new(Scenario::Cancelled.name(), name)
    });
    let about = format!(
        "{WORKERS} workers call without end and give {:.0} % of the calls up within {} ms of sending; what was sent arrives. \
         Ours for {} h, the others for {} h. Goodput is what the server accepts per minute; lost are calls that were \
         waited for.",
        100.0 * SHARE,
        LONGEST.as_millis(),
        settings.hours,
        settings.peer_hours,
    );
    Ok(Report { about, rows: rows.collect(), ..Report::default() })
}
