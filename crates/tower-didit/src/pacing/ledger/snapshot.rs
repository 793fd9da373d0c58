//! What a ledger knows, as plain data that another process can take up, and what a process may assume that has nothing to
//! take up.

use std::time::Duration;

use didit_api::Limits;
use tokio::time::Instant;

use super::Ledger;

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
    /// The limit, as configured or as the server has said since.
    pub limit: u32,
    /// What is kept to instead, because somebody else uses the same credential.
    pub learned: Option<f64>,
}

// ===== impl Ledger =====

impl Ledger {
    /// What is known; of limits that were not used, nothing is.
    pub(in crate::pacing) fn records(&mut self, limits: &Limits, now: Instant) -> Vec<ScopeRecord> {
        let transit = self.rules.transit;
        let records = self.scopes.iter_mut().zip(limits.scopes()).map(|(scope, documented)| {
            scope.expire(now);
            // What is in flight ends here, as far as the next process is concerned: as if it were given up.
            let lost = transit + scope.hold;
            let free_in = |held: &super::scope::Held| {
                let cooling = held.cooling.iter().map(|free| free.saturating_duration_since(now));
                let mut free_in: Vec<_> = cooling.chain(std::iter::repeat_n(lost, held.in_flight)).collect();
                free_in.sort_unstable();
                free_in
            };
            ScopeRecord {
                scope: documented.name().to_owned(),
                free_in: free_in(&scope.all),
                low_free_in: free_in(&scope.low),
                paused_for: scope.paused_until.map(|until| until.saturating_duration_since(now)),
                limit: scope.limit.adopted().get(),
                learned: scope.limit.learned(),
            }
        });
        records.collect()
    }

    /// Takes up what was known `elapsed` ago. What is said of scopes that there are none of is left out.
    pub(in crate::pacing) fn take_up(
        &mut self,
        limits: &Limits,
        records: &[ScopeRecord],
        elapsed: Duration,
        now: Instant,
    ) {
        for (scope, documented) in self.scopes.iter_mut().zip(limits.scopes()) {
            let Some(record) = records.iter().find(|record| record.scope == documented.name()) else { continue };
            // No slot is held for longer than this, whatever a record says.
            let longest = self.rules.transit + scope.hold;
            let free = |in_| now + Duration::min(in_, longest).saturating_sub(elapsed);
            record.free_in.iter().map(|in_| free(*in_)).for_each(|free| scope.all.cool(free));
            record.low_free_in.iter().map(|in_| free(*in_)).for_each(|free| scope.low.cool(free));
            if let Some(until) = record.paused_for.map(|wait| now + wait.min(scope.hold).saturating_sub(elapsed)) {
                scope.pause(until);
            }
            scope.limit.restore(record.limit, record.learned, now, self.rules.raise_limits);
            scope.expire(now);
        }
    }

    /// Assumes that a share of each limit was sent by somebody who is gone since `since`: all of it just then, or spread
    /// evenly over the window before.
    pub(in crate::pacing) fn assume_sent(&mut self, share: f64, evenly: bool, since: Instant, now: Instant) {
        for scope in &mut self.scopes {
            let limit = scope.limit.adopted().get();
            let sent = (f64::from(limit) * share).ceil() as u32;
            for place in 1..=sent {
                let left = if evenly { scope.hold.mul_f64(f64::from(place) / f64::from(sent)) } else { scope.hold };
                scope.all.cool(since + left);
            }
            scope.expire(now);
        }
    }
}
