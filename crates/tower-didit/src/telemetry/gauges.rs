//! What stands still between calls and is read when somebody looks: quota, circuits, budget.

use metrics::{Label, SharedString};

use super::{
    instruments::register,
    names::{self, Kind, Metric},
};
#[cfg(feature = "circuit-breaker")]
use crate::circuit_breaker::{CircuitBreakerHandle, CircuitState, CircuitStatus};
#[cfg(feature = "pacing")]
use crate::pacing::{PacingLayer, Usage};
#[cfg(feature = "retry")]
use crate::retry::Budget;

/// Reads the gauges of one stack from the handles of its layers.
///
/// # Why on demand
///
/// A gauge that every call would move costs every call; one that a scrape reads costs a scrape, and is never older than
/// it. So an application calls [`record`](Self::record) before it renders its metrics, or every few seconds if its
/// exporter renders by itself.
///
/// # More than one stack
///
/// Gauges of two stacks in one process are the same series, and the one that is recorded last is seen, unless each has a
/// [name](Self::named). Calls and attempts need none: they are counted together.
///
/// # Example
///
/// ```
/// use tower_didit::{circuit_breaker::CircuitBreakerLayer, pacing::PacingLayer, telemetry::Gauges};
///
/// let (pacing, breaker) = (PacingLayer::didit(), CircuitBreakerLayer::didit());
/// let gauges = Gauges::new().pacing(pacing.clone()).circuit_breaker(breaker.handle());
/// gauges.record();
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Gauges {
    name: Option<Label>,
    #[cfg(feature = "pacing")]
    pacing: Option<PacingLayer>,
    #[cfg(feature = "circuit-breaker")]
    breaker: Option<CircuitBreakerHandle>,
    #[cfg(feature = "retry")]
    budget: Option<Budget>,
}

impl Gauges {
    /// Reads nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells these gauges from those of another stack in the process, by the label [`STACK`](super::names::STACK).
    pub fn named(mut self, name: impl Into<SharedString>) -> Self {
        self.name = Some(Label::new(names::STACK, name));
        self
    }

    /// Reads how full each scope is.
    #[cfg(feature = "pacing")]
    pub fn pacing(mut self, pacing: PacingLayer) -> Self {
        self.pacing = Some(pacing);
        self
    }

    /// Reads the state of each circuit.
    #[cfg(feature = "circuit-breaker")]
    pub fn circuit_breaker(mut self, breaker: CircuitBreakerHandle) -> Self {
        self.breaker = Some(breaker);
        self
    }

    /// Reads what is left for repetitions.
    #[cfg(feature = "retry")]
    pub fn budget(mut self, budget: Budget) -> Self {
        self.budget = Some(budget);
        self
    }

    /// Sets every gauge to what it is now, with the recorder that is installed.
    ///
    /// The recorder is told what the metrics mean, too: it may be rendered before the first call.
    pub fn record(&self) {
        super::introduce();
        #[cfg(feature = "pacing")]
        for usage in self.pacing.iter().flat_map(PacingLayer::usage) {
            self.record_scope(&usage);
        }
        #[cfg(feature = "circuit-breaker")]
        if let Some(breaker) = &self.breaker {
            breaker.groups().filter_map(|group| breaker.status(group)).for_each(|status| self.record_circuit(status));
        }
        #[cfg(feature = "retry")]
        if let Some(budget) = &self.budget {
            self.set(&names::BUDGET_TOKENS, &[], f64::from(budget.tokens()));
            self.set(&names::BUDGET_CAPACITY, &[], f64::from(budget.capacity()));
        }
    }

    #[cfg(feature = "pacing")]
    fn record_scope(&self, usage: &Usage) {
        let scope = [Label::new(names::SCOPE, usage.scope.clone())];
        self.set(&names::QUOTA_LIMIT, &scope, f64::from(usage.limit));
        self.set(&names::QUOTA_EFFECTIVE_LIMIT, &scope, usage.effective as f64);
        self.set(&names::QUOTA_USED, &scope, usage.used as f64);
        self.set(&names::QUOTA_WAITING, &scope, usage.waiting as f64);
        self.set(&names::QUOTA_OLDEST_WAIT, &scope, usage.oldest_wait.unwrap_or_default().as_secs_f64());
        self.set(&names::QUOTA_PREDICTED_WAIT, &scope, usage.predicted_wait.as_secs_f64());
        self.set(&names::QUOTA_PAUSED, &scope, f64::from(u8::from(usage.paused_until.is_some())));
    }

    #[cfg(feature = "circuit-breaker")]
    fn record_circuit(&self, status: CircuitStatus) {
        let current = status.state.name();
        let group = Label::new(names::GROUP, status.group.name());
        for state in CircuitState::NAMES {
            let labels = [group.clone(), Label::new(names::STATE, state)];
            self.set(&names::CIRCUIT_STATE, &labels, f64::from(u8::from(state == current)));
        }
        self.set(&names::CIRCUIT_FAILURE_RATIO, std::slice::from_ref(&group), status.failure_ratio());
        self.set(&names::CIRCUIT_NEXT_PROBE, &[group], status.next_probe.unwrap_or_default().as_secs_f64());
    }

    #[allow(dead_code, reason = "each layer that has gauges has its own feature")]
    fn set(&self, metric: &Metric, labels: &[Label], value: f64) {
        debug_assert_eq!(metric.kind, Kind::Gauge);
        register(metric, labels, self.name.as_slice(), |recorder, key, metadata| {
            recorder.register_gauge(key, metadata)
        })
        .set(value);
    }
}
