//! What all clones of a pacing layer share, and the two things that a call holds of it: a place in a queue, and slots.

use std::{
    sync::{Arc, Mutex, PoisonError},
    task::Waker,
    time::Duration,
};

use didit_api::{Limits, Routes, ScopeId, ScopeSet, ScopeTable};
use http::Request;
use tokio::time::Instant;

use super::{
    error::Refused,
    ledger::{Asked, Ledger, Release, Turn, WaiterId, Wakers},
};
use crate::outcome::{Outcome, Refusal};

#[derive(Debug)]
pub(super) struct Pacer {
    ledger: Mutex<Ledger>,
    limits: Limits,
    routes: Arc<Routes>,
    table: ScopeTable,
    default_pause: Duration,
}

/// Whether a call may go out now.
#[derive(Debug)]
pub(super) enum Entry {
    /// Nothing counts it.
    Free,
    /// It has its slots.
    Granted(Slots),
    /// It has to wait.
    Queued(Place),
}

impl Pacer {
    pub(super) fn new(
        limits: Limits,
        routes: Arc<Routes>,
        default_pause: Duration,
        ledger: impl FnOnce(&Limits, Instant) -> Ledger,
    ) -> Self {
        let table = limits.table(&routes);
        let ledger = Mutex::new(ledger(&limits, Instant::now()));
        Self { ledger, limits, routes, table, default_pause }
    }

    /// Asks for slots on behalf of a request that has to start before `deadline`.
    pub(super) fn enter<B>(
        self: &Arc<Self>,
        request: &Request<B>,
        deadline: Option<Instant>,
        now: Instant,
    ) -> Result<Entry, Refused> {
        let endpoint = self.routes.find(request.method(), request.uri().path());
        let set = self.table.of(endpoint, request.method());
        if set.is_empty() {
            return Ok(Entry::Free);
        }
        match self.with(|ledger, wake| ledger.ask(set, deadline, now, wake)) {
            Asked::Granted => Ok(Entry::Granted(Slots::new(self, set))),
            Asked::Queued { waiter, earliest } => {
                let wait_ms = u64::try_from(earliest.saturating_duration_since(now).as_millis()).unwrap_or(u64::MAX);
                tracing::debug!(wait_ms, "waiting for quota");
                Ok(Entry::Queued(Place { pacer: Arc::clone(self), set, waiter: Some(waiter) }))
            }
            Asked::TooLate { scope, earliest } => Err(Refused::new(self.name(scope), earliest, now)),
        }
    }

    /// Slots of a scope that are taken, and calls that wait for it.
    pub(super) fn usage(&self, scope: ScopeId, now: Instant) -> (usize, usize) {
        self.with(|ledger, _| (ledger.used(scope, now), ledger.waiting(scope)))
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    fn name(&self, scope: ScopeId) -> &str {
        self.limits.scopes().get(scope.index()).map_or("unknown", didit_api::Scope::name)
    }

    /// Takes note of a 429: whoever is behind it, sending more into the same scope is useless until it has passed.
    fn pause(&self, set: ScopeSet, limit: Option<u32>, wait: Option<Duration>, now: Instant) {
        let wait = wait.unwrap_or(self.default_pause);
        if let Some((scope, wait)) = self.with(|ledger, _| ledger.pause(set, limit, wait, now)) {
            let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(scope = self.name(scope), wait_ms, "scope paused: the server refused a request");
        }
    }

    /// Works on the ledger, and wakes whom that served once it is unlocked.
    fn with<R>(&self, work: impl FnOnce(&mut Ledger, &mut Wakers) -> R) -> R {
        let mut wake = Wakers::default();
        // A panic cannot leave the ledger half changed: none of its methods calls out.
        let result = work(&mut self.ledger.lock().unwrap_or_else(PoisonError::into_inner), &mut wake);
        wake.settle();
        result
    }
}

/// A place in a queue. Dropped, it leaves no trace.
#[derive(Debug)]
pub(super) struct Place {
    pacer: Arc<Pacer>,
    set: ScopeSet,
    // `None` once its turn has come.
    waiter: Option<WaiterId>,
}

/// What a place in a queue has come to.
#[derive(Debug)]
pub(super) enum Wait {
    /// Its turn has come.
    Over(Slots),
    /// Its owner must look again at this instant, or when woken.
    Until(Instant),
}

impl Place {
    pub(super) fn look(&mut self, waker: &Waker, now: Instant) -> Wait {
        let Some(waiter) = self.waiter else { unreachable!("a place is looked at until its turn has come") };
        match self.pacer.with(|ledger, wake| ledger.look(waiter, waker, now, wake)) {
            Turn::Waiting { look_again } => Wait::Until(look_again),
            Turn::Granted => {
                self.waiter = None;
                Wait::Over(Slots::new(&self.pacer, self.set))
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(waiter) = self.waiter.take() else { return };
        let now = Instant::now();
        self.pacer.with(|ledger, wake| {
            if ledger.give_up(waiter, now, wake) {
                ledger.release(self.set, Release::Unsent, now, wake);
            }
        });
    }
}

/// Slots that a call holds. Dropped before it was sent, they go back; dropped after, they are held as if it were lost.
#[derive(Debug)]
pub(super) struct Slots {
    pacer: Arc<Pacer>,
    set: ScopeSet,
    on_drop: Option<Release>,
}

impl Slots {
    fn new(pacer: &Arc<Pacer>, set: ScopeSet) -> Self {
        Self { pacer: Arc::clone(pacer), set, on_drop: Some(Release::Unsent) }
    }

    /// From here on the request may have left.
    pub(super) fn sent(&mut self) {
        self.on_drop = Some(Release::Lost);
    }

    /// The attempt has ended.
    pub(super) fn settle(&mut self, outcome: Outcome) {
        let now = Instant::now();
        if let Outcome::Refused { retry_after, reason: Refusal::Throttled { limit } } = outcome {
            self.pacer.pause(self.set, limit, retry_after, now);
        }
        self.release(
            match outcome {
                Outcome::NotSent(_) => Release::Unsent,
                Outcome::Ambiguous => Release::Lost,
                // NOTE: a refused request keeps its slot as well: whether the server counts it is not documented.
                Outcome::Answered | Outcome::Refused { .. } => Release::Answered,
            },
            now,
        );
    }

    fn release(&mut self, how: Release, now: Instant) {
        if self.on_drop.take().is_some() {
            self.pacer.with(|ledger, wake| ledger.release(self.set, how, now, wake));
        }
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        if let Some(how) = self.on_drop {
            self.release(how, Instant::now());
        }
    }
}
