//! The scenarios, one file each.

pub mod ambiguous;
pub mod bursts;
pub mod cancelled;
pub mod flood;
pub mod outage;
pub mod provider_down;
pub mod saturated;
pub mod second_consumer;
pub mod two_scopes;

use std::{fmt, str::FromStr};

use super::{
    Job, Problem, Report, in_parallel,
    strategies::{AnyStrategy, Strategy},
};

/// A world and a demand on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scenario {
    /// Demand without end, for a day.
    Saturated,
    /// A wide scope and a narrow one.
    TwoScopes,
    /// Two thirds of what can be had, with bursts.
    Bursts,
    /// Somebody else uses the key for an hour.
    SecondConsumer,
    /// One call in five is given up in flight.
    Cancelled,
    /// A batch job beside people who wait.
    Flood,
    /// Connections that break after the work is done.
    Ambiguous,
    /// The server is down for five minutes.
    Outage,
    /// One service group of the server hangs for five minutes.
    ProviderDown,
}

/// How much of a scenario is run, and from which seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The seed of all randomness that can have one.
    pub seed: u64,
    /// Hours of ours where demand has no end.
    pub hours: u32,
    /// Hours of the others there; their rates need no more.
    pub peer_hours: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { seed: 1, hours: 24, peer_hours: 2 }
    }
}

impl Settings {
    /// As many seeds, beginning with the one that was asked for.
    fn seeds(self, number: usize) -> Vec<u64> {
        (0..).map(move |more| self.seed.wrapping_add(more)).take(number).collect()
    }
}

/// Every strategy in worlds of its own, one for each seed: its name and what came out, in order.
fn of_each<R: Send + 'static>(
    strategies: fn() -> Result<Vec<AnyStrategy>, Problem>,
    seeds: &[u64],
    world: impl Fn(&dyn Strategy, u64) -> Result<R, Problem> + Copy + Send + 'static,
) -> Result<Vec<(String, R)>, Problem> {
    let count = strategies()?.len();
    // Strategies are not sent to other threads, so each job makes its own.
    let job = |number: usize, seed: u64| -> Job<(String, R)> {
        Box::new(move || {
            let strategy = strategies()?.swap_remove(number);
            Ok((strategy.name(), world(strategy.as_ref(), seed)?))
        })
    };
    let jobs = (0..count).flat_map(|number| seeds.iter().map(move |seed| job(number, *seed)));
    in_parallel(jobs.collect())
}

/// The mean over runs; `None` if one of them has nothing to tell.
fn mean<T>(results: &[T], of: impl Fn(&T) -> Option<f64>) -> Option<f64> {
    let sum = results.iter().map(of).sum::<Option<f64>>()?;
    Some(sum / results.len().max(1) as f64)
}

impl Scenario {
    /// All of them, in the order in which they are printed.
    pub const ALL: [Self; 9] = [
        Self::Saturated,
        Self::TwoScopes,
        Self::Bursts,
        Self::SecondConsumer,
        Self::Cancelled,
        Self::Flood,
        Self::Ambiguous,
        Self::Outage,
        Self::ProviderDown,
    ];

    /// Its name on the command line and in rows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Saturated => "saturated",
            Self::TwoScopes => "two-scopes",
            Self::Bursts => "bursts",
            Self::SecondConsumer => "second-consumer",
            Self::Cancelled => "cancelled",
            Self::Flood => "flood",
            Self::Ambiguous => "ambiguous",
            Self::Outage => "outage",
            Self::ProviderDown => "provider-down",
        }
    }

    /// Runs it for every strategy.
    ///
    /// # Errors
    ///
    /// If a world or a strategy cannot be set up.
    pub fn run(self, settings: Settings) -> Result<Report, Problem> {
        match self {
            Self::Saturated => saturated::run(settings),
            Self::TwoScopes => two_scopes::run(settings),
            Self::Bursts => bursts::run(settings),
            Self::SecondConsumer => second_consumer::run(settings),
            Self::Cancelled => cancelled::run(settings),
            Self::Flood => flood::run(settings),
            Self::Ambiguous => ambiguous::run(settings),
            Self::Outage => outage::run(settings),
            Self::ProviderDown => provider_down::run(settings),
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scenario {
    type Err = Problem;

    fn from_str(name: &str) -> Result<Self, Problem> {
        Self::ALL.into_iter().find(|scenario| scenario.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("there is no scenario {name:?}; there are {names}").into()
        })
    }
}
