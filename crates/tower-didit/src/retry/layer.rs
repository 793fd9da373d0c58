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
    pub(super) replay_cap: usize,
    pub(super) routes: Arc<Routes>,
    pub(super) random: Randomness,
    pub(super) fail_fast: bool,
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
    /// | replay cap | [`RetryBuilder::REPLAY_CAP`]: 16 MiB for each call under way |
    /// | policy | [`RoutePolicy`] over [`Routes::didit`] |
    /// | classifier | [`DiditClassifier`] |
    pub fn builder() -> RetryBuilder {
        RetryBuilder::default()
    }
}

impl<C, P, K> RetryLayer<C, P, K> {
    /// The store of tokens that repetitions are paid from, if there is one.
    pub fn budget(&self) -> Option<&Budget> {
        self.shared.budget.as_ref()
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
    pub(crate) backoff: K,
    pub(crate) settings: Settings,
}

/// What a layer is configured with, beside the three parts that are types.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) throttled: ExponentialBackoff,
    pub(crate) budget: Option<Budget>,
    pub(crate) max_attempts: u32,
    pub(crate) longest_wait: Duration,
    pub(crate) replay_cap: usize,
    routes: Arc<Routes>,
    random: Randomness,
    pub(crate) fail_fast: bool,
}

impl RetryBuilder {
    /// How much of a streaming body is recorded unless told otherwise: 16 MiB, the largest upload that Didit takes.
    pub const REPLAY_CAP: usize = 16 * 1024 * 1024;

    /// The largest [`replay_cap`](Self::replay_cap): 1 GiB. It is held in memory, for each call under way.
    pub const MAX_REPLAY_CAP: usize = 1024 * 1024 * 1024;
}

impl Default for RetryBuilder {
    fn default() -> Self {
        let settings = Settings {
            throttled: ExponentialBackoff::DIDIT_THROTTLED,
            budget: Some(Budget::default()),
            max_attempts: 5,
            longest_wait: Duration::from_secs(90),
            replay_cap: Self::REPLAY_CAP,
            routes: Routes::didit(),
            random: Randomness::new(),
            fail_fast: false,
        };
        Self { classifier: DiditClassifier, policy: RoutePolicy, backoff: ExponentialBackoff::DIDIT, settings }
    }
}

impl<C, P, K> RetryBuilder<C, P, K> {
    /// The most attempts that one call may take, its first included. 1 repeats nothing.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.settings.max_attempts = attempts;
        self
    }

    /// The longest wait before a repetition. If a server asks for more, its response is handed out at once.
    pub fn longest_wait(mut self, wait: Duration) -> Self {
        self.settings.longest_wait = wait;
        self
    }

    /// How many bytes of a streaming body are recorded so that it can be sent again; 0 records nothing, so streams are
    /// sent once.
    ///
    /// A larger body still goes out, it is just not repeated. The memory is held by each call under way from the moment
    /// that its body is read until its response is handed out; bookkeeping adds at most a tenth and 4 KiB. Bodies in
    /// memory are not counted: they are kept by a reference.
    pub fn replay_cap(mut self, bytes: usize) -> Self {
        self.settings.replay_cap = bytes;
        self
    }

    /// Hands out at once what a layer of this process held back, by an open circuit say, instead of waiting for it within
    /// the deadline. Off by default: a call that can still be made in time is not lost.
    pub fn fail_fast(mut self, fail_fast: bool) -> Self {
        self.settings.fail_fast = fail_fast;
        self
    }

    /// The store of tokens that repetitions are paid from; `None` for no bound but the attempts.
    pub fn budget(mut self, budget: Option<Budget>) -> Self {
        self.settings.budget = budget;
        self
    }

    /// What is waited on top of the server's hint after a 429.
    pub fn throttled_backoff(mut self, backoff: ExponentialBackoff) -> Self {
        self.settings.throttled = backoff;
        self
    }

    /// The route table that the policy is shown.
    pub fn routes(mut self, routes: Arc<Routes>) -> Self {
        self.settings.routes = routes;
        self
    }

    /// Where jitter comes from.
    pub fn randomness(mut self, random: Randomness) -> Self {
        self.settings.random = random;
        self
    }

    /// How long to wait after anything but a 429.
    pub fn backoff<K2>(self, backoff: K2) -> RetryBuilder<C, P, K2> {
        let Self { classifier, policy, settings, .. } = self;
        RetryBuilder { classifier, policy, backoff, settings }
    }

    /// What may be repeated.
    pub fn policy<P2>(self, policy: P2) -> RetryBuilder<C, P2, K> {
        let Self { classifier, backoff, settings, .. } = self;
        RetryBuilder { classifier, policy, backoff, settings }
    }

    /// What results mean.
    pub fn classifier<C2>(self, classifier: C2) -> RetryBuilder<C2, P, K> {
        let Self { policy, backoff, settings, .. } = self;
        RetryBuilder { classifier, policy, backoff, settings }
    }

    /// Builds the layer.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Zero`] for no attempts at all; [`ConfigError::Duration`] for a longest wait beyond a day;
    /// [`ConfigError::Bytes`] for a replay cap beyond [`MAX_REPLAY_CAP`](RetryBuilder::MAX_REPLAY_CAP).
    pub fn build(self) -> Result<RetryLayer<C, P, K>, ConfigError> {
        if self.settings.max_attempts == 0 {
            return Err(ConfigError::Zero { setting: "max_attempts", least: "1" });
        }
        check_duration("longest_wait", self.settings.longest_wait, Duration::ZERO, ExponentialBackoff::MAX)?;
        let most = RetryBuilder::MAX_REPLAY_CAP;
        if self.settings.replay_cap > most {
            return Err(ConfigError::Bytes { setting: "replay_cap", value: self.settings.replay_cap, most });
        }
        Ok(RetryLayer { shared: Arc::new(self.into_shared()) })
    }

    fn into_shared(self) -> Shared<C, P, K> {
        let Self { classifier, policy, backoff, settings } = self;
        let Settings { throttled, budget, max_attempts, longest_wait, replay_cap, routes, random, fail_fast } =
            settings;
        Shared {
            classifier,
            policy,
            backoff,
            throttled,
            budget,
            max_attempts,
            longest_wait,
            replay_cap,
            routes,
            random,
            fail_fast,
        }
    }
}
