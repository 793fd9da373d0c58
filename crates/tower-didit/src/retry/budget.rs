//! Whether this client has repeated too much already.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use crate::outcome::Outcome;

/// A store of tokens that successes fill and repetitions empty, shared by all clones of a stack.
///
/// # Why a budget and not only a maximum of attempts
///
/// Five attempts a call are five times the load exactly when the server can bear it least. Because *successes* pay for
/// repetitions here, a total outage brings the amplification down to 1: nothing comes in, so nothing is spent. (A
/// budget of a percentage of all *requests* keeps adding its percentage for as long as the outage lasts.)
///
/// A success puts in 1 token. A repetition takes 5, or 14 after an ambiguous failure, which is what an overloaded server
/// looks like (the costs of the AWS SDKs). So in the steady state up to 20 % of calls may fail and be repeated, or 7 %
/// ambiguously, and the full store of 500 lets a first wave of 100 or 35 through.
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

    /// Tokens left.
    pub fn tokens(&self) -> u32 {
        self.tokens.load(Ordering::Relaxed)
    }

    /// Puts in the token of a success.
    pub(crate) fn deposit(&self) {
        // A full store, the usual case, is only read: no cache line moves between cores.
        if self.tokens() < self.capacity {
            let filled = |tokens: u32| (tokens < self.capacity).then(|| tokens + 1);
            let _ = self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, filled);
        }
    }

    /// Takes what a repetition after `outcome` costs; false if it is not there.
    pub(crate) fn withdraw(&self, outcome: Outcome) -> bool {
        let cost = match outcome {
            Outcome::Ambiguous => Self::DEAR,
            Outcome::NotSent(_) | Outcome::Refused { .. } | Outcome::Answered => Self::CHEAP,
        };
        self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tokens| tokens.checked_sub(cost)).is_ok()
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
    use crate::outcome::NotSent;

    #[test]
    fn a_full_store_pays_for_a_first_wave_and_no_more() {
        let budget = Budget::default();
        assert_eq!((0..1_000).filter(|_| budget.withdraw(Outcome::Ambiguous)).count(), 35);
        let budget = Budget::default();
        assert_eq!((0..1_000).filter(|_| budget.withdraw(Outcome::NotSent(NotSent::Transport))).count(), 100);
    }

    #[test]
    fn successes_fill_the_store_up_to_its_capacity() {
        let budget = Budget::new(10);
        assert!(budget.withdraw(Outcome::NotSent(NotSent::Transport)));
        for _ in 0..100 {
            budget.deposit();
        }
        assert_eq!(budget.tokens(), 10);
    }

    #[test]
    fn in_a_total_outage_repetitions_end() {
        let budget = Budget::default();
        let repeated = (0..10_000).filter(|_| budget.withdraw(Outcome::Ambiguous)).count();
        assert!(repeated <= 35, "{repeated}");
    }

    #[test]
    fn clones_share_one_store() {
        let budget = Budget::new(5);
        assert!(budget.clone().withdraw(Outcome::NotSent(NotSent::Transport)));
        assert!(!budget.withdraw(Outcome::NotSent(NotSent::Transport)));
    }
}
