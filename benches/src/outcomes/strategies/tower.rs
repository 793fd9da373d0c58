//! tower's own layers.

use std::{sync::Arc, time::Duration};

use ::tower::{
    buffer::Buffer,
    limit::{RateLimit, rate::Rate},
    retry::{
        Policy, Retry,
        backoff::{Backoff, ExponentialBackoff, ExponentialBackoffMaker, MakeBackoff},
        budget::{Budget, TpsBudget},
    },
    util::rng::Rng,
};
use didit_sandbox::{ConnectionLost, SandboxBody};
use http::{Request, Response};
use tower_didit::Randomness;

use super::{Client, Gate, Quota, Strategy, boxed, is_transient};
use crate::{
    Body,
    outcomes::{Problem, world::Wire},
};

/// How many calls may wait in the buffer, which is more than there ever are.
const BUFFERED: usize = 1_024;

/// `RateLimit` behind a `Buffer`, without which it cannot be shared.
#[derive(Clone, Copy, Debug)]
pub struct RateLimited;

impl Strategy for RateLimited {
    fn name(&self) -> String {
        "tower RateLimit + Buffer".to_owned()
    }

    fn client(&self, wire: Wire, quota: &Quota) -> Result<Client, Problem> {
        self.gate(boxed(wire), quota)
    }
}

impl Gate for RateLimited {
    fn gate(&self, inner: Client, quota: &Quota) -> Result<Client, Problem> {
        let rate = Rate::new(quota.limit.into(), quota.window);
        Ok(boxed(Buffer::new(RateLimit::new(inner, rate), BUFFERED)))
    }
}

/// `Retry` with its `TpsBudget` and its exponential backoff, four repetitions at the most.
#[derive(Clone, Copy, Debug)]
pub struct Retrying;

/// A policy for one call; a fresh clone is made for each.
#[derive(Clone, Debug)]
struct Transient {
    budget: Arc<TpsBudget>,
    backoff: ExponentialBackoff<Seeded>,
    left: u32,
}

/// tower's random numbers from a seed, so that a run can be repeated.
#[derive(Clone, Debug)]
struct Seeded(Randomness);

impl Rng for Seeded {
    fn next_u64(&mut self) -> u64 {
        self.0.bits()
    }
}

impl Policy<Request<Body>, Response<SandboxBody>, ConnectionLost> for Transient {
    type Future = tokio::time::Sleep;

    fn retry(
        &mut self,
        _: &mut Request<Body>,
        result: &mut Result<Response<SandboxBody>, ConnectionLost>,
    ) -> Option<tokio::time::Sleep> {
        if result.as_ref().is_ok_and(|response| !is_transient(response.status())) {
            self.budget.deposit();
            return None;
        }
        if self.left == 0 || !self.budget.withdraw() {
            return None;
        }
        self.left -= 1;
        Some(self.backoff.next_backoff())
    }

    fn clone_request(&mut self, request: &Request<Body>) -> Option<Request<Body>> {
        Some(request.clone())
    }
}

impl Strategy for Retrying {
    fn name(&self) -> String {
        "tower Retry + TpsBudget".to_owned()
    }

    fn client(&self, wire: Wire, quota: &Quota) -> Result<Client, Problem> {
        let random = Seeded(Randomness::seeded(quota.seed));
        // The waits of ours, with the largest jitter that keeps tower's within them.
        let mut backoff = ExponentialBackoffMaker::new(Duration::from_secs(1), Duration::from_secs(40), 0.99, random)?;
        let policy = Transient { budget: Arc::new(TpsBudget::default()), backoff: backoff.make_backoff(), left: 4 };
        Ok(boxed(Retry::new(policy, wire)))
    }
}
