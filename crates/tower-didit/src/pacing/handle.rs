//! What an operator sees of the quota.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    keys::{KeyId, Keys},
    ledger::Gauges,
    pacer::Pacer,
    snapshot::{KeyRecord, PacingSnapshot},
};
use crate::{call::Priority, clock::wall};

/// Sees the quota of one [`PacingLayer`](super::PacingLayer). Clones see the same.
///
/// # Example
///
/// ```
/// use tower_didit::pacing::PacingLayer;
///
/// let handle = PacingLayer::didit().handle();
/// for scope in handle.usage() {
///     println!("{}: {} of {}, {} wait", scope.scope, scope.used, scope.effective, scope.waiting);
/// }
/// ```
#[derive(Clone, Debug)]
pub struct PacingHandle {
    pub(super) keys: Arc<Keys>,
}

/// How full one scope is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// The scope's name: those of the configured ones come first, and then the endpoints of which a limit was found out that
    /// none of them has, as in "aml (undocumented)"; a path that the routes do not have is shown as a hash.
    pub scope: String,
    /// How many slots it has: as configured, or as the server has said since.
    pub limit: u32,
    /// How many of them are used at the most, because somebody else uses the same credential.
    pub effective: usize,
    /// How many are taken: by attempts in flight, and by those of the last window.
    pub used: usize,
    /// How many calls wait for one.
    pub waiting: usize,
    /// How long the first of them has waited.
    pub oldest_wait: Option<Duration>,
    /// How long a new call of normal priority would wait that needs nothing else.
    pub predicted_wait: Duration,
    /// Until when nothing is sent, because the server refused a request.
    pub paused_until: Option<Instant>,
    waiting_by_priority: [usize; 3],
}

/// How full the scopes are under one credential.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KeyUsage {
    /// Whose they are.
    pub key: KeyId,
    /// Scope by scope.
    pub scopes: Vec<Usage>,
    /// What shadow mode has let through.
    pub overdrafts: Overdrafts,
}

/// Calls that shadow mode has let through although they should have waited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Overdrafts {
    /// How many there were.
    pub calls: u64,
    /// How many of them would have been refused, for their deadlines.
    pub refused: u64,
    /// How long they should have waited, in total.
    pub wait: Duration,
    /// How long the one that should have waited longest.
    pub longest_wait: Duration,
}

// ===== impl PacingHandle =====

impl PacingHandle {
    /// How full each scope is; if there are several credentials, under the one under which it is fullest.
    pub fn usage(&self) -> Vec<Usage> {
        let now = Instant::now();
        let fullness = |usage: &Usage| (usage.used as f64 / usage.effective.max(1) as f64, usage.waiting as f64);
        let mut keys = self.keys().into_iter().map(|key| key.scopes);
        let Some(first) = keys.next() else { return self.keys.make(KeyId::NONE, now).usage(now) };
        keys.flatten().fold(first, |mut fullest, other| {
            match fullest.iter_mut().find(|one| one.scope == other.scope) {
                Some(one) if fullness(&other) > fullness(one) => *one = other,
                Some(_) => {}
                None => fullest.push(other),
            }
            fullest
        })
    }

    /// How full each scope is under each credential that is in use.
    pub fn keys(&self) -> Vec<KeyUsage> {
        let now = Instant::now();
        let of =
            |pacer: Arc<Pacer>| KeyUsage { key: pacer.key(), scopes: pacer.usage(now), overdrafts: pacer.overdrafts() };
        self.keys.all().into_iter().map(of).collect()
    }

    /// What the next process has to know, if this one sends no more. Calls in flight count as given up.
    pub fn snapshot(&self) -> PacingSnapshot {
        let (now, taken_at) = (Instant::now(), wall());
        let of = |pacer: Arc<Pacer>| KeyRecord { key: pacer.key(), scopes: pacer.records(now) };
        let keys = self.keys.all().into_iter().map(of).collect();
        PacingSnapshot { taken_at, hash_key: self.keys.hash_key(), keys }
    }
}

// ===== impl Usage =====

impl Usage {
    pub(super) fn new(scope: String, gauges: Gauges) -> Self {
        let Gauges { limit, effective, used, waiting, oldest_wait, predicted_wait, paused_until } = gauges;
        Self {
            scope,
            limit,
            effective,
            used,
            waiting: waiting.iter().sum(),
            oldest_wait,
            predicted_wait,
            paused_until,
            waiting_by_priority: waiting,
        }
    }

    /// How many calls of a priority wait.
    pub fn waiting_of(&self, priority: Priority) -> usize {
        self.waiting_by_priority[match priority {
            Priority::High => 0,
            Priority::Normal => 1,
            Priority::Low => 2,
        }]
    }
}

// ===== impl Overdrafts =====

impl Overdrafts {
    pub(super) fn add(&mut self, wait: Duration, refused: bool) {
        self.calls += 1;
        self.refused += u64::from(refused);
        self.wait += wait;
        self.longest_wait = self.longest_wait.max(wait);
    }
}
