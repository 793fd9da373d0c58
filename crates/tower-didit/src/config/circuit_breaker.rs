//! Settings of the circuit breaker.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{HumanDuration, Invalid, OrOff, error::At};
use crate::circuit_breaker::TripPolicy;

/// Settings of the [circuit breaker](crate::circuit_breaker).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct CircuitBreakerConfig {
    /// Opens after this many failures in a row; "off" for no such rule.
    pub consecutive_failures: OrOff<u32>,
    /// Opens when this share of the window's calls failed, 0.01 to 1; "off" for no such rule.
    #[schemars(extend("minimum" = 0.01, "maximum" = 1))]
    pub failure_ratio: OrOff<f64>,
    /// Opens when this share of the window's calls was slow, 0.01 to 1; "off" for no such rule.
    #[schemars(extend("minimum" = 0.01, "maximum" = 1))]
    pub slow_call_ratio: OrOff<f64>,
    /// How long a call takes to be slow, 1 ms to an hour.
    pub slow_call_threshold: HumanDuration,
    /// Refuses repetitions, and lets first attempts pass, from this share of failures on, 0.01 to 1.
    #[schemars(extend("minimum" = 0.01, "maximum" = 1))]
    pub retries_only: OrOff<f64>,
    /// How many calls a window must hold before a share of them means anything.
    #[schemars(range(min = 1))]
    pub min_calls: u32,
    /// How far back calls are counted, 100 ms to an hour.
    pub window: HumanDuration,
    /// How long a circuit stays open at first, 1 ms to an hour. Doubles each time it opens again soon after.
    pub open: HumanDuration,
    /// How long it stays open at most, from `open` to an hour.
    pub open_cap: HumanDuration,
    /// How many calls at once may find out whether it is over.
    #[schemars(range(min = 1))]
    pub probes: u32,
    /// How many of them must succeed before it closes.
    #[schemars(range(min = 1))]
    pub successes: u32,
}

// ===== impl CircuitBreakerConfig =====

impl CircuitBreakerConfig {
    pub(super) fn of(policy: &TripPolicy) -> Self {
        let (threshold, slow) = policy.slow.unzip();
        Self {
            consecutive_failures: Some(policy.consecutive).filter(|row| *row != TripPolicy::NEVER.consecutive).into(),
            failure_ratio: policy.ratio.into(),
            slow_call_ratio: slow.into(),
            // A policy without one has none to show; it means nothing then.
            slow_call_threshold: threshold.unwrap_or(policy.open).into(),
            retries_only: policy.retries_only.into(),
            min_calls: policy.min_calls,
            window: policy.window.into(),
            open: policy.open.into(),
            open_cap: policy.open_cap.into(),
            probes: policy.probes,
            successes: policy.successes,
        }
    }

    pub(super) fn build(&self) -> Result<TripPolicy, Invalid> {
        const SECTION: &str = "circuit_breaker";

        let mut policy = TripPolicy::NEVER;
        if let OrOff::On(failures) = self.consecutive_failures {
            policy = policy.consecutive_failures(failures).at(SECTION)?;
        }
        // The window belongs to every ratio, so it is set, and checked, whatever is off.
        let ratio = self.failure_ratio.on();
        policy = policy.failure_ratio(ratio.unwrap_or(1.0), self.min_calls, self.window.0).at(SECTION)?;
        policy.ratio = ratio;
        if let OrOff::On(ratio) = self.slow_call_ratio {
            policy = policy.slow_call_ratio(ratio, self.slow_call_threshold.0).at(SECTION)?;
        }
        if let OrOff::On(ratio) = self.retries_only {
            policy = policy.retries_only(ratio).at(SECTION)?;
        }
        policy = policy.open_for(self.open.0, self.open_cap.0).at(SECTION)?;
        policy.probes(self.probes, self.successes).at(SECTION)
    }
}

impl Default for CircuitBreakerConfig {
    fn default() -> Self {
        Self::of(&TripPolicy::DIDIT)
    }
}
