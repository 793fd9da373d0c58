//! When a call will start, worked out by playing the ledger's own rules into the future.
//!
//! # What is known and what is assumed
//!
//! Slots that cool down become free at known instants. An attempt in flight is assumed to be answered when it has taken as
//! long as others in its scope of late, or at once if it already has, and so is every attempt that will be made. A start
//! that hangs on them is later than foretold only by as much as the network is slower than it was: milliseconds or
//! seconds, where a slot is held for a minute. Over several scopes it may also change who goes first, and so, rarely, cost
//! another a window. Calls that come later and go first, of a higher priority, or because they need less, are not known; whom
//! they cost their last chance is told as soon as they are. And as the network may be faster, too, a call may be refused that
//! would have been just in time.
//!
//! # What it costs
//!
//! The play follows [`MOST_STARTS`] calls at the most, whoever waits, and fewer where there are many queues to choose from;
//! from there on every scope goes on as a wheel that turns once per round, which only those are counted on who start before
//! the newcomer whatever happens. So a call that is in time as the network goes is not refused at the door; one that is let
//! in and may be late is [looked at](Ledger::doomed) soon. In the common case it is not even begun: one scope, served in
//! order, is such a wheel from the first turn, and a bound that needs no more than the lengths of the queues says that a
//! patient call is in time.

use std::{collections::VecDeque, time::Duration};

use didit_api::{ScopeId, ScopeSet};
use tokio::time::Instant;

use super::{
    Ledger, Need, Refusal,
    queue::{Class, Latest, Queues, Rank, WaiterId},
    scope::{Held, Landing, Scope},
};
use crate::{call::Priority, pacing::shape::Shape};

/// How many starts are played: three windows of Didit's limits, but for the widest.
const MOST_STARTS: usize = 1_024;

/// How often a queue is looked at for that, all queues taken together; at some ten nanoseconds each.
const MOST_LOOKS: usize = 3_072;

/// What attempts in a scope have taken of late: all but the slowest tenth took no longer.
///
/// Of each [`BLOCK`](Self::BLOCK) of answers the fourth slowest counts, so that one that hangs says nothing about others.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RoundTrips {
    // The slowest of the running block, in falling order, and how many answers it has.
    slowest: [Duration; 4],
    seen: u8,
    // What the last full block came to.
    last: Option<Duration>,
}

/// A scope's slots, played into the future.
#[derive(Debug)]
struct Track<'a> {
    held: &'a Held,
    landing: Landing,
    cap: usize,
    used: usize,
    // How many of `held` were released.
    passed: usize,
    // When slots that were taken in the play become free.
    again: VecDeque<Instant>,
    ready_at: Instant,
}

/// A scope, played into the future.
#[derive(Debug)]
struct Gate<'a> {
    all: Track<'a>,
    low: Track<'a>,
    paused_until: Instant,
    shape: Option<Shape>,
    spread: Option<(Shape, Instant)>,
    // From one start to when its slot is free again.
    round: Duration,
    // When there is room for a call, and for one of low priority.
    ready: [Instant; 2],
}

/// A queue, played into the future.
#[derive(Debug)]
struct Lane {
    class: Class,
    next: u32,
    left: usize,
    // Who is at `next`, as far as it is asked for at every start.
    since: Instant,
    number: u64,
}

/// The play.
#[derive(Debug)]
struct Play<'a> {
    ledger: &'a Ledger,
    gates: Vec<Option<Gate<'a>>>,
    lanes: Vec<Lane>,
    // A call that would join the end of a queue.
    newcomer: Option<Class>,
    now: Instant,
    at: Instant,
}

/// One start of the play.
#[derive(Clone, Copy, Debug)]
struct Start {
    // `None` for the newcomer.
    waiter: Option<WaiterId>,
    at: Instant,
    // The last scope to have a slot.
    scope: ScopeId,
    // What it comes too late for.
    late: Option<Latest>,
}

/// When a newcomer to a queue will start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Foretold {
    pub(super) at: Instant,
    /// The scope that makes it wait.
    pub(super) scope: ScopeId,
    /// Whether it was worked out to the end; otherwise the start may be later, but not earlier.
    pub(super) exact: bool,
}

/// Who starts first: whoever can first, then by rank, then by age.
type Order = (Instant, Rank, u64);

// ===== impl RoundTrips =====

impl RoundTrips {
    /// What an attempt is assumed to take before some were answered.
    const FIRST_GUESS: Duration = Duration::from_secs(1);

    pub(super) const BLOCK: u8 = 32;

    /// An attempt was answered; true if it took longer than was assumed.
    pub(super) fn saw(&mut self, took: Duration) -> bool {
        let longer = took > self.typical();
        if took > self.slowest[3] {
            let place = self.slowest.partition_point(|known| *known >= took);
            self.slowest[place..].rotate_right(1);
            self.slowest[place] = took;
        }
        self.seen += 1;
        if self.seen == Self::BLOCK {
            *self = Self { last: Some(self.slowest[3]), ..Self::default() };
        }
        longer
    }

    pub(super) fn typical(&self) -> Duration {
        let fourth = (usize::from(self.seen) >= self.slowest.len()).then_some(self.slowest[3]);
        // Of fewer than four it is the fastest, if that is faster than the guess.
        let fastest = || self.slowest.iter().take(self.seen.into()).min().copied();
        let guess = || fastest().map_or(Self::FIRST_GUESS, |fastest| fastest.min(Self::FIRST_GUESS));
        fourth.max(self.last).unwrap_or_else(guess)
    }
}

// ===== impl Track =====

impl<'a> Track<'a> {
    fn new(held: &'a Held, cap: usize, landing: Landing, now: Instant) -> Self {
        let used = held.used();
        // All that are in excess have to be released first: what comes before the last of them need not be looked at.
        let surplus = used.saturating_sub(cap);
        let again = VecDeque::new();
        let mut track = Self { held, landing, cap, used: used - surplus, passed: surplus, again, ready_at: now };
        track.settle();
        track
    }

    /// Waits until there is room.
    fn settle(&mut self) {
        while self.used >= self.cap {
            let known = self.held.release(self.passed, self.landing);
            let again = self.again.front().copied();
            let free = match (known, again) {
                (Some(known), Some(again)) if again < known => self.again.pop_front(),
                (None, _) => self.again.pop_front(),
                (known, _) => {
                    self.passed += 1;
                    known
                }
            };
            let Some(free) = free else { return };
            self.used -= 1;
            self.ready_at = self.ready_at.max(free);
        }
    }

    fn take(&mut self, free_again: Instant) {
        self.used += 1;
        self.again.push_back(free_again);
        self.settle();
    }

    /// The start of the call after `ahead` others, each of which holds its slot for `round`: all slots come round as on a
    /// wheel.
    fn start_of(&self, ahead: usize, round: Duration) -> Instant {
        let turns = u32::try_from(ahead / self.cap).unwrap_or(u32::MAX);
        let place = ahead % self.cap;
        let free = self.cap - self.used.min(self.cap);
        let first = match place.checked_sub(free) {
            None => self.ready_at,
            Some(n) => self.release(n).unwrap_or(self.ready_at),
        };
        first.max(self.ready_at) + round.saturating_mul(turns)
    }

    /// When the slot that becomes free as the `n`-th from here on does.
    fn release(&self, n: usize) -> Option<Instant> {
        let (mut known, mut again) = (self.passed, 0);
        for _ in 0..n {
            match (self.held.release(known, self.landing), self.again.get(again)) {
                (Some(one), Some(other)) if *other < one => again += 1,
                (None, _) => again += 1,
                _ => known += 1,
            }
        }
        let known = self.held.release(known, self.landing);
        known.into_iter().chain(self.again.get(again).copied()).min()
    }
}

// ===== impl Gate =====

impl<'a> Gate<'a> {
    fn new(scope: &'a Scope, ledger: &Ledger, now: Instant) -> Self {
        let (round, landing) = (scope.round(), scope.landing(now));
        let track = |held, low| Track::new(held, scope.cap(low, &ledger.rules), landing, now);
        let mut gate = Self {
            all: track(&scope.all, false),
            low: track(&scope.low, true),
            paused_until: scope.paused_until.unwrap_or(now),
            shape: scope.shape,
            spread: scope.spread,
            round,
            ready: [now; 2],
        };
        gate.settle();
        gate
    }

    fn settle(&mut self) {
        let held = self.all.ready_at.max(self.paused_until);
        let shaped = self.shape.as_ref().map_or(held, |shape| shape.ready_at(held));
        let spread = self.spread.as_ref().map_or(held, |(shape, until)| shape.ready_at(held).min(*until));
        let ready = held.max(shaped).max(spread);
        self.ready = [ready, ready.max(self.low.ready_at)];
    }

    fn ready_at(&self, low: bool) -> Instant {
        self.ready[usize::from(low)]
    }

    fn take(&mut self, low: bool, at: Instant) {
        self.all.take(at + self.round);
        if low {
            self.low.take(at + self.round);
        }
        if let Some(shape) = &mut self.shape {
            shape.pass(at);
        }
        if let Some((shape, _)) = &mut self.spread {
            shape.pass(at);
        }
        self.settle();
    }

    /// The start of the call after `ahead` others.
    fn start_of(&self, low: bool, ahead: usize, now: Instant) -> Instant {
        let mut start = self.all.start_of(ahead, self.round).max(self.paused_until);
        if low {
            start = start.max(self.low.start_of(ahead, self.round));
        }
        self.shape.iter().fold(start, |start, shape| start.max(shape.start_of(ahead, now)))
    }
}

// ===== impl Lane =====

impl Lane {
    fn new(class: Class, queues: &Queues) -> Option<Self> {
        let head = queues.at(class.first())?;
        Some(Self { class, next: class.first(), left: class.waiting, since: head.since, number: head.number })
    }

    /// Goes on to the one behind.
    fn step(&mut self, queues: &Queues) {
        self.next = queues.behind(self.next);
        self.left -= 1;
        match queues.at(self.next) {
            Some(head) => (self.since, self.number) = (head.since, head.number),
            None => self.left = 0,
        }
    }
}

// ===== impl Play =====

impl<'a> Play<'a> {
    fn new(ledger: &'a Ledger, newcomer: Option<Class>, now: Instant) -> Self {
        let mut gates: Vec<_> = ledger.scopes.iter().map(|_| None).collect();
        let queues = &ledger.queues;
        let lanes: Vec<_> = queues.busy().filter_map(|(_, class)| Lane::new(*class, queues)).collect();
        let sets = queues.busy().map(|(_, class)| class.set).chain(newcomer.map(|class| class.set));
        for id in sets.flat_map(ScopeSet::iter) {
            let gate = &mut gates[id.index()];
            if gate.is_none() {
                *gate = Some(Gate::new(&ledger.scopes[id.index()], ledger, now));
            }
        }
        Self { ledger, gates, lanes, newcomer, now, at: now }
    }

    /// When every scope has room for a call, and the last of them.
    fn ready_at(&self, need: Need) -> Option<(Instant, ScopeId)> {
        let mut last: Option<(Instant, ScopeId)> = None;
        // A plain loop, because nothing else is gone through as often.
        for id in need.set.iter() {
            let Some(gate) = &self.gates[id.index()] else { continue };
            let ready = gate.ready_at(need.low);
            if last.is_none_or(|(known, _)| known <= ready) {
                last = Some((ready, id));
            }
        }
        last
    }

    /// The next call to start, as [`Ledger::serve`] would choose it.
    fn next(&mut self) -> Option<Start> {
        let patience = self.ledger.rules.patience;
        let mut best: Option<(Order, Option<usize>, ScopeId)> = None;
        for (index, lane) in self.lanes.iter().enumerate() {
            if lane.left == 0 {
                continue;
            }
            let Some((ready, scope)) = self.ready_at(lane.class.need()) else { continue };
            let at = ready.max(self.at);
            let order = (at, lane.class.rank(lane.since, patience, at), lane.number);
            if best.as_ref().is_none_or(|(known, ..)| order < *known) {
                best = Some((order, Some(index), scope));
            }
        }
        if let Some(class) = &self.newcomer
            && let Some((ready, scope)) = self.ready_at(class.need())
        {
            let at = ready.max(self.at);
            let order = (at, class.rank(self.now, patience, at), u64::MAX);
            if best.as_ref().is_none_or(|(known, ..)| order < *known) {
                best = Some((order, None, scope));
            }
        }
        let ((at, ..), lane, scope) = best?;
        self.at = at;
        let Some(lane) = lane else {
            self.newcomer = None;
            return Some(Start { waiter: None, at, scope, late: None });
        };
        let lane = &mut self.lanes[lane];
        let (index, class) = (lane.next, lane.class);
        let head = self.ledger.queues.at(index)?;
        lane.step(&self.ledger.queues);
        let late = head.latest.filter(|latest| latest.at < at);
        if late.is_none() {
            let Need { set, low } = class.need();
            for id in set.iter() {
                if let Some(gate) = &mut self.gates[id.index()] {
                    gate.take(low, at);
                }
            }
        }
        let waiter = Some(WaiterId { index, number: head.number });
        Some(Start { waiter, at, scope, late })
    }

    /// When the newcomer starts if every scope goes on as it is, or earlier than that.
    ///
    /// Whoever goes before it and needs nothing else does start before it. Whoever needs more may be held up where it is
    /// not, and is left out: how often such calls are overtaken is not known without playing on.
    fn extrapolate(&self, newcomer: &Class) -> Option<(Instant, ScopeId)> {
        let (Need { set, low }, rules) = (newcomer.need(), &self.ledger.rules);
        let rank = |class: &Class| class.rank(self.now, rules.patience, self.at);
        let scope = |id: ScopeId| &self.ledger.scopes[id.index()];
        let reserved = set.iter().any(|id| scope(id).cap(true, rules) < scope(id).cap(false, rules));
        let needs_no_more = |class: &Class| {
            class.set.iter().all(|id| set.contains(id)) && (low || !reserved || class.priority != Priority::Low)
        };
        let start = |id: ScopeId| {
            let before = |lane: &&Lane| {
                let class = &lane.class;
                class.set.contains(id) && needs_no_more(class) && rank(class) <= rank(newcomer)
            };
            let ahead = self.lanes.iter().filter(before).map(|lane| lane.left).sum();
            Some((self.gates[id.index()].as_ref()?.start_of(low, ahead, self.at), id))
        };
        set.iter().filter_map(start).max_by_key(|(start, _)| *start)
    }
}

// ===== impl Ledger =====

impl Ledger {
    /// When a newcomer to a queue will start.
    pub(super) fn foretell(&self, class: Class, now: Instant) -> Option<Foretold> {
        let mut play = Play::new(self, Some(class), now);
        // One scope alone is a wheel from the first turn. Several are too, for as long as nobody waits for a second turn.
        let scopes = || class.set.iter().map(|id| &self.scopes[id.index()]);
        let alone =
            scopes().all(|scope| scope.waiting == class.waiting && scope.shape.is_none() && scope.spread.is_none());
        let need = class.need();
        let constraints = class.set.iter().count() * if need.low { 2 } else { 1 };
        let first_turn = scopes().all(|scope| class.waiting < scope.cap(need.low, &self.rules));
        let exact = alone && (constraints == 1 || first_turn);
        if !exact {
            for _ in 0..MOST_STARTS.min(MOST_LOOKS / play.lanes.len().max(1)) {
                let start = play.next()?;
                if start.waiter.is_none() {
                    return Some(Foretold { at: start.at, scope: start.scope, exact: true });
                }
            }
        }
        play.extrapolate(&class).map(|(at, scope)| Foretold { at, scope, exact })
    }

    /// An instant at which a newcomer has started for certain, if nobody comes who goes before it.
    ///
    /// Once all slots that are held now are free, it waits only while one of its scopes is full. Each of those who wait
    /// for a scope holds one of its slots for a round, so it can be full for no longer than that, divided by its slots;
    /// and its shape can be closed for no longer than their intervals.
    pub(super) fn surely_started(&self, need: Need, now: Instant) -> Instant {
        let mut free = now;
        let mut full = Duration::ZERO;
        for id in need.set.iter() {
            let scope = &self.scopes[id.index()];
            let (round, landing) = (scope.round(), scope.landing(now));
            free = free.max(scope.all.in_flight.back().map_or(now, |taken| landing.of(*taken)));
            free = free.max(scope.all.cooling.back().copied().unwrap_or(now));
            free = free.max(scope.paused_until.unwrap_or(now));
            free = free.max(scope.spread.as_ref().map_or(now, |(_, until)| *until));
            free = free.max(scope.shape.as_ref().map_or(now, |shape| shape.start_of(0, now)));
            full += scope.shape.as_ref().map_or(Duration::ZERO, |shape| shape.span_of(scope.waiting));
            let share = |cap: usize| round.mul_f64(scope.waiting as f64 / cap as f64);
            full += share(scope.cap(false, &self.rules));
            if need.low {
                full += share(scope.cap(true, &self.rules));
            }
        }
        free + full
    }

    /// When the next of those who wait for a scope starts: then there is room in its queue.
    pub(super) fn next_start(&self, scope: ScopeId, now: Instant) -> Instant {
        let play = Play::new(self, None, now);
        let queues = self.queues.busy().filter(|(_, class)| class.set.contains(scope));
        let starts = queues.filter_map(|(_, class)| play.ready_at(class.need()));
        starts.map(|(start, _)| start).min().unwrap_or(now)
    }

    /// Everybody who would be served only when it is of no more use.
    pub(super) fn doomed(&self, now: Instant) -> Vec<(WaiterId, Refusal)> {
        let mut play = Play::new(self, None, now);
        let mut doomed = Vec::new();
        while let Some(start) = play.next() {
            if let (Some(waiter), Some(latest)) = (start.waiter, start.late) {
                doomed.push((waiter, Refusal { scope: start.scope, retry_at: start.at, why: latest.why() }));
            }
        }
        doomed
    }
}
