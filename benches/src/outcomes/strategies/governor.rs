//! governor's GCRA.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use ::governor::{
    RateLimiter,
    clock::Clock,
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};
use ::tower::{ServiceExt, service_fn};
use http::Request;
use tokio::time::Instant;

use super::{Client, Gate, Quota, Strategy, boxed};
use crate::{
    Body,
    outcomes::{Problem, world::Wire},
};

/// A direct limiter of so many per window, which every call awaits.
#[derive(Clone, Copy, Debug)]
pub struct Governor {
    /// The largest burst; governor's `Quota::per_minute` has one of the whole limit.
    pub burst: Option<NonZeroU32>,
    /// The spread of latency that the rate allows for, `R = (L − B + 1) / (W + J)`; the rate is `L / W` without.
    pub spread: Option<Duration>,
}

/// tokio's clock, which may be paused, as governor wants its clocks.
#[derive(Clone, Copy, Debug)]
struct TokioClock(Instant);

impl Clock for TokioClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

type Limiter = RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<Duration>>;

/// What `until_ready` does, with tokio's timer in place of one that cannot be paused.
async fn until_ready(limiter: &Limiter, clock: TokioClock) {
    while let Err(not_yet) = limiter.check() {
        tokio::time::sleep(not_yet.wait_time_from(clock.now())).await;
    }
}

impl Strategy for Governor {
    fn name(&self) -> String {
        let burst = self.burst.map(|burst| format!(", burst {burst}")).unwrap_or_default();
        let spread = if self.spread.is_some() { ", safe rate" } else { "" };
        format!("governor{burst}{spread}")
    }

    fn client(&self, wire: Wire, quota: &Quota) -> Result<Client, Problem> {
        self.gate(boxed(wire), quota)
    }
}

impl Gate for Governor {
    fn gate(&self, inner: Client, quota: &Quota) -> Result<Client, Problem> {
        let limit = NonZeroU32::new(quota.limit).ok_or("a limit of zero")?;
        let burst = self.burst.unwrap_or(limit);
        let cells = self.spread.map_or(quota.limit, |_| quota.limit.saturating_sub(burst.get() - 1));
        let period = (quota.window + self.spread.unwrap_or_default()) / cells;
        let rate = ::governor::Quota::with_period(period).ok_or("a rate without end")?.allow_burst(burst);
        let clock = TokioClock(Instant::now());
        let limiter: Arc<Limiter> = Arc::new(RateLimiter::direct_with_clock(rate, clock));
        Ok(boxed(service_fn(move |request: Request<Body>| {
            let (limiter, inner) = (Arc::clone(&limiter), inner.clone());
            async move {
                until_ready(&limiter, clock).await;
                inner.oneshot(request).await
            }
        })))
    }
}
