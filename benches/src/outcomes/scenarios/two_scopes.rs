//! Two limits at once: a wide one for everything, and a narrow one for one route.

use std::{num::NonZeroU32, time::Duration};

use didit_api::{Limits, Scope};
use http::Method;

use super::{Scenario, Settings};
use crate::outcomes::{
    Job, Problem, Report, Row, Table,
    demand::saturate,
    in_parallel,
    strategies::{
        Client, Gate, Governor, Pacing, Quota, RateLimited, RetryAfter, SlidingOrFixed, Strategy, WindowType, routed,
        wired,
    },
    tally::Tally,
    world::{LIMIT, Leg, MINUTE, Server, Wire, best, read, reads, simulate, to},
};

/// The narrow limit, per minute.
pub const NARROW: u32 = 10;

/// The route that the narrow limit counts.
const NARROW_PATH: &str = "/v3/billing/balance/";

/// How many workers call only what the wide limit counts, and how many what both count.
pub const WORKERS: (usize, usize) = (40, 10);

/// What came out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TwoScopes {
    /// Calls per minute that only the wide limit counts.
    pub wide: f64,
    /// Calls per minute that both limits count.
    pub narrow: f64,
    /// The most of both together.
    pub best: f64,
    /// 429s.
    pub throttled: u64,
    /// Calls that ended without success.
    pub lost: u64,
    /// Attempts for each call.
    pub attempts_per_call: f64,
}

/// How the clients come by both permissions.
#[derive(Clone, Copy, Debug)]
pub enum Approach {
    /// Ours: both at once.
    Ours,
    /// tower's limiters, the narrow one first.
    Tower,
    /// governor's, with no burst, the narrow one first.
    Governor,
    /// governor's, with no burst, the wide one first.
    GovernorWideFirst,
    /// tower-resilience's sliding logs, the narrow one first.
    Resilience,
    /// After each 429 as it says.
    RetryAfter,
}

/// The limits.
///
/// # Errors
///
/// None, as they stand.
pub fn limits() -> Result<Limits, Problem> {
    Ok(reads(LIMIT)?.with(Scope::endpoints("narrow", NARROW, ["billing-balance"])?)?)
}

impl Approach {
    const ALL: [Self; 6] =
        [Self::Ours, Self::Tower, Self::Governor, Self::GovernorWideFirst, Self::Resilience, Self::RetryAfter];

    fn name(self) -> &'static str {
        match self {
            Self::Ours => "tower-didit",
            Self::Tower => "tower RateLimit + Buffer, narrow first",
            Self::Governor => "governor, burst 1, narrow first",
            Self::GovernorWideFirst => "governor, burst 1, wide first",
            Self::Resilience => "tower-resilience sliding log, narrow first",
            Self::RetryAfter => "each waits Retry-After",
        }
    }

    fn client(self, wire: Wire, wide: Quota) -> Result<Client, Problem> {
        let narrow = Quota { limit: NARROW, ..wide };
        let stacked = |gate: &dyn Gate| {
            let wide = gate.gate(wired(wire.clone()), &wide)?;
            Ok(routed(NARROW_PATH, gate.gate(wide.clone(), &narrow)?, wide))
        };
        let governor = Governor { burst: NonZeroU32::new(1), spread: None };
        match self {
            Self::Ours => Pacing::new(limits()?).client(wire, &wide),
            Self::RetryAfter => RetryAfter.client(wire, &wide),
            Self::Tower => stacked(&RateLimited),
            Self::Governor => stacked(&governor),
            Self::Resilience => stacked(&SlidingOrFixed { window: WindowType::SlidingLog, spread: None }),
            Self::GovernorWideFirst => {
                let wired = wired(wire);
                let narrow = governor.gate(wired.clone(), &narrow)?;
                governor.gate(routed(NARROW_PATH, narrow, wired), &wide)
            }
        }
    }
}

/// Runs one approach.
///
/// # Errors
///
/// If it cannot be set up.
pub fn world(approach: Approach, length: Duration, seed: u64) -> Result<TwoScopes, Problem> {
    simulate(async || {
        let server = Server::Lenient;
        let sandbox = server.sandbox(seed).limits(limits()?).latency(Leg::Near.latency()).build()?;
        let wire = Wire::new(sandbox);
        let quota = Quota::of(server, Leg::Near, seed);
        let client = approach.client(wire.clone(), quota)?;
        let (wide, narrow) = (Tally::start(), Tally::start());
        let narrow_read = |_| to(Method::GET, NARROW_PATH);
        tokio::join!(
            saturate(&client, &wide, WORKERS.0, length, |_| read()),
            saturate(&client, &narrow, WORKERS.1, length, narrow_read),
        );
        let (wide, narrow) = (wide.counts(), narrow.counts());
        Ok(TwoScopes {
            wide: wide.per_minute(Duration::ZERO, length),
            narrow: narrow.per_minute(Duration::ZERO, length),
            best: best(LIMIT, wire.mean_rtt(), server.epsilon()),
            throttled: wire.sandbox().stats().throttled,
            lost: wide.lost + narrow.lost,
            attempts_per_call: (wide.attempts + narrow.attempts) as f64 / (wide.calls + narrow.calls).max(1) as f64,
        })
    })
}

/// All approaches.
pub(super) fn run(settings: Settings) -> Result<Report, Problem> {
    let length = 60 * MINUTE * settings.peer_hours;
    let job = |approach: Approach| -> Job<TwoScopes> { Box::new(move || world(approach, length, settings.seed)) };
    let results = in_parallel(Approach::ALL.map(job).into())?;
    let mut parts = Table::new("The same by kind, calls per minute", ["strategy", "wide only", "both"]);
    let mut rows = Vec::new();
    for (approach, result) in Approach::ALL.iter().zip(results) {
        let name = approach.name();
        parts.rows.push(vec![name.to_owned(), format!("{:.1}", result.wide), format!("{:.1}", result.narrow)]);
        rows.push(Row {
            goodput: Some(result.wide + result.narrow),
            best: Some(result.best),
            throttled: Some(result.throttled),
            lost: Some(result.lost),
            attempts_per_call: Some(result.attempts_per_call),
            ..Row::new(Scenario::TwoScopes.name(), name)
        });
    }
    let about = format!(
        "{LIMIT} a minute for everything, {NARROW} of them for one route; {} workers call the rest of the API and {} that \
         route, without end, for {} h. One way takes 20–120 ms; the server is exact. Goodput is calls per minute, both \
         kinds together.",
        WORKERS.0, WORKERS.1, settings.peer_hours,
    );
    Ok(Report { about, rows, tables: vec![parts], curves: Vec::new() })
}
