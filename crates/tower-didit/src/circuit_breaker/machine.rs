//! The state machine of one circuit: synchronous, told the time.
//!
//! ```text
//!             trip rule met                      open time over
//!   Closed ─────────────────▶ Open ───────────────────────────────▶ HalfOpen
//!     ▲                        ▲                                     │    │
//!     │                        └──────────── a probe failed ─────────┘    │
//!     └───────────────────────────────── enough probes succeeded ─────────┘
//! ```
//!
//! Besides, an operator may hold it open or closed, whatever comes back.
//!
//! Every admitted call holds a [`Ticket`] with the *generation* it was admitted in; every change of state begins a new
//! one. What comes back under an older generation changes nothing: neither a late success of last minute's circuit nor
//! a late failure speaks about the present.
//!
//! # What is shared, and how
//!
//! State and generation lie in one atomic word, the *gate*. While it says closed, admitting a call is one load, and a
//! success is one compare-and-swap in the [window](super::window). Everything else (a failure that may trip, an open or
//! half-open circuit, an operator) goes through one lock, and the gate is written under it alone. So whoever holds the
//! lock knows the state, and a ticket of the gate's generation is a ticket of that state.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use didit_api::ServiceGroup;
use tokio::time::Instant;

use super::{
    listeners::{Listeners, StateChange},
    policy::TripPolicy,
    window::{Totals, Window},
};
use crate::{
    outcome::{Classify, NotSent, Outcome, Refusal},
    random::Randomness,
    sync::{AtomicU64, Mutex, Ordering},
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

impl Health {
    /// What one attempt's result says.
    pub(super) fn of<C: Classify<E>, B, E>(classifier: &C, result: &Result<http::Response<B>, E>) -> Self {
        match result {
            // NOTE: an upload that is too large or breaks off is its sender's doing; others must not be shut out for it.
            Err(error) if classifier.is_own(error) => Self::Unknown,
            result => classifier.of(result).into(),
        }
    }
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
    admitted: Instant,
    // Which probe this is, if the circuit was half open.
    probe: Option<u64>,
}

impl Ticket {
    /// When its call was let through.
    pub(super) fn admitted(&self) -> Instant {
        self.admitted
    }
}

/// One circuit.
#[derive(Debug)]
pub(super) struct Machine {
    gate: AtomicU64,
    // The generation's failures in a row, in the lower half; the generation's lower half above them.
    row: AtomicU64,
    window: Window,
    guarded: Mutex<Guarded>,
    group: ServiceGroup,
    listeners: Arc<Listeners>,
}

/// What is read and written under the lock alone.
#[derive(Debug)]
struct Guarded {
    state: State,
    // How often in a row the circuit opened without holding in between.
    streak: u32,
    closed_at: Instant,
    next_probe: u64,
}

#[derive(Debug)]
enum State {
    Closed,
    Open { until: Instant },
    HalfOpen { probes: Vec<Probe>, successes: u32 },
    Forced(Forced),
}

#[derive(Debug)]
struct Probe {
    id: u64,
    // When it counts as lost.
    lease: Instant,
}

/// What an operator holds a circuit at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forced {
    Open,
    Closed,
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
    /// An operator holds it open: every call is refused.
    ForcedOpen,
    /// An operator holds it closed: every call passes, and nothing is counted.
    ForcedClosed,
}

impl CircuitState {
    /// The names of all states.
    pub const NAMES: [&'static str; 5] = ["closed", "half_open", "open", "forced_open", "forced_closed"];

    /// A short, stable name, used in metrics.
    pub fn name(self) -> &'static str {
        let [closed, half_open, open, forced_open, forced_closed] = Self::NAMES;
        match self {
            Self::Closed => closed,
            Self::HalfOpen => half_open,
            Self::Open { .. } => open,
            Self::ForcedOpen => forced_open,
            Self::ForcedClosed => forced_closed,
        }
    }
}

/// The mode bits of the gate; the generation lies above them.
const MODE: u64 = 0b11;
const CLOSED: u64 = 0;
const FORCED_CLOSED: u64 = 1;
const GUARDED: u64 = 2;

impl State {
    fn mode(&self) -> u64 {
        match self {
            Self::Closed => CLOSED,
            Self::Forced(Forced::Closed) => FORCED_CLOSED,
            Self::Open { .. } | Self::HalfOpen { .. } | Self::Forced(Forced::Open) => GUARDED,
        }
    }

    fn seen(&self) -> CircuitState {
        match self {
            Self::Closed => CircuitState::Closed,
            Self::Open { until } => CircuitState::Open { until: *until },
            Self::HalfOpen { .. } => CircuitState::HalfOpen,
            Self::Forced(Forced::Open) => CircuitState::ForcedOpen,
            Self::Forced(Forced::Closed) => CircuitState::ForcedClosed,
        }
    }
}

// ===== impl Machine =====

impl Machine {
    pub(super) fn new(policy: &TripPolicy, group: ServiceGroup, listeners: Arc<Listeners>, now: Instant) -> Self {
        Self {
            gate: AtomicU64::new(CLOSED),
            row: AtomicU64::new(0),
            window: Window::new(policy.window, now),
            guarded: Mutex::new(Guarded { state: State::Closed, streak: 0, closed_at: now, next_probe: 0 }),
            group,
            listeners,
        }
    }

    pub(super) fn state(&self) -> CircuitState {
        self.locked(|guarded| guarded.state.seen())
    }

    /// What the calls of the window came to, and the failures in a row.
    pub(super) fn totals(&self, now: Instant) -> (Totals, u32) {
        let generation = self.gate.load(Ordering::Acquire) >> 2;
        (self.window.totals(generation, now), self.row(generation))
    }

    /// Whether a call would be admitted now; if not, when to come back (`None`: when an operator says so).
    pub(super) fn peek(
        &self,
        policy: &TripPolicy,
        repeated: impl FnOnce() -> bool,
        now: Instant,
    ) -> Result<(), Option<Instant>> {
        match self.pass_closed(policy, repeated, now) {
            Some(passed) => passed.map(|_| ()).map_err(Some),
            None => self.locked(|guarded| guarded.peek(policy, now)),
        }
    }

    /// Admits a call, or says when to come back. `lease` is how long a probe may take before it counts as lost.
    pub(super) fn admit(
        &self,
        policy: &TripPolicy,
        repeated: impl FnOnce() -> bool,
        lease: Duration,
        now: Instant,
    ) -> Result<Ticket, Option<Instant>> {
        if let Some(passed) = self.pass_closed(policy, repeated, now) {
            return passed.map_err(Some);
        }
        self.locked(|guarded| {
            guarded.peek(policy, now)?;
            if let State::Open { .. } = guarded.state {
                self.change(guarded, State::HalfOpen { probes: Vec::new(), successes: 0 });
            }
            let probe = match &mut guarded.state {
                State::HalfOpen { probes, .. } => {
                    let id = guarded.next_probe;
                    guarded.next_probe += 1;
                    probes.retain(|probe| now < probe.lease);
                    probes.push(Probe { id, lease: now + lease });
                    Some(id)
                }
                State::Closed | State::Open { .. } | State::Forced(_) => None,
            };
            Ok(Ticket { generation: self.gate.load(Ordering::Relaxed) >> 2, admitted: now, probe })
        })
    }

    /// The way through a closed circuit: one load. `None` if it is not closed.
    fn pass_closed(
        &self,
        policy: &TripPolicy,
        repeated: impl FnOnce() -> bool,
        now: Instant,
    ) -> Option<Result<Ticket, Instant>> {
        let gate = self.gate.load(Ordering::Acquire);
        let generation = gate >> 2;
        match gate & MODE {
            CLOSED if policy.blocks_repeats() && repeated() && policy.blocks(self.window.totals(generation, now)) => {
                Some(Err(now + self.window.width()))
            }
            CLOSED | FORCED_CLOSED => Some(Ok(Ticket { generation, admitted: now, probe: None })),
            _ => None,
        }
    }

    /// Takes back a ticket with what came of it.
    pub(super) fn settle(
        &self,
        policy: &TripPolicy,
        ticket: Ticket,
        health: Health,
        random: &Randomness,
        now: Instant,
    ) {
        let gate = self.gate.load(Ordering::Acquire);
        if ticket.generation != gate >> 2 {
            return;
        }
        match gate & MODE {
            CLOSED => self.settle_closed(policy, ticket, health, random, now),
            GUARDED => self.locked(|guarded| {
                if ticket.generation == self.gate.load(Ordering::Relaxed) >> 2 {
                    self.settle_probe(guarded, policy, ticket, health, random, now);
                }
            }),
            _ => {}
        }
    }

    fn settle_closed(&self, policy: &TripPolicy, ticket: Ticket, health: Health, random: &Randomness, now: Instant) {
        let failed = match health {
            Health::Good => false,
            Health::Bad { .. } => true,
            Health::Unknown => return,
        };
        let Ticket { generation, admitted, .. } = ticket;
        let slow = policy.is_slow(|| now.saturating_duration_since(admitted));
        let row = self.count_row(generation, failed);
        self.window.record(generation, failed, slow, now);
        // Only what is bad can trip, so the usual call is done here.
        if !failed && !slow {
            return;
        }
        if policy.trips(row, self.window.totals(generation, now)) {
            self.locked(|guarded| {
                // Another call may have tripped it meanwhile: then this ticket is stale.
                if generation != self.gate.load(Ordering::Relaxed) >> 2 {
                    return;
                }
                if now.saturating_duration_since(guarded.closed_at) >= HEALTHY {
                    guarded.streak = 0;
                }
                self.open(guarded, policy, health, random, now);
            });
        }
    }

    fn settle_probe(
        &self,
        guarded: &mut Guarded,
        policy: &TripPolicy,
        ticket: Ticket,
        health: Health,
        random: &Randomness,
        now: Instant,
    ) {
        let State::HalfOpen { probes, successes } = &mut guarded.state else { return };
        let held = probes.len();
        probes.retain(|probe| Some(probe.id) != ticket.probe);
        if probes.len() == held {
            // Its lease ended, and another probe may have its place: too late to speak.
            return;
        }
        match health {
            Health::Unknown => {}
            Health::Bad { .. } => self.open(guarded, policy, health, random, now),
            Health::Good => {
                *successes += 1;
                if *successes >= policy.successes {
                    guarded.closed_at = now;
                    self.change(guarded, State::Closed);
                }
            }
        }
    }

    fn open(&self, guarded: &mut Guarded, policy: &TripPolicy, health: Health, random: &Randomness, now: Instant) {
        let grown = policy.open.saturating_mul(1 << guarded.streak.min(16)).min(policy.open_cap);
        // Clients that opened together must not probe together; taking off keeps the cap.
        let jittered = random.jittered(grown, 0.25);
        let asked = match health {
            Health::Bad { retry_after: Some(hint) } => hint.min(LONGEST_HINT),
            _ => Duration::ZERO,
        };
        guarded.streak = guarded.streak.saturating_add(1);
        self.change(guarded, State::Open { until: now + jittered.max(asked) });
    }

    /// Holds the circuit at a state until [`reset`](Self::reset).
    pub(super) fn force(&self, forced: Forced) {
        self.locked(|guarded| self.change(guarded, State::Forced(forced)));
    }

    /// Closes the circuit and forgets everything.
    pub(super) fn reset(&self, now: Instant) {
        self.locked(|guarded| {
            (guarded.streak, guarded.closed_at) = (0, now);
            self.change(guarded, State::Closed);
        });
    }

    /// Ends an open time early: the next call is a probe. False if the circuit is not open.
    pub(super) fn end_open(&self, now: Instant) -> bool {
        self.locked(|guarded| match &mut guarded.state {
            State::Open { until } if now < *until => {
                *until = now;
                true
            }
            _ => false,
        })
    }

    /// Begins a new generation. Called under the lock, which is what orders all writes of the gate.
    fn change(&self, guarded: &mut Guarded, state: State) {
        let generation = (self.gate.load(Ordering::Relaxed) >> 2) + 1;
        self.gate.store(generation << 2 | state.mode(), Ordering::Release);
        let (from, to) = (guarded.state.seen(), state.seen());
        guarded.state = state;
        self.listeners.note(StateChange { group: self.group, from, to });
    }

    /// The failures in a row, with this call's.
    fn count_row(&self, generation: u64, failed: bool) -> u32 {
        let fresh = generation << 32;
        let mut known = self.row.load(Ordering::Relaxed);
        // The usual case writes nothing: a success after a success.
        if !failed && known == fresh {
            return 0;
        }
        loop {
            let base = match (known >> 32).wrapping_sub(generation) & 0xffff_ffff {
                0 => known,
                // Of a newer generation: whoever comes that late is not heard.
                ahead if ahead < 0x8000_0000 => return 0,
                _ => fresh,
            };
            // A row as long as the half holds has tripped every policy long ago.
            let counted = if failed { fresh | u64::from(low(base).saturating_add(1)) } else { fresh };
            match self.row.compare_exchange_weak(known, counted, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return low(counted),
                Err(changed) => known = changed,
            }
        }
    }

    fn row(&self, generation: u64) -> u32 {
        let known = self.row.load(Ordering::Relaxed);
        if known >> 32 << 32 == generation << 32 { low(known) } else { 0 }
    }

    /// Works under the lock, then tells of what changed. A panic cannot leave it half changed: nothing in here calls out.
    fn locked<R>(&self, work: impl FnOnce(&mut Guarded) -> R) -> R {
        let result = work(&mut self.guarded.lock().unwrap_or_else(PoisonError::into_inner));
        self.listeners.tell();
        result
    }
}

fn low(word: u64) -> u32 {
    word as u32
}

impl Guarded {
    fn peek(&self, policy: &TripPolicy, now: Instant) -> Result<(), Option<Instant>> {
        match &self.state {
            State::Open { until } if now < *until => Err(Some(*until)),
            State::HalfOpen { probes, successes } => {
                let out = probes.iter().filter(|probe| now < probe.lease).count();
                // No more probes than can still be needed.
                let wanted = policy.probes.min(policy.successes.saturating_sub(*successes));
                if out < usize::try_from(wanted).unwrap_or(usize::MAX) {
                    Ok(())
                } else {
                    Err(Some(now + PROBE_RECHECK))
                }
            }
            State::Forced(Forced::Open) => Err(None),
            State::Closed | State::Open { .. } | State::Forced(Forced::Closed) => Ok(()),
        }
    }
}

#[cfg(test)]
#[cfg(not(interleavings))]
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
            Self {
                machine: Machine::new(&policy, ServiceGroup::Core, Arc::default(), now),
                policy,
                random: Randomness::seeded(1),
                now,
            }
        }

        fn pass(&mut self, time: Duration) -> &mut Self {
            self.now += time;
            self
        }

        fn admit(&mut self) -> Result<Ticket, Instant> {
            self.machine.admit(&self.policy, || false, LEASE, self.now).map_err(Option::unwrap)
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
            while self.machine.state() == CircuitState::Closed {
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

    impl Bench {
        /// Plays a sequence of events, and says in a letter what state it ends in.
        ///
        /// | event | meaning |
        /// |---|---|
        /// | `g` `b` `u` `s` | a call that is good, bad, says nothing (a 429), is good after 6 s |
        /// | `p` | a call is admitted and stays out |
        /// | `x` | a call is refused |
        /// | `G` `B` `U` | the call that is out the longest is good, bad, says nothing (it was dropped) |
        /// | `.` `>` `l` | a second passes; the open time; a lease |
        fn play(&mut self, events: &str) -> char {
            let mut out = std::collections::VecDeque::new();
            for event in events.chars() {
                match event {
                    'g' => drop(self.call(Health::Good)),
                    'b' => drop(self.call(BAD)),
                    'u' => drop(self.call(Health::Unknown)),
                    's' => {
                        let ticket = self.admit().unwrap();
                        self.pass(6 * SECOND).settle(ticket, Health::Good);
                    }
                    'p' => out.push_back(self.admit().unwrap()),
                    'x' => assert!(self.admit().is_err(), "{events}"),
                    'G' => drop(self.settle(out.pop_front().unwrap(), Health::Good)),
                    'B' => drop(self.settle(out.pop_front().unwrap(), BAD)),
                    'U' => drop(self.settle(out.pop_front().unwrap(), Health::Unknown)),
                    '.' => drop(self.pass(SECOND)),
                    '>' => self.now = self.admit().unwrap_err(),
                    'l' => drop(self.pass(LEASE)),
                    other => panic!("{other} is no event"),
                }
            }
            match self.machine.state() {
                CircuitState::Closed => 'C',
                CircuitState::Open { .. } => 'O',
                CircuitState::HalfOpen => 'H',
                CircuitState::ForcedOpen | CircuitState::ForcedClosed => 'F',
            }
        }
    }

    #[test]
    fn every_rule_turns_its_sequences_of_events_into_its_states() {
        let never = TripPolicy::DIDIT.consecutive_failures(1_000).unwrap();
        let row = TripPolicy::DIDIT.consecutive_failures(3).unwrap();
        let ratio = never.failure_ratio(0.5, 4, 10 * SECOND).unwrap();
        let slow = ratio.slow_call_ratio(0.5, 6 * SECOND).unwrap().failure_ratio(1.0, 4, 60 * SECOND).unwrap();
        let two_of_three = row.probes(2, 3).unwrap();
        let cases = [
            // Failures in a row.
            (row, "bb", 'C'),
            (row, "bbb", 'O'),
            (row, "bbgbb", 'C'),
            (row, "bubuuub", 'O'),
            (row, "bbbx", 'O'),
            // A share of the window: not before there are enough calls, and only what the window still holds.
            (ratio, "bbb", 'C'),
            (ratio, "bbbb", 'O'),
            (ratio, "gggbb", 'C'),
            (ratio, "gggbbb", 'O'),
            (ratio, "uuuubb", 'C'),
            (ratio, "bbb..........g", 'C'),
            (ratio, "gggg..........bbbb", 'O'),
            // A share of slow calls, good as they are.
            (slow, "ggs", 'C'),
            (slow, "gssg", 'C'),
            (slow, "ggss", 'O'),
            (slow, "gggs", 'C'),
            // Half open: one probe, whose word counts.
            (row, "bbb>p", 'H'),
            (row, "bbb>px", 'H'),
            (row, "bbb>pG", 'C'),
            (row, "bbb>pB", 'O'),
            (row, "bbb>pBx", 'O'),
            (row, "bbb>pGbb", 'C'),
            // A 429 is no success, and a dropped probe no loss: the next goes out at once.
            (row, "bbb>pUpx", 'H'),
            (row, "bbb>pUpG", 'C'),
            // A hung probe is replaced, and is not heard any more.
            (row, "bbb>plp", 'H'),
            (row, "bbb>plpB", 'H'),
            (row, "bbb>plpBG", 'C'),
            // Two probes at once, three successes: no more go out than are needed.
            (two_of_three, "bbb>ppx", 'H'),
            (two_of_three, "bbb>ppGG", 'H'),
            (two_of_three, "bbb>ppGGpx", 'H'),
            (two_of_three, "bbb>ppGGpG", 'C'),
            (two_of_three, "bbb>ppGB", 'O'),
            // What was admitted before the change speaks of the past.
            (row, "pbbbG", 'O'),
            (row, "pbbb>pG", 'H'),
            (row, "ppbbb>pBG", 'H'),
            (row, "pbbb>gB", 'C'),
        ];
        for (policy, events, state) in cases {
            assert_eq!(Bench::new(policy).play(events), state, "{events}");
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
        // And by the ratio alone, a hundred good calls a second until the last.
        let mut bench = Bench::new(TripPolicy::DIDIT.consecutive_failures(1_000).unwrap());
        for _ in 0..1_000_000 {
            bench.pass(SECOND / 100).call(Health::Good);
        }
        bench.pass(31 * SECOND);
        for _ in 0..20 {
            assert_eq!(bench.machine.state(), CircuitState::Closed);
            bench.call(BAD);
        }
        assert!(matches!(bench.machine.state(), CircuitState::Open { .. }));
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
