//! Limits that none of the configured scopes has: each is taken for that of one endpoint, and kept to by a scope of its own.
//!
//! A refusal by a limit that no scope of the request is known to have is of a scope nobody has told us of, or of one that
//! was lowered. In both cases requests to the same endpoint will be refused again, so they are held up, and nobody else is.
//! What was let in of them is not known; it is assumed to have been as much as the limit allows, evenly, and the limit to be
//! for a window of the scopes that are known: nothing says so, and one for a second costs its endpoint throughput.
//!
//! If a scope was lowered, requests to its other endpoints are refused too. Once the scope that counts two of them has let
//! in no more than the limit within a window, it is that one's: it takes the limit over, and the scopes of single endpoints
//! are done with. Until then each endpoint is refused about once.
//!
//! A limit that the server does not name again is relaxed as every other that was adopted is. There are no more than
//! [`MOST`] under a credential at a time; whoever is refused beyond that is left to the policy of retries.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    num::NonZeroU32,
    time::Duration,
};

use didit_api::{EndpointId, ScopeId, ScopeSet};
use tokio::time::Instant;

use super::{Ledger, scope::Scope};

/// How many there are at a time: an API has few, and every one is looked through.
const MOST: usize = 16;

/// What a request is sent to, as far as a limit of that alone is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::pacing) enum Target {
    /// An endpoint of the routes.
    Endpoint(EndpointId),
    /// A path that they do not have, as a hash. Two that are taken for one wait for each other.
    Path(u16),
}

/// What a scope beyond the configured ones is for; its place is theirs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Undocumented {
    target: Target,
    /// The configured scopes that count the same requests.
    beside: ScopeSet,
}

// ===== impl Target =====

impl Target {
    pub(in crate::pacing) fn new(endpoint: Option<EndpointId>, path: &str) -> Self {
        endpoint.map_or_else(
            || {
                let mut hasher = DefaultHasher::new();
                path.hash(&mut hasher);
                let [first, second, ..] = hasher.finish().to_be_bytes();
                Self::Path(u16::from_be_bytes([first, second]))
            },
            Self::Endpoint,
        )
    }
}

// ===== impl Ledger =====

impl Ledger {
    /// The configured scopes of a request, and that of its target if there is one.
    pub(in crate::pacing) fn with_undocumented(&self, mut set: ScopeSet, target: Target) -> ScopeSet {
        if let Some(id) = self.undocumented_of(target).filter(|id| !self.is_forgotten(*id)) {
            set.insert(id);
        }
        set
    }

    /// The set of one who comes back: which scope its target has may have changed.
    pub(super) fn renewed(&self, set: ScopeSet, target: Target) -> ScopeSet {
        let mut configured = ScopeSet::EMPTY;
        set.iter().filter(|id| !self.is_undocumented(*id)).for_each(|id| configured.insert(id));
        self.with_undocumented(configured, target)
    }

    /// All that somebody may have to wait for, and what they are for.
    pub(in crate::pacing) fn undocumented(&self) -> impl Iterator<Item = (ScopeId, Target)> {
        let is_of_use = |id: &ScopeId| !self.is_forgotten(*id) || self.scopes[id.index()].waiting > 0;
        self.each_undocumented().map(|(id, known)| (id, known.target)).filter(move |(id, _)| is_of_use(id))
    }

    /// Whether a scope is one of these.
    pub(super) fn is_undocumented(&self, id: ScopeId) -> bool {
        id.index() >= self.scopes.len() - self.undocumented.len()
    }

    fn each_undocumented(&self) -> impl Iterator<Item = (ScopeId, &Undocumented)> {
        let first = self.scopes.len() - self.undocumented.len();
        (first..).map_while(ScopeId::at).zip(&self.undocumented)
    }

    pub(super) fn undocumented_of(&self, target: Target) -> Option<ScopeId> {
        self.each_undocumented().find(|(_, known)| known.target == target).map(|(id, _)| id)
    }

    /// Whether a scope is one of these whose limit counts no more.
    pub(super) fn is_forgotten(&self, id: ScopeId) -> bool {
        let limit = &self.scopes[id.index()].limit;
        self.is_undocumented(id) && limit.named().is_none() && limit.learned().is_none()
    }

    /// The scope that a target has alone, made if need be: it has let in as many as `limit` says, but no more than the
    /// scopes beside it, the first of which the server forgets after `wait`. `None` if there are too many.
    pub(super) fn scope_of(
        &mut self,
        target: Target,
        set: ScopeSet,
        limit: NonZeroU32,
        wait: Duration,
        now: Instant,
    ) -> Option<ScopeId> {
        let id = match self.undocumented_of(target) {
            Some(id) if !self.is_forgotten(id) => return Some(id),
            Some(id) => id,
            None => self.add_undocumented(target, set, limit, now)?,
        };
        let most = set.iter().map(|id| self.scopes[id.index()].all.used()).max().unwrap_or(0);
        let scope = &mut self.scopes[id.index()];
        let (first, last) = (now + wait.min(scope.hold), now + scope.hold);
        let unknown = most.min(limit.get() as usize).saturating_sub(scope.all.used());
        for place in 1..=unknown {
            scope.assume(first + (last - first).mul_f64(place as f64 / unknown as f64));
        }
        scope.waiting += self.queues.add_scope(target, id);
        Some(id)
    }

    pub(super) fn add_undocumented(
        &mut self,
        target: Target,
        beside: ScopeSet,
        limit: NonZeroU32,
        now: Instant,
    ) -> Option<ScopeId> {
        let beside_it = || beside.iter().map(|id| &self.scopes[id.index()]);
        // Nothing is limited by it that is not limited already, until its limit is taken over.
        let widest = beside_it().map(|scope| scope.limit.adopted()).max()?.max(limit);
        let longest = beside_it().map(|scope| scope.hold).max()?;
        let scope = Scope::counting(1, widest, longest, &self.rules, now);
        let known = Undocumented { target, beside };
        let vacant = self.each_undocumented().position(|(id, _)| self.scopes[id.index()].idle_at(now) == Some(now));
        if let Some(place) = vacant {
            let id = ScopeId::at(self.scopes.len() - self.undocumented.len() + place)?;
            (self.undocumented[place], self.scopes[id.index()]) = (known, scope);
            return Some(id);
        }
        let id = ScopeId::at(self.scopes.len()).filter(|_| self.undocumented.len() < MOST)?;
        self.undocumented.push(known);
        self.scopes.push(scope);
        Some(id)
    }

    /// Whose limit a request to this target was refused by, if refusals by the same one tell.
    ///
    /// Another target was refused by it: it is that of a configured scope which counts both, and was lowered. This one was,
    /// and the request was sent before, without a slot of the scope that was made then: it is that one's.
    pub(super) fn explained(&self, target: Target, set: ScopeSet, limit: u32, now: Instant) -> Option<ScopeId> {
        let scope = |id: ScopeId| &self.scopes[id.index()];
        let alike = || self.each_undocumented().filter(|(id, _)| scope(*id).limit.named() == Some(limit));
        let others = || alike().filter(|(_, known)| known.target != target);
        let is_common = |id: &ScopeId| others().any(|(_, other)| other.beside.contains(*id));
        let common = set.iter().filter(|id| is_common(id) && scope(*id).may_have(limit, &self.rules, now));
        let own = alike().find(|(id, known)| known.target == target && !set.contains(*id)).map(|(id, _)| id);
        common.min_by_key(|id| scope(*id).breadth).or(own)
    }

    /// A configured scope has this limit: what was taken for limits of single endpoints was that.
    pub(super) fn explain_by(&mut self, id: ScopeId, limit: u32) {
        let first = self.scopes.len() - self.undocumented.len();
        for (known, scope) in self.undocumented.iter().zip(&mut self.scopes[first..]) {
            if known.beside.contains(id) && scope.limit.named() == Some(limit) {
                scope.set_free();
            }
        }
    }
}
