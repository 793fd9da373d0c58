//! All circuits of one layer, one per service group.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use didit_api::{Endpoint, Routes, ServiceGroup};
use http::Request;
use tokio::time::Instant;

use super::{
    error::Open,
    machine::{CircuitState, Health, Machine, Ticket},
    policy::TripPolicy,
};
use crate::random::Randomness;

/// What a probe may take beyond its attempt timeout before it counts as lost.
const GRACE: Duration = Duration::from_secs(5);

/// The longest lease, so that no instant overflows.
const LONGEST_LEASE: Duration = Duration::from_secs(3_600);

/// All circuits of one layer. Their number is bounded by the route table's groups.
#[derive(Debug)]
pub(super) struct Circuits {
    policy: TripPolicy,
    routes: Arc<Routes>,
    random: Randomness,
    circuits: Vec<Circuit>,
    // The circuit of each endpoint, by the endpoint's index.
    by_endpoint: Vec<usize>,
}

#[derive(Debug)]
struct Circuit {
    group: ServiceGroup,
    machine: Mutex<Machine>,
}

/// Which circuit a request belongs to, and how long it may take as a probe.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    circuit: usize,
    lease: Duration,
}

impl Circuits {
    pub(super) fn new(policy: TripPolicy, routes: Arc<Routes>, random: Randomness) -> Self {
        // Paths that the table does not know share the first group.
        let mut groups = vec![ServiceGroup::Core];
        let by_endpoint = routes.iter().map(|(_, endpoint)| {
            let group = endpoint.service_group();
            groups.iter().position(|known| *known == group).unwrap_or_else(|| {
                groups.push(group);
                groups.len() - 1
            })
        });
        let by_endpoint = by_endpoint.collect();
        let now = Instant::now();
        let circuit = |group| Circuit { group, machine: Mutex::new(Machine::new(&policy, now)) };
        Self { policy, routes, random, circuits: groups.into_iter().map(circuit).collect(), by_endpoint }
    }

    pub(super) fn place<B>(&self, request: &Request<B>) -> Place {
        let endpoint = self.routes.find(request.method(), request.uri().path());
        let circuit = endpoint.and_then(|id| self.by_endpoint.get(id.index()).copied()).unwrap_or_default();
        let timeout = endpoint.map_or(Endpoint::DEFAULT_TIMEOUT, |id| self.routes.get(id).attempt_timeout());
        Place { circuit, lease: timeout.saturating_add(GRACE).min(LONGEST_LEASE) }
    }

    pub(super) fn peek(&self, place: Place, now: Instant) -> Result<(), Open> {
        let (circuit, machine) = self.lock(place);
        machine.peek(&self.policy, now).map_err(|retry_at| Open::new(circuit.group, retry_at, now))
    }

    pub(super) fn admit(&self, place: Place, now: Instant) -> Result<Ticket, Open> {
        let (circuit, mut machine) = self.lock(place);
        machine.admit(&self.policy, place.lease, now).map_err(|retry_at| Open::new(circuit.group, retry_at, now))
    }

    pub(super) fn settle(&self, place: Place, ticket: Ticket, health: Health, now: Instant) {
        let (circuit, mut machine) = self.lock(place);
        let before = machine.state();
        machine.settle(&self.policy, ticket, health, &self.random, now);
        let after = machine.state();
        drop(machine);
        if before != after {
            let group = circuit.group.name();
            match after {
                CircuitState::Open { until } => {
                    let open_ms = u64::try_from(until.saturating_duration_since(now).as_millis()).unwrap_or(u64::MAX);
                    tracing::warn!(group, open_ms, "circuit opened");
                }
                CircuitState::Closed => tracing::info!(group, "circuit closed"),
                CircuitState::HalfOpen => {}
            }
        }
    }

    pub(super) fn state(&self, group: ServiceGroup) -> Option<CircuitState> {
        let circuit = self.circuits.iter().find(|circuit| circuit.group == group)?;
        Some(circuit.machine.lock().unwrap_or_else(PoisonError::into_inner).state())
    }

    /// A panic cannot leave a machine half changed: none of its methods calls out.
    fn lock(&self, place: Place) -> (&Circuit, MutexGuard<'_, Machine>) {
        let circuit = &self.circuits[place.circuit];
        (circuit, circuit.machine.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A ticket that settles itself: with what it is told, or, dropped, as unknown.
#[derive(Debug)]
pub(super) struct Pass {
    circuits: Arc<Circuits>,
    place: Place,
    ticket: Option<Ticket>,
}

impl Pass {
    pub(super) fn new(circuits: Arc<Circuits>, place: Place, ticket: Ticket) -> Self {
        Self { circuits, place, ticket: Some(ticket) }
    }

    pub(super) fn settle(&mut self, health: Health) {
        if let Some(ticket) = self.ticket.take() {
            self.circuits.settle(self.place, ticket, health, Instant::now());
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.settle(Health::Unknown);
    }
}
