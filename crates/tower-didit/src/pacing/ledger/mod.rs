//! The ledger: which slots of which scopes are taken, until when, and who waits for one.
//!
//! Pure and synchronous: every method is told the time.
//!
//! # Why a slot outlives its request
//!
//! The server refuses a request that arrives at `t` if it counted `L` arrivals in `(t − W, t]`. The client sees neither
//! the arrival nor the server's clock; it sees when it sent (`s`) and when the response came (`r`), and the arrival `a`
//! lies in between: `s ≤ a ≤ r`. A slot is taken at `s` and becomes free at `r + W + ε`. So for every arrival in a server
//! window, `a ∈ (t − W, t]`: it was sent before `t` ended (`s ≤ a ≤ t`), and its slot is free no sooner than
//! `r + W + ε ≥ a + W > t − W + W = t`. Its slot is held at `t`. At most `L` slots are ever held, so no server window ever
//! holds more than `L` arrivals, however the network delays or reorders. The price is a goodput of `L·W / (W + RTT + ε)`.
//!
//! Two things could break `a ≤ r`. An attempt that was given up may still be on its way: its slot is held `D` longer, the
//! bound on how long bytes linger in transit. And the server's clock may be coarse: one that keeps whole seconds holds an
//! entry up to a second longer than `W`, which is what `ε` is for.
//!
//! # What else happens here, and why the proof stands
//!
//! The proof asks for two things alone: that nothing is sent without a slot, and that no slot is free before its time.
//!
//! - **A slot is taken when a call's turn comes**, whether or not its task is there to send it: `s` is later then, and the
//!   slot is held longer than it need be. A task that does not come for [`LEASE`] loses the slot, which is free at once
//!   because nothing was sent, and stands at the head of its queue again as soon as it comes.
//! - **Priorities, reserved shares and shapes** only choose among calls, or let none through; they free no slot.
//! - **A limit that was lowered** lets fewer through, and slots in excess of it stay held. One that was raised again is the
//!   limit of the proof from then on; whatever the server allows less is a refusal, and lowers it.
//! - **Slots that a server's count added** are taken from the calls and given to nobody. So are those that a cold start or
//!   a snapshot assumes.
//! - **In a snapshot**, what was in flight counts as given up at that instant: it is held for `D + W + ε` from there.
//! - **Time** is the monotonic clock's. The wall clock is read for snapshots alone: if it was set back in between, nothing
//!   has passed, and no slot is free early.
//!
//! What the proof does not cover: calls that somebody else makes under the same credential, a request that arrives twice
//! (below the layer, a client that follows redirects or a proxy that sends again), a snapshot that is restored twice, and
//! [overdrafts](Ledger::overdraw), which shadow mode takes on purpose.

mod forecast;
mod learn;
mod queue;
mod scope;
mod snapshot;
#[cfg(test)]
mod tests;
mod undocumented;

use std::{
    collections::VecDeque,
    num::NonZeroU32,
    panic::{self, AssertUnwindSafe},
    task::Waker,
    time::Duration,
};

use didit_api::{Limits, ScopeId, ScopeSet};
use tokio::time::Instant;

pub(super) use self::queue::WaiterId;
pub use self::snapshot::ScopeRecord;
pub(super) use self::undocumented::Target;
use self::{
    forecast::Foretold,
    queue::{Class, Latest, Queues, Rank, State},
    scope::Scope,
    undocumented::Undocumented,
};
use crate::call::Priority;

/// What a ledger goes by; the builder of the layer documents each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) epsilon: Duration,
    pub(crate) transit: Duration,
    pub(crate) burst: Option<NonZeroU32>,
    pub(crate) reserved_share: f64,
    pub(crate) max_waiting: usize,
    pub(crate) max_wait: Option<Duration>,
    /// How long a call of low priority waits before it goes by its age.
    pub(crate) patience: Duration,
    pub(crate) raise_limits: bool,
}

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

/// What a call needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Need {
    pub(super) set: ScopeSet,
    /// Whether it keeps out of the reserved share.
    pub(super) low: bool,
}

/// A call that asks for slots.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asking {
    pub(super) set: ScopeSet,
    pub(super) priority: Priority,
    /// Whether it was sent before.
    pub(super) repeated: bool,
    pub(super) deadline: Option<Instant>,
    pub(super) target: Target,
}

/// An attempt that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    pub(super) target: Target,
    pub(super) sent: Instant,
}

/// What came of asking for slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// They are taken.
    Granted,
    /// The call stands in a queue.
    Queued(WaiterId),
    /// It holds nothing.
    Refused(Refusal),
}

/// A call that is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) scope: ScopeId,
    /// When it would have been served, or when there is room in the queue.
    pub(super) retry_at: Instant,
    pub(super) why: Why,
}

/// Why a call is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Why {
    /// Its turn would come after its deadline.
    Deadline,
    /// Its turn would come after the longest wait that the layer allows.
    MaxWait,
    /// As many calls wait for the scope as the layer allows.
    QueueFull,
    /// As many credentials are in use as the layer allows, and this is a new one.
    TooManyKeys,
}

/// What a waiter learns when it looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It has its slots.
    Granted(Need),
    /// It is woken when its turn has come.
    Waiting,
    /// It would be served too late, as is known now.
    Refused(Refusal),
}

/// How long slots are kept for a call whose turn has come and whose task does not come for them: nobody polls it (a
/// stream that is not being read, a branch of a `select!`), and it must not hold up everybody behind it.
pub(super) const LEASE: Duration = Duration::from_secs(1);

/// How long at the least, for each one who waits, between two looks at who would be served too late: they take 0.1 to 0.2
/// microseconds each in eighteen queues and as many more as there are more queues, so that a hundredth of the time or less
/// goes into them there, and two hundredths at the most in fifty.
const BETWEEN_LOOKS: Duration = Duration::from_micros(30);

/// A turn that came, and that nobody has taken yet.
#[derive(Clone, Copy, Debug)]
struct Uncollected {
    waiter: WaiterId,
    since: Instant,
    /// When it lapses.
    until: Instant,
}

#[derive(Debug)]
pub(super) struct Ledger {
    // The configured ones, and those of single endpoints behind them.
    scopes: Vec<Scope>,
    undocumented: Vec<Undocumented>,
    queues: Queues,
    // In the order in which they lapse.
    uncollected: VecDeque<Uncollected>,
    // Who waits no longer than the layer allows, and when that time is over, in order.
    patient_until: VecDeque<(Instant, WaiterId)>,
    // When to look who would be served too late.
    doubt: Option<Instant>,
    last_look: Instant,
    rules: Rules,
}

// ===== impl Rules =====

impl Rules {
    /// How many slots of a limit calls of low priority may hold.
    fn share_of_low(&self, limit: usize) -> usize {
        ((limit as f64 * (1.0 - self.reserved_share)) as usize).max(1)
    }
}

// ===== impl Asking =====

impl Asking {
    /// With all scopes that the ledger has for it.
    pub(super) fn completed(&self, ledger: &Ledger) -> Self {
        Self { set: ledger.with_undocumented(self.set, self.target), ..*self }
    }

    pub(super) fn need(&self) -> Need {
        Need { set: self.set, low: self.priority == Priority::Low }
    }
}

// ===== impl Ledger =====

impl Ledger {
    pub(super) fn new(limits: &Limits, rules: Rules, now: Instant) -> Self {
        let scopes = limits.scopes().iter().map(|scope| Scope::new(scope, &rules, now));
        Self {
            scopes: scopes.collect(),
            undocumented: Vec::new(),
            queues: Queues::default(),
            uncollected: VecDeque::new(),
            patient_until: VecDeque::new(),
            doubt: None,
            last_look: now,
            rules,
        }
    }

    /// Takes a slot of every scope in the set, all or none, or joins the queue for them.
    ///
    /// Whoever is granted must [`release`](Self::release) them; whoever is queued must [`look`](Self::look) until told,
    /// or [`give_up`](Self::give_up). Somebody must [`tick`](Self::tick) when [`next_event`](Self::next_event) says.
    pub(super) fn ask(&mut self, asking: &Asking, now: Instant, wake: &mut Wakers) -> Asked {
        let need = asking.need();
        // Nobody may be there to tick: a call that has its turn and was never polled has no timekeeper.
        self.lapse(now);
        // Whoever can be served is, before anybody else is looked at; who waits after that lacks something, and who
        // lacks nothing overtakes nobody.
        self.serve(now, wake);
        if self.has_room(need, now) {
            self.take(need, now);
            if asking.set.iter().any(|id| self.scopes[id.index()].waiting > 0) {
                self.doubt(now);
            }
            return Asked::Granted;
        }
        let crowded = |id: &ScopeId| self.is_crowded(*id, asking.priority);
        if let Some(scope) = asking.set.iter().find(crowded) {
            return Asked::Refused(Refusal { scope, retry_at: self.next_start(scope, now), why: Why::QueueFull });
        }
        let class = self.queues.class_of(asking.set, asking.priority, asking.repeated);
        let latest = self.latest(asking.deadline, now);
        let mut doubtful = false;
        if let Some(latest) = latest
            && self.surely_started(need, now) > latest.at
            && let Some(Foretold { at, scope, exact }) = self.foretell(*self.queues.class(class), now)
        {
            if at > latest.at {
                return Asked::Refused(Refusal { scope, retry_at: at, why: latest.why() });
            }
            doubtful = !exact;
        }
        let waiter = self.queues.join(class, asking.target, latest, now);
        self.count_waiting(asking.set, 1);
        if let Some(latest) = latest.filter(|latest| !latest.is_deadline) {
            self.be_patient(waiter, latest.at);
        }
        if doubtful || self.queues.overtakes(class) {
            self.doubt(now);
        }
        Asked::Queued(waiter)
    }

    /// How long a call that asked now would wait.
    pub(super) fn wait_of(&mut self, asking: &Asking, now: Instant) -> Duration {
        let class = self.queues.class_of(asking.set, asking.priority, asking.repeated);
        let start = self.foretell(*self.queues.class(class), now);
        start.map_or(Duration::ZERO, |start| start.at.saturating_duration_since(now))
    }

    /// Takes slots although there may be none; says how long the call should have waited.
    pub(super) fn overdraw(&mut self, asking: &Asking, now: Instant) -> Duration {
        let need = asking.need();
        let wait = if self.has_room(need, now) { Duration::ZERO } else { self.wait_of(asking, now) };
        self.take(need, now);
        wait
    }

    /// Looks whether a waiter's turn has come.
    pub(super) fn look(&mut self, waiter: WaiterId, waker: &Waker, now: Instant, wake: &mut Wakers) -> Turn {
        // NOTE: turns do not lapse here: after a pause of the whole runtime, whoever is polled first would cost all others
        // theirs.
        if let Some(entry) = self.queues.get(waiter).filter(|entry| entry.state == State::Absent) {
            let is_over = entry.latest.is_some_and(|latest| !latest.is_deadline && latest.at <= now);
            let set = self.renewed(self.queues.class(entry.class).set, entry.target);
            self.queues.change_set(waiter, set);
            self.queues.join_again(waiter);
            self.count_waiting(self.set_of(waiter), 1);
            self.doubt(now);
            if is_over {
                self.refuse_impatient(waiter, now, wake);
            }
        }
        self.serve(now, wake);
        // Whoever is not known has no turn.
        let Some(entry) = self.queues.get_mut(waiter) else { return Turn::Waiting };
        match entry.state {
            State::Queued | State::Absent => {
                if !entry.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
                    wake.retire(entry.waker.replace(waker.clone()));
                }
                Turn::Waiting
            }
            State::Granted => {
                wake.retire(entry.waker.take());
                let class = entry.class;
                self.queues.forget(waiter);
                Turn::Granted(self.queues.class(class).need())
            }
            State::Refused(refusal) => {
                wake.retire(entry.waker.take());
                self.queues.forget(waiter);
                Turn::Refused(refusal)
            }
        }
    }

    /// Leaves a queue, or gives back what it led to.
    pub(super) fn give_up(&mut self, waiter: WaiterId, now: Instant, wake: &mut Wakers) {
        let Some(entry) = self.queues.get_mut(waiter) else { return };
        let (state, class) = (entry.state, entry.class);
        wake.retire(entry.waker.take());
        let need = self.queues.class(class).need();
        if state == State::Queued {
            self.queues.leave(waiter.index, State::Absent);
            self.count_waiting(need.set, -1);
            self.doubt(now);
        }
        self.queues.forget(waiter);
        if state == State::Granted {
            self.release(need, Release::Unsent, None, now, wake);
        }
    }

    /// Gives the slots of an attempt back, which was sent at `sent`.
    pub(super) fn release(&mut self, need: Need, how: Release, sent: Option<Instant>, now: Instant, wake: &mut Wakers) {
        let lingering = if how == Release::Lost { self.rules.transit } else { Duration::ZERO };
        let took = sent.filter(|_| how == Release::Answered).map(|sent| now.saturating_duration_since(sent));
        let mut slower = false;
        for id in need.set.iter() {
            let scope = &mut self.scopes[id.index()];
            let free = (how != Release::Unsent).then(|| now + lingering + scope.hold);
            scope.land(need.low, sent.unwrap_or(now), free);
            if let Some(free) = free.filter(|_| how == Release::Lost) {
                scope.not_let_in(free);
            }
            slower |= took.is_some_and(|took| scope.trips.saw(took));
        }
        if how == Release::Unsent {
            self.serve(now, wake);
        }
        if how != Release::Answered || slower {
            self.doubt(now);
        }
    }

    /// Does what is due: serves whoever can be, and tells whoever cannot be in time.
    pub(super) fn tick(&mut self, now: Instant, wake: &mut Wakers) {
        self.lapse(now);
        self.serve(now, wake);
        while let Some((_, waiter)) = self.patient_until.pop_front_if(|(until, _)| *until <= now) {
            self.refuse_impatient(waiter, now, wake);
        }
        if self.doubt.is_some_and(|at| at <= now) {
            (self.doubt, self.last_look) = (None, now);
            for (waiter, refusal) in self.doomed(now) {
                self.refuse(waiter, refusal, wake);
            }
        }
    }

    /// When to tick again; `None` if nothing will happen by itself.
    pub(super) fn next_event(&mut self, now: Instant) -> Option<Instant> {
        let Self { queues, uncollected, patient_until, .. } = self;
        while uncollected.pop_front_if(|turn| !queues.is_granted(turn.waiter)).is_some() {}
        while patient_until.pop_front_if(|(_, waiter)| !queues.still_waits(*waiter)).is_some() {}
        let lapse = uncollected.front().map(|turn| turn.until);
        let patient_until = patient_until.front().map(|(until, _)| *until);
        let starts = self.queues.busy().filter_map(|(_, class)| self.room_at(class.need(), now));
        starts.chain(lapse).chain(patient_until).chain(self.doubt).min()
    }

    /// Whether anybody waits, or has a turn that he has not come for.
    pub(super) fn is_waited_for(&self) -> bool {
        !self.queues.is_empty()
    }

    /// Wakes everybody, who will look and find that nobody ticks.
    pub(super) fn wake_all(&self, wake: &mut Wakers) {
        self.queues.wakers().for_each(|waker| wake.wake(Some(waker.clone())));
    }

    /// When this ledger is as good as a new one; `None` if that cannot be known yet.
    pub(super) fn idle_at(&self, now: Instant) -> Option<Instant> {
        if self.is_waited_for() {
            return None;
        }
        self.scopes.iter().try_fold(now, |latest, scope| Some(latest.max(scope.idle_at(now)?)))
    }

    /// What an operator sees of a scope.
    pub(super) fn gauges(&mut self, id: ScopeId, now: Instant) -> Gauges {
        self.scopes[id.index()].expire(now);
        let scope = &self.scopes[id.index()];
        let of = |priority| {
            let queues = self.queues.busy().filter(|(_, class)| class.set.contains(id) && class.priority == priority);
            queues.map(|(_, class)| class.waiting).sum()
        };
        let mut alone = ScopeSet::EMPTY;
        alone.insert(id);
        let newcomer = Class::newcomer(alone, Priority::Normal);
        let start = self.foretell(newcomer, now).map_or(now, |start| start.at);
        Gauges {
            limit: scope.limit.adopted().get(),
            effective: scope.limit.effective(),
            used: scope.all.used(),
            waiting: [of(Priority::High), of(Priority::Normal), of(Priority::Low)],
            oldest_wait: self.queues.oldest(id).map(|since| now.saturating_duration_since(since)),
            predicted_wait: start.saturating_duration_since(now),
            paused_until: scope.paused_until,
        }
    }

    /// Serves every call that can be, by rank and then by age.
    fn serve(&mut self, now: Instant, wake: &mut Wakers) {
        while self.queues.waiting > 0 {
            let patience = self.rules.patience;
            let mut best: Option<((Rank, u64), usize, Option<Latest>)> = None;
            // A queue whose first lacks a slot is skipped, so that it holds up nobody who does not need that scope.
            for index in 0..self.queues.classes.len() {
                let class = self.queues.classes[index];
                if class.waiting == 0 || !self.has_room(class.need(), now) {
                    continue;
                }
                let Some(first) = self.queues.first_of(index) else { continue };
                let order = (class.rank(first.since, patience, now), first.number);
                if best.is_none_or(|(known, ..)| order < known) {
                    best = Some((order, index, first.latest.filter(|latest| latest.at < now)));
                }
            }
            let Some(((_, number), class, late)) = best else { return };
            let class = self.queues.classes[class];
            let (need, waiter) = (class.need(), WaiterId { index: class.first(), number });
            if let Some(latest) = late {
                let scope = need.set.iter().next();
                let Some(scope) = scope else { return };
                self.refuse(waiter, Refusal { scope, retry_at: now, why: latest.why() }, wake);
                continue;
            }
            self.queues.leave(waiter.index, State::Granted);
            self.count_waiting(need.set, -1);
            self.take(need, now);
            wake.wake(self.queues.get_mut(waiter).and_then(|waiter| waiter.waker.take()));
            self.uncollected.push_back(Uncollected { waiter, since: now, until: now + LEASE });
        }
    }

    /// Takes slots back from those who did not come for them.
    ///
    /// If that is noticed late, the runtime may have stood still, and they with it: once, they have the time again.
    fn lapse(&mut self, now: Instant) {
        while let Some(turn) = self.uncollected.pop_front_if(|turn| turn.until <= now) {
            let Uncollected { waiter, since, until } = turn;
            let Some(entry) = self.queues.get_mut(waiter).filter(|entry| entry.state == State::Granted) else {
                continue;
            };
            if until == since + LEASE && now > until + LEASE / 4 {
                self.uncollected.push_back(Uncollected { until: now + LEASE, ..turn });
                continue;
            }
            entry.state = State::Absent;
            let class = entry.class;
            let Need { set, low } = self.queues.class(class).need();
            set.iter().for_each(|id| self.scopes[id.index()].land(low, since, None));
            self.doubt(now);
        }
    }

    /// Notes until when a call waits at the most. As that is the same for all, they are noted in order.
    fn be_patient(&mut self, waiter: WaiterId, until: Instant) {
        let Self { queues, patient_until, .. } = self;
        if patient_until.len() > 2 * queues.waiting + 64 {
            patient_until.retain(|(_, waiter)| queues.still_waits(*waiter));
        }
        patient_until.push_back((until, waiter));
    }

    /// Tells a call that it has waited for as long as the layer allows.
    fn refuse_impatient(&mut self, waiter: WaiterId, now: Instant, wake: &mut Wakers) {
        let Some(scope) = self.scope_that_lacks(waiter, now) else { return };
        let retry_at = self.next_start(scope, now);
        self.refuse(waiter, Refusal { scope, retry_at, why: Why::MaxWait }, wake);
    }

    /// What a waiter waits for: the scope that has room last, or may never have.
    fn scope_that_lacks(&self, waiter: WaiterId, now: Instant) -> Option<ScopeId> {
        let Need { set, low } = self.queues.class(self.queues.get(waiter)?.class).need();
        let room = |id: &ScopeId| self.scopes[id.index()].room_at(low, &self.rules, now);
        // No room that is known of is later than any.
        set.iter().max_by_key(|id| room(id).map_or((true, now), |at| (false, at)))
    }

    fn refuse(&mut self, waiter: WaiterId, refusal: Refusal, wake: &mut Wakers) {
        if self.queues.get(waiter).is_none_or(|waiter| waiter.state != State::Queued) {
            return;
        }
        let set = self.set_of(waiter);
        self.queues.leave(waiter.index, State::Refused(refusal));
        self.count_waiting(set, -1);
        wake.wake(self.queues.get_mut(waiter).and_then(|waiter| waiter.waker.take()));
    }

    /// Something may make a call start later than it was foretold, which one that starts earlier may do too, to those who need
    /// more: who is told so depends on where each one stands, so that everybody has to be looked at. That is done soon, but
    /// not all the time.
    fn doubt(&mut self, now: Instant) {
        if self.queues.hurried > 0 {
            let pause = BETWEEN_LOOKS.saturating_mul(u32::try_from(self.queues.waiting).unwrap_or(u32::MAX));
            self.doubt.get_or_insert(now.max(self.last_look + pause));
        }
    }

    fn has_room(&mut self, need: Need, now: Instant) -> bool {
        need.set.iter().all(|id| {
            let scope = &mut self.scopes[id.index()];
            scope.expire(now);
            scope.room_at(need.low, &self.rules, now) == Some(now)
        })
    }

    /// When every scope has room, as far as that is known: `None` if it hangs on attempts in flight.
    fn room_at(&self, need: Need, now: Instant) -> Option<Instant> {
        need.set.iter().try_fold(now, |latest, id| {
            let room = self.scopes[id.index()].room_at(need.low, &self.rules, now)?;
            Some(latest.max(room))
        })
    }

    /// Whether as many wait for a scope as may. A call counts those of its own priority and above alone: a flood of batch
    /// work shuts out nobody who goes before it.
    fn is_crowded(&self, id: ScopeId, priority: Priority) -> bool {
        let most = self.rules.max_waiting;
        // Nearly always far from it, whatever their priorities.
        self.scopes[id.index()].waiting >= most && {
            let same = |class: &Class| class.set.contains(id) && class.priority <= priority;
            let queues = self.queues.busy().filter(|(_, class)| same(class));
            queues.map(|(_, class)| class.waiting).sum::<usize>() >= most
        }
    }

    fn take(&mut self, need: Need, now: Instant) {
        need.set.iter().for_each(|id| self.scopes[id.index()].take(need.low, now));
    }

    fn latest(&self, deadline: Option<Instant>, now: Instant) -> Option<Latest> {
        let bound = self.rules.max_wait.map(|wait| Latest { at: now + wait, is_deadline: false });
        let deadline = deadline.map(|at| Latest { at, is_deadline: true });
        deadline.into_iter().chain(bound).min_by_key(|latest| latest.at)
    }

    fn set_of(&self, waiter: WaiterId) -> ScopeSet {
        self.queues.get(waiter).map_or(ScopeSet::EMPTY, |waiter| self.queues.class(waiter.class).set)
    }

    fn count_waiting(&mut self, set: ScopeSet, change: isize) {
        for id in set.iter() {
            let scope = &mut self.scopes[id.index()];
            scope.waiting = scope.waiting.saturating_add_signed(change);
        }
    }
}

/// What an operator sees of a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gauges {
    pub(super) limit: u32,
    pub(super) effective: usize,
    pub(super) used: usize,
    /// Of high, normal and low priority.
    pub(super) waiting: [usize; 3],
    pub(super) oldest_wait: Option<Duration>,
    pub(super) predicted_wait: Duration,
    pub(super) paused_until: Option<Instant>,
}

/// What is to be done with wakers once the ledger is unlocked: waking and dropping one both run code that is not ours.
/// Allocates only if there is any.
#[derive(Debug, Default)]
pub(super) struct Wakers {
    woken: Vec<Waker>,
    retired: Vec<Waker>,
}

impl Wakers {
    pub(super) fn wake(&mut self, waker: Option<Waker>) {
        self.woken.extend(waker);
    }

    fn retire(&mut self, waker: Option<Waker>) {
        self.retired.extend(waker);
    }

    /// Wakes whom that concerns, and drops the others.
    ///
    /// A waker that panics has been reported by the panic hook. It costs neither those after it their turn nor whoever
    /// happened to serve it the slots that he took.
    pub(super) fn settle(self) {
        for waker in self.woken {
            drop(panic::catch_unwind(AssertUnwindSafe(|| waker.wake())));
        }
        drop(self.retired);
    }
}
