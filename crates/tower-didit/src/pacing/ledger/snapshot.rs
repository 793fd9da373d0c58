//! What a ledger knows, as plain data that another process can take up, and what a process may assume that has nothing to
//! take up.

use std::{num::NonZeroU32, time::Duration};

use didit_api::{Limits, Scope, ScopeId, ScopeSet};
use tokio::time::Instant;

use super::{Ledger, Target};
use crate::pacing::pacer::ColdStart;

/// What is known of one scope under one credential.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ScopeRecord {
    /// The scope's name.
    pub scope: String,
    /// In how long each slot that is taken becomes free.
    pub free_in: Vec<Duration>,
    /// Those of them that calls of low priority hold.
    pub low_free_in: Vec<Duration>,
    /// How much longer the scope is paused.
    pub paused_for: Option<Duration>,
    /// The limit that the server has named since, if it is another than the configured one.
    pub limit: Option<u32>,
    /// What is kept to instead, because somebody else uses the same credential.
    pub learned: Option<f64>,
}

// ===== impl Ledger =====

impl Ledger {
    /// What is known; of limits that were not used, nothing is.
    pub(in crate::pacing) fn records(&mut self, limits: &Limits, now: Instant) -> Vec<ScopeRecord> {
        limits.iter().map(|(id, scope)| self.record(id, scope.name().to_owned(), now)).collect()
    }

    /// What is known of one scope.
    pub(in crate::pacing) fn record(&mut self, id: ScopeId, name: String, now: Instant) -> ScopeRecord {
        let transit = self.rules.transit;
        let scope = &mut self.scopes[id.index()];
        scope.expire(now);
        // What is in flight ends here, as far as the next process is concerned: as if it were given up.
        let lost = transit + scope.hold;
        let free_in = |held: &super::scope::Held| {
            let cooling = held.cooling.iter().map(|free| free.saturating_duration_since(now));
            let mut free_in: Vec<_> = cooling.chain(std::iter::repeat_n(lost, held.in_flight.len())).collect();
            free_in.sort_unstable();
            free_in
        };
        ScopeRecord {
            scope: name,
            free_in: free_in(&scope.all),
            low_free_in: free_in(&scope.low),
            paused_for: scope.paused_until.map(|until| until.saturating_duration_since(now)),
            // What counts no longer does not count anew for the next process.
            limit: scope.limit.named().filter(|_| scope.limit.forgotten_at(scope.hold, now) > now),
            learned: scope.limit.learned(),
        }
    }

    /// Takes up what was known `elapsed` ago. What is said of scopes that there are none of is left out.
    pub(in crate::pacing) fn take_up(
        &mut self,
        limits: &Limits,
        records: &[ScopeRecord],
        elapsed: Duration,
        now: Instant,
    ) {
        for (id, documented) in limits.iter() {
            if let Some(record) = record_of(records, documented) {
                self.take_up_one(id, record, elapsed, now);
            }
        }
    }

    /// Takes up what was known of a limit that a target has alone.
    pub(in crate::pacing) fn take_up_undocumented(
        &mut self,
        target: Target,
        set: ScopeSet,
        record: &ScopeRecord,
        elapsed: Duration,
        now: Instant,
    ) {
        if self.undocumented_of(target).is_none()
            && let Some(limit) = record.limit.and_then(NonZeroU32::new)
            && let Some(id) = self.add_undocumented(target, set, limit, now)
        {
            self.take_up_one(id, record, elapsed, now);
        }
    }

    fn take_up_one(&mut self, id: ScopeId, record: &ScopeRecord, elapsed: Duration, now: Instant) {
        let Self { scopes, rules, .. } = self;
        let scope = &mut scopes[id.index()];
        // No slot is held for longer than this, whatever a record says.
        let longest = rules.transit + scope.hold;
        let free = |in_| now + Duration::min(in_, longest).saturating_sub(elapsed);
        record.free_in.iter().map(|in_| free(*in_)).for_each(|free| scope.all.cool(free));
        record.low_free_in.iter().map(|in_| free(*in_)).for_each(|free| scope.low.cool(free));
        if let Some(until) = record.paused_for.map(|wait| now + wait.min(scope.hold).saturating_sub(elapsed)) {
            scope.pause(until, scope.limit.adopted());
        }
        scope.limit.restore(record.limit, record.learned, now, rules.raise_limits);
        scope.reshape(rules);
        scope.expire(now);
    }

    /// Assumes what a cold start says about somebody who is gone since `since`, in those scopes of which there is no
    /// record.
    pub(in crate::pacing) fn assume(
        &mut self,
        cold_start: ColdStart,
        limits: &Limits,
        records: &[ScopeRecord],
        since: Instant,
        now: Instant,
    ) {
        let (share, evenly) = match cold_start {
            ColdStart::Empty => return,
            ColdStart::Share(share) => (share, true),
            ColdStart::Full => (1.0, false),
        };
        // What was sent just then may still be on its way.
        let transit = self.rules.transit;
        let unknown = |documented: &Scope| record_of(records, documented).is_none();
        let scopes = self.scopes.iter_mut().zip(limits.scopes()).filter(|(_, documented)| unknown(documented));
        for (scope, _) in scopes {
            let limit = scope.limit.adopted().get();
            let sent = (f64::from(limit) * share).ceil() as u32;
            for place in 1..=sent {
                let passed = f64::from(place) / f64::from(sent);
                let held = if evenly { scope.hold.mul_f64(passed) } else { scope.hold };
                scope.assume(since + transit + held);
            }
            scope.expire(now);
        }
    }
}

fn record_of<'a>(records: &'a [ScopeRecord], scope: &Scope) -> Option<&'a ScopeRecord> {
    records.iter().find(|record| record.scope == scope.name())
}
