//! What the server's answers teach: a limit that has changed, and somebody else who uses the same credential.
//!
//! # The learned limit
//!
//! Somebody else's requests are invisible here, until one of ours is refused. Then our slots are known to be too many by
//! at least one, and the limit that is kept to, the *effective* one, becomes 98 % of the slots that we held. Each answer
//! raises it again by 0.02 of a slot: at a limit of 300, five a minute, so that whoever keeps using 60 of it costs some
//! six refusals a minute and no more. With every window that passes without a refusal the raise doubles, so that it is
//! all back within minutes once the other is gone. It is never above the limit proper, and one refusal never takes more
//! than half of it, because the other's burst that just happened is no measure of what is left in the long run. Refusals
//! of requests that were on their way already say nothing new.
//!
//! # Whose limit the server names
//!
//! A refusal says a limit, and not of which of the request's scopes it is. It is none whose limit has been exceeded in the
//! last window without a refusal. Of the others it is the one that is known to have this limit, and that is full, or at
//! least was configured with it. Otherwise a limit has changed. It is that of the scope which counts the fewest endpoints,
//! if that counts no other than the request's: no request is held up that would not have been, and if it is another's,
//! there will be more refusals, which cannot be that scope's any more. A limit of several endpoints is changed by what two
//! of them are refused for; until then it is taken for one of the [endpoint alone](super::undocumented). So is a limit that
//! each of the scopes has exceeded without a refusal.
//!
//! # The adopted limit
//!
//! A limit that the server names in a refusal is taken over by the scope whose it is. It may have been named by mistake, or
//! for a while only, and nothing says when it is no longer so. So one that is lower than the configured limit and is not
//! named again for ten windows counts as if it had been learned just then: answers raise it, and if the server still means
//! it, it refuses one request and names it again.

use std::{num::NonZeroU32, time::Duration};

use didit_api::{ScopeId, ScopeSet};
use tokio::time::Instant;

use super::{Attempt, Ledger, Target, Wakers, scope::Scope};

/// How many slots a scope has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    configured: NonZeroU32,
    /// What the server said since.
    adopted: NonZeroU32,
    /// What can be had beside others.
    learned: f64,
    lowered_at: Option<Instant>,
    /// When the server last named a limit other than the configured one.
    named_at: Option<Instant>,
}

/// What a refusal changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::pacing) struct Lesson {
    /// The scope that is paused.
    pub(in crate::pacing) scope: ScopeId,
    /// For how long.
    pub(in crate::pacing) wait: Duration,
    /// How many slots it has now.
    pub(in crate::pacing) effective: usize,
    /// The limit that the server named and that was taken over.
    pub(in crate::pacing) adopted: Option<u32>,
}

// ===== impl Limit =====

impl Limit {
    /// What is left of the slots held when one too many was refused.
    const DECREASE: f64 = 0.98;

    /// What one answer adds.
    const INCREASE: f64 = 0.02;

    /// The most that one refusal takes.
    const MOST: f64 = 0.5;

    /// Windows after which a limit that nothing was sent under is forgotten: the other may be long gone.
    const FORGOTTEN_AFTER: u32 = 10;

    /// How far above the configured limit the server's word is taken for, where it is taken at all.
    const HIGHEST: u32 = 10;

    pub(super) fn new(configured: NonZeroU32) -> Self {
        Self { configured, adopted: configured, learned: f64::from(configured.get()), lowered_at: None, named_at: None }
    }

    pub(super) fn adopted(&self) -> NonZeroU32 {
        self.adopted
    }

    /// Goes back to the configured limit.
    pub(super) fn forget(&mut self) {
        *self = Self::new(self.configured);
    }

    fn is_configured(&self) -> bool {
        self.adopted == self.configured
    }

    /// The limit that the server named, if it is not the configured one.
    pub(super) fn named(&self) -> Option<u32> {
        (!self.is_configured()).then(|| self.adopted.get())
    }

    /// The limit that is kept to.
    pub(super) fn effective(&self) -> usize {
        // At least one, whatever was learned: who sends nothing learns nothing more.
        if self.lowered_at.is_none() { self.adopted.get() as usize } else { self.learned.max(1.0) as usize }
    }

    /// What is above `effective`, for a snapshot.
    pub(super) fn learned(&self) -> Option<f64> {
        self.lowered_at.map(|_| self.learned)
    }

    /// Goes back to what another process had learned.
    pub(super) fn restore(&mut self, named: Option<u32>, learned: Option<f64>, now: Instant, raise: bool) {
        if let Some(limit) = named {
            self.adopt(limit, now, raise);
        }
        if let Some(learned) = learned.filter(|learned| learned.is_finite()) {
            self.learned = learned.clamp(1.0, f64::from(self.adopted.get()));
            self.lowered_at = Some(now);
        }
    }

    /// Takes over a limit that the server named; true if that changed anything.
    pub(super) fn adopt(&mut self, limit: u32, now: Instant, raise: bool) -> bool {
        let highest = if raise { self.configured.get().saturating_mul(Self::HIGHEST) } else { self.configured.get() };
        let Some(limit) = NonZeroU32::new(limit.min(highest)) else { return false };
        let changed = limit != self.adopted;
        self.adopted = limit;
        self.learned = self.learned.min(f64::from(limit.get()));
        self.named_at = self.named().map(|_| now);
        changed
    }

    /// A request that was sent at `sent` was refused while `used` slots were held.
    fn lower(&mut self, used: usize, sent: Instant, now: Instant) {
        if self.lowered_at.is_some_and(|at| sent <= at) {
            return;
        }
        let current = self.effective() as f64;
        let left = (used as f64).min(current) * Self::DECREASE;
        let left = left.max(current * Self::MOST);
        self.learned = left.max(1.0);
        self.lowered_at = Some(now);
    }

    /// The server has not repeated for so long that its limit is lower than the configured one that it may have meant
    /// something else, or has changed it back: its word counts as learned from here on.
    fn doubt(&mut self, hold: Duration, now: Instant) {
        let is_over = |at: Instant| now >= at + hold * Self::FORGOTTEN_AFTER;
        if self.adopted < self.configured && self.named_at.is_some_and(is_over) {
            self.learned = self.effective() as f64;
            // It is raised as slowly as if it had been learned just now: if the server does mean it, few are refused.
            self.lowered_at = Some(now);
            (self.adopted, self.named_at) = (self.configured, None);
        }
    }

    /// A request was answered.
    fn raise(&mut self, hold: Duration, now: Instant) {
        /// A slot and more for each answer: beyond that nothing is gained.
        const MOST_DOUBLINGS: f64 = 8.0;

        self.doubt(hold, now);
        let Some(at) = self.lowered_at else { return };
        let quiet = now.saturating_duration_since(at).as_secs_f64() / hold.as_secs_f64().max(1e-3);
        self.learned += Self::INCREASE * quiet.floor().min(MOST_DOUBLINGS).exp2();
        if self.learned >= f64::from(self.adopted.get()) {
            self.learned = f64::from(self.adopted.get());
            self.lowered_at = None;
        }
    }

    /// When a limit that was learned, or named by the server, is no longer remembered on its account.
    pub(super) fn forgotten_at(&self, hold: Duration, now: Instant) -> Instant {
        let latest = self.lowered_at.max(self.named_at);
        latest.map_or(now, |at| (at + hold * Self::FORGOTTEN_AFTER).max(now))
    }
}

// ===== impl Ledger =====

impl Ledger {
    /// A request was refused for its rate: lets nothing through the scope behind it for as long as the server asks, and
    /// takes less from then on. `None` if that is none of its scopes, and no more can be remembered.
    ///
    /// A window that is full now is empty when it has passed, so a pause never takes longer than that, whatever is asked.
    pub(in crate::pacing) fn refused(
        &mut self,
        set: ScopeSet,
        attempt: Attempt,
        limit: Option<u32>,
        wait: Duration,
        now: Instant,
    ) -> Option<Lesson> {
        let Attempt { target, sent } = attempt;
        let blamed = self.refused_by(set, target, limit, wait, now);
        for id in set.iter() {
            let scope = &mut self.scopes[id.index()];
            scope.not_let_in(now + scope.hold);
        }
        let (id, limit) = blamed?;
        let Self { scopes, rules, .. } = self;
        let scope = &mut scopes[id.index()];
        let changed = limit.is_some_and(|limit| scope.limit.adopt(limit, now, rules.raise_limits));
        scope.reshape(rules);
        // How many it may have is said by those who have its slots.
        if set.contains(id) {
            scope.limit.lower(scope.all.used(), sent, now);
        }
        let wait = wait.min(scope.hold);
        let adopted = scope.limit.adopted();
        scope.pause(now + wait, adopted);
        let lesson =
            Lesson { scope: id, wait, effective: scope.limit.effective(), adopted: changed.then(|| adopted.get()) };
        if let Some(limit) = limit {
            self.explain_by(id, limit);
        }
        self.doubt(now);
        Some(lesson)
    }

    /// The scope behind a refusal, and the limit that it has from now on, if the server named one of its.
    fn refused_by(
        &mut self,
        set: ScopeSet,
        target: Target,
        limit: Option<u32>,
        wait: Duration,
        now: Instant,
    ) -> Option<(ScopeId, Option<u32>)> {
        let all = self.with_undocumented(set, target);
        all.iter().for_each(|id| self.scopes[id.index()].expire(now));
        let Some(limit) = limit else {
            return self.attribute(all, None, now).map(|(id, _)| (id, None));
        };
        // A limit of nothing is no scope's, but an endpoint's that was switched off. Whoever sends nothing does not learn
        // when that is over.
        let is_off = limit == 0;
        let limit = NonZeroU32::new(limit).unwrap_or(NonZeroU32::MIN);
        let named = limit.get();
        if let Some(id) = self.explained(target, set, named, now).filter(|_| !is_off) {
            return Some((id, Some(named)));
        }
        let (id, evidence) = self.attribute(all, Some(named), now)?;
        let Scope { limit: known, breadth, .. } = &self.scopes[id.index()];
        let is_changed = evidence != Evidence::None && (*breadth == 1 || limit > known.adopted());
        let is_its_own = limit == known.adopted() || (is_changed && !self.is_forgotten(id));
        let id = if is_its_own { id } else { self.scope_of(target, set, limit, wait, now)? };
        // A higher limit than that of the endpoint alone is another's, which is not known yet.
        let is_anothers = self.is_undocumented(id) && self.scopes[id.index()].limit.adopted() < limit;
        Some((id, Some(named).filter(|_| !is_anothers)))
    }

    /// A request was answered: whatever was learned is relaxed a little.
    pub(in crate::pacing) fn answered(&mut self, set: ScopeSet, now: Instant, wake: &mut Wakers) {
        let mut raised = false;
        for id in set.iter() {
            let scope = &mut self.scopes[id.index()];
            let before = scope.limit.effective();
            scope.limit.raise(scope.hold, now);
            scope.reshape(&self.rules);
            raised |= scope.limit.effective() > before;
        }
        if raised {
            self.serve(now, wake);
            self.doubt(now);
        }
    }

    /// A response said how many requests are `left` of a limit. What the server has counted beyond what is known here was
    /// sent by somebody else, and takes slots until the window is over.
    ///
    /// That the server has counted *less* is no news: attempts in flight may not have arrived, and ε is ours alone.
    pub(in crate::pacing) fn resynchronise(
        &mut self,
        set: ScopeSet,
        limit: Option<u32>,
        left: u32,
        reset: Option<Duration>,
        now: Instant,
    ) -> Option<(ScopeId, usize)> {
        set.iter().for_each(|id| self.scopes[id.index()].expire(now));
        let (id, _) = self.attribute(set, limit, now).filter(|(_, evidence)| *evidence == Evidence::Certain)?;
        let Self { scopes, rules, .. } = self;
        let scope = &mut scopes[id.index()];
        let adopted = limit.is_some_and(|limit| scope.limit.adopt(limit, now, rules.raise_limits));
        if adopted {
            scope.reshape(rules);
        }
        // A limit that is said and was not adopted is that of another scope than ours.
        let stated = limit.map_or(scope.limit.adopted().get(), |limit| limit.min(scope.limit.adopted().get()));
        let counted = stated.saturating_sub(left) as usize;
        let foreign = counted.saturating_sub(scope.all.used());
        let free = now + reset.unwrap_or(scope.hold).min(scope.hold);
        (0..foreign).for_each(|_| scope.assume(free));
        if adopted || foreign > 0 {
            self.doubt(now);
        }
        Some((id, foreign))
    }

    /// Which scope the server speaks of.
    fn attribute(&self, set: ScopeSet, limit: Option<u32>, now: Instant) -> Option<(ScopeId, Evidence)> {
        let scope = |id: ScopeId| &self.scopes[id.index()];
        let adopted = |id: ScopeId| scope(id).limit.adopted().get();
        let alone = set.iter().count() == 1;
        let Some(limit) = limit else {
            let evidence = if alone { Evidence::Certain } else { Evidence::None };
            return set.iter().min_by_key(|id| adopted(*id)).map(|id| (id, evidence));
        };
        let can_be = |id: ScopeId| scope(id).may_have(limit, &self.rules, now);
        let tells = set.iter().any(can_be);
        let candidates = || set.iter().filter(|id| !tells || can_be(*id));
        // What was taken over, and is not full, is hardly what is exceeded.
        let has = |id: ScopeId| {
            let is_full = || scope(id).all.used() >= limit as usize;
            adopted(id) == limit && (alone || scope(id).limit.is_configured() || is_full())
        };
        // Of several with one limit, the fullest it must have been.
        if let Some(id) = candidates().filter(|id| has(*id)).max_by_key(|id| scope(*id).all.used()) {
            return Some((id, Evidence::Certain));
        }
        let changed = || candidates().filter(|id| adopted(*id) != limit);
        let specific = |id: &ScopeId| (scope(*id).breadth, adopted(*id));
        let id = changed().min_by_key(specific).or_else(|| candidates().min_by_key(specific))?;
        let evidence = match changed().count() {
            _ if !tells => Evidence::None,
            1 => Evidence::Certain,
            _ => Evidence::Some,
        };
        Some((id, evidence))
    }
}

/// How sure it is which scope the server speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Evidence {
    /// It cannot be another.
    Certain,
    /// Others it could be as well.
    Some,
    /// It is none that is known of.
    None,
}
