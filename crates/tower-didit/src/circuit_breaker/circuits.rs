//! All circuits of one layer, one per service group.

use std::{sync::Arc, time::Duration};

use didit_api::{Endpoint, Routes, ServiceGroup};
use http::Request;
use tokio::time::Instant;

use super::{
    error::Open,
    listeners::Listeners,
    machine::{Health, Machine, Ticket},
    policy::TripPolicy,
};
use crate::{
    call::{SenderWait, current},
    random::Randomness,
};

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
    pub(super) circuits: Vec<Circuit>,
    pub(super) listeners: Arc<Listeners>,
    // The circuit of each endpoint, by the endpoint's index.
    by_endpoint: Vec<usize>,
}

#[derive(Debug)]
pub(super) struct Circuit {
    pub(super) group: ServiceGroup,
    pub(super) machine: Machine,
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
        let listeners = Arc::new(Listeners::default());
        let machine = |group| Machine::new(&policy, group, Arc::clone(&listeners), now);
        let circuits = groups.into_iter().map(|group| Circuit { group, machine: machine(group) }).collect();
        Self { policy, routes, random, circuits, listeners, by_endpoint }
    }

    pub(super) fn place<B>(&self, request: &Request<B>) -> Place {
        let endpoint = self.routes.find(request.method(), request.uri().path());
        let circuit = endpoint.and_then(|id| self.by_endpoint.get(id.index()).copied()).unwrap_or_default();
        let timeout = endpoint.map_or(Endpoint::DEFAULT_TIMEOUT, |id| self.routes.get(id).attempt_timeout());
        Place { circuit, lease: timeout.saturating_add(GRACE).min(LONGEST_LEASE) }
    }

    pub(super) fn peek(&self, place: Place, now: Instant) -> Result<(), Open> {
        let Circuit { group, machine } = &self.circuits[place.circuit];
        machine.peek(&self.policy, is_repeated, now).map_err(|retry_at| Open::new(*group, retry_at, now))
    }

    fn admit(&self, place: Place, now: Instant) -> Result<Ticket, Open> {
        let Circuit { group, machine } = &self.circuits[place.circuit];
        let admitted = machine.admit(&self.policy, is_repeated, place.lease, now);
        admitted.map_err(|retry_at| Open::new(*group, retry_at, now))
    }

    fn settle(&self, place: Place, ticket: Ticket, health: Health, now: Instant) {
        self.circuits[place.circuit].machine.settle(&self.policy, ticket, health, &self.random, now);
    }

    pub(super) fn of(&self, group: ServiceGroup) -> Option<&Machine> {
        self.circuits.iter().find(|circuit| circuit.group == group).map(|circuit| &circuit.machine)
    }
}

/// Whether a retry layer further out has sent this call before.
fn is_repeated() -> bool {
    current::with(|call| call.report.attempts > 1).unwrap_or_default()
}

/// A ticket that settles itself: with what it is told, or when it is dropped.
#[derive(Debug)]
pub(super) struct Pass {
    circuits: Arc<Circuits>,
    place: Place,
    ticket: Option<Ticket>,
    // When the call must have ended.
    deadline: Option<Instant>,
    sender: Option<SenderWait>,
}

impl Pass {
    /// Admits a request, or says why not.
    pub(super) fn admit<B>(circuits: &Arc<Circuits>, request: &Request<B>, now: Instant) -> Result<Self, Open> {
        let place = circuits.place(request);
        let ticket = circuits.admit(place, now)?;
        let sender = request.extensions().get::<SenderWait>().cloned();
        Ok(Self { circuits: Arc::clone(circuits), place, ticket: Some(ticket), deadline: current::deadline(), sender })
    }

    pub(super) fn settle(&mut self, health: Health) {
        if let Some(ticket) = self.ticket.take() {
            self.circuits.settle(self.place, ticket, health, Instant::now());
        }
    }

    /// Settles a call whose caller went away waiting: it hangs if no attempt timeout would have waited for so long.
    pub(super) fn abandon(&mut self) {
        let waited = self.ticket.map(|ticket| Instant::now().saturating_duration_since(ticket.admitted()));
        if waited.is_some_and(|waited| waited >= self.place.lease) {
            self.settle(Health::Bad { retry_after: None });
        } else {
            self.let_go();
        }
    }

    /// A caller who went away says nothing about the service. One whose time ran out waiting for it does: a service that
    /// hangs must be noticed even if every deadline is shorter than its timeout. Unless it was the sender who hung.
    fn let_go(&mut self) {
        let is_senders = self.sender.as_ref().is_some_and(SenderWait::is_set);
        let hung = !is_senders && self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        self.settle(if hung { Health::Bad { retry_after: None } } else { Health::Unknown });
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.let_go();
    }
}
