//! Smooths what the ledger lets through: governor's GCRA, driven by the ledger's clock.

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{InMemoryState, NotKeyed},
};
use tokio::time::Instant;

/// Lets at most a burst through at once, and after it no faster than the scope's rate.
///
/// The ledger holds the guarantee; this only decides how the slots are spread. Without it, a queue of three full windows
/// goes out in three bursts with a minute of silence in between.
#[derive(Debug)]
pub(super) struct Shape {
    limiter: RateLimiter<NotKeyed, InMemoryState, LedgerClock, NoOpMiddleware<Nanos>>,
    clock: LedgerClock,
    burst: u32,
    interval: Duration,
    // Not before this instant; learnt from the last refusal.
    not_before: Option<Instant>,
}

impl Shape {
    /// At most `burst` at once, and `limit` per `hold` in the long run. A burst beyond the limit is the limit.
    pub(super) fn new(limit: NonZeroU32, hold: Duration, burst: NonZeroU32, now: Instant) -> Self {
        let clock = LedgerClock { began: now, elapsed: Arc::new(AtomicU64::new(0)) };
        let interval = (hold / limit.get()).max(Duration::from_nanos(1));
        let burst = burst.min(limit);
        let quota = Quota::with_period(interval).unwrap_or(Quota::per_second(limit)).allow_burst(burst);
        let limiter = RateLimiter::direct_with_clock(quota, clock.clone());
        Self { limiter, clock, burst: burst.get(), interval, not_before: None }
    }

    /// Takes a cell, or says when there will be one.
    pub(super) fn pass(&mut self, now: Instant) -> Result<(), Instant> {
        self.clock.set(now);
        match self.limiter.check() {
            Ok(()) => {
                self.not_before = None;
                Ok(())
            }
            Err(not_until) => {
                let at = now + not_until.wait_time_from(self.clock.now());
                self.not_before = Some(at);
                Err(at)
            }
        }
    }

    /// The earliest start of a call with `ahead` others before it.
    pub(super) fn start_of(&self, ahead: usize, now: Instant) -> Instant {
        // More than anybody queues, and little enough for every instant.
        let ahead = u32::try_from(ahead).unwrap_or(u32::MAX).min(1_000_000);
        match self.not_before {
            // Refused just now: from then on there is one cell an interval.
            Some(at) if at > now => at + self.interval.saturating_mul(ahead),
            // At the best a whole burst is there.
            _ => now + self.interval.saturating_mul(ahead.saturating_add(1).saturating_sub(self.burst)),
        }
    }

    /// When a cell may be there, as far as that is known without taking it.
    pub(super) fn ready_at(&self, now: Instant) -> Instant {
        self.not_before.unwrap_or(now).max(now)
    }
}

/// A clock for governor that shows what the ledger was last told.
#[derive(Clone, Debug)]
struct LedgerClock {
    began: Instant,
    elapsed: Arc<AtomicU64>,
}

impl LedgerClock {
    fn set(&self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.began).as_nanos();
        self.elapsed.store(u64::try_from(elapsed).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl Clock for LedgerClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::from(self.elapsed.load(Ordering::Relaxed))
    }
}
