//! Whether this client has repeated too much already.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use crate::outcome::{NotSent, Outcome};

/// A store of tokens that successes fill and repetitions empty, shared by all clones of a stack.
///
/// # Why a budget and not only a maximum of attempts
///
/// Five attempts a call are five times the load exactly when the server can bear it least. Because *successes* pay for
/// repetitions here, a total outage brings the amplification down to 1: nothing comes in, so nothing is spent. (A
/// budget of a percentage of all *requests* keeps adding its percentage for as long as the outage lasts.)
///
/// A success puts in 1 token. A repetition takes 5, or 14 after an ambiguous failure, which is what an overloaded server
/// looks like, and gets them back if it succeeds (the costs of the AWS SDKs). So repetitions that help are free, and only
/// those that fail as well are counted: with a failure probability `p` and a cost `c`, at most `(1 − p) / (c·p)`
/// repetitions per call can go on for ever, which covers every failure up to `p = 0.2`. The full store of 500 lets a first
/// wave of 100 or 35 through. A repetition of what a layer of this process held back is free: no server bore it.
#[derive(Clone, Debug)]
pub struct Budget {
    tokens: Arc<AtomicU32>,
    capacity: u32,
}

impl Budget {
    /// How many tokens a full store holds unless told otherwise.
    pub const DEFAULT_CAPACITY: u32 = 500;

    /// What a repetition costs after a refusal, or an attempt that was never sent.
    pub const CHEAP: u32 = 5;

    /// What a repetition costs after an ambiguous failure.
    pub const DEAR: u32 = 14;

    /// A full store of `capacity` tokens. With 0, nothing is ever repeated.
    pub fn new(capacity: u32) -> Self {
        Self { tokens: Arc::new(AtomicU32::new(capacity)), capacity }
    }

    /// How many tokens a full store holds.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Tokens left.
    pub fn tokens(&self) -> u32 {
        self.tokens.load(Ordering::Relaxed)
    }

    /// Puts in what a success brings: what its own repetition took, and 1 if it needed none.
    pub(crate) fn deposit(&self, taken: u32) {
        self.put_back(taken.max(1));
    }

    /// Puts in as many tokens as there is room for.
    pub(crate) fn put_back(&self, tokens: u32) {
        // A full store, the usual case, is only read: no cache line moves between cores.
        if self.tokens() < self.capacity {
            let filled = |held: u32| Some(held.saturating_add(tokens).min(self.capacity));
            let _ = self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, filled);
        }
    }

    /// Takes what a repetition after `outcome` costs, and says how much that was; `None` if it is not there.
    pub(crate) fn withdraw(&self, outcome: Outcome) -> Option<u32> {
        let cost = match outcome {
            Outcome::Ambiguous => Self::DEAR,
            // A layer of this process held it back: no server bears it.
            Outcome::NotSent(NotSent::Local { .. }) => 0,
            Outcome::NotSent(NotSent::Transport) | Outcome::Refused { .. } | Outcome::Answered => Self::CHEAP,
        };
        let taken = |tokens: u32| tokens.checked_sub(cost);
        self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).ok().map(|_| cost)
    }
}

/// A full store of [`DEFAULT_CAPACITY`](Budget::DEFAULT_CAPACITY).
impl Default for Budget {
    fn default() -> Self {
        Self::new(Self::DEFAULT_CAPACITY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNSENT: Outcome = Outcome::NotSent(NotSent::Transport);

    #[test]
    fn a_full_store_pays_for_a_first_wave_and_no_more() {
        for (outcome, wave) in [(Outcome::Ambiguous, 35), (UNSENT, 100)] {
            let budget = Budget::default();
            assert_eq!((0..1_000).filter(|_| budget.withdraw(outcome).is_some()).count(), wave, "{outcome:?}");
        }
    }

    #[test]
    fn successes_fill_the_store_up_to_its_capacity() {
        let budget = Budget::new(10);
        assert_eq!(budget.withdraw(UNSENT), Some(5));
        budget.deposit(0);
        assert_eq!(budget.tokens(), 6);
        budget.deposit(5);
        assert_eq!(budget.tokens(), 10);
    }

    /// Calls with up to three repetitions, each attempt failing ambiguously with a probability; attempts and successes
    /// per call.
    fn simulate(probability: f64) -> (f64, f64) {
        const CALLS: u32 = 200_000;
        let (budget, random) = (Budget::default(), crate::Randomness::seeded(1));
        let (mut attempts, mut successes) = (0, 0);
        for _ in 0..CALLS {
            let mut taken = 0;
            for repetition in 0..4 {
                attempts += 1;
                if random.unit() >= probability {
                    budget.deposit(taken);
                    successes += 1;
                    break;
                }
                match budget.withdraw(Outcome::Ambiguous) {
                    Some(cost) if repetition < 3 => taken = cost,
                    _ => break,
                }
            }
        }
        (f64::from(attempts) / f64::from(CALLS), f64::from(successes) / f64::from(CALLS))
    }

    #[test]
    fn repetitions_that_help_are_free_and_in_an_outage_they_end() {
        // Probability of failure, attempts per call, share of calls that succeed.
        let expected = [(0.05, 1.05, 1.0), (0.1, 1.11, 1.0), (0.2, 1.25, 0.998), (1.0, 1.0, 0.0)];
        for (probability, attempts, successes) in expected {
            let found = simulate(probability);
            let close = (found.0 - attempts).abs() < 0.01 && (found.1 - successes).abs() < 0.01;
            assert!(close, "at {probability}: {found:?}");
        }
    }

    #[test]
    fn what_was_held_back_in_this_process_costs_nothing() {
        assert_eq!(Budget::new(0).withdraw(Outcome::NotSent(NotSent::Local { retry_at: None })), Some(0));
    }

    #[test]
    fn clones_share_one_store() {
        let budget = Budget::new(5);
        assert!(budget.clone().withdraw(UNSENT).is_some());
        assert!(budget.withdraw(UNSENT).is_none());
    }
}
