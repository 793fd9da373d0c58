//! Who waits: one queue for the calls that need the same scopes and have the same rank, strictly in order.
//!
//! The waiters of all queues lie in one slab and are chained through it, so that joining, leaving from anywhere and being
//! served take the same few steps however many wait.

use std::{task::Waker, time::Duration};

use didit_api::{ScopeId, ScopeSet};
use tokio::time::Instant;

use super::{Need, Refusal, Target, Why};
use crate::call::Priority;

/// One of the queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClassId(u16);

/// A call that waits, or has waited and was not told yet what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::pacing) struct WaiterId {
    pub(super) index: u32,
    /// Tells it from others that were at its place.
    pub(super) number: u64,
}

/// What became of a waiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It stands in its queue.
    Queued,
    /// It was given slots, and has not come for them.
    Granted,
    /// It did not come for its slots, and has lost its place until it is seen again.
    Absent,
    /// It cannot be served in time.
    Refused(Refusal),
}

#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) number: u64,
    pub(super) class: ClassId,
    pub(super) target: Target,
    pub(super) since: Instant,
    /// The latest start that is of use.
    pub(super) latest: Option<Latest>,
    pub(super) state: State,
    /// `None` until it was polled for the first time.
    pub(super) waker: Option<Waker>,
    before: u32,
    after: u32,
}

/// The latest start that is of use to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Latest {
    pub(super) at: Instant,
    /// Whether it is the call's deadline, and not the longest wait of the layer.
    pub(super) is_deadline: bool,
}

/// The calls that need the same scopes and have the same rank.
#[derive(Clone, Copy, Debug)]
pub(super) struct Class {
    pub(super) set: ScopeSet,
    pub(super) priority: Priority,
    /// Whether they are repetitions of calls that were sent before.
    pub(super) repeated: bool,
    pub(super) waiting: usize,
    first: u32,
    last: u32,
    /// Who stood in its old place again last.
    returned: u32,
}

/// Lower goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank(u8);

#[derive(Debug, Default)]
pub(super) struct Queues {
    waiters: Vec<Option<Waiter>>,
    vacant: Vec<u32>,
    pub(super) classes: Vec<Class>,
    next_number: u64,
    /// How many stand in queues.
    pub(super) waiting: usize,
    /// How many of them have a latest start.
    pub(super) hurried: usize,
}

/// No waiter: the end of a chain.
const NOBODY: u32 = u32::MAX;

// ===== impl Latest =====

impl Latest {
    /// Why whoever would be served after it is not.
    pub(super) fn why(self) -> Why {
        if self.is_deadline { Why::Deadline } else { Why::MaxWait }
    }
}

// ===== impl Class =====

impl Class {
    /// An empty queue, to ask what would become of whoever joined it.
    pub(super) fn newcomer(set: ScopeSet, priority: Priority) -> Self {
        Self { set, priority, repeated: false, waiting: 0, first: NOBODY, last: NOBODY, returned: NOBODY }
    }

    pub(super) fn first(&self) -> u32 {
        self.first
    }

    pub(super) fn need(&self) -> Need {
        Need { set: self.set, low: self.priority == Priority::Low }
    }

    /// The rank of a call that began to wait at `since`: by priority, and repetitions before first attempts, because what
    /// they already cost would be lost. A call of low priority that has waited for `patience` goes by its age among those
    /// of normal priority, so that it is served in the end whatever they do.
    pub(super) fn rank(&self, since: Instant, patience: Duration, now: Instant) -> Rank {
        let first_attempt = u8::from(!self.repeated);
        Rank(match self.priority {
            Priority::High => first_attempt,
            Priority::Normal => 2 + first_attempt,
            Priority::Low if now.saturating_duration_since(since) >= patience => 3,
            Priority::Low => 4 + first_attempt,
        })
    }
}

// ===== impl Queues =====

impl Queues {
    pub(super) fn class(&self, id: ClassId) -> &Class {
        &self.classes[usize::from(id.0)]
    }

    /// The queue for a kind of call. There are never more than there are different sets in the route
    /// table, and with limits of single endpoints, times ranks.
    pub(super) fn class_of(&mut self, set: ScopeSet, priority: Priority, repeated: bool) -> ClassId {
        let same = |class: &Class| class.set == set && class.priority == priority && class.repeated == repeated;
        let known = self.classes.iter().position(same).unwrap_or_else(|| {
            self.classes.push(Class { repeated, ..Class::newcomer(set, priority) });
            self.classes.len() - 1
        });
        ClassId(u16::try_from(known).unwrap_or(u16::MAX))
    }

    /// The queues in which somebody stands.
    pub(super) fn busy(&self) -> impl Iterator<Item = (ClassId, &Class)> {
        let ids = (0..).map(ClassId);
        ids.zip(&self.classes).filter(|(_, class)| class.waiting > 0)
    }

    /// The first of the class at an index.
    pub(super) fn first_of(&self, class: usize) -> Option<&Waiter> {
        self.at(self.classes[class].first)
    }

    pub(super) fn at(&self, index: u32) -> Option<&Waiter> {
        self.waiters.get(index as usize)?.as_ref()
    }

    /// The place behind another in its queue.
    pub(super) fn behind(&self, index: u32) -> u32 {
        self.at(index).map_or(NOBODY, |waiter| waiter.after)
    }

    pub(super) fn get(&self, id: WaiterId) -> Option<&Waiter> {
        self.at(id.index).filter(|waiter| waiter.number == id.number)
    }

    pub(super) fn get_mut(&mut self, id: WaiterId) -> Option<&mut Waiter> {
        self.at_mut(id.index).filter(|waiter| waiter.number == id.number)
    }

    /// Whether a waiter has a turn that it has not come for.
    pub(super) fn is_granted(&self, id: WaiterId) -> bool {
        self.get(id).is_some_and(|waiter| waiter.state == State::Granted)
    }

    /// Whether a waiter stands in a queue, or may again.
    pub(super) fn still_waits(&self, id: WaiterId) -> bool {
        self.get(id).is_some_and(|waiter| matches!(waiter.state, State::Queued | State::Granted | State::Absent))
    }

    fn at_mut(&mut self, index: u32) -> Option<&mut Waiter> {
        self.waiters.get_mut(index as usize)?.as_mut()
    }

    /// Whether somebody who needs a scope of this class may start later because of it: one of a lower rank, or one who needs
    /// more, and waits for that while this class goes ahead.
    pub(super) fn overtakes(&self, class: ClassId) -> bool {
        let class = self.class(class);
        let order = |class: &Class| (class.priority, !class.repeated);
        let shares = |other: &Class| class.set.iter().any(|id| other.set.contains(id));
        let needs_more = |other: &Class| other.set.iter().any(|id| !class.set.contains(id));
        self.busy().any(|(_, other)| shares(other) && (order(other) > order(class) || needs_more(other)))
    }

    /// Joins the end of a queue.
    pub(super) fn join(&mut self, class: ClassId, target: Target, latest: Option<Latest>, now: Instant) -> WaiterId {
        let number = self.next_number;
        self.next_number += 1;
        let waiter = Waiter {
            number,
            class,
            target,
            since: now,
            latest,
            state: State::Queued,
            waker: None,
            before: NOBODY,
            after: NOBODY,
        };
        let index = match self.vacant.pop() {
            Some(index) => {
                self.waiters[index as usize] = Some(waiter);
                index
            }
            None => {
                self.waiters.push(Some(waiter));
                u32::try_from(self.waiters.len() - 1).unwrap_or(NOBODY)
            }
        };
        self.chain(index, self.class(class).last, NOBODY);
        WaiterId { index, number }
    }

    /// Gives a waiter its old place in its queue again: only others that came back stand before it, nearly always those
    /// that did so just now.
    pub(super) fn join_again(&mut self, id: WaiterId) {
        let Some(class) = self.get(id).map(|waiter| waiter.class) else { return };
        let Class { first, returned, .. } = *self.class(class);
        let is_before = |other: &&Waiter| other.state == State::Queued && other.number < id.number;
        let known = self.at(returned).filter(|other| other.class == class).filter(is_before);
        let (mut before, mut after) = known.map_or((NOBODY, first), |known| (returned, known.after));
        while let Some(next) = self.at(after).filter(is_before) {
            (before, after) = (after, next.after);
        }
        self.classes[usize::from(class.0)].returned = id.index;
        self.chain(id.index, before, after);
        if let Some(waiter) = self.get_mut(id) {
            waiter.state = State::Queued;
        }
    }

    /// Lets everybody who stands in a queue and is sent to a target wait for one more scope, in the order in which they came.
    /// How many they are.
    pub(super) fn add_scope(&mut self, target: Target, scope: ScopeId) -> usize {
        let concerned = |(index, waiter): (u32, &Option<Waiter>)| {
            let waiter = waiter.as_ref().filter(|waiter| waiter.target == target && waiter.state == State::Queued)?;
            let set = self.class(waiter.class).set;
            (!set.contains(scope)).then_some((waiter.number, index, set))
        };
        let mut concerned: Vec<_> = (0..).zip(&self.waiters).filter_map(concerned).collect();
        concerned.sort_unstable_by_key(|(number, ..)| *number);
        for (number, index, mut set) in concerned.iter().copied() {
            let id = WaiterId { index, number };
            set.insert(scope);
            self.leave(index, State::Absent);
            self.change_set(id, set);
            self.join_again(id);
        }
        concerned.len()
    }

    /// Lets one who is absent wait for these scopes when it comes back.
    pub(super) fn change_set(&mut self, id: WaiterId, set: ScopeSet) {
        let Some(class) = self.get(id).map(|waiter| waiter.class) else { return };
        let Class { priority, repeated, .. } = *self.class(class);
        let class = self.class_of(set, priority, repeated);
        if let Some(waiter) = self.get_mut(id) {
            waiter.class = class;
        }
    }

    fn chain(&mut self, index: u32, before: u32, after: u32) {
        let Some(waiter) = self.at_mut(index) else { return };
        (waiter.before, waiter.after) = (before, after);
        let (class, hurried) = (waiter.class, waiter.latest.is_some());
        self.link(class, before, after, index, index);
        self.classes[usize::from(class.0)].waiting += 1;
        self.waiting += 1;
        self.hurried += usize::from(hurried);
    }

    /// Takes a waiter out of its queue; it is still known.
    pub(super) fn leave(&mut self, index: u32, state: State) {
        let Some(waiter) = self.at_mut(index) else { return };
        let (class, before, after) = (waiter.class, waiter.before, waiter.after);
        let hurried = waiter.latest.is_some();
        (waiter.before, waiter.after, waiter.state) = (NOBODY, NOBODY, state);
        self.link(class, before, after, after, before);
        self.classes[usize::from(class.0)].waiting -= 1;
        self.waiting -= 1;
        self.hurried -= usize::from(hurried);
    }

    /// Makes `next` follow `before`, and `previous` precede `after`.
    fn link(&mut self, class: ClassId, before: u32, after: u32, next: u32, previous: u32) {
        match self.at_mut(before) {
            Some(before) => before.after = next,
            None => self.classes[usize::from(class.0)].first = next,
        }
        match self.at_mut(after) {
            Some(after) => after.before = previous,
            None => self.classes[usize::from(class.0)].last = previous,
        }
    }

    /// Forgets a waiter that stands in no queue.
    pub(super) fn forget(&mut self, id: WaiterId) {
        if self.get(id).is_none() {
            return;
        }
        self.waiters[id.index as usize] = None;
        self.vacant.push(id.index);
        if self.vacant.len() == self.waiters.len() && self.waiters.capacity() > 1_024 {
            // What a flood left behind, once it is over.
            (self.waiters, self.vacant) = (Vec::new(), Vec::new());
        }
    }

    /// Whether nobody is known.
    pub(super) fn is_empty(&self) -> bool {
        self.vacant.len() == self.waiters.len()
    }

    /// How many places there are, taken and vacant.
    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        self.waiters.len()
    }

    /// Everybody who can be woken.
    pub(super) fn wakers(&self) -> impl Iterator<Item = &Waker> {
        self.waiters.iter().flatten().filter_map(|waiter| waiter.waker.as_ref())
    }

    /// When the one who waits longest for a scope with a priority began to.
    pub(super) fn oldest(&self, scope: ScopeId) -> Option<Instant> {
        let queues = self.busy().filter(|(_, class)| class.set.contains(scope));
        queues.filter_map(|(_, class)| self.at(class.first)).map(|first| first.since).min()
    }
}
