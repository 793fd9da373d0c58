//! Somebody else who uses the same API key.

use std::time::Duration;

use didit_api::{EndpointId, Routes};
use http::Method;
use rand::{SeedableRng, rngs::StdRng};

use crate::latency::exponential;

/// A second consumer of a key: its requests are counted in the same windows, and it sees 429s of its own.
///
/// It sends at random, so many a minute on average, whatever the answers are: a Poisson process. Its requests take no
/// time, meet no faults and do no work; what becomes of them is in [`Stats::neighbour_accepted`] and
/// [`Stats::neighbour_throttled`].
///
/// [`Stats::neighbour_accepted`]: crate::Stats::neighbour_accepted
/// [`Stats::neighbour_throttled`]: crate::Stats::neighbour_throttled
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use didit_sandbox::Neighbour;
///
/// // Sixty session creations a minute, from the tenth minute to the seventieth.
/// let minute = Duration::from_secs(60);
/// let neighbour = Neighbour::new(60).on_route("session-create").from(10 * minute).until(70 * minute);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    pub(crate) per_minute: u32,
    pub(crate) route: String,
    pub(crate) from: Duration,
    pub(crate) until: Option<Duration>,
}

impl Neighbour {
    /// The route of a neighbour that was given none: session creation.
    pub const DEFAULT_ROUTE: &'static str = "session-create";

    /// Sends so many requests a minute, from the start of the sandbox and without end.
    pub fn new(per_minute: u32) -> Self {
        Self { per_minute, route: Self::DEFAULT_ROUTE.to_owned(), from: Duration::ZERO, until: None }
    }

    /// Sends them to this route, by name; [`DEFAULT_ROUTE`](Self::DEFAULT_ROUTE) by default.
    #[must_use]
    pub fn on_route(mut self, name: impl Into<String>) -> Self {
        self.route = name.into();
        self
    }

    /// Comes so long after the start of the sandbox.
    #[must_use]
    pub fn from(mut self, from: Duration) -> Self {
        self.from = from;
        self
    }

    /// Goes so long after the start of the sandbox.
    #[must_use]
    pub fn until(mut self, until: Duration) -> Self {
        self.until = Some(until);
        self
    }
}

/// A neighbour at work.
#[derive(Debug)]
pub(crate) struct Arrivals {
    pub(crate) endpoint: EndpointId,
    pub(crate) method: Method,
    mean_gap: Duration,
    next: Duration,
    until: Duration,
    rng: StdRng,
}

impl Arrivals {
    /// `None` if it sends nothing or its route is not known.
    pub(crate) fn new(neighbour: &Neighbour, routes: &Routes, seed: u64, started: Duration) -> Option<Self> {
        let (endpoint, route) = routes.iter().find(|(_, endpoint)| endpoint.name() == neighbour.route)?;
        let mean_gap = Duration::from_secs(60).checked_div(neighbour.per_minute)?;
        let mut arrivals = Self {
            endpoint,
            method: route.method().clone(),
            mean_gap,
            next: started.saturating_add(neighbour.from),
            until: neighbour.until.map_or(Duration::MAX, |until| started.saturating_add(until)),
            // A sequence of its own, so that a neighbour does not change what else is drawn.
            rng: StdRng::seed_from_u64(seed.rotate_left(32) ^ 0x6e65_6967_6862_6f72),
        };
        arrivals.step();
        Some(arrivals)
    }

    /// When the next request arrives; `None` once it is gone.
    pub(crate) fn next(&self) -> Option<Duration> {
        Some(self.next).filter(|next| *next < self.until)
    }

    /// Goes on to the request after the next.
    pub(crate) fn step(&mut self) {
        let gap = self.mean_gap.as_secs_f64() * exponential(&mut self.rng);
        self.next = self.next.saturating_add(Duration::try_from_secs_f64(gap).unwrap_or(Duration::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_and_goes_at_its_times_and_keeps_its_rate_between() {
        let secs = Duration::from_secs;
        let neighbour = Neighbour::new(60).from(secs(600)).until(secs(4_200));
        let mut arrivals = Arrivals::new(&neighbour, &Routes::didit(), 3, secs(1_000)).unwrap();
        let mut times = Vec::new();
        while let Some(next) = arrivals.next() {
            times.push(next);
            arrivals.step();
        }
        assert!((3_450..3_750).contains(&times.len()), "{}", times.len());
        assert!(times.is_sorted() && times[0] >= secs(1_600) && times.last().is_some_and(|last| *last < secs(5_200)));
    }

    #[test]
    fn one_that_sends_nothing_or_nowhere_is_none() {
        let arrivals = |neighbour: &Neighbour| Arrivals::new(neighbour, &Routes::didit(), 0, Duration::ZERO);
        assert!(arrivals(&Neighbour::new(0)).is_none());
        assert!(arrivals(&Neighbour::new(1).on_route("nowhere")).is_none());
    }
}
