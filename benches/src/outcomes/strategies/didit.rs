//! Ours.

use std::{num::NonZeroU32, time::Duration};

use tower::Layer;
use tower_didit::{DiditLayer, Randomness, pacing::PacingLayer};

use didit_api::Limits;

use super::{Client, Quota, Strategy, boxed};
use crate::{
    Body,
    outcomes::{Problem, world::Wire},
};

/// The pacing layer alone.
#[derive(Clone, Debug)]
pub struct Pacing {
    /// The limits of the world.
    pub limits: Limits,
    /// The largest burst, if there is a largest.
    pub burst: Option<NonZeroU32>,
    /// An ε other than what the server needs.
    pub epsilon: Option<Duration>,
    /// A transit time other than the longest leg.
    pub transit: Option<Duration>,
    /// A share that is kept from calls of low priority, other than the usual one.
    pub reserved: Option<f64>,
}

impl Pacing {
    /// With nothing but the limits, and the ε and transit time that the world needs.
    pub fn new(limits: Limits) -> Self {
        Self { limits, burst: None, epsilon: None, transit: None, reserved: None }
    }
}

impl Strategy for Pacing {
    fn name(&self) -> String {
        let burst = self.burst.map(|burst| format!(", burst {burst}")).unwrap_or_default();
        let epsilon = self.epsilon.map(|epsilon| format!(", ε {epsilon:?}")).unwrap_or_default();
        let transit = self.transit.map(|transit| format!(", transit {transit:?}")).unwrap_or_default();
        let reserved = self.reserved.map(|share| format!(", {:.0} % reserved", 100.0 * share)).unwrap_or_default();
        format!("tower-didit{burst}{epsilon}{transit}{reserved}")
    }

    fn client(&self, wire: Wire, quota: &Quota) -> Result<Client, Problem> {
        let builder = PacingLayer::builder()
            .limits(self.limits.clone())
            .epsilon(self.epsilon.unwrap_or(quota.epsilon))
            .transit(self.transit.unwrap_or(quota.transit));
        let builder = if let Some(burst) = self.burst { builder.burst(burst) } else { builder };
        let builder = if let Some(share) = self.reserved { builder.reserved_share(share) } else { builder };
        Ok(boxed(builder.build()?.layer(wire)))
    }
}

/// The assembled stack, as it comes.
#[derive(Clone, Debug)]
pub struct Stack {
    /// The limits of the world.
    pub limits: Limits,
    /// Whether an open circuit is told at once.
    pub fail_fast: bool,
    /// How often the health check is asked while the core circuit is open, if it is.
    pub health: Option<Duration>,
}

impl Stack {
    /// With nothing but the limits.
    pub fn new(limits: Limits) -> Self {
        Self { limits, fail_fast: false, health: None }
    }
}

impl Strategy for Stack {
    fn name(&self) -> String {
        let health = self.health.map(|every| format!(", fail fast, health check every {every:?}")).unwrap_or_default();
        format!("tower-didit{health}")
    }

    fn client(&self, wire: Wire, quota: &Quota) -> Result<Client, Problem> {
        let layer = DiditLayer::builder()
            .without_api_key()
            .limits(self.limits.clone())
            .randomness(Randomness::seeded(quota.seed))
            .retry(|retry| retry.fail_fast(self.fail_fast))
            .build()?;
        if let Some(every) = self.health {
            let watch =
                layer.circuit_breaker().handle().watch_health::<_, Body, _>(wire.clone(), DiditLayer::BASE_URL, every);
            tokio::spawn(watch);
        }
        Ok(boxed(layer.layer(wire)))
    }
}
