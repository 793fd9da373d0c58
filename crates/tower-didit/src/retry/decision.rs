//! Whether and when to repeat: the three questions put together, without a runtime.

use std::time::Duration;

use tokio::time::Instant;

use super::{Attempt, Backoff, Policy, layer::Shared};
use crate::outcome::{NotSent, Outcome, Refusal};

/// A repetition that was decided on and paid for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Repetition {
    /// How long to wait before it.
    pub(super) wait: Duration,
    /// When that is over.
    pub(super) at: Instant,
    /// What it took from the budget.
    pub(super) taken: u32,
}

impl<C, P: Policy, K: Backoff> Shared<C, P, K> {
    /// What to do after an attempt came to something else than an answer; `None` to hand its result out.
    ///
    /// The cheap questions come first, and the budget is asked last, so that nothing is paid for a repetition that will
    /// not happen.
    pub(super) fn decide(
        &self,
        attempt: &Attempt<'_>,
        harmless: bool,
        deadline: Option<Instant>,
        now: Instant,
    ) -> Option<Repetition> {
        let attempts = attempt.number;
        if attempts >= self.max_attempts || !(harmless || self.policy.may_repeat(attempt)) {
            return None;
        }
        let (hint, backoff): (_, &dyn Backoff) = match attempt.outcome {
            Outcome::Refused { retry_after, reason: Refusal::Throttled { .. } } => (retry_after, &self.throttled),
            Outcome::Refused { retry_after, reason: Refusal::Unavailable } => (retry_after, &self.backoff),
            Outcome::NotSent(NotSent::Local { .. }) if self.fail_fast => return None,
            Outcome::NotSent(NotSent::Local { retry_at }) => {
                (retry_at.map(|at| at.saturating_duration_since(now)), &self.backoff)
            }
            Outcome::NotSent(NotSent::Transport) | Outcome::Ambiguous | Outcome::Answered => (None, &self.backoff),
        };
        if hint.is_some_and(|hint| hint > self.longest_wait) {
            return None;
        }
        // NOTE: the hint is a floor, not an alternative: the jitter goes on top, or all clients come back at once.
        let wait = hint.unwrap_or_default().saturating_add(backoff.delay(attempts, &self.random));
        let at = now.checked_add(wait)?;
        if deadline.is_some_and(|deadline| at >= deadline) {
            return None;
        }
        let taken = match &self.budget {
            Some(budget) => budget.withdraw(attempt.outcome)?,
            None => 0,
        };
        Some(Repetition { wait, at, taken })
    }

    /// Gives back what a repetition was paid with that cannot happen after all. It does not: `false`.
    pub(super) fn refund(&self, repetition: &Repetition) -> bool {
        if let Some(budget) = &self.budget {
            budget.put_back(repetition.taken);
        }
        false
    }
}
