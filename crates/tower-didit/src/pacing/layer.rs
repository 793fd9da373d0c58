use std::{num::NonZeroU32, sync::Arc, time::Duration};

use didit_api::{Limits, Routes};
use tokio::time::Instant;
use tower::Layer;

use super::{Pacing, ledger::Ledger, pacer::Pacer};
use crate::{
    error::{ConfigError, check_duration},
    outcome::DiditClassifier,
};

/// Sends no more than the quota allows; see the [module](super).
#[derive(Clone, Debug)]
pub struct PacingLayer<C = DiditClassifier> {
    pacer: Arc<Pacer>,
    classifier: C,
}

impl PacingLayer {
    /// Didit's newest documented limits; see [`builder`](Self::builder) for the other values.
    pub fn didit() -> Self {
        PacingBuilder::default().into_layer()
    }

    /// Starts from Didit's values:
    ///
    /// | setting | default |
    /// |---|---|
    /// | limits and routes | [`Limits::didit`] over [`Routes::didit`] |
    /// | ε | 1 s: a server that keeps whole seconds holds an entry up to a second longer than its window |
    /// | transit | 5 s: how long a request that was given up may still be on its way |
    /// | burst | none: a full window may go out at once |
    pub fn builder() -> PacingBuilder {
        PacingBuilder::default()
    }
}

impl<C> PacingLayer<C> {
    /// Slots taken and calls waiting, scope by scope.
    pub fn usage(&self) -> Vec<Usage> {
        let now = Instant::now();
        let usage = self.pacer.limits().iter().map(|(id, scope)| {
            let (used, waiting) = self.pacer.usage(id, now);
            Usage { scope: scope.name().to_owned(), limit: scope.limit().get(), used, waiting }
        });
        usage.collect()
    }
}

/// How full one scope is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// The scope's name.
    pub scope: String,
    /// How many slots it has.
    pub limit: u32,
    /// How many are taken: by attempts in flight, and by those of the last window.
    pub used: usize,
    /// How many calls wait for one.
    pub waiting: usize,
}

impl<S, C: Clone> Layer<S> for PacingLayer<C> {
    type Service = Pacing<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        Pacing { inner, pacer: Arc::clone(&self.pacer), classifier: self.classifier.clone() }
    }
}

/// Configures a [`PacingLayer`]; made by [`PacingLayer::builder`], which lists the defaults.
#[derive(Clone, Debug)]
#[must_use]
pub struct PacingBuilder<C = DiditClassifier> {
    pub(crate) limits: Limits,
    routes: Arc<Routes>,
    pub(crate) epsilon: Duration,
    pub(crate) transit: Duration,
    pub(crate) burst: Option<NonZeroU32>,
    classifier: C,
}

impl Default for PacingBuilder {
    fn default() -> Self {
        Self {
            limits: Limits::didit(),
            routes: Routes::didit(),
            epsilon: Duration::from_secs(1),
            transit: Duration::from_secs(5),
            burst: None,
            classifier: DiditClassifier,
        }
    }
}

impl<C> PacingBuilder<C> {
    /// How long a scope without a hint in its 429 is left alone: what Didit's rate-limiting page starts its waits with.
    const DEFAULT_PAUSE: Duration = Duration::from_secs(5);

    /// The longest ε and transit: an hour.
    pub const MAX: Duration = Duration::from_secs(3_600);

    /// Which requests are counted together, and how many a window may hold.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The route table that tells a request's endpoint.
    pub fn routes(mut self, routes: Arc<Routes>) -> Self {
        self.routes = routes;
        self
    }

    /// What a slot is held beyond the window, for the coarseness of the server's clock.
    pub fn epsilon(mut self, epsilon: Duration) -> Self {
        self.epsilon = epsilon;
        self
    }

    /// How long a request that was given up may still be on its way.
    pub fn transit(mut self, transit: Duration) -> Self {
        self.transit = transit;
        self
    }

    /// Lets at most this many requests of a scope out at once, and after them no faster than its rate. Costs no
    /// throughput, because the ledger holds the guarantee; avoids silence of a window's length after a burst.
    pub fn burst(mut self, burst: NonZeroU32) -> Self {
        self.burst = Some(burst);
        self
    }

    /// What results mean.
    pub fn classifier<C2>(self, classifier: C2) -> PacingBuilder<C2> {
        let Self { limits, routes, epsilon, transit, burst, .. } = self;
        PacingBuilder { limits, routes, epsilon, transit, burst, classifier }
    }

    /// Builds the layer.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Duration`] for an ε or transit beyond an hour; [`ConfigError::UnknownEndpoints`] if the limits
    /// count endpoints that the route table does not have. A limit of zero cannot be expressed: [`Limits`] refuses it.
    pub fn build(self) -> Result<PacingLayer<C>, ConfigError> {
        check_duration("epsilon", self.epsilon, Duration::ZERO, Self::MAX)?;
        check_duration("transit", self.transit, Duration::ZERO, Self::MAX)?;
        let unknown = self.limits.unknown_endpoints(&self.routes);
        if !unknown.is_empty() {
            return Err(ConfigError::UnknownEndpoints { unknown });
        }
        Ok(self.into_layer())
    }

    fn into_layer(self) -> PacingLayer<C> {
        let Self { limits, routes, epsilon, transit, burst, classifier } = self;
        let ledger = |limits: &Limits, now| Ledger::new(limits, epsilon, transit, burst, now);
        PacingLayer { pacer: Arc::new(Pacer::new(limits, routes, Self::DEFAULT_PAUSE, ledger)), classifier }
    }
}
