use std::{sync::Arc, time::Duration};

use didit_api::Routes;
use tower::Layer;

use super::{Budget, ExponentialBackoff, Retry, RoutePolicy};
use crate::{
    error::{ConfigError, check_duration},
    outcome::DiditClassifier,
    random::Randomness,
};

/// Repeats what may be repeated; see the [module](super).
#[derive(Debug)]
pub struct RetryLayer<C = DiditClassifier, P = RoutePolicy, K = ExponentialBackoff> {
    shared: Arc<Shared<C, P, K>>,
}

/// What all clones of a retry layer share.
#[derive(Debug)]
pub(super) struct Shared<C, P, K> {
    pub(super) classifier: C,
    pub(super) policy: P,
    pub(super) backoff: K,
    pub(super) throttled: ExponentialBackoff,
    pub(super) budget: Option<Budget>,
    pub(super) max_attempts: u32,
    pub(super) longest_wait: Duration,
    pub(super) routes: Arc<Routes>,
    pub(super) random: Randomness,
}

impl RetryLayer {
    /// Everything as Didit needs it; see [`builder`](Self::builder) for the values.
    pub fn didit() -> Self {
        Self { shared: Arc::new(RetryBuilder::default().into_shared()) }
    }

    /// Starts from Didit's values:
    ///
    /// | setting | default |
    /// |---|---|
    /// | attempts | 5, where Didit's rate-limiting page says to stop |
    /// | backoff | [`ExponentialBackoff::DIDIT`]: full jitter, 1 s doubling to 40 s |
    /// | after a 429 | the server's hint, plus [`ExponentialBackoff::DIDIT_THROTTLED`] |
    /// | budget | [`Budget::default`]: 500 tokens |
    /// | longest wait | 90 s: a rate window and half of another |
    /// | policy | [`RoutePolicy`] over [`Routes::didit`] |
    /// | classifier | [`DiditClassifier`] |
    pub fn builder() -> RetryBuilder {
        RetryBuilder::default()
    }
}

impl<C, P, K> Clone for RetryLayer<C, P, K> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<S, C, P, K> Layer<S> for RetryLayer<C, P, K> {
    type Service = Retry<S, C, P, K>;

    fn layer(&self, inner: S) -> Self::Service {
        Retry { inner, shared: Arc::clone(&self.shared) }
    }
}

/// Configures a [`RetryLayer`]; made by [`RetryLayer::builder`], which lists the defaults.
#[derive(Clone, Debug)]
#[must_use]
pub struct RetryBuilder<C = DiditClassifier, P = RoutePolicy, K = ExponentialBackoff> {
    classifier: C,
    policy: P,
    backoff: K,
    throttled: ExponentialBackoff,
    budget: Option<Budget>,
    max_attempts: u32,
    longest_wait: Duration,
    routes: Arc<Routes>,
    random: Randomness,
}

impl Default for RetryBuilder {
    fn default() -> Self {
        Self {
            classifier: DiditClassifier,
            policy: RoutePolicy,
            backoff: ExponentialBackoff::DIDIT,
            throttled: ExponentialBackoff::DIDIT_THROTTLED,
            budget: Some(Budget::default()),
            max_attempts: 5,
            longest_wait: Duration::from_secs(90),
            routes: Routes::didit(),
            random: Randomness::new(),
        }
    }
}

impl<C, P, K> RetryBuilder<C, P, K> {
    /// The most attempts that one call may take, its first included. 1 repeats nothing.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// The longest wait before a repetition. If a server asks for more, its response is handed out at once.
    pub fn longest_wait(mut self, wait: Duration) -> Self {
        self.longest_wait = wait;
        self
    }

    /// The store of tokens that repetitions are paid from; `None` for no bound but the attempts.
    pub fn budget(mut self, budget: Option<Budget>) -> Self {
        self.budget = budget;
        self
    }

    /// What is waited on top of the server's hint after a 429.
    pub fn throttled_backoff(mut self, backoff: ExponentialBackoff) -> Self {
        self.throttled = backoff;
        self
    }

    /// The route table that the policy is shown.
    pub fn routes(mut self, routes: Arc<Routes>) -> Self {
        self.routes = routes;
        self
    }

    /// Where jitter comes from.
    pub fn randomness(mut self, random: Randomness) -> Self {
        self.random = random;
        self
    }

    /// How long to wait after anything but a 429.
    pub fn backoff<K2>(self, backoff: K2) -> RetryBuilder<C, P, K2> {
        let Self { classifier, policy, throttled, budget, max_attempts, longest_wait, routes, random, .. } = self;
        RetryBuilder { classifier, policy, backoff, throttled, budget, max_attempts, longest_wait, routes, random }
    }

    /// What may be repeated.
    pub fn policy<P2>(self, policy: P2) -> RetryBuilder<C, P2, K> {
        let Self { classifier, backoff, throttled, budget, max_attempts, longest_wait, routes, random, .. } = self;
        RetryBuilder { classifier, policy, backoff, throttled, budget, max_attempts, longest_wait, routes, random }
    }

    /// What results mean.
    pub fn classifier<C2>(self, classifier: C2) -> RetryBuilder<C2, P, K> {
        let Self { policy, backoff, throttled, budget, max_attempts, longest_wait, routes, random, .. } = self;
        RetryBuilder { classifier, policy, backoff, throttled, budget, max_attempts, longest_wait, routes, random }
    }

    /// Builds the layer.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Zero`] for no attempts at all; [`ConfigError::Duration`] for a longest wait beyond a day.
    pub fn build(self) -> Result<RetryLayer<C, P, K>, ConfigError> {
        if self.max_attempts == 0 {
            return Err(ConfigError::Zero { setting: "max_attempts", least: "1" });
        }
        check_duration("longest_wait", self.longest_wait, Duration::ZERO, ExponentialBackoff::MAX)?;
        Ok(RetryLayer { shared: Arc::new(self.into_shared()) })
    }

    fn into_shared(self) -> Shared<C, P, K> {
        let Self { classifier, policy, backoff, throttled, budget, max_attempts, longest_wait, routes, random } = self;
        Shared { classifier, policy, backoff, throttled, budget, max_attempts, longest_wait, routes, random }
    }
}
