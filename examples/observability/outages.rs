//! What can go wrong, act by act, and which alerts that has to set off.

use std::{ops::RangeInclusive, time::Duration};

use didit_sandbox::{DEFAULT_API_KEY, Fault, Faults, Rule, When};
use http::StatusCode;

/// How fast this Didit answers when it is well: half of it on the way there, half on the way back.
const LATENCY: RangeInclusive<Duration> = Duration::from_millis(20)..=Duration::from_millis(120);

/// How long a call may take. Longer than a window, because it may have to queue for quota.
pub(crate) const DEADLINE: Duration = Duration::from_secs(90);

/// Users per second on an ordinary day: half of Didit's quota for writes.
const ORDINARY: f64 = 2.0;

/// Routes that belong to the core, whose circuit they share.
const CORE: [&str; 2] = ["session-create", "session-decision"];

/// A story, and the alerts that have to fire at some time in it. No other may.
pub(crate) struct Outage {
    pub(crate) name: &'static str,
    pub(crate) acts: Vec<Act>,
    pub(crate) fires: &'static [&'static str],
    /// What becomes of the process at the end of the last act.
    pub(crate) end: End,
}

/// What becomes of the process.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum End {
    /// Nothing.
    LivesOn,
    /// It is gone: it cannot be scraped.
    Gone,
    /// It can be scraped, but has no metrics of this crate.
    Mute,
}

/// A part of a story in which nothing changes.
#[derive(Clone)]
pub(crate) struct Act {
    /// What happens, for the picture.
    pub(crate) title: &'static str,
    pub(crate) length: Duration,
    /// Users per second. Each makes a session and reads its decision; every fifth is screened too.
    pub(crate) users: f64,
    pub(crate) faults: Faults,
    pub(crate) latency: RangeInclusive<Duration>,
    /// The only key that the server knows.
    pub(crate) key: &'static str,
    /// Requests per second that somebody else sends with the same key.
    pub(crate) neighbour: f64,
    /// How long callers wait before they go away.
    pub(crate) patience: Duration,
    /// Whether users send correlation ids that are no ids.
    pub(crate) forged: bool,
    /// Whether an operator holds the circuit of the core open.
    pub(crate) forced: bool,
}

impl Act {
    fn ordinary(minutes: u64) -> Self {
        Self {
            title: "",
            length: Duration::from_secs(60 * minutes),
            users: ORDINARY,
            faults: Faults::none(),
            latency: LATENCY,
            key: DEFAULT_API_KEY,
            neighbour: 0.0,
            patience: DEADLINE,
            forged: false,
            forced: false,
        }
    }

    fn failing(minutes: u64, fault: &Fault, probability: f64) -> Self {
        let rule = Rule::new(fault.clone()).when(When::Probability(probability));
        let faults = Faults::none().with(CORE.into_iter().fold(rule, Rule::on_route));
        Self { faults, ..Self::ordinary(minutes) }
    }

    /// Whether it is one of those that the picture points out.
    pub(crate) fn is_trouble(&self) -> bool {
        !self.title.ends_with("well")
    }

    fn titled(self, title: &'static str) -> Self {
        Self { title, ..self }
    }
}

/// Half an hour with a fault, a 429 and its pause, an open circuit and a queue: the story of the picture.
pub(crate) fn tour() -> Vec<Act> {
    let unavailable = Fault::status(StatusCode::SERVICE_UNAVAILABLE);
    vec![
        Act::ordinary(4).titled("all well"),
        Act::failing(4, &unavailable, 0.2).titled("every 5th answer a 503"),
        Act::ordinary(2).titled("well"),
        Act { neighbour: 4.0, ..Act::ordinary(4) }.titled("another user of the key"),
        Act::ordinary(3).titled("well"),
        Act::failing(4, &Fault::ResetBeforeWork, 1.0).titled("core is down"),
        Act::ordinary(3).titled("well"),
        Act { users: 4.5, ..Act::ordinary(3) }.titled("rush"),
        Act::ordinary(3).titled("well"),
    ]
}

/// Every story that the alerts are tested with.
pub(crate) fn all() -> Vec<Outage> {
    let unavailable = Fault::status(StatusCode::SERVICE_UNAVAILABLE);
    let story = |name, during: Act, fires| Outage {
        name,
        acts: vec![Act::ordinary(6), during, Act::ordinary(4)],
        fires,
        end: End::LivesOn,
    };
    let ending = |name, end, fires| Outage { name, acts: vec![Act::ordinary(10)], fires, end };
    vec![
        story("healthy", Act::ordinary(5), &[]),
        story("a-blip-that-repetitions-hide", Act::failing(5, &unavailable, 0.1), &[]),
        story(
            "many-short-refusals",
            Act::failing(15, &unavailable.clone().with_retry_after(1), 0.17),
            &["DiditAmplification"],
        ),
        story(
            "half-an-outage",
            Act::failing(12, &unavailable, 0.45),
            &[
                "DiditCircuitOpen",
                "DiditErrorRateHigh",
                "DiditLatencyHigh",
                "DiditRetryBudgetExhausted",
                "DiditRetryBudgetLow",
            ],
        ),
        story(
            "core-is-down",
            Act::failing(12, &Fault::ResetBeforeWork, 1.0),
            &["DiditCircuitOpen", "DiditErrorRateHigh", "DiditLatencyHigh", "DiditRetryBudgetLow"],
        ),
        story("slow", Act { latency: seconds(8)..=seconds(12), ..Act::ordinary(12) }, &["DiditLatencyHigh"]),
        story(
            "rush",
            Act { users: 4.6, ..Act::ordinary(12) },
            &["DiditLatencyHigh", "DiditQueueLong", "DiditQuotaNearlyUsed"],
        ),
        story(
            "another-user-of-the-key",
            Act { neighbour: 5.0, ..Act::ordinary(12) },
            &[
                "DiditErrorRateHigh",
                "DiditLatencyHigh",
                "DiditQueueLong",
                "DiditQuotaLimitLowered",
                "DiditQuotaNearlyUsed",
                "DiditQuotaPaused",
                "DiditThrottled",
            ],
        ),
        story("revoked-key", Act { key: "another", ..Act::ordinary(15) }, &["DiditRequestsRejected"]),
        story(
            "impatient-callers",
            Act { patience: Duration::from_millis(80), ..Act::ordinary(12) },
            &["DiditCallersGiveUp"],
        ),
        story("forged-ids", Act { forged: true, ..Act::ordinary(5) }, &["DiditIdsReplaced"]),
        story(
            "forgotten-circuit",
            Act { forced: true, ..Act::ordinary(40) },
            &["DiditCircuitForced", "DiditErrorRateHigh", "DiditLatencyHigh"],
        ),
        ending("process-gone", End::Gone, &["DiditClientDown"]),
        ending("metrics-gone", End::Mute, &["DiditMetricsMissing"]),
    ]
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
