//! The state machine of one circuit: pure, synchronous, told the time.
//!
//! ```text
//!             trip rule met                      open time over
//!   Closed ─────────────────▶ Open ───────────────────────────────▶ HalfOpen
//!     ▲                        ▲                                     │    │
//!     │                        └──────────── a probe failed ─────────┘    │
//!     └───────────────────────────────── enough probes succeeded ─────────┘
//! ```
//!
//! Every admitted call holds a [`Ticket`] with the *generation* it was admitted in; every change of state begins a new
//! one. What comes back under an older generation changes nothing: neither a late success of last minute's circuit nor
//! a late failure speaks about the present.

use std::time::Duration;

use tokio::time::Instant;

use super::{policy::TripPolicy, window::Window};
use crate::{
    outcome::{NotSent, Outcome, Refusal},
    random::Randomness,
};

/// The longest open time that a server can ask for with `Retry-After`; more is cut to this.
const LONGEST_HINT: Duration = Duration::from_secs(300);

/// When to look again while probes are out: they usually come back within a second.
const PROBE_RECHECK: Duration = Duration::from_secs(1);

/// How long a closed circuit must hold until its next open time starts from the first again.
const HEALTHY: Duration = Duration::from_secs(60);

/// What a result says about the health of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// The service works.
    Good,
    /// It does not, and may have said for how long.
    Bad { retry_after: Option<Duration> },
    /// Nothing: it never got there, or the answer is about this caller alone.
    Unknown,
}

impl From<Outcome> for Health {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Answered => Self::Good,
            Outcome::Ambiguous | Outcome::NotSent(NotSent::Transport) => Self::Bad { retry_after: None },
            Outcome::Refused { retry_after, reason: Refusal::Unavailable } => Self::Bad { retry_after },
            // NOTE: a 429 belongs to the pacer. It is no failure here, and no success for a probe either.
            Outcome::Refused { reason: Refusal::Throttled { .. }, .. } | Outcome::NotSent(NotSent::Local { .. }) => {
                Self::Unknown
            }
        }
    }
}

/// The right of one call to pass, and the duty to say how it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    generation: u64,
    // Which probe this is, if the circuit was half open.
    probe: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Machine {
    state: State,
    generation: u64,
    // How often in a row the circuit opened without holding in between.
    streak: u32,
    closed_at: Instant,
    next_probe: u64,
}

#[derive(Debug)]
enum State {
    Closed { consecutive: u32, window: Window },
    Open { until: Instant },
    HalfOpen { probes: Vec<Probe>, successes: u32 },
}

#[derive(Debug)]
struct Probe {
    id: u64,
    // When it counts as lost.
    lease: Instant,
}

/// A circuit's state as seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CircuitState {
    /// Calls pass.
    Closed,
    /// Calls are refused until this instant.
    Open {
        /// When the first probe is let through.
        until: Instant,
    },
    /// A few probes pass, everything else is refused.
    HalfOpen,
}

impl Machine {
    pub(super) fn new(policy: &TripPolicy, now: Instant) -> Self {
        Self { state: closed(policy, now), generation: 0, streak: 0, closed_at: now, next_probe: 0 }
    }

    pub(super) fn state(&self) -> CircuitState {
        match self.state {
            State::Closed { .. } => CircuitState::Closed,
            State::Open { until } => CircuitState::Open { until },
            State::HalfOpen { .. } => CircuitState::HalfOpen,
        }
    }

    /// Whether a call would be admitted now; if not, when to come back. Changes nothing.
    pub(super) fn peek(&self, policy: &TripPolicy, now: Instant) -> Result<(), Instant> {
        match &self.state {
            State::Open { until } if now < *until => Err(*until),
            State::HalfOpen { probes, .. } => {
                let out = probes.iter().filter(|probe| now < probe.lease).count();
                if out < limit(policy.probes) { Ok(()) } else { Err(now + PROBE_RECHECK) }
            }
            State::Closed { .. } | State::Open { .. } => Ok(()),
        }
    }

    /// Admits a call, or says when to come back. `lease` is how long a probe may take before it counts as lost.
    pub(super) fn admit(&mut self, policy: &TripPolicy, lease: Duration, now: Instant) -> Result<Ticket, Instant> {
        self.peek(policy, now)?;
        if let State::Open { .. } = self.state {
            self.change(State::HalfOpen { probes: Vec::new(), successes: 0 });
        }
        let probe = match &mut self.state {
            State::HalfOpen { probes, .. } => {
                let id = self.next_probe;
                self.next_probe += 1;
                probes.retain(|probe| now < probe.lease);
                probes.push(Probe { id, lease: now + lease });
                Some(id)
            }
            State::Closed { .. } | State::Open { .. } => None,
        };
        Ok(Ticket { generation: self.generation, probe })
    }

    /// Takes back a ticket with what came of it.
    pub(super) fn settle(
        &mut self,
        policy: &TripPolicy,
        ticket: Ticket,
        health: Health,
        random: &Randomness,
        now: Instant,
    ) {
        if ticket.generation != self.generation {
            return;
        }
        match &mut self.state {
            State::Closed { consecutive, window } => {
                let failed = match health {
                    Health::Good => false,
                    Health::Bad { .. } => true,
                    Health::Unknown => return,
                };
                *consecutive = if failed { *consecutive + 1 } else { 0 };
                window.record(failed, now);
                let (calls, failures) = window.totals(now);
                let by_ratio = calls >= u64::from(policy.min_calls) && failures as f64 >= policy.ratio * calls as f64;
                if failed && (*consecutive >= policy.consecutive || by_ratio) {
                    if now.saturating_duration_since(self.closed_at) >= HEALTHY {
                        self.streak = 0;
                    }
                    self.open(policy, health, random, now);
                }
            }
            State::HalfOpen { probes, successes } => {
                let held = probes.len();
                probes.retain(|probe| Some(probe.id) != ticket.probe);
                if probes.len() == held {
                    // Its lease ended, and another probe may have its place: too late to speak.
                    return;
                }
                match health {
                    Health::Unknown => {}
                    Health::Bad { .. } => self.open(policy, health, random, now),
                    Health::Good => {
                        *successes += 1;
                        if *successes >= policy.successes {
                            self.closed_at = now;
                            self.change(closed(policy, now));
                        }
                    }
                }
            }
            State::Open { .. } => {}
        }
    }

    fn open(&mut self, policy: &TripPolicy, health: Health, random: &Randomness, now: Instant) {
        let grown = policy.open.saturating_mul(1 << self.streak.min(16)).min(policy.open_cap);
        // Clients that opened together must not probe together; taking off keeps the cap.
        let jittered = grown.mul_f64(1.0 - random.unit() / 4.0);
        let asked = match health {
            Health::Bad { retry_after: Some(hint) } => hint.min(LONGEST_HINT),
            _ => Duration::ZERO,
        };
        self.streak = self.streak.saturating_add(1);
        self.change(State::Open { until: now + jittered.max(asked) });
    }

    fn change(&mut self, state: State) {
        self.state = state;
        self.generation += 1;
    }
}

fn closed(policy: &TripPolicy, now: Instant) -> State {
    State::Closed { consecutive: 0, window: Window::new(policy.window, now) }
}

fn limit(probes: u32) -> usize {
    usize::try_from(probes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const LEASE: Duration = Duration::from_secs(35);
    const BAD: Health = Health::Bad { retry_after: None };

    /// A machine with a clock that only moves when told to.
    struct Bench {
        machine: Machine,
        policy: TripPolicy,
        random: Randomness,
        now: Instant,
    }

    impl Bench {
        fn new(policy: TripPolicy) -> Self {
            let now = Instant::now();
            Self { machine: Machine::new(&policy, now), policy, random: Randomness::seeded(1), now }
        }

        fn pass(&mut self, time: Duration) -> &mut Self {
            self.now += time;
            self
        }

        fn admit(&mut self) -> Result<Ticket, Instant> {
            self.machine.admit(&self.policy, LEASE, self.now)
        }

        fn settle(&mut self, ticket: Ticket, health: Health) -> &mut Self {
            self.machine.settle(&self.policy, ticket, health, &self.random, self.now);
            self
        }

        fn call(&mut self, health: Health) -> &mut Self {
            let ticket = self.admit().unwrap();
            self.settle(ticket, health)
        }

        fn trip(&mut self) -> &mut Self {
            for _ in 0..self.policy.consecutive {
                self.call(BAD);
            }
            assert!(matches!(self.machine.state(), CircuitState::Open { .. }));
            self
        }

        fn opened() -> Self {
            let mut bench = Self::new(TripPolicy::DIDIT);
            bench.trip();
            bench
        }
    }

    #[test]
    fn it_opens_after_the_given_failures_in_a_row_and_not_before() {
        let mut bench = Bench::new(TripPolicy::DIDIT);
        for health in [BAD, BAD, BAD, BAD, Health::Good, BAD, BAD, BAD, BAD] {
            bench.call(health);
        }
        assert_eq!(bench.machine.state(), CircuitState::Closed);
        bench.call(BAD);
        assert!(matches!(bench.machine.state(), CircuitState::Open { .. }));
    }

    #[test]
    fn it_opens_at_the_failure_ratio_once_there_are_enough_calls() {
        let mut bench = Bench::new(TripPolicy::DIDIT);
        for _ in 0..9 {
            bench.call(Health::Good).call(BAD);
        }
        assert_eq!(bench.machine.state(), CircuitState::Closed, "18 calls are too few");
        bench.call(Health::Good).call(BAD);
        assert!(matches!(bench.machine.state(), CircuitState::Open { .. }));
    }

    #[test]
    fn after_a_million_good_calls_it_trips_as_soon_as_after_none() {
        let mut bench = Bench::new(TripPolicy::DIDIT);
        for _ in 0..1_000_000 {
            bench.call(Health::Good);
        }
        bench.pass(31 * SECOND).trip();
    }

    #[test]
    fn a_429_and_a_local_refusal_are_neither_good_nor_bad() {
        let throttled = Outcome::Refused { retry_after: None, reason: Refusal::Throttled { limit: None } };
        let held_back = Outcome::NotSent(NotSent::Local { retry_at: None });
        let mut bench = Bench::new(TripPolicy::DIDIT);
        for _ in 0..4 {
            bench.call(BAD);
        }
        bench.call(throttled.into()).call(held_back.into());
        assert_eq!(bench.machine.state(), CircuitState::Closed);
        bench.call(BAD);
        assert!(matches!(bench.machine.state(), CircuitState::Open { .. }), "and the row was not broken");
    }

    #[test]
    fn an_open_circuit_refuses_with_the_time_to_come_back_and_then_lets_one_probe_through() {
        let mut bench = Bench::opened();
        let until = bench.admit().unwrap_err();
        let open = until - bench.now;
        assert!(open > 7 * SECOND && open <= 10 * SECOND, "{open:?}");
        bench.now = until;
        let probe = bench.admit().unwrap();
        assert_eq!(bench.machine.state(), CircuitState::HalfOpen);
        assert!(bench.admit().is_err(), "one probe at a time");
        bench.settle(probe, Health::Good);
        assert_eq!(bench.machine.state(), CircuitState::Closed);
    }

    #[test]
    fn open_times_grow_to_the_cap_and_start_over_after_a_healthy_minute() {
        let mut bench = Bench::opened();
        let mut times = Vec::new();
        for _ in 0..4 {
            let until = bench.admit().unwrap_err();
            times.push((until - bench.now).as_secs_f64());
            bench.now = until;
            bench.call(BAD);
        }
        for (time, most) in times.iter().zip([10.0, 20.0, 30.0, 30.0]) {
            assert!((most * 0.75..=most).contains(time), "{times:?}");
        }
        bench.now = bench.admit().unwrap_err();
        bench.call(Health::Good).pass(HEALTHY);
        bench.trip();
        let again = bench.admit().unwrap_err() - bench.now;
        assert!(again <= 10 * SECOND, "{again:?}");
    }

    #[test]
    fn the_servers_hint_is_the_least_open_time() {
        let mut bench = Bench::new(TripPolicy::DIDIT.consecutive_failures(1).unwrap());
        bench.call(Health::Bad { retry_after: Some(45 * SECOND) });
        assert_eq!(bench.admit().unwrap_err() - bench.now, 45 * SECOND);
    }

    #[test]
    fn stale_success_does_not_close_the_circuit() {
        let mut bench = Bench::new(TripPolicy::DIDIT);
        let early = bench.admit().unwrap();
        bench.trip();
        bench.settle(early, Health::Good);
        assert!(matches!(bench.machine.state(), CircuitState::Open { .. }));
        bench.now = bench.admit().unwrap_err();
        let probe = bench.admit().unwrap();
        bench.settle(early, Health::Good);
        assert_eq!(bench.machine.state(), CircuitState::HalfOpen);
        bench.settle(probe, Health::Good);
        bench.settle(early, BAD);
        assert_eq!(bench.machine.state(), CircuitState::Closed);
    }

    #[test]
    fn a_dropped_probe_gives_its_place_back_at_once() {
        let mut bench = Bench::opened();
        bench.now = bench.admit().unwrap_err();
        let probe = bench.admit().unwrap();
        bench.settle(probe, Health::Unknown);
        assert!(bench.admit().is_ok());
    }

    #[test]
    fn a_hung_probe_loses_its_lease_and_cannot_speak_any_more() {
        let mut bench = Bench::opened();
        bench.now = bench.admit().unwrap_err();
        let hung = bench.admit().unwrap();
        assert!(bench.pass(LEASE - SECOND).admit().is_err());
        let next = bench.pass(SECOND).admit().unwrap();
        bench.settle(hung, BAD);
        assert_eq!(bench.machine.state(), CircuitState::HalfOpen);
        bench.settle(next, Health::Good);
        assert_eq!(bench.machine.state(), CircuitState::Closed);
    }

    #[test]
    fn a_policy_that_could_wedge_the_circuit_is_refused() {
        assert!(TripPolicy::DIDIT.consecutive_failures(0).is_err());
        assert!(TripPolicy::DIDIT.failure_ratio(0.0, 20, 30 * SECOND).is_err());
        assert!(TripPolicy::DIDIT.failure_ratio(f64::NAN, 20, 30 * SECOND).is_err());
        assert!(TripPolicy::DIDIT.failure_ratio(0.5, 0, 30 * SECOND).is_err());
        assert!(TripPolicy::DIDIT.failure_ratio(0.5, 20, Duration::ZERO).is_err());
        assert!(TripPolicy::DIDIT.open_for(20 * SECOND, 10 * SECOND).is_err());
        assert!(TripPolicy::DIDIT.open_for(Duration::ZERO, Duration::ZERO).is_err());
        assert!(TripPolicy::DIDIT.probes(0, 1).is_err());
        assert!(TripPolicy::DIDIT.probes(1, 0).is_err());
    }
}
