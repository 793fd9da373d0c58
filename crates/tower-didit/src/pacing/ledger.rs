//! The ledger: which slots of which scopes are taken, until when, and who waits for one.
//!
//! Pure and synchronous: every method is told the time.
//!
//! # Why a slot outlives its request
//!
//! The server refuses a request that arrives at `t` if it counted `L` arrivals in `(t − W, t]`. The client sees neither
//! the arrival nor the server's clock; it sees when it sent (`s`) and when the response came (`r`), and the arrival `a`
//! lies in between: `s ≤ a ≤ r`. A slot is taken at `s` and becomes free at `r + W + ε`. So for every arrival in a server
//! window, `a ∈ (t − W, t]`: it was sent before `t` ended (`s ≤ a ≤ t`), and its slot is free only after
//! `r + W + ε > a + W > t − W + W = t`. Its slot is held at `t`. At most `L` slots are ever held, so no server window ever
//! holds more than `L` arrivals, however the network delays or reorders. The price is a goodput of `L·W / (W + RTT + ε)`.
//!
//! Two things could break `a ≤ r`. An attempt that was given up may still be on its way: its slot is held `D` longer, the
//! bound on how long bytes linger in transit. And the server's clock may be coarse: one that keeps whole seconds holds an
//! entry up to a second longer than `W`, which is what `ε` is for.

use std::{collections::VecDeque, num::NonZeroU32, task::Waker, time::Duration};

use didit_api::{Limits, ScopeId, ScopeSet};
use tokio::time::Instant;

use super::shape::Shape;

/// How the slots of an attempt become free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Release {
    /// It was never sent: at once.
    Unsent,
    /// Its response is here: `W + ε` from now.
    Answered,
    /// It may still arrive: `D + W + ε` from now.
    Lost,
}

/// One of the queues, for the calls that need the same scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClassId(usize);

/// A call in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WaiterId {
    class: ClassId,
    number: u64,
}

/// What came of asking for slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// They are taken.
    Granted,
    /// The call stands in a queue, and will not be served before this instant.
    Queued { waiter: WaiterId, earliest: Instant },
    /// It would not be served before this instant, which is after its deadline: it holds nothing.
    TooLate { scope: ScopeId, earliest: Instant },
}

/// What a waiter learns when it looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It has its slots.
    Granted,
    /// It must look again at this instant, unless it is woken before.
    Waiting { look_again: Instant },
}

/// How long after its predicted start a waiter looks by itself. It is usually woken before that by the one ahead of it;
/// but that one's task may not be polling it (a stream that is not being read, a branch of a `select!`), and must not
/// hold up everybody behind it.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Ledger {
    scopes: Vec<Scope>,
    classes: Vec<Class>,
    next_number: u64,
    transit: Duration,
}

#[derive(Debug)]
struct Scope {
    limit: u32,
    // W + ε.
    hold: Duration,
    in_flight: u32,
    // When slots of answered attempts become free, in order.
    cooling: VecDeque<Instant>,
    paused_until: Option<Instant>,
    shape: Option<Shape>,
}

/// The calls that need the same scopes: strictly first come, first served.
#[derive(Debug)]
struct Class {
    set: ScopeSet,
    queue: VecDeque<Waiter>,
    // How many of the queue's entries were not given up.
    waiting: usize,
    // Scopes whose shape already let the first of the queue pass.
    shaped: ScopeSet,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    // `None` until it looked for the first time.
    waker: Option<Waker>,
    given_up: bool,
}

// ===== impl Ledger =====

impl Ledger {
    pub(super) fn new(
        limits: &Limits,
        epsilon: Duration,
        transit: Duration,
        burst: Option<NonZeroU32>,
        now: Instant,
    ) -> Self {
        let scopes = limits.scopes().iter().map(|scope| {
            let hold = scope.window() + epsilon;
            Scope {
                limit: scope.limit().get(),
                hold,
                in_flight: 0,
                cooling: VecDeque::new(),
                paused_until: None,
                shape: burst.map(|burst| Shape::new(scope.limit(), hold, burst, now)),
            }
        });
        Self { scopes: scopes.collect(), classes: Vec::new(), next_number: 0, transit }
    }

    /// Takes a slot of every scope in the set, all or none, or joins the queue for them.
    ///
    /// Whoever is granted must [`release`](Self::release) them; whoever is queued must [`look`](Self::look) until
    /// granted, or [`give_up`](Self::give_up).
    pub(super) fn ask(&mut self, set: ScopeSet, deadline: Option<Instant>, now: Instant, wake: &mut Wakers) -> Asked {
        let class = self.class(set);
        self.dispatch(now, wake);
        if self.classes[class.0].waiting == 0 && self.try_take(class, now) {
            return Asked::Granted;
        }
        let (earliest, scope) = self.predict(class, self.classes[class.0].waiting, now);
        if let (Some(deadline), Some(scope)) = (deadline, scope)
            && earliest > deadline
        {
            return Asked::TooLate { scope, earliest };
        }
        let number = self.next_number;
        self.next_number += 1;
        let queue = &mut self.classes[class.0];
        queue.queue.push_back(Waiter { number, waker: None, given_up: false });
        queue.waiting += 1;
        Asked::Queued { waiter: WaiterId { class, number }, earliest }
    }

    /// Looks whether a waiter's turn has come.
    pub(super) fn look(&mut self, waiter: WaiterId, waker: &Waker, now: Instant, wake: &mut Wakers) -> Turn {
        self.dispatch(now, wake);
        // Queues are served strictly in order: who is not in it any more was served.
        let Some(index) = self.classes[waiter.class.0].position(waiter.number) else { return Turn::Granted };
        let look_again = match index {
            0 => self.next_look(waiter.class, now),
            ahead => self.predict(waiter.class, ahead, now).0 + PATIENCE,
        };
        if let Some(entry) = self.classes[waiter.class.0].queue.get_mut(index)
            && !entry.waker.as_ref().is_some_and(|known| known.will_wake(waker))
        {
            wake.retire(entry.waker.replace(waker.clone()));
        }
        Turn::Waiting { look_again }
    }

    /// Leaves a queue. True if the waiter had its slots already, which must then be released.
    pub(super) fn give_up(&mut self, waiter: WaiterId, now: Instant, wake: &mut Wakers) -> bool {
        let class = &mut self.classes[waiter.class.0];
        let Some(index) = class.position(waiter.number) else { return true };
        if let Some(entry) = class.queue.get_mut(index) {
            entry.given_up = true;
            wake.retire(entry.waker.take());
        }
        class.waiting -= 1;
        if class.drop_given_up() {
            class.wake_first(wake);
        }
        self.dispatch(now, wake);
        false
    }

    /// Gives the slots of an attempt back.
    pub(super) fn release(&mut self, set: ScopeSet, how: Release, now: Instant, wake: &mut Wakers) {
        let lingering = if how == Release::Lost { self.transit } else { Duration::ZERO };
        for id in set.iter() {
            let scope = &mut self.scopes[id.index()];
            scope.in_flight = scope.in_flight.saturating_sub(1);
            if how != Release::Unsent {
                scope.cool(now + lingering + scope.hold);
            }
        }
        if how == Release::Unsent {
            self.dispatch(now, wake);
        }
    }

    /// Lets nothing through the scope that refused a request for as long as the server asks: the one whose limit the server
    /// named, otherwise the narrowest. A window that is full now is empty when it has passed, so a pause never takes longer
    /// than that, whatever is asked; returns the scope and how long it pauses.
    pub(super) fn pause(
        &mut self,
        set: ScopeSet,
        limit: Option<u32>,
        wait: Duration,
        now: Instant,
    ) -> Option<(ScopeId, Duration)> {
        let named = limit.and_then(|limit| set.iter().find(|id| self.scopes[id.index()].limit == limit));
        let paused = named.or_else(|| set.iter().min_by_key(|id| self.scopes[id.index()].limit))?;
        let scope = &mut self.scopes[paused.index()];
        let wait = wait.min(scope.hold);
        scope.paused_until = scope.paused_until.max(Some(now + wait));
        Some((paused, wait))
    }

    /// Slots of a scope that are taken.
    pub(super) fn used(&mut self, id: ScopeId, now: Instant) -> usize {
        let scope = &mut self.scopes[id.index()];
        scope.expire(now);
        scope.used()
    }

    /// Calls that wait for a scope.
    pub(super) fn waiting(&self, id: ScopeId) -> usize {
        self.classes.iter().filter(|class| class.set.contains(id)).map(|class| class.waiting).sum()
    }

    /// Serves every queue whose first can be served, the longest waiting first across queues.
    fn dispatch(&mut self, now: Instant, wake: &mut Wakers) {
        loop {
            let mut order: Option<(u64, ClassId)> = None;
            // A queue whose first lacks a slot is skipped, so that it holds up nobody who does not need that scope.
            for index in 0..self.classes.len() {
                let Some(first) = self.classes[index].queue.front() else { continue };
                let number = first.number;
                if order.is_none_or(|(oldest, _)| number < oldest) && self.ready_at(ClassId(index), now) == Some(now) {
                    order = Some((number, ClassId(index)));
                }
            }
            let Some((_, class)) = order else { return };
            if !self.try_take(class, now) {
                continue;
            }
            let class = &mut self.classes[class.0];
            if let Some(served) = class.queue.pop_front() {
                class.waiting -= 1;
                wake.wake(served.waker);
            }
            class.drop_given_up();
            class.wake_first(wake);
        }
    }

    /// Takes a slot of every scope of a class, if all have one now.
    fn try_take(&mut self, class: ClassId, now: Instant) -> bool {
        if self.ready_at(class, now) != Some(now) {
            return false;
        }
        let Class { set, shaped, .. } = &mut self.classes[class.0];
        for id in set.iter() {
            // NOTE: a cell of a shape cannot be given back, so what one shape let pass is remembered while another
            // still holds the call up.
            if let Some(shape) = &mut self.scopes[id.index()].shape
                && !shaped.contains(id)
            {
                match shape.pass(now) {
                    Ok(()) => shaped.insert(id),
                    Err(_) => return false,
                }
            }
        }
        *shaped = ScopeSet::EMPTY;
        for id in set.iter() {
            self.scopes[id.index()].in_flight += 1;
        }
        true
    }

    /// When every scope of a class has a slot, as far as that is known: `None` if it hangs on attempts in flight.
    fn ready_at(&mut self, class: ClassId, now: Instant) -> Option<Instant> {
        let Class { set, shaped, .. } = &self.classes[class.0];
        let (set, shaped) = (*set, *shaped);
        set.iter().try_fold(now, |latest, id| {
            let scope = &mut self.scopes[id.index()];
            scope.expire(now);
            let ready = scope.ready_at(shaped.contains(id), now)?;
            Some(latest.max(ready))
        })
    }

    /// When the first of a queue must look again.
    fn next_look(&mut self, class: ClassId, now: Instant) -> Instant {
        // A slot in flight becomes free no earlier than `W + ε` from now: looking then loses nothing, and whoever gives
        // one back unsent dispatches at once.
        let shortest = |set: ScopeSet| set.iter().map(|id| self.scopes[id.index()].hold).min().unwrap_or_default();
        let in_flight = now + shortest(self.classes[class.0].set);
        self.ready_at(class, now).unwrap_or(in_flight)
    }

    /// The earliest start of a call with `ahead` others before it in its queue, and the scope that makes it wait so long.
    ///
    /// Only the calls before it in its own queue are counted, which are all served before it; others may be too, so the
    /// call may start later. It starts earlier only if a call before it goes away.
    fn predict(&mut self, class: ClassId, ahead: usize, now: Instant) -> (Instant, Option<ScopeId>) {
        self.classes[class.0].set.iter().fold((now, None), |(latest, by), id| {
            let scope = &mut self.scopes[id.index()];
            scope.expire(now);
            let start = scope.start_of(ahead, now);
            if by.is_none() || start > latest { (start.max(latest), Some(id)) } else { (latest, by) }
        })
    }

    /// The queue for a set of scopes. There are never more than there are different sets in the route table.
    fn class(&mut self, set: ScopeSet) -> ClassId {
        let known = self.classes.iter().position(|class| class.set == set);
        ClassId(known.unwrap_or_else(|| {
            self.classes.push(Class { set, queue: VecDeque::new(), waiting: 0, shaped: ScopeSet::EMPTY });
            self.classes.len() - 1
        }))
    }
}

// ===== impl Scope =====

impl Scope {
    fn used(&self) -> usize {
        self.in_flight as usize + self.cooling.len()
    }

    fn expire(&mut self, now: Instant) {
        while self.cooling.pop_front_if(|free| *free <= now).is_some() {}
        self.paused_until = self.paused_until.filter(|until| *until > now);
    }

    /// Notes when a slot becomes free. Nearly always the latest so far; only lost attempts come out of order.
    fn cool(&mut self, free: Instant) {
        let index = self.cooling.partition_point(|known| *known <= free);
        self.cooling.insert(index, free);
    }

    /// When a slot can be taken; `None` if all are in flight.
    fn ready_at(&self, shaped: bool, now: Instant) -> Option<Instant> {
        let free = self.limit as usize > self.used();
        let slot = if free { now } else { *self.cooling.front()? };
        // A lowered limit may need more than one release; the first is when to look again.
        let shape = self.shape.as_ref().filter(|_| !shaped).map_or(now, |shape| shape.ready_at(now));
        Some(slot.max(shape).max(self.paused_until.unwrap_or(now)))
    }

    /// The earliest start of a call with `ahead` others before it.
    fn start_of(&self, ahead: usize, now: Instant) -> Instant {
        let limit = self.limit as usize;
        let free = limit.saturating_sub(self.used());
        let start = match ahead.checked_sub(free) {
            None => now,
            Some(nth) => match self.cooling.get(nth) {
                // A slot whose attempt was lost may become free after one that is still in flight.
                Some(slot) => (*slot).min(now + self.hold),
                // It waits for attempts in flight, or for calls that did not even start: each slot takes at least
                // `W + ε` a round.
                None => {
                    let rounds = u32::try_from((nth - self.cooling.len()) / limit.max(1)).unwrap_or(u32::MAX);
                    now + self.hold.saturating_mul(rounds.saturating_add(1).min(10_000))
                }
            },
        };
        let shaped = self.shape.as_ref().map_or(now, |shape| shape.start_of(ahead, now));
        start.max(shaped).max(self.paused_until.unwrap_or(now))
    }
}

// ===== impl Class =====

impl Class {
    /// Where a waiter stands; `None` once it was served. Numbers only grow along the queue.
    fn position(&self, number: u64) -> Option<usize> {
        self.queue.binary_search_by_key(&number, |waiter| waiter.number).ok()
    }

    /// Takes given-up entries off the front; true if there were any. Those further back are taken when they get there,
    /// or all at once when they are the greater part.
    fn drop_given_up(&mut self) -> bool {
        let length = self.queue.len();
        while self.queue.pop_front_if(|waiter| waiter.given_up).is_some() {}
        let dropped = self.queue.len() < length;
        if self.queue.len() > 2 * self.waiting + 16 {
            self.queue.retain(|waiter| !waiter.given_up);
        }
        dropped
    }

    fn wake_first(&mut self, wake: &mut Wakers) {
        wake.wake(self.queue.front().and_then(|first| first.waker.clone()));
    }
}

/// What is to be done with wakers once the ledger is unlocked: waking and dropping one both run code that is not ours.
/// Allocates only if there is any.
#[derive(Debug, Default)]
pub(super) struct Wakers {
    woken: Vec<Waker>,
    retired: Vec<Waker>,
}

impl Wakers {
    fn wake(&mut self, waker: Option<Waker>) {
        self.woken.extend(waker);
    }

    fn retire(&mut self, waker: Option<Waker>) {
        self.retired.extend(waker);
    }

    /// Wakes whom that concerns, and drops the others.
    pub(super) fn settle(self) {
        self.woken.into_iter().for_each(Waker::wake);
        drop(self.retired);
    }
}

#[cfg(test)]
mod tests;
