//! Every name that goes out: metrics and their labels, spans and their fields.
//!
//! Names of fields are those of OpenTelemetry's [HTTP client conventions] where these have one. Names of metrics are
//! Prometheus's: base units, `_total` at the end of a counter, so that the facade's Prometheus exporter changes none.
//!
//! NOTE: `examples/observability` and `schema.md` repeat these names; a test holds them together.
//!
//! [HTTP client conventions]: https://opentelemetry.io/docs/specs/semconv/http/http-spans/#http-client-span

use metrics::Unit;

/// One metric: what it is called, what it counts, and what tells its series apart.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Metric {
    /// The name, the same in code and at the exporter.
    pub name: &'static str,
    /// What kind of metric it is.
    pub kind: Kind,
    /// What one of it is.
    pub unit: Unit,
    /// The labels that tell its series apart.
    pub labels: &'static [&'static str],
    /// What it says, in one sentence.
    pub description: &'static str,
}

/// What a metric can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts values by size.
    Histogram,
}

// ===== Labels =====

/// The request's method; `_OTHER` for one that RFC 9110 and RFC 5789 do not have.
pub const METHOD: &str = "http_request_method";
/// The path template of the route, never a path; [`UNKNOWN_ROUTE`] for one that the route table does not have.
pub const ROUTE: &str = "url_template";
/// The part of the server that fails as one; see [`ServiceGroup`](didit_api::ServiceGroup).
pub const GROUP: &str = "service_group";
/// What came of it: [`Outcome::name`](crate::outcome::Outcome::name), or [`CANCELLED`].
pub const OUTCOME: &str = "outcome";
/// The first digit of the status, as in `2xx`; `none` without a response.
pub const STATUS_CLASS: &str = "status_class";
/// What a call's time went into: `queue`, `backoff` or `wire`.
pub const PHASE: &str = "phase";
/// The name of a rate limit's scope.
pub const SCOPE: &str = "scope";
/// The state of a circuit: `closed`, `half_open`, `open`, `forced_open` or `forced_closed`.
pub const STATE: &str = "state";
/// The name of a stack, on gauges of one that [has a name](super::Gauges::named).
pub const STACK: &str = "stack";
/// Where an answer comes from that the server did not give to this call: `replayed`, `coalesced` or `adopted`.
pub const PROVENANCE: &str = "provenance";

/// The route of what the route table does not know, so that no path becomes a series.
pub const UNKNOWN_ROUTE: &str = "unknown";
/// The outcome of what its caller did not wait for.
pub const CANCELLED: &str = "cancelled";

const CALL: &[&str] = &[METHOD, ROUTE, GROUP];
const RESULT: &[&str] = &[METHOD, ROUTE, GROUP, OUTCOME, STATUS_CLASS];

// ===== Metrics =====

/// Calls, as the application makes them.
pub const CALLS: Metric = Metric {
    name: "didit_calls_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    labels: RESULT,
    description: "Calls that ended, by what came of them.",
};

/// How long calls take.
pub const CALL_DURATION: Metric = Metric {
    name: "didit_call_duration_seconds",
    kind: Kind::Histogram,
    unit: Unit::Seconds,
    labels: CALL,
    description: "Time of a call from its start to the headers of its answer, waits and repetitions included.",
};

/// What the time of calls went into.
pub const CALL_PHASE_DURATION: Metric = Metric {
    name: "didit_call_phase_duration_seconds",
    kind: Kind::Histogram,
    unit: Unit::Seconds,
    labels: &[METHOD, ROUTE, GROUP, PHASE],
    description: "Time that a call spent in this process before attempts (queue), between attempts (backoff) and on the \
                  wire; the three add up to the call's duration.",
};

/// Requests on the wire.
pub const ATTEMPTS: Metric = Metric {
    name: "didit_attempts_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    labels: RESULT,
    description: "Attempts that were handed to the client, by what came of them.",
};

/// How long attempts take.
pub const ATTEMPT_DURATION: Metric = Metric {
    name: "didit_attempt_duration_seconds",
    kind: Kind::Histogram,
    unit: Unit::Seconds,
    labels: CALL,
    description: "Time of an attempt on the wire, to the headers of its answer.",
};

/// Repetitions on the wire.
pub const RETRIES: Metric = Metric {
    name: "didit_retries_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    labels: CALL,
    description: "Attempts that repeated an earlier one of the same call.",
};

/// Answers that the server did not give to this call.
pub const IDEMPOTENCY_ANSWERS: Metric = Metric {
    name: "didit_idempotency_answers_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    labels: &[PROVENANCE],
    description: "Calls that were answered from the idempotency store, by another call, or by a look-up.",
};

/// Incoming ids that were not usable.
pub const IDS_REPLACED: Metric = Metric {
    name: "didit_correlation_ids_replaced_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    labels: &[],
    description: "Incoming correlation ids that were replaced, because they were too long or outside the alphabet.",
};

/// What repetitions are paid from.
pub const BUDGET_TOKENS: Metric = Metric {
    name: "didit_retry_budget_tokens",
    kind: Kind::Gauge,
    unit: Unit::Count,
    labels: &[],
    description: "Tokens left for repetitions; without tokens nothing is repeated.",
};

/// What a full store of tokens holds.
pub const BUDGET_CAPACITY: Metric = Metric {
    name: "didit_retry_budget_capacity_tokens",
    kind: Kind::Gauge,
    unit: Unit::Count,
    labels: &[],
    description: "Tokens of a full retry budget.",
};

/// The limit of a scope.
pub const QUOTA_LIMIT: Metric = Metric {
    name: "didit_quota_limit",
    kind: Kind::Gauge,
    unit: Unit::Count,
    labels: &[SCOPE],
    description: "Requests that a window of the scope may hold, as configured.",
};

/// The limit of a scope as it is kept.
pub const QUOTA_EFFECTIVE_LIMIT: Metric = Metric {
    name: "didit_quota_effective_limit",
    kind: Kind::Gauge,
    unit: Unit::Count,
    labels: &[SCOPE],
    description: "Requests that a window of the scope may hold, as learned from the server's refusals.",
};

/// Slots taken.
pub const QUOTA_USED: Metric = Metric {
    name: "didit_quota_used",
    kind: Kind::Gauge,
    unit: Unit::Count,
    labels: &[SCOPE],
    description: "Slots of the scope that are taken: by attempts in flight, and by those of the last window.",
};

/// Calls in the queue.
pub const QUOTA_WAITING: Metric = Metric {
    name: "didit_quota_waiting_calls",
    kind: Kind::Gauge,
    unit: Unit::Count,
    labels: &[SCOPE],
    description: "Calls that wait for a slot of the scope.",
};

/// The wait of the first in the queue.
pub const QUOTA_OLDEST_WAIT: Metric = Metric {
    name: "didit_quota_oldest_wait_seconds",
    kind: Kind::Gauge,
    unit: Unit::Seconds,
    labels: &[SCOPE],
    description: "How long the first call in the scope's queue has waited; 0 if none waits.",
};

/// The wait of whoever comes next.
pub const QUOTA_PREDICTED_WAIT: Metric = Metric {
    name: "didit_quota_predicted_wait_seconds",
    kind: Kind::Gauge,
    unit: Unit::Seconds,
    labels: &[SCOPE],
    description: "How long a call that came now would wait for a slot of the scope.",
};

/// Whether a scope is paused.
pub const QUOTA_PAUSED: Metric = Metric {
    name: "didit_quota_paused",
    kind: Kind::Gauge,
    unit: Unit::Count,
    labels: &[SCOPE],
    description: "1 while the scope is left alone after a refusal or by an operator, else 0.",
};

/// The state of a circuit.
pub const CIRCUIT_STATE: Metric = Metric {
    name: "didit_circuit_state",
    kind: Kind::Gauge,
    unit: Unit::Count,
    labels: &[GROUP, STATE],
    description: "1 for the state that the service group's circuit is in, 0 for the four others.",
};

/// The share of failures that a circuit sees.
pub const CIRCUIT_FAILURE_RATIO: Metric = Metric {
    name: "didit_circuit_failure_ratio",
    kind: Kind::Gauge,
    unit: Unit::Count,
    labels: &[GROUP],
    description: "Share of the calls within the circuit's window that failed, from 0 to 1.",
};

/// How long a circuit stays open.
pub const CIRCUIT_NEXT_PROBE: Metric = Metric {
    name: "didit_circuit_next_probe_seconds",
    kind: Kind::Gauge,
    unit: Unit::Seconds,
    labels: &[GROUP],
    description: "Time until an open circuit lets a probe through; 0 if it is not open.",
};

/// Every metric there is.
pub const METRICS: &[Metric] = &[
    CALLS,
    CALL_DURATION,
    CALL_PHASE_DURATION,
    ATTEMPTS,
    ATTEMPT_DURATION,
    RETRIES,
    IDEMPOTENCY_ANSWERS,
    IDS_REPLACED,
    BUDGET_TOKENS,
    BUDGET_CAPACITY,
    QUOTA_LIMIT,
    QUOTA_EFFECTIVE_LIMIT,
    QUOTA_USED,
    QUOTA_WAITING,
    QUOTA_OLDEST_WAIT,
    QUOTA_PREDICTED_WAIT,
    QUOTA_PAUSED,
    CIRCUIT_STATE,
    CIRCUIT_FAILURE_RATIO,
    CIRCUIT_NEXT_PROBE,
];

/// Upper bounds for the buckets of the histograms, in seconds: from an answer of a list to the timeout of a document, and
/// a call's default deadline at the end.
///
/// An exporter that is not told makes of a histogram what it likes; the facade's Prometheus exporter makes quantiles,
/// which cannot be added up over processes.
pub const DURATION_BUCKETS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 45.0, 60.0, 90.0, 120.0];

// ===== Spans =====

/// The span of a request that is being served, opened by the inbound correlation layer.
pub const SPAN_REQUEST: &str = "request";
/// The span of what runs under an id that the application chose, opened by `correlation::scope`.
pub const SPAN_SCOPE: &str = "scope";
/// The span of a logical call, opened by the correlation layer.
pub const SPAN_CALL: &str = "call";
/// The span of one attempt, opened by the attempt layer.
pub const SPAN_ATTEMPT: &str = "attempt";
