//! Smooths what the ledger lets through: the generic cell rate algorithm (ITU-T I.371), as governor has it.
//!
//! # Why not governor itself
//!
//! A test beside this holds the two together, cell by cell. But a cell of governor's is gone once it was asked for, and
//! what is left of it cannot be looked at. The ledger has to take a cell in several scopes or in none, gives it back when
//! nothing was sent, and looks into the future on a copy. All of that is one instant and two durations here.

use std::{num::NonZeroU32, time::Duration};

use tokio::time::Instant;

/// Lets at most a burst through at once, and after it no faster than a rate.
///
/// The ledger holds the guarantee; this only decides how the slots are spread. Without it, a queue of three full windows
/// goes out in three bursts with a minute of silence in between.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    interval: Duration,
    // How far ahead of its time a cell may pass: one interval less than the burst takes.
    tolerance: Duration,
    // When the next cell is due by the rate alone: the theoretical arrival time.
    due: Instant,
}

impl Shape {
    /// At most `burst` at once, and `limit` per `hold` in the long run. A burst beyond the limit is the limit.
    pub(super) fn new(limit: NonZeroU32, hold: Duration, burst: NonZeroU32, now: Instant) -> Self {
        let mut shape = Self { interval: Duration::ZERO, tolerance: Duration::ZERO, due: now };
        shape.adapt(limit, hold, burst);
        shape
    }

    /// Goes on with another limit.
    pub(super) fn adapt(&mut self, limit: NonZeroU32, hold: Duration, burst: NonZeroU32) {
        self.interval = (hold / limit.get()).max(Duration::from_nanos(1));
        self.tolerance = self.interval * (burst.min(limit).get() - 1);
    }

    /// When a cell may pass.
    pub(super) fn ready_at(&self, now: Instant) -> Instant {
        match self.due.checked_sub(self.tolerance) {
            Some(ready) => ready.max(now),
            None => now,
        }
    }

    /// Takes a cell, which must be ready.
    pub(super) fn pass(&mut self, now: Instant) {
        self.due = self.due.max(now) + self.interval;
    }

    /// Takes a cell back that was not used.
    pub(super) fn give_back(&mut self) {
        self.due = self.due.checked_sub(self.interval).unwrap_or(self.due);
    }

    /// How long `cells` more take at the least.
    pub(super) fn span_of(&self, cells: usize) -> Duration {
        self.interval.saturating_mul(u32::try_from(cells).unwrap_or(u32::MAX))
    }

    /// When the cell after `ahead` others may pass.
    pub(super) fn start_of(&self, ahead: usize, now: Instant) -> Instant {
        let due = self.due.max(now) + self.span_of(ahead);
        due.checked_sub(self.tolerance).map_or(now, |ready| ready.max(now))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    };

    use governor::{Quota, RateLimiter, clock::Clock, nanos::Nanos};
    use proptest::prelude::*;

    use super::*;

    /// A clock for governor that shows what it was last set to.
    #[derive(Clone, Debug, Default)]
    struct SetClock(Arc<AtomicU64>);

    impl Clock for SetClock {
        type Instant = Nanos;

        fn now(&self) -> Nanos {
            Nanos::from(self.0.load(Ordering::Relaxed))
        }
    }

    proptest! {
        #[test]
        fn it_lets_pass_what_governor_lets_pass(
            limit in 1_u32..500,
            burst in 1_u32..500,
            gaps in prop::collection::vec(0_u64..3_000, 1..200),
        ) {
            let limit = NonZeroU32::new(limit).unwrap();
            let burst = NonZeroU32::new(burst).unwrap().min(limit);
            let (hold, began, clock) = (Duration::from_secs(61), Instant::now(), SetClock::default());
            let quota = Quota::with_period(hold / limit.get()).unwrap().allow_burst(burst);
            let governor = RateLimiter::direct_with_clock(quota, clock.clone());
            let mut shape = Shape::new(limit, hold, burst, began);
            let mut now = began;
            for gap in gaps {
                now += Duration::from_millis(gap);
                clock.0.store(u64::try_from((now - began).as_nanos()).unwrap(), Ordering::Relaxed);
                let passes = shape.ready_at(now) <= now;
                if passes {
                    shape.pass(now);
                }
                prop_assert_eq!(passes, governor.check().is_ok());
            }
        }
    }

    #[test]
    fn a_cell_that_was_given_back_can_be_taken_again() {
        let now = Instant::now();
        let mut shape = Shape::new(NonZeroU32::MIN, Duration::from_secs(60), NonZeroU32::MIN, now);
        shape.pass(now);
        assert_eq!(shape.ready_at(now), now + Duration::from_secs(60));
        shape.give_back();
        assert_eq!(shape.ready_at(now), now);
    }
}
