//! What all calls under one credential share, and the two things that a call holds of it: a place in a queue, and slots.

use std::{
    borrow::Cow,
    fmt,
    sync::{Arc, PoisonError},
    task::Waker,
    time::Duration,
};

use didit_api::{Limits, Routes, Scope, ScopeId, ScopeSet, ScopeTable};
use http::{HeaderMap, Method};
use tokio::{runtime::Id, time::Instant};

use super::{
    error::Refused,
    handle::{Overdrafts, Usage},
    keys::KeyId,
    ledger::{
        Asked, Asking, Attempt, Ledger, Need, Refusal, Release, Rules, ScopeRecord, Target, Turn, WaiterId, Wakers,
    },
    timer::{Tick, keep_time},
};
use crate::{
    outcome::{Outcome, Refusal as Reason},
    quota,
    sync::{Mutex, MutexGuard},
};

/// What all ledgers of a layer have in common.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) limits: Limits,
    pub(super) routes: Arc<Routes>,
    pub(super) table: ScopeTable,
    pub(super) rules: Rules,
    pub(super) default_pause: Duration,
    pub(super) cold_start: ColdStart,
    /// When the layer was made.
    pub(super) since: Instant,
    pub(super) shadow: bool,
}

/// What a process assumes that its predecessor sent, of which it knows nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum ColdStart {
    /// Nothing: a full window may go out at once. Right after a restart that is up to twice the limit, and the excess is
    /// refused.
    #[default]
    Empty,
    /// A share of each limit, from 0 to 1, spread evenly over the window before: once the transit bound has passed, as much
    /// becomes free again as the window passes. Safe if the predecessor sent evenly.
    Share(f64),
    /// All of each limit, just now, and perhaps still on its way: nothing is sent for a window, ε and the transit bound.
    /// Safe whatever the predecessor did.
    Full,
}

/// One credential's ledger.
#[derive(Debug)]
pub(super) struct Pacer {
    key: KeyId,
    config: Arc<Config>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    ledger: Ledger,
    timekeepers: Vec<Timekeeper>,
    // How many there have been.
    engaged: u64,
    overdrafts: Overdrafts,
}

/// A task that keeps time.
#[derive(Debug)]
struct Timekeeper {
    number: u64,
    runtime: Id,
    // `None` before it was polled, and once it was woken.
    waker: Option<Waker>,
    // When it looks by itself.
    set_for: Option<Instant>,
}

/// What names limits that none of the scopes has, behind their endpoint.
const UNDOCUMENTED: &str = " (undocumented)";

/// How long a timekeeper may go on that nobody needs: the next call to wait has it then.
const OVER_WITHIN: Duration = Duration::from_secs(5);

/// Whether a call may go out now.
#[derive(Debug)]
pub(super) enum Entry {
    /// It has its slots.
    Granted(Slots),
    /// It has to wait.
    Queued(Place),
    /// Nothing counts it.
    Uncounted,
}

// ===== impl Config =====

impl Config {
    pub(super) fn name(&self, scope: ScopeId) -> Option<&str> {
        self.limits.scopes().get(scope.index()).map(Scope::name)
    }

    /// What a limit is called that none of the scopes has.
    fn undocumented(&self, target: Target) -> String {
        match target {
            Target::Endpoint(id) => format!("{}{UNDOCUMENTED}", self.routes.get(id).name()),
            Target::Path(hash) => format!("path {hash:04x}{UNDOCUMENTED}"),
        }
    }

    /// The endpoint of which such a limit is, and the scopes that count it. Of paths that the routes do not have, nothing is
    /// known by their names.
    fn undocumented_named(&self, name: &str) -> Option<(Target, ScopeSet)> {
        let endpoint = self.routes.named(name.strip_suffix(UNDOCUMENTED)?)?;
        Some((Target::Endpoint(endpoint), self.table.of(Some(endpoint), &Method::POST)))
    }
}

// ===== impl Pacer =====

impl Pacer {
    pub(super) fn new(config: Arc<Config>, key: KeyId, now: Instant) -> Self {
        let mut ledger = Ledger::new(&config.limits, config.rules, now);
        ledger.assume(config.cold_start, &config.limits, &[], config.since, now);
        Self::with_ledger(config, key, ledger)
    }

    /// Goes on from what another process knew `elapsed` ago.
    pub(super) fn restored(
        config: Arc<Config>,
        key: KeyId,
        records: &[ScopeRecord],
        elapsed: Duration,
        now: Instant,
    ) -> Self {
        let mut ledger = Ledger::new(&config.limits, config.rules, now);
        ledger.take_up(&config.limits, records, elapsed, now);
        for record in records {
            if let Some((target, set)) = config.undocumented_named(&record.scope) {
                ledger.take_up_undocumented(target, set, record, elapsed, now);
            }
        }
        ledger.assume(config.cold_start, &config.limits, records, config.since, now);
        Self::with_ledger(config, key, ledger)
    }

    fn with_ledger(config: Arc<Config>, key: KeyId, ledger: Ledger) -> Self {
        let state = State { ledger, timekeepers: Vec::new(), engaged: 0, overdrafts: Overdrafts::default() };
        Self { key, config, state: Mutex::new(state) }
    }

    pub(super) fn key(&self) -> KeyId {
        self.key
    }

    /// Asks for slots on behalf of a call.
    pub(super) fn enter(self: Arc<Self>, asking: &Asking, now: Instant) -> Result<Entry, Refused> {
        if self.config.shadow {
            return Ok(Entry::Granted(self.overdraw(asking, now)));
        }
        // Foretelling a start costs more than asking for it, so it is done for whoever reads it only.
        let is_logged = tracing::enabled!(tracing::Level::DEBUG);
        let (asking, asked, wait) = self.with(now, |ledger, wake| {
            let asking = asking.completed(ledger);
            let wait = if is_logged { ledger.wait_of(&asking, now) } else { Duration::ZERO };
            (asking, ledger.ask(&asking, now, wake), wait)
        });
        match asked {
            Asked::Granted => Ok(Entry::Granted(Slots::new(self, asking.need(), asking.target))),
            Asked::Queued(waiter) => {
                tracing::debug!(wait_ms = millis(wait), "waiting for quota");
                Ok(Entry::Queued(Place { pacer: self, target: asking.target, waiter: Some(waiter) }))
            }
            Asked::Refused(refusal) => Err(self.refused(refusal, now)),
        }
    }

    /// Lets a call through whatever the ledger says, and keeps count of what it would have said.
    fn overdraw(self: Arc<Self>, asking: &Asking, now: Instant) -> Slots {
        let mut state = self.lock();
        let asking = asking.completed(&state.ledger);
        let wait = state.ledger.overdraw(&asking, now);
        if !wait.is_zero() {
            let refused = asking.deadline.is_some_and(|deadline| now + wait > deadline);
            state.overdrafts.add(wait, refused);
        }
        drop(state);
        if !wait.is_zero() {
            tracing::debug!(wait_ms = millis(wait), "would have waited for quota");
        }
        Slots::new(self, asking.need(), asking.target)
    }

    fn name(&self, scope: ScopeId) -> Cow<'_, str> {
        self.config.name(scope).map_or_else(
            || {
                let target = self.lock().ledger.undocumented().find(|(id, _)| *id == scope);
                target.map_or(Cow::Borrowed("unknown"), |(_, target)| self.config.undocumented(target).into())
            },
            Cow::Borrowed,
        )
    }

    fn refused(&self, refusal: Refusal, now: Instant) -> Refused {
        Refused::new(&self.name(refusal.scope), refusal.why, refusal.retry_at, now)
    }

    /// What an operator sees, scope by scope.
    pub(super) fn usage(&self, now: Instant) -> Vec<Usage> {
        let mut state = self.lock();
        let ledger = &mut state.ledger;
        let configured = self.config.limits.iter().map(|(id, scope)| (id, scope.name().to_owned()));
        let undocumented = ledger.undocumented().map(|(id, target)| (id, self.config.undocumented(target)));
        let scopes: Vec<_> = configured.chain(undocumented).collect();
        scopes.into_iter().map(|(id, name)| Usage::new(name, ledger.gauges(id, now))).collect()
    }

    pub(super) fn overdrafts(&self) -> Overdrafts {
        self.lock().overdrafts
    }

    pub(super) fn records(&self, now: Instant) -> Vec<ScopeRecord> {
        let mut state = self.lock();
        let ledger = &mut state.ledger;
        let mut records = ledger.records(&self.config.limits, now);
        let endpoints = ledger.undocumented().filter(|(_, target)| matches!(target, Target::Endpoint(_)));
        for (id, target) in endpoints.collect::<Vec<_>>() {
            records.push(ledger.record(id, self.config.undocumented(target), now));
        }
        records
    }

    /// When nothing is left that has to be remembered; `None` if that cannot be known yet.
    pub(super) fn idle_at(&self, now: Instant) -> Option<Instant> {
        self.lock().ledger.idle_at(now)
    }

    /// Does what is due on behalf of a timekeeper.
    pub(super) fn tick(&self, number: u64, waker: &Waker, now: Instant) -> Tick {
        let mut wake = Wakers::default();
        let mut state = self.lock();
        let State { ledger, timekeepers, .. } = &mut *state;
        ledger.tick(now, &mut wake);
        let tick = if ledger.is_waited_for() { Tick::Until(ledger.next_event(now)) } else { Tick::Over };
        match tick {
            Tick::Over => timekeepers.retain(|timekeeper| timekeeper.number != number),
            Tick::Until(next) => {
                if let Some(timekeeper) = timekeepers.iter_mut().find(|timekeeper| timekeeper.number == number) {
                    timekeeper.set_for = next;
                    timekeeper.waker.get_or_insert_with(|| waker.clone()).clone_from(waker);
                }
            }
        }
        drop(state);
        wake.settle();
        tick
    }

    /// A timekeeper has ended. If somebody still waits, everybody has to see to it that there is another.
    pub(super) fn dismiss(&self, number: u64) {
        let mut wake = Wakers::default();
        let mut state = self.lock();
        let known = state.timekeepers.len();
        state.timekeepers.retain(|timekeeper| timekeeper.number != number);
        if state.timekeepers.len() < known && state.ledger.is_waited_for() {
            state.ledger.wake_all(&mut wake);
        }
        drop(state);
        wake.settle();
    }

    /// Whether a runtime has a timekeeper.
    pub(super) fn is_kept_by(&self, runtime: Id) -> bool {
        self.lock().timekeepers.iter().any(|timekeeper| timekeeper.runtime == runtime)
    }

    /// Notes that a runtime has a timekeeper from now on, and gives it a number; `None` if it has one.
    pub(super) fn engage(&self, runtime: Id) -> Option<u64> {
        let mut state = self.lock();
        if state.timekeepers.iter().any(|timekeeper| timekeeper.runtime == runtime) {
            return None;
        }
        state.engaged += 1;
        let number = state.engaged;
        state.timekeepers.push(Timekeeper { number, runtime, waker: None, set_for: None });
        Some(number)
    }

    /// Takes note of a 429: whoever is behind it, sending more into the same scope is useless until it has passed.
    fn throttled(&self, need: Need, attempt: Attempt, limit: Option<u32>, wait: Option<Duration>, now: Instant) {
        let wait = wait.unwrap_or(self.config.default_pause);
        let Some(lesson) = self.with(now, |ledger, _| ledger.refused(need.set, attempt, limit, wait, now)) else {
            let scope = self.config.undocumented(attempt.target);
            tracing::warn!(scope, limit, "the server refused a request by a limit of no scope that is known");
            return;
        };
        let scope = self.name(lesson.scope);
        let scope = &*scope;
        if let Some(limit) = lesson.adopted {
            match self.config.name(lesson.scope) {
                Some(scope) => tracing::warn!(scope, limit, "the server's limit has changed"),
                None => tracing::warn!(scope, limit, "the server has a limit that no scope is configured with"),
            }
        }
        let wait_ms = millis(lesson.wait);
        tracing::warn!(scope, wait_ms, effective = lesson.effective, "scope paused: the server refused a request");
    }

    /// Takes note of an answer, and of what it says about the quota.
    fn answered(&self, need: Need, said: Option<quota::RateLimit>, sent: Instant, now: Instant) {
        let counted = self.with(now, |ledger, wake| {
            ledger.answered(need.set, now, wake);
            // Before its own slot is given back: the server has counted it.
            let counted =
                said.and_then(|said| ledger.resynchronise(need.set, said.limit, said.remaining?, said.reset, now));
            ledger.release(need, Release::Answered, Some(sent), now, wake);
            counted
        });
        if let Some((scope, foreign)) = counted.filter(|(_, foreign)| *foreign > 0) {
            tracing::debug!(
                scope = %self.name(scope),
                foreign,
                "the server has counted more than was sent from here"
            );
        }
    }

    /// Works on the ledger, wakes whom that served once it is unlocked, and the timekeepers if something is due earlier.
    fn with<R>(&self, now: Instant, work: impl FnOnce(&mut Ledger, &mut Wakers) -> R) -> R {
        let mut wake = Wakers::default();
        let mut state = self.lock();
        let State { ledger, timekeepers, .. } = &mut *state;
        let result = work(ledger, &mut wake);
        if !timekeepers.is_empty() {
            let is_over = !ledger.is_waited_for();
            let next = ledger.next_event(now);
            for timekeeper in timekeepers {
                match (timekeeper.set_for, next) {
                    // It would not notice by itself for long, or ever, that nobody waits any more.
                    (at, _) if is_over && at.is_none_or(|at| at > now + OVER_WITHIN) => timekeeper.set_for = None,
                    (set_for, Some(next)) if set_for.is_none_or(|at| next < at) => timekeeper.set_for = Some(next),
                    _ => continue,
                }
                wake.wake(timekeeper.waker.take());
            }
        }
        drop(state);
        wake.settle();
        result
    }

    // A panic cannot leave the ledger half changed: none of its methods calls out.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A place in a queue. Dropped, it leaves no trace.
pub(super) struct Place {
    pacer: Arc<Pacer>,
    target: Target,
    // `None` once its turn has come.
    waiter: Option<WaiterId>,
}

/// What a place in a queue has come to.
#[derive(Debug)]
pub(super) enum Wait {
    /// Its turn has come.
    Over(Slots),
    /// It is woken when its turn has come.
    Pending,
    /// Its turn would come too late.
    Refused(Refused),
}

// ===== impl Place =====

impl Place {
    pub(super) fn look(&mut self, waker: &Waker, now: Instant) -> Wait {
        let Some(waiter) = self.waiter else { return Wait::Pending };
        match self.pacer.with(now, |ledger, wake| ledger.look(waiter, waker, now, wake)) {
            Turn::Waiting => Wait::Pending,
            Turn::Granted(need) => {
                self.waiter = None;
                Wait::Over(Slots::new(Arc::clone(&self.pacer), need, self.target))
            }
            Turn::Refused(refusal) => {
                self.waiter = None;
                Wait::Refused(self.pacer.refused(refusal, now))
            }
        }
    }

    /// Sees to it that somebody on this runtime keeps time.
    ///
    /// # Panics
    ///
    /// As `tokio::time::sleep`, outside of a runtime with a timer.
    pub(super) fn keep_time(&self) {
        keep_time(&self.pacer);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(waiter) = self.waiter.take() else { return };
        let now = Instant::now();
        self.pacer.with(now, |ledger, wake| ledger.give_up(waiter, now, wake));
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("target", &self.target).field("waiter", &self.waiter).finish_non_exhaustive()
    }
}

/// Slots that a call holds. Dropped before it was sent, they go back; dropped after, they are held as if it were lost.
pub(super) struct Slots {
    pacer: Arc<Pacer>,
    need: Need,
    target: Target,
    // When it was sent.
    sent: Option<Instant>,
    held: bool,
}

// ===== impl Slots =====

impl Slots {
    fn new(pacer: Arc<Pacer>, need: Need, target: Target) -> Self {
        Self { pacer, need, target, sent: None, held: true }
    }

    /// From here on the request may have left.
    pub(super) fn sent(&mut self, now: Instant) {
        self.sent = Some(now);
    }

    /// The attempt has ended; `headers` are those of its answer.
    pub(super) fn settle(&mut self, outcome: Outcome, headers: Option<&HeaderMap>) {
        let now = Instant::now();
        let how = match outcome {
            Outcome::NotSent(_) => Release::Unsent,
            Outcome::Ambiguous => Release::Lost,
            // NOTE: a refused request keeps its slot as well: whether the server counts it is not documented.
            Outcome::Answered | Outcome::Refused { .. } => Release::Answered,
        };
        let sent = self.sent.unwrap_or(now);
        match outcome {
            Outcome::Refused { retry_after, reason: Reason::Throttled { limit } } => {
                let attempt = Attempt { target: self.target, sent };
                self.pacer.throttled(self.need, attempt, limit, retry_after, now);
            }
            Outcome::Answered if std::mem::take(&mut self.held) => {
                let said = headers.filter(|headers| speaks_of_quota(headers));
                let said = said.map(|headers| quota::read(headers, quota::wall_clock(headers)).rate_limit);
                self.pacer.answered(self.need, said, sent, now);
            }
            _ => {}
        }
        self.release(how, now);
    }

    fn release(&mut self, how: Release, now: Instant) {
        if std::mem::take(&mut self.held) {
            let (need, sent) = (self.need, self.sent);
            self.pacer.with(now, |ledger, wake| ledger.release(need, how, sent, now, wake));
        }
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        if self.held {
            let how = if self.sent.is_some() { Release::Lost } else { Release::Unsent };
            self.release(how, Instant::now());
        }
    }
}

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slots").field("need", &self.need).field("sent", &self.sent).finish_non_exhaustive()
    }
}

/// Whether a response says anything about quota, found in one walk over the names of its headers.
fn speaks_of_quota(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| match name.as_str().as_bytes() {
        [b'x', b'-', name @ ..] | name @ [b'r', ..] => name.starts_with(b"ratelimit"),
        _ => false,
    })
}
