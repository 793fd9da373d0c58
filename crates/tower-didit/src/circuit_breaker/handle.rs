//! What an operator sees of the circuits, and may do to them.

use std::{sync::Arc, time::Duration};

use didit_api::ServiceGroup;
use http::{Request, Response};
use tokio::{
    sync::broadcast,
    time::{Instant, sleep},
};
use tower::{Service, ServiceExt};

use super::{
    CircuitState, StateChange,
    circuits::Circuits,
    machine::{Forced, Machine},
};

/// Sees and steers the circuits of one [`CircuitBreakerLayer`](super::CircuitBreakerLayer). Clones see the same ones.
///
/// # Example
///
/// ```
/// use didit_api::ServiceGroup;
/// use tower_didit::circuit_breaker::{CircuitBreakerLayer, CircuitState};
///
/// let handle = CircuitBreakerLayer::didit().handle();
/// handle.on_change(|change| println!("{}: {:?}", change.group.name(), change.to));
/// handle.force_open(ServiceGroup::Aml);
/// assert_eq!(handle.state(ServiceGroup::Aml), Some(CircuitState::ForcedOpen));
/// handle.reset(ServiceGroup::Aml);
/// ```
#[derive(Clone, Debug)]
pub struct CircuitBreakerHandle {
    pub(super) circuits: Arc<Circuits>,
}

/// What one circuit looks like at an instant.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct CircuitStatus {
    /// Whose circuit it is.
    pub group: ServiceGroup,
    /// Its state.
    pub state: CircuitState,
    /// Calls within the window, since the circuit was last closed.
    pub calls: u64,
    /// How many of them failed.
    pub failures: u64,
    /// How many of them were slow; 0 unless the policy has a threshold.
    pub slow: u64,
    /// Failures in a row.
    pub consecutive_failures: u32,
    /// Until the first probe, if the circuit is open.
    pub next_probe: Option<Duration>,
}

impl CircuitStatus {
    /// The share of calls that failed; 0 without calls.
    pub fn failure_ratio(&self) -> f64 {
        if self.calls == 0 { 0.0 } else { self.failures as f64 / self.calls as f64 }
    }
}

impl CircuitBreakerHandle {
    /// The groups that have a circuit.
    pub fn groups(&self) -> impl Iterator<Item = ServiceGroup> {
        self.circuits.circuits.iter().map(|circuit| circuit.group)
    }

    /// The state of a group's circuit; `None` if no route belongs to the group, here and below.
    pub fn state(&self, group: ServiceGroup) -> Option<CircuitState> {
        self.circuits.of(group).map(Machine::state)
    }

    /// Everything about a group's circuit.
    pub fn status(&self, group: ServiceGroup) -> Option<CircuitStatus> {
        let (machine, now) = (self.circuits.of(group)?, Instant::now());
        let (totals, consecutive_failures) = machine.totals(now);
        let state = machine.state();
        let next_probe = match state {
            CircuitState::Open { until } => Some(until.saturating_duration_since(now)),
            _ => None,
        };
        let (calls, failures, slow) = (totals.calls, totals.failures, totals.slow);
        Some(CircuitStatus { group, state, calls, failures, slow, consecutive_failures, next_probe })
    }

    /// Refuses every call of a group until [`reset`](Self::reset). False if the group has no circuit, here and below.
    pub fn force_open(&self, group: ServiceGroup) -> bool {
        self.with(group, |machine| machine.force(Forced::Open))
    }

    /// Lets every call of a group pass, and counts nothing, until [`reset`](Self::reset).
    pub fn force_closed(&self, group: ServiceGroup) -> bool {
        self.with(group, |machine| machine.force(Forced::Closed))
    }

    /// Closes a group's circuit and forgets all it counted.
    pub fn reset(&self, group: ServiceGroup) -> bool {
        self.with(group, |machine| machine.reset(Instant::now()))
    }

    /// Calls back at every change, in order, outside of every lock. A callback may use the handle; one that panics harms
    /// nobody but itself. It stays for as long as the layer does.
    pub fn on_change(&self, listener: impl Fn(&StateChange) + Send + Sync + 'static) {
        self.circuits.listeners.add(move |change| {
            listener(change);
            true
        });
    }

    /// A channel of all changes from now on. It keeps the last 64 for a reader that is late.
    pub fn subscribe(&self) -> broadcast::Receiver<StateChange> {
        let (sender, receiver) = broadcast::channel(64);
        // Once nobody listens any more, there is nothing more to tell.
        self.circuits.listeners.add(move |change| sender.send(*change).is_ok());
        receiver
    }

    /// Asks `GET /system/healthcheck` every `interval` while Didit's core circuit is open, and ends the open time early
    /// when it answers 200. Runs for ever: spawn it.
    ///
    /// The health check needs no key and is not rate limited; 5 to 15 s is what Didit's health page recommends. It says
    /// nothing about the providers behind the other groups. `client` is the bare client, with the URI's host filled in by
    /// `base_url` (`https://host`, no path).
    pub async fn watch_health<S, B, RB>(self, client: S, base_url: &str, interval: Duration)
    where
        S: Service<Request<B>, Response = Response<RB>> + Clone,
        B: Default,
    {
        let interval = interval.max(Duration::from_millis(1));
        loop {
            sleep(interval).await;
            if !matches!(self.state(ServiceGroup::Core), Some(CircuitState::Open { .. })) {
                continue;
            }
            let Ok(request) = Request::get(format!("{base_url}/system/healthcheck")).body(B::default()) else { return };
            let healthy = tokio::time::timeout(interval, client.clone().oneshot(request)).await;
            if healthy.is_ok_and(|result| result.is_ok_and(|response| response.status() == http::StatusCode::OK)) {
                self.with(ServiceGroup::Core, |machine| machine.end_open(Instant::now()));
            }
        }
    }

    fn with<R>(&self, group: ServiceGroup, work: impl FnOnce(&Machine) -> R) -> bool {
        self.circuits.of(group).map(work).is_some()
    }
}
