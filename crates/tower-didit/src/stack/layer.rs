use std::{fmt, sync::Arc, time::Duration};

use didit_api::{Endpoint, Limits, Routes};
use http::HeaderName;
use tower::Layer;

use super::{
    AttemptTold, Bounded, Stack, Told, header,
    target::{Target, without_secrets},
};
#[cfg(feature = "telemetry")]
use crate::telemetry::{Gauges, TelemetryLayer};
use crate::{
    attempt_timeout::AttemptTimeoutLayer,
    circuit_breaker::{CircuitBreakerLayer, TripPolicy},
    correlation::{Correlation, CorrelationLayer},
    deadline::DeadlineLayer,
    error::{ConfigError, check_duration},
    idempotency::{IdempotencyLayer, StoredIdempotencyLayer, store::Store},
    pacing::{PacingBuilder, PacingLayer},
    random::Randomness,
    retry::{RetryBuilder, RetryLayer},
};

/// All layers in the right order; see the [module](super).
///
/// Everything that has to be shared is: two services made by one layer, and all their clones, keep one ledger, one set
/// of circuits and one budget.
#[derive(Clone, Debug)]
pub struct DiditLayer<I = IdempotencyLayer> {
    target: Arc<Target>,
    correlation: CorrelationLayer,
    idempotency: I,
    deadline: DeadlineLayer,
    retry: RetryLayer,
    pacing: PacingLayer,
    breaker: CircuitBreakerLayer,
    attempt_timeout: AttemptTimeoutLayer,
    #[cfg(feature = "telemetry")]
    telemetry: TelemetryLayer,
}

impl DiditLayer {
    /// Where Didit's API lives.
    pub const BASE_URL: &'static str = "https://verification.didit.me";

    /// Starts from Didit's values; the defaults of each layer are listed where it is.
    ///
    /// | setting | default |
    /// |---|---|
    /// | API key | none: it has to be given, or [`without_api_key`](DiditBuilder::without_api_key) called |
    /// | base URL | [`BASE_URL`](Self::BASE_URL) |
    /// | routes, limits | [`Routes::didit`], [`Limits::didit`] |
    /// | deadline | 120 s ([`DeadlineLayer::DEFAULT`]) |
    /// | retry | [`RetryLayer::builder`] |
    /// | pacing | [`PacingLayer::builder`] |
    /// | circuit breaker | [`TripPolicy::DIDIT`] |
    /// | attempt timeout | of each route; [`Endpoint::DEFAULT_TIMEOUT`] for paths without one |
    /// | idempotency | a key for each call, and no [store](DiditBuilder::idempotency_store) |
    pub fn builder() -> DiditBuilder {
        DiditBuilder {
            key: Key::Missing,
            base_url: Self::BASE_URL.to_owned(),
            routes: Routes::didit(),
            deadline: DeadlineLayer::DEFAULT,
            trip: TripPolicy::DIDIT,
            unknown: Endpoint::DEFAULT_TIMEOUT,
            correlation: CorrelationLayer::new(),
            idempotency: IdempotencyLayer::new(),
            retry: RetryLayer::builder(),
            pacing: PacingLayer::builder(),
            random: Randomness::new(),
        }
    }
}

impl<I> DiditLayer<I> {
    /// The pacing layer, which knows how full each scope is.
    pub fn pacing(&self) -> &PacingLayer {
        &self.pacing
    }

    /// The circuit breaker, which knows the state of each circuit.
    pub fn circuit_breaker(&self) -> &CircuitBreakerLayer {
        &self.breaker
    }

    /// What can be read of quota, circuits and budget whenever somebody looks.
    #[cfg(feature = "telemetry")]
    pub fn gauges(&self) -> Gauges {
        let gauges = Gauges::new().pacing(self.pacing.clone()).circuit_breaker(self.breaker.handle());
        self.retry.budget().cloned().into_iter().fold(gauges, Gauges::budget)
    }

    fn told<S>(&self, inner: S) -> Told<S> {
        #[cfg(feature = "telemetry")]
        let inner = self.telemetry.layer(inner);
        inner
    }

    fn attempt_told<S>(&self, inner: S) -> AttemptTold<S> {
        #[cfg(feature = "telemetry")]
        let inner = self.telemetry.attempts().layer(inner);
        inner
    }
}

impl<S, I: Layer<Bounded<S>>> Layer<S> for DiditLayer<I> {
    type Service = Stack<Correlation<Told<I::Service>>>;

    fn layer(&self, client: S) -> Self::Service {
        let queued = self.breaker.layer(self.attempt_told(self.attempt_timeout.layer(client)));
        let queued = self.breaker.peek().layer(self.pacing.layer(queued));
        let call = self.deadline.layer(self.retry.layer(queued));
        let layers = self.correlation.layer(self.told(self.idempotency.layer(call)));
        Stack { layers, target: Arc::clone(&self.target) }
    }
}

/// Configures a [`DiditLayer`]; made by [`DiditLayer::builder`], which lists the defaults.
#[derive(Clone)]
#[must_use]
pub struct DiditBuilder<I = IdempotencyLayer> {
    key: Key,
    base_url: String,
    routes: Arc<Routes>,
    pub(crate) deadline: Duration,
    pub(crate) trip: TripPolicy,
    unknown: Duration,
    correlation: CorrelationLayer,
    idempotency: I,
    pub(crate) retry: RetryBuilder,
    pub(crate) pacing: PacingBuilder,
    random: Randomness,
}

/// What is known about the API key.
#[derive(Clone)]
enum Key {
    Missing,
    NotOurs,
    Given(String),
}

/// Shows neither the key nor what a base URL may hide.
impl fmt::Debug for DiditBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiditBuilder")
            .field("has_key", &matches!(self.key, Key::Given(_)))
            .field("base_url", &without_secrets(&self.base_url))
            .field("deadline", &self.deadline)
            .field("trip", &self.trip)
            .field("retry", &self.retry)
            .field("pacing", &self.pacing)
            .finish_non_exhaustive()
    }
}

impl<I> DiditBuilder<I> {
    /// Sends this key as `x-api-key`, unless a request brings its own. It is never logged or shown.
    pub fn api_key(mut self, key: impl Into<String>) -> Self {
        self.key = Key::Given(key.into());
        self
    }

    /// Leaves the key to whoever else adds it: the client, or a gateway.
    pub fn without_api_key(mut self) -> Self {
        self.key = Key::NotOurs;
        self
    }

    /// Sends requests to another host: `http://` or `https://`, with a host and no path.
    pub fn base_url(mut self, url: impl Into<String>) -> Self {
        self.base_url = url.into();
        self
    }

    /// Knows these routes instead of Didit's; all layers read the same table.
    pub fn routes(mut self, routes: Arc<Routes>) -> Self {
        self.routes = routes;
        self
    }

    /// Keeps to these limits instead of the newest documented ones.
    pub fn limits(self, limits: Limits) -> Self {
        self.pacing(|pacing| pacing.limits(limits))
    }

    /// Gives every call this long, unless its [`CallOptions`](crate::call::CallOptions) say otherwise. With a store, what
    /// a call in doubt is looked up for comes [on top](crate::idempotency::stored#time).
    pub fn deadline(mut self, total: Duration) -> Self {
        self.deadline = total;
        self
    }

    /// Changes the retry layer.
    pub fn retry(mut self, change: impl FnOnce(RetryBuilder) -> RetryBuilder) -> Self {
        self.retry = change(self.retry);
        self
    }

    /// Changes the pacing layer.
    pub fn pacing(mut self, change: impl FnOnce(PacingBuilder) -> PacingBuilder) -> Self {
        self.pacing = change(self.pacing);
        self
    }

    /// Opens circuits by another policy.
    pub fn trip_policy(mut self, policy: TripPolicy) -> Self {
        self.trip = policy;
        self
    }

    /// Gives an attempt on a path that the routes do not know this long.
    pub fn unknown_timeout(mut self, timeout: Duration) -> Self {
        self.unknown = timeout;
        self
    }

    /// Draws all jitter and identifiers from another source of randomness.
    pub fn randomness(mut self, random: Randomness) -> Self {
        self.random = random;
        self
    }

    /// Changes the correlation layer: the header's name.
    pub fn correlation(mut self, change: impl FnOnce(CorrelationLayer) -> CorrelationLayer) -> Self {
        self.correlation = change(self.correlation);
        self
    }

    /// Changes the idempotency layer: the header's name, the secret of its keys, or, if there is a store, what becomes
    /// of it.
    pub fn idempotency(mut self, change: impl FnOnce(I) -> I) -> Self {
        self.idempotency = change(self.idempotency);
        self
    }

    fn assemble(
        self,
        name: impl FnOnce(&I) -> &HeaderName,
        finish: impl FnOnce(I, &Arc<Routes>, &Randomness) -> I,
    ) -> Result<DiditLayer<I>, ConfigError> {
        let Self { key, base_url, routes, deadline, trip, unknown, correlation, idempotency, retry, pacing, random } =
            self;
        let key = match key {
            Key::Missing => return Err(ConfigError::ApiKey { problem: "missing" }),
            Key::NotOurs => None,
            Key::Given(key) => Some(key),
        };
        header::check(&correlation.header, name(&idempotency))?;
        let least = Duration::from_millis(1);
        let deadline = check_duration("deadline", deadline, least, DeadlineLayer::MAX)?;
        let unknown = check_duration("unknown_timeout", unknown, least, AttemptTimeoutLayer::MAX)?;
        Ok(DiditLayer {
            target: Arc::new(Target::new(&base_url, key.as_deref())?),
            correlation: correlation
                .routes(Arc::clone(&routes))
                .randomness(random.clone())
                .attempts_traced(cfg!(feature = "telemetry")),
            #[cfg(feature = "telemetry")]
            telemetry: TelemetryLayer::new(Arc::clone(&routes), random.clone()),
            idempotency: finish(idempotency, &routes, &random),
            deadline: DeadlineLayer::new(deadline),
            retry: retry.routes(Arc::clone(&routes)).randomness(random.clone()).build()?,
            pacing: pacing.routes(Arc::clone(&routes)).build()?,
            breaker: CircuitBreakerLayer::with_randomness(trip, Arc::clone(&routes), random),
            attempt_timeout: AttemptTimeoutLayer::new(routes).unknown(unknown),
        })
    }
}

impl DiditBuilder {
    /// Remembers in `store` which calls were made, so that each that its caller has named happens once; see
    /// [`idempotency::stored`](crate::idempotency::stored).
    ///
    /// # Example
    ///
    /// ```
    /// use tower_didit::{DiditLayer, idempotency::store::MemoryStore};
    ///
    /// let layer = DiditLayer::builder()
    ///     .api_key("secret")
    ///     .idempotency_store(MemoryStore::new())
    ///     .idempotency(|idempotency| idempotency.replay(true))
    ///     .build()?;
    /// # Ok::<(), tower_didit::ConfigError>(())
    /// ```
    pub fn idempotency_store(self, store: impl Store) -> DiditBuilder<StoredIdempotencyLayer> {
        let Self { key, base_url, routes, deadline, trip, unknown, correlation, idempotency, retry, pacing, random } =
            self;
        let idempotency = idempotency.store(store);
        DiditBuilder { key, base_url, routes, deadline, trip, unknown, correlation, idempotency, retry, pacing, random }
    }

    /// Builds the layer.
    ///
    /// # Errors
    ///
    /// [`ConfigError::ApiKey`] for a missing or unusable key, [`ConfigError::BaseUrl`] for a URL that cannot be sent to,
    /// [`ConfigError::Header`] for a header that means something else, [`ConfigError::Duration`] for a deadline or an unknown timeout outside 1 ms to a day, and whatever [`RetryBuilder::build`] and
    /// [`PacingBuilder::build`] refuse.
    pub fn build(self) -> Result<DiditLayer, ConfigError> {
        self.assemble(IdempotencyLayer::name, |idempotency, _routes, random| idempotency.randomness(random.clone()))
    }
}

impl DiditBuilder<StoredIdempotencyLayer> {
    /// Builds the layer. A call waits for another with its name as long as the stack's deadline, and the stack's routes
    /// say what may be repeated, unless the idempotency layer was told otherwise.
    ///
    /// # Errors
    ///
    /// As without a store.
    pub fn build(self) -> Result<DiditLayer<StoredIdempotencyLayer>, ConfigError> {
        let deadline = self.deadline;
        self.assemble(StoredIdempotencyLayer::name, |idempotency, routes, random| {
            idempotency.within(Arc::clone(routes), random.clone(), deadline)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn builder() -> DiditBuilder {
        DiditLayer::builder().api_key("key")
    }

    #[test]
    fn bad_input_is_refused_with_a_typed_error_and_never_a_panic() {
        let refused = [
            DiditLayer::builder().build(),
            DiditLayer::builder().api_key("").build(),
            builder().api_key("two\nlines").build(),
            builder().base_url("https:///v3/").build(),
            builder().deadline(Duration::ZERO).build(),
            builder().deadline(Duration::MAX).build(),
            builder().unknown_timeout(Duration::ZERO).build(),
            builder().retry(|retry| retry.max_attempts(0)).build(),
            builder().retry(|retry| retry.longest_wait(Duration::MAX)).build(),
            builder().pacing(|pacing| pacing.epsilon(Duration::MAX)).build(),
            builder().routes(Arc::new(Routes::empty())).build(),
            builder().correlation(|layer| layer.header(http::header::HOST)).build(),
            builder().idempotency(|layer| layer.header(http::header::AUTHORIZATION)).build(),
            builder().retry(|retry| retry.replay_cap(RetryBuilder::MAX_REPLAY_CAP + 1)).build(),
        ];
        let refused: Vec<_> = refused.into_iter().map(|built| built.unwrap_err().to_string()).collect();
        assert_eq!(refused[0], "the API key is missing; allowed is visible ASCII, without spaces and line ends");
        assert_eq!(refused[7], "max_attempts is zero; it must be at least 1");
        assert_eq!(refused.last().unwrap(), "replay_cap is 1073741825 bytes; allowed is at most 1073741824");
        assert!(refused[10].starts_with("the limits count what the route table does not have: "), "{}", refused[10]);
    }

    #[test]
    fn the_builder_and_the_layer_show_no_key() {
        let builder = DiditLayer::builder().api_key("canary-key");
        assert!(!format!("{:?}", builder.clone().base_url("https://user:canary@host")).contains("canary"));
        assert!(!format!("{builder:?}").contains("canary"));
        assert!(!format!("{:?}", builder.build().unwrap()).contains("canary"));
    }
}
