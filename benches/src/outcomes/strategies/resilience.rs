//! tower-resilience's rate limiter and retry. Its breaker reads the system's clock, which nothing can pause, and has no
//! hook for another; it is measured by the overhead bench alone.

use std::time::Duration;

use ::tower::{Layer, ServiceExt};
use didit_sandbox::{ConnectionLost, SandboxBody};
use http::{Request, Response};
use tower_resilience_ratelimiter::RateLimiterLayer;
pub use tower_resilience_ratelimiter::WindowType;
use tower_resilience_retry::RetryLayer;

use super::{AnyError, Client, Gate, Quota, Strategy, boxed, is_transient};
use crate::{
    Body,
    outcomes::{Problem, world::Wire},
};

/// Longer than any wait here: calls are to wait, not to be refused.
const PATIENCE: Duration = Duration::from_secs(86_400);

/// `RateLimiterLayer` with one of its windows.
#[derive(Clone, Copy, Debug)]
pub struct SlidingOrFixed {
    /// Which one; fixed by default.
    pub window: WindowType,
    /// The spread of latency by which its period is longer than the server's window.
    pub spread: Option<Duration>,
}

impl Strategy for SlidingOrFixed {
    fn name(&self) -> String {
        let window = match self.window {
            WindowType::Fixed => "fixed window",
            WindowType::SlidingLog => "sliding log",
            WindowType::SlidingCounter => "sliding counter",
        };
        let spread = if self.spread.is_some() { " of W + J" } else { "" };
        format!("tower-resilience {window}{spread}")
    }

    fn client(&self, wire: Wire, quota: &Quota) -> Result<Client, Problem> {
        self.gate(boxed(wire), quota)
    }
}

impl Gate for SlidingOrFixed {
    fn gate(&self, inner: Client, quota: &Quota) -> Result<Client, Problem> {
        let layer = RateLimiterLayer::builder()
            .limit_for_period(usize::try_from(quota.limit)?)
            .refresh_period(quota.window + self.spread.unwrap_or_default())
            .timeout_duration(PATIENCE)
            .window_type(self.window)
            .build()?;
        // Its error is one only around an error, which a boxed one is not.
        Ok(boxed(layer.layer(inner).map_err(|error| AnyError::from(error.to_string()))))
    }
}

/// `RetryLayer` with exponential backoff from a second, five attempts at the most. Its budgets read the system's clock, so
/// it has none.
#[derive(Clone, Copy, Debug)]
pub struct Retrying;

impl Strategy for Retrying {
    fn name(&self) -> String {
        "tower-resilience retry".to_owned()
    }

    fn client(&self, wire: Wire, _: &Quota) -> Result<Client, Problem> {
        let layer = RetryLayer::<Request<Body>, Response<SandboxBody>, ConnectionLost>::builder()
            .max_attempts(5)
            .exponential_backoff(Duration::from_secs(1))
            .retry_on_response(|response: &Response<SandboxBody>| is_transient(response.status()))
            .build();
        Ok(boxed(layer.layer(wire)))
    }
}
