//! The machine beside a slow model of it, which keeps everything and works everything out anew; random traces have to
//! look the same to both.

use std::{sync::Arc, time::Duration};

use didit_api::ServiceGroup;
use tokio::time::Instant;

use super::{
    machine::{CircuitState, Forced, Health, Machine, Ticket},
    policy::TripPolicy,
};
use crate::random::Randomness;

const LEASE: Duration = Duration::from_secs(35);

/// A circuit as its documentation describes it, without a thought for speed.
struct Model {
    random: Randomness,
    began: Instant,
    state: Was,
    // Everything that came back, with the era it came back in.
    history: Vec<(u32, Duration, bool, bool)>,
    era: u32,
    opened_in_a_row: i32,
    closed_since: Instant,
}

enum Was {
    Closed,
    Open(Instant),
    HalfOpen { out: Vec<(u32, Instant)>, good: u32 },
    Forced(Forced),
}

/// A ticket of the model: the era, when it was given, and its number among all probes.
#[derive(Clone, Copy)]
struct Pass {
    era: u32,
    given: Instant,
    probe: Option<u32>,
}

/// The values of the policy under test, written down once more.
struct Values {
    row: usize,
    ratio: f64,
    enough: usize,
    slow: Duration,
    slow_ratio: f64,
    window: Duration,
    first: f64,
    cap: f64,
    at_once: usize,
    needed: u32,
}

const VALUES: Values = Values {
    row: 3,
    ratio: 0.5,
    enough: 8,
    slow: Duration::from_secs(6),
    slow_ratio: 0.75,
    window: Duration::from_secs(20),
    first: 5.0,
    cap: 18.0,
    at_once: 2,
    needed: 3,
};

fn policy() -> TripPolicy {
    let policy = TripPolicy::DIDIT.consecutive_failures(3).unwrap();
    let policy = policy.failure_ratio(0.5, 8, Duration::from_secs(20)).unwrap();
    let policy = policy.slow_call_ratio(0.75, Duration::from_secs(6)).unwrap();
    policy.open_for(Duration::from_secs(5), Duration::from_secs(18)).unwrap().probes(2, 3).unwrap()
}

impl Model {
    fn new(seed: u64, now: Instant) -> Self {
        let random = Randomness::seeded(seed);
        let state = Was::Closed;
        Self { random, began: now, state, history: Vec::new(), era: 0, opened_in_a_row: 0, closed_since: now }
    }

    fn seen(&self) -> CircuitState {
        match &self.state {
            Was::Closed => CircuitState::Closed,
            Was::Open(until) => CircuitState::Open { until: *until },
            Was::HalfOpen { .. } => CircuitState::HalfOpen,
            Was::Forced(Forced::Open) => CircuitState::ForcedOpen,
            Was::Forced(Forced::Closed) => CircuitState::ForcedClosed,
        }
    }

    fn turn(&mut self, state: Was) {
        self.state = state;
        self.era += 1;
    }

    fn admit(&mut self, number: u32, now: Instant) -> Option<Pass> {
        if matches!(self.state, Was::Open(until) if now >= until) {
            self.turn(Was::HalfOpen { out: Vec::new(), good: 0 });
        }
        let probe = match &mut self.state {
            Was::Closed | Was::Forced(Forced::Closed) => None,
            Was::Open(_) | Was::Forced(Forced::Open) => return None,
            Was::HalfOpen { out, good } => {
                out.retain(|(_, lost)| now < *lost);
                if out.len() >= VALUES.at_once.min((VALUES.needed - *good) as usize) {
                    return None;
                }
                out.push((number, now + LEASE));
                Some(number)
            }
        };
        Some(Pass { era: self.era, given: now, probe })
    }

    fn settle(&mut self, pass: Pass, health: Health, now: Instant) {
        if pass.era != self.era {
            return;
        }
        match &mut self.state {
            Was::Closed => {
                if health == Health::Unknown {
                    return;
                }
                let (bad, slow) = (health != Health::Good, now - pass.given >= VALUES.slow);
                self.history.push((self.era, now - self.began, bad, slow));
                if (bad || slow) && self.is_too_much(now) {
                    if now - self.closed_since >= Duration::from_secs(60) {
                        self.opened_in_a_row = 0;
                    }
                    self.trip(health, now);
                }
            }
            Was::HalfOpen { out, good } => {
                // Whoever was not replaced may speak, however late.
                let Some(place) = out.iter().position(|(number, _)| Some(*number) == pass.probe) else { return };
                out.remove(place);
                match health {
                    Health::Good => {
                        *good += 1;
                        if *good == VALUES.needed {
                            self.closed_since = now;
                            self.turn(Was::Closed);
                        }
                    }
                    Health::Bad { .. } => self.trip(health, now),
                    Health::Unknown => {}
                }
            }
            Was::Open(_) | Was::Forced(_) => {}
        }
    }

    fn is_too_much(&self, now: Instant) -> bool {
        let mine: Vec<_> = self.history.iter().filter(|(era, ..)| *era == self.era).collect();
        let row = mine.iter().rev().take_while(|(_, _, bad, _)| *bad).count();
        // A tenth of the window is forgotten at a time.
        let tenth = |time: Duration| time.as_nanos() / (VALUES.window.as_nanos() / 10);
        let recent: Vec<_> = mine.iter().filter(|(_, time, ..)| tenth(now - self.began) - tenth(*time) < 10).collect();
        let share = |count: usize| count as f64 / recent.len() as f64;
        let bad = share(recent.iter().filter(|(_, _, bad, _)| *bad).count());
        let slow = share(recent.iter().filter(|(_, _, _, slow)| *slow).count());
        row >= VALUES.row || recent.len() >= VALUES.enough && (bad >= VALUES.ratio || slow >= VALUES.slow_ratio)
    }

    fn trip(&mut self, health: Health, now: Instant) {
        let grown = (VALUES.first * 2_f64.powi(self.opened_in_a_row)).min(VALUES.cap);
        let wait = self.random.jittered(Duration::from_secs_f64(grown), 0.25);
        let asked = match health {
            Health::Bad { retry_after: Some(asked) } => asked.min(Duration::from_secs(300)),
            _ => Duration::ZERO,
        };
        self.opened_in_a_row += 1;
        self.turn(Was::Open(now + wait.max(asked)));
    }
}

/// One random trace, step by step through both.
fn trace(seed: u64) -> Vec<&'static str> {
    let (dice, mut now) = (Randomness::seeded(seed ^ 0x5eed), Instant::now());
    let policy = policy();
    let machine = Machine::new(&policy, ServiceGroup::Core, Arc::default(), now);
    let (mut model, random) = (Model::new(seed, now), Randomness::seeded(seed));
    let mut out: Vec<(Ticket, Pass)> = Vec::new();
    let mut seen = Vec::new();
    // Some traces are of a service that mostly works, some of one that mostly does not.
    let failing = 0.2 + 0.8 * dice.unit();
    for number in 0..100 {
        now += match dice.bits() % 10 {
            0 => Duration::from_secs(20).mul_f64(dice.unit()),
            1 => Duration::from_secs(90).mul_f64(dice.unit()),
            _ => Duration::from_secs(1).mul_f64(dice.unit()),
        };
        match dice.bits() % 200 {
            0 => {
                machine.force(Forced::Open);
                model.turn(Was::Forced(Forced::Open));
            }
            1 => {
                machine.force(Forced::Closed);
                model.turn(Was::Forced(Forced::Closed));
            }
            2..=4 => {
                machine.reset(now);
                (model.opened_in_a_row, model.closed_since) = (0, now);
                model.turn(Was::Closed);
            }
            step if step % 2 == 0 || out.is_empty() => {
                let (ticket, pass) = (machine.admit(&policy, || false, LEASE, now), model.admit(number, now));
                assert_eq!(ticket.is_ok(), pass.is_some(), "seed {seed}, step {number}: {:?}", model.seen());
                out.extend(ticket.ok().zip(pass));
            }
            _ => {
                let index = usize::try_from(dice.bits() % out.len() as u64).unwrap();
                let (ticket, pass) = out.swap_remove(index);
                let health = match dice.unit() {
                    chance if chance < 0.1 => Health::Unknown,
                    chance if chance < 0.12 => Health::Bad { retry_after: Some(Duration::from_secs(40)) },
                    _ if dice.unit() < failing => Health::Bad { retry_after: None },
                    _ => Health::Good,
                };
                machine.settle(&policy, ticket, health, &random, now);
                model.settle(pass, health, now);
            }
        }
        assert_eq!(machine.state(), model.seen(), "seed {seed}, step {number}");
        seen.push(match machine.state() {
            CircuitState::Closed => "closed",
            CircuitState::Open { .. } => "open",
            CircuitState::HalfOpen => "half open",
            CircuitState::ForcedOpen => "forced open",
            CircuitState::ForcedClosed => "forced closed",
        });
    }
    seen
}

#[test]
fn ten_thousand_random_traces_look_the_same_to_the_machine_and_to_its_model() {
    let mut states = std::collections::BTreeMap::new();
    for seed in 0..10_000 {
        for state in trace(seed) {
            *states.entry(state).or_insert(0) += 1;
        }
    }
    // The traces visited every state often enough to mean something.
    assert!(states.len() == 5 && states.values().all(|visits| *visits > 5_000), "{states:?}");
}
