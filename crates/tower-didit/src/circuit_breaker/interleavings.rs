//! All interleavings of two threads with three tickets, tried by loom. The flag is our own, because tokio reacts to loom's:
//! `RUSTFLAGS="--cfg interleavings" cargo test -p tower-didit --features circuit-breaker --lib interleavings`.
//!
//! What has to hold in each of them: a ticket of an older generation changes nothing, a probe's place is never lost and
//! never taken twice, and the gate and the state under the lock agree.

use std::{sync::Arc, time::Duration};

use didit_api::ServiceGroup;
use loom::thread;
use tokio::time::Instant;

use super::{
    machine::{CircuitState, Health, Machine, Ticket},
    policy::TripPolicy,
};
use crate::random::Randomness;

const LEASE: Duration = Duration::from_secs(35);
const BAD: Health = Health::Bad { retry_after: None };

/// A machine, shared by threads, at one instant.
#[derive(Clone)]
struct Shared {
    machine: Arc<Machine>,
    policy: TripPolicy,
    random: Randomness,
    now: Instant,
}

impl Shared {
    fn new(policy: TripPolicy, now: Instant) -> Self {
        let machine = Arc::new(Machine::new(&policy, ServiceGroup::Core, Arc::default(), now));
        Self { machine, policy, random: Randomness::seeded(1), now }
    }

    fn admit(&self, now: Instant) -> Result<Ticket, Option<Instant>> {
        self.machine.admit(&self.policy, || false, LEASE, now)
    }

    fn settle(&self, ticket: Ticket, health: Health, now: Instant) {
        self.machine.settle(&self.policy, ticket, health, &self.random, now);
    }

    /// Trips the circuit, and says when it lets a probe through.
    fn trip(&self) -> Instant {
        let ticket = self.admit(self.now).unwrap();
        self.settle(ticket, BAD, self.now);
        self.admit(self.now).unwrap_err().unwrap()
    }
}

fn one_failure() -> TripPolicy {
    TripPolicy::DIDIT.consecutive_failures(1).unwrap()
}

#[test]
fn of_two_failures_at_once_one_trips_and_the_other_is_stale() {
    let now = Instant::now();
    loom::model(move || {
        let shared = Shared::new(one_failure(), now);
        let (one, other) = (shared.admit(now).unwrap(), shared.admit(now).unwrap());
        let late = shared.admit(now).unwrap();
        let thread = thread::spawn({
            let shared = shared.clone();
            move || shared.settle(one, BAD, now)
        });
        shared.settle(other, BAD, now);
        thread.join().unwrap();
        let CircuitState::Open { until } = shared.machine.state() else { panic!("it did not trip") };
        // Tripped once: the second failure did not lengthen the open time.
        assert!(until - now <= Duration::from_secs(10));
        shared.settle(late, Health::Good, now);
        assert_eq!(shared.machine.state(), CircuitState::Open { until });
    });
}

#[test]
fn a_success_and_a_failure_at_once_never_lose_the_failure() {
    let now = Instant::now();
    loom::model(move || {
        let shared = Shared::new(TripPolicy::DIDIT.consecutive_failures(2).unwrap(), now);
        let tickets = [(); 3].map(|()| shared.admit(now).unwrap());
        let thread = thread::spawn({
            let shared = shared.clone();
            move || shared.settle(tickets[0], Health::Good, now)
        });
        shared.settle(tickets[1], BAD, now);
        thread.join().unwrap();
        let (totals, _) = shared.machine.totals(now);
        assert_eq!((totals.calls, totals.failures), (2, 1));
        // However they were ordered, one more failure makes at most two in a row.
        shared.settle(tickets[2], BAD, now);
        let (totals, row) = shared.machine.totals(now);
        match shared.machine.state() {
            CircuitState::Open { .. } => {}
            state => assert_eq!((state, totals.failures, row), (CircuitState::Closed, 2, 1)),
        }
    });
}

#[test]
fn two_threads_never_get_the_one_probe_twice_and_never_lose_it() {
    let now = Instant::now();
    loom::model(move || {
        let shared = Shared::new(one_failure(), now);
        let until = shared.trip();
        let thread = thread::spawn({
            let shared = shared.clone();
            move || {
                let ticket = shared.admit(until);
                // Dropped: it says nothing, and gives its place back.
                if let Ok(ticket) = ticket {
                    shared.settle(ticket, Health::Unknown, until);
                }
                ticket.is_ok()
            }
        });
        let mine = shared.admit(until);
        let theirs = thread.join().unwrap();
        assert!(mine.is_ok() || theirs, "somebody probes");
        if let Ok(ticket) = mine {
            shared.settle(ticket, Health::Good, until);
            assert_eq!(shared.machine.state(), CircuitState::Closed);
        } else {
            assert!(shared.admit(until).is_ok(), "the place was given back");
        }
    });
}

#[test]
fn a_probe_and_a_stale_ticket_at_once_leave_the_probe_its_say() {
    let now = Instant::now();
    loom::model(move || {
        let shared = Shared::new(one_failure(), now);
        let stale = shared.admit(now).unwrap();
        let until = shared.trip();
        let probe = shared.admit(until).unwrap();
        let thread = thread::spawn({
            let shared = shared.clone();
            move || shared.settle(stale, BAD, until)
        });
        shared.settle(probe, Health::Good, until);
        thread.join().unwrap();
        assert_eq!(shared.machine.state(), CircuitState::Closed);
        let (totals, row) = shared.machine.totals(until);
        assert_eq!((totals.calls, row), (0, 0), "the stale ticket was counted");
    });
}

#[test]
fn an_operator_and_a_failure_at_once_leave_the_operator_the_last_word() {
    let now = Instant::now();
    loom::model(move || {
        let shared = Shared::new(one_failure(), now);
        let ticket = shared.admit(now).unwrap();
        let thread = thread::spawn({
            let shared = shared.clone();
            move || shared.settle(ticket, BAD, now)
        });
        shared.machine.force(super::machine::Forced::Closed);
        thread.join().unwrap();
        assert_eq!(shared.machine.state(), CircuitState::ForcedClosed);
        assert!(shared.admit(now).is_ok());
    });
}
