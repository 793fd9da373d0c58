//! The handles of all metrics that calls and attempts move, made once and then only looked up.

use std::{
    mem::size_of_val,
    sync::{Arc, OnceLock},
    time::Duration,
};

use didit_api::{EndpointId, Routes};
use http::{Method, StatusCode};
use metrics::{Counter, Histogram, Key, Label, Level, Metadata, Recorder, with_recorder};

use super::names::{self, Kind, Metric};
use crate::{call::phases::Split, method, outcome::Outcome, random::Randomness};

const METADATA: Metadata<'static> = Metadata::new("tower_didit", Level::INFO, None);

/// What all clones of the telemetry layers share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) routes: Arc<Routes>,
    pub(super) random: Randomness,
    instruments: OnceLock<Instruments>,
}

/// Which series a request belongs to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Series(usize);

/// What came of a call or an attempt, as labels say it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    /// `None` if its caller did not wait for it.
    pub(super) outcome: Option<Outcome>,
    pub(super) status: Option<StatusCode>,
}

/// The handles, for each route that was called.
#[derive(Debug)]
pub(super) struct Instruments {
    routes: Box<[OnceLock<Box<RouteHandles>>]>,
}

/// What is kept for one route.
#[derive(Debug)]
struct RouteHandles {
    labels: [Label; 3],
    calls: Results,
    attempts: Results,
    retries: Counter,
    call: Histogram,
    queue: Histogram,
    backoff: Histogram,
    wire: Histogram,
    attempt: Histogram,
}

/// Counters by outcome and class of status, each made when it is first needed.
#[derive(Debug, Default)]
struct Results([[OnceLock<Counter>; CLASSES.len()]; OUTCOMES]);

/// The outcomes, and that of a call whose caller went away.
const OUTCOMES: usize = 7;

/// What calls and attempts usually come to, by outcome and class. These counters begin at 0 with the first call of their
/// route, because a counter that begins with its first event has not grown in the eyes of a rate, which would miss the
/// first failure. It still misses one of the call that the route begins with, if that ends before the next scrape.
const USUAL: [(&str, usize); 9] = [
    ("answered", 2),
    ("answered", 4),
    ("throttled", 4),
    ("unavailable", 5),
    ("ambiguous", 0),
    ("ambiguous", 5),
    ("not_sent", 0),
    (HELD_BACK, 0),
    (names::CANCELLED, 0),
];

/// The outcome that no attempt has: one that was held back was none.
const HELD_BACK: &str = "held_back";

/// The classes of statuses, by their first digit.
const CLASSES: [&str; 10] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx", "6xx", "7xx", "8xx", "9xx"];

// ===== impl Shared =====

impl Shared {
    pub(super) fn new(routes: Arc<Routes>, random: Randomness) -> Self {
        Self { routes, random, instruments: OnceLock::new() }
    }

    /// The handles, if there is a recorder: they are made with the first that is there when a call is.
    pub(super) fn instruments(&self) -> Option<&Instruments> {
        if let Some(instruments) = self.instruments.get() {
            return Some(instruments);
        }
        // The facade does not say whether a recorder is installed, but only its own, which records nothing, has no size.
        let is_there = with_recorder(|recorder| size_of_val(recorder) > 0);
        is_there.then(|| self.instruments.get_or_init(|| Instruments::new(&self.routes)))
    }

    pub(super) fn series(&self, method: &Method, path: &str) -> (Series, Option<EndpointId>) {
        let endpoint = self.routes.find(method, path);
        let unknown = || self.routes.len() + method::index(method);
        (Series(endpoint.map_or_else(unknown, EndpointId::index)), endpoint)
    }
}

// ===== impl Instruments =====

impl Instruments {
    fn new(routes: &Routes) -> Self {
        super::introduce();
        Self { routes: (0..routes.len() + method::NAMES.len()).map(|_| OnceLock::new()).collect() }
    }

    /// A call or an attempt of the route begins. While it is under way, a scrape sees what it may come to, at 0.
    pub(super) fn begins(&self, series: Series, routes: &Routes) {
        self.of(series, routes);
    }

    pub(super) fn call_ended(&self, series: Series, routes: &Routes, ending: Ending, split: Split) {
        let route = self.of(series, routes);
        route.calls.count(&names::CALLS, &route.labels, ending);
        for (histogram, time) in [
            (&route.call, split.total()),
            (&route.queue, split.queue),
            (&route.backoff, split.backoff),
            (&route.wire, split.wire),
        ] {
            histogram.record(time);
        }
    }

    pub(super) fn attempt_ended(&self, series: Series, routes: &Routes, ending: Ending, wire: Duration, again: bool) {
        let route = self.of(series, routes);
        route.attempts.count(&names::ATTEMPTS, &route.labels, ending);
        route.attempt.record(wire);
        if again {
            route.retries.increment(1);
        }
    }

    fn of(&self, Series(index): Series, routes: &Routes) -> &RouteHandles {
        self.routes[index].get_or_init(|| Box::new(RouteHandles::new(index, routes)))
    }
}

impl RouteHandles {
    fn new(index: usize, routes: &Routes) -> Self {
        let labels = match routes.iter().nth(index) {
            Some((_, endpoint)) => [
                Label::new(names::METHOD, endpoint.method().to_string()),
                Label::new(names::ROUTE, endpoint.path().to_owned()),
                Label::new(names::GROUP, endpoint.service_group().name()),
            ],
            None => [
                Label::new(names::METHOD, method::NAMES[(index - routes.len()).min(method::NAMES.len() - 1)]),
                Label::new(names::ROUTE, names::UNKNOWN_ROUTE),
                Label::new(names::GROUP, didit_api::ServiceGroup::Core.name()),
            ],
        };
        let phase = |name| histogram(&names::CALL_PHASE_DURATION, &labels, &[Label::new(names::PHASE, name)]);
        let (calls, attempts) = (Results::default(), Results::default());
        for (outcome, class) in USUAL {
            calls.counter(&names::CALLS, &labels, outcome, class);
            if outcome != HELD_BACK {
                attempts.counter(&names::ATTEMPTS, &labels, outcome, class);
            }
        }
        Self {
            calls,
            attempts,
            retries: counter(&names::RETRIES, &labels, &[]),
            call: histogram(&names::CALL_DURATION, &labels, &[]),
            queue: phase("queue"),
            backoff: phase("backoff"),
            wire: phase("wire"),
            attempt: histogram(&names::ATTEMPT_DURATION, &labels, &[]),
            labels,
        }
    }
}

impl Results {
    fn count(&self, metric: &Metric, labels: &[Label], ending: Ending) {
        let class = ending.status.map_or(0, |status| usize::from(status.as_u16() / 100));
        self.counter(metric, labels, ending.name(), class).increment(1);
    }

    fn counter(&self, metric: &Metric, labels: &[Label], outcome: &'static str, class: usize) -> &Counter {
        // `http` has no status of more than three digits.
        self.0[index_of(outcome)][class.min(CLASSES.len() - 1)].get_or_init(|| {
            let result = [Label::new(names::OUTCOME, outcome), Label::new(names::STATUS_CLASS, CLASSES[class])];
            counter(metric, labels, &result)
        })
    }
}

// ===== impl Ending =====

impl Ending {
    pub(super) const CANCELLED: Self = Self { outcome: None, status: None };

    pub(super) fn name(self) -> &'static str {
        self.outcome.map_or(names::CANCELLED, Outcome::name)
    }
}

/// A place for each name of an outcome.
fn index_of(name: &str) -> usize {
    const NAMES: [&str; OUTCOMES - 1] = ["answered", "throttled", "unavailable", "ambiguous", "not_sent", HELD_BACK];
    NAMES.iter().position(|known| *known == name).unwrap_or(NAMES.len())
}

// ===== Registration =====

/// Makes a handle with the recorder that is there.
pub(super) fn register<H>(
    metric: &Metric,
    labels: &[Label],
    more: &[Label],
    make: impl FnOnce(&dyn Recorder, &Key, &Metadata<'_>) -> H,
) -> H {
    let key = Key::from_parts(metric.name, [labels, more].concat());
    with_recorder(|recorder| make(recorder, &key, &METADATA))
}

pub(super) fn counter(metric: &Metric, labels: &[Label], more: &[Label]) -> Counter {
    debug_assert_eq!(metric.kind, Kind::Counter);
    register(metric, labels, more, |recorder, key, metadata| recorder.register_counter(key, metadata))
}

fn histogram(metric: &Metric, labels: &[Label], more: &[Label]) -> Histogram {
    debug_assert_eq!(metric.kind, Kind::Histogram);
    register(metric, labels, more, |recorder, key, metadata| recorder.register_histogram(key, metadata))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{NotSent, Refusal};

    #[test]
    fn every_outcome_has_a_series_of_its_own() {
        let refused = |reason| Outcome::Refused { retry_after: None, reason };
        let outcomes = [
            Outcome::Answered,
            refused(Refusal::Throttled { limit: None }),
            refused(Refusal::Unavailable),
            Outcome::Ambiguous,
            Outcome::NotSent(NotSent::Transport),
            Outcome::NotSent(NotSent::Local { retry_at: None }),
        ];
        let endings = outcomes.map(Some).into_iter().chain([None]);
        let indices: Vec<_> = endings.map(|outcome| index_of(Ending { outcome, status: None }.name())).collect();
        assert_eq!(indices, (0..OUTCOMES).collect::<Vec<_>>());
    }

    #[test]
    fn no_request_brings_a_series_of_its_own() {
        let shared = Shared::new(Routes::didit(), Randomness::new());
        let own = Method::from_bytes(b"STEAL").unwrap();
        let (known, _) = shared.series(&Method::GET, "/v3/session/one/decision/");
        let (same, _) = shared.series(&Method::GET, "/v3/session/other/decision/");
        assert_eq!(known.0, same.0);
        let last = shared.routes.len() + method::NAMES.len() - 1;
        for path in ["/one", "/other", ""] {
            assert_eq!(shared.series(&own, path).0.0, last);
        }
    }
}
