//! Policies that stop another policy.

use std::time::Duration;

use super::{Attempt, Policy};

/// Puts limits around any [`Policy`]. They only ever say no earlier: the layer's own
/// [`max_attempts`](super::RetryBuilder::max_attempts), the budget and the deadline hold beside them.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use tower_didit::retry::{PolicyExt, RetryLayer, RoutePolicy};
///
/// let policy = RoutePolicy.with_attempt_limit(3).with_time_limit(Duration::from_secs(20));
/// let layer = RetryLayer::builder().policy(policy).build()?;
/// # Ok::<(), tower_didit::ConfigError>(())
/// ```
pub trait PolicyExt: Policy + Sized {
    /// Repeats no more once this many attempts were made, the first included.
    fn with_attempt_limit(self, attempts: u32) -> AttemptLimit<Self> {
        AttemptLimit { policy: self, attempts }
    }

    /// Begins no repetition once this long has passed since the first attempt failed.
    fn with_time_limit(self, limit: Duration) -> TimeLimit<Self> {
        TimeLimit { policy: self, limit }
    }
}

impl<P: Policy> PolicyExt for P {}

/// See [`PolicyExt::with_attempt_limit`].
#[derive(Clone, Copy, Debug)]
pub struct AttemptLimit<P> {
    policy: P,
    attempts: u32,
}

impl<P: Policy> Policy for AttemptLimit<P> {
    fn may_repeat(&self, attempt: &Attempt<'_>) -> bool {
        attempt.number < self.attempts && self.policy.may_repeat(attempt)
    }
}

/// See [`PolicyExt::with_time_limit`].
#[derive(Clone, Copy, Debug)]
pub struct TimeLimit<P> {
    policy: P,
    limit: Duration,
}

impl<P: Policy> Policy for TimeLimit<P> {
    fn may_repeat(&self, attempt: &Attempt<'_>) -> bool {
        attempt.repeating_for < self.limit && self.policy.may_repeat(attempt)
    }
}
