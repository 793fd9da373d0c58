use std::{num::NonZeroU32, sync::Arc, time::Duration};

use didit_api::{Limits, Routes};
use http::{HeaderMap, HeaderName};
use tokio::time::Instant;
use tower::Layer;

use super::{
    Pacing,
    handle::{PacingHandle, Usage},
    keys::{Credential, Keys},
    ledger::Rules,
    pacer::{ColdStart, Config, Pacer},
    snapshot::PacingSnapshot,
};
use crate::{
    clock::wall,
    error::{ConfigError, check_duration},
    outcome::DiditClassifier,
    random::Randomness,
};

/// Sends no more than the quota allows; see the [module](super).
#[derive(Clone, Debug)]
pub struct PacingLayer<C = DiditClassifier> {
    keys: Arc<Keys>,
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
    /// | reserved share | 20 % of each limit is kept from calls of low priority |
    /// | longest queue | 250 000 calls for one scope |
    /// | longest wait | the call's deadline |
    /// | credential | `x-api-key`; 1 024 of them at a time |
    /// | cold start | [`ColdStart::Empty`] |
    /// | limits that the server raises | are not followed above the configured ones |
    pub fn builder() -> PacingBuilder {
        PacingBuilder::default()
    }
}

impl<C> PacingLayer<C> {
    /// How full each scope is; if there are several credentials, under the one under which it is fullest.
    pub fn usage(&self) -> Vec<Usage> {
        self.handle().usage()
    }

    /// What an operator sees.
    pub fn handle(&self) -> PacingHandle {
        PacingHandle { keys: Arc::clone(&self.keys) }
    }
}

impl<S, C: Clone> Layer<S> for PacingLayer<C> {
    type Service = Pacing<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        Pacing { inner, keys: Arc::clone(&self.keys), classifier: self.classifier.clone() }
    }
}

/// Configures a [`PacingLayer`]; made by [`PacingLayer::builder`], which lists the defaults.
#[derive(Clone, Debug)]
#[must_use]
pub struct PacingBuilder<C = DiditClassifier> {
    pub(crate) limits: Limits,
    routes: Arc<Routes>,
    pub(crate) rules: Rules,
    credential: Credential,
    pub(crate) max_keys: usize,
    pub(crate) cold_start: ColdStart,
    snapshot: Option<PacingSnapshot>,
    pub(crate) shadow: bool,
    random: Randomness,
    classifier: C,
}

impl Default for PacingBuilder {
    fn default() -> Self {
        let rules = Rules {
            epsilon: Duration::from_secs(1),
            transit: Duration::from_secs(5),
            burst: None,
            reserved_share: 0.2,
            max_waiting: 250_000,
            max_wait: None,
            patience: Limits::WINDOW,
            raise_limits: false,
        };
        Self {
            limits: Limits::didit(),
            routes: Routes::didit(),
            rules,
            credential: Credential::Header(HeaderName::from_static("x-api-key")),
            max_keys: 1_024,
            cold_start: ColdStart::default(),
            snapshot: None,
            shadow: false,
            random: Randomness::new(),
            classifier: DiditClassifier,
        }
    }
}

impl<C> PacingBuilder<C> {
    /// How long a scope without a hint in its 429 is left alone: what Didit's rate-limiting page starts its waits with.
    const DEFAULT_PAUSE: Duration = Duration::from_secs(5);

    /// The longest ε and transit: an hour.
    pub const MAX: Duration = Duration::from_secs(3_600);

    /// The greatest reserved share: a tenth is left for calls of low priority.
    pub const MAX_RESERVED_SHARE: f64 = 0.9;

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
        self.rules.epsilon = epsilon;
        self
    }

    /// How long a request that was given up may still be on its way.
    pub fn transit(mut self, transit: Duration) -> Self {
        self.rules.transit = transit;
        self
    }

    /// Lets at most this many requests of a scope out at once, and after them no faster than its rate. Costs no
    /// throughput, because the ledger holds the guarantee; avoids silence of a window's length after a burst.
    pub fn burst(mut self, burst: NonZeroU32) -> Self {
        self.rules.burst = Some(burst);
        self
    }

    /// Keeps a share of each limit, from 0 to [`MAX_RESERVED_SHARE`](Self::MAX_RESERVED_SHARE), from calls of
    /// [low priority](crate::call::Priority::Low), however many there are: the others find a slot at once. Costs nothing
    /// but what calls of low priority could have had beyond it.
    pub fn reserved_share(mut self, share: f64) -> Self {
        self.rules.reserved_share = share;
        self
    }

    /// Refuses calls when so many of the same priority or a higher one wait for a scope already: batch work that fills the
    /// queue does not shut out who is watching the screen.
    pub fn max_waiting(mut self, calls: usize) -> Self {
        self.rules.max_waiting = calls;
        self
    }

    /// Refuses calls that would wait longer than this, whatever their deadline.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.rules.max_wait = Some(wait);
        self
    }

    /// Finds credentials in another header.
    pub fn credential_header(mut self, name: HeaderName) -> Self {
        self.credential = Credential::Header(name);
        self
    }

    /// Finds credentials in another way. Requests without one are counted together.
    ///
    /// ```
    /// use tower_didit::pacing::PacingLayer;
    ///
    /// let layer = PacingLayer::builder()
    ///     .credential(|headers| headers.get("authorization")?.as_bytes().strip_prefix(b"Bearer "))
    ///     .build()?;
    /// # Ok::<(), tower_didit::ConfigError>(())
    /// ```
    pub fn credential(mut self, find: impl Fn(&HeaderMap) -> Option<&[u8]> + Send + Sync + 'static) -> Self {
        self.credential = Credential::Of(Arc::new(find));
        self
    }

    /// Keeps ledgers for so many credentials at a time. One that has nothing to remember makes room for a new one; if there
    /// is none, calls under the new one are refused. The first to be seen is never dropped, and there is room for another
    /// one beside it however few are allowed, so that a key can be rotated.
    pub fn max_keys(mut self, keys: usize) -> Self {
        self.max_keys = keys;
        self
    }

    /// What is assumed about the process before this one.
    pub fn cold_start(mut self, assume: ColdStart) -> Self {
        self.cold_start = assume;
        self
    }

    /// Goes on from what another process knew. Credentials that have something to remember are all kept, even if
    /// there are more than [`max_keys`](Self::max_keys). Credentials and scopes that are not in the snapshot start
    /// as [`cold_start`](Self::cold_start) says.
    pub fn restore(mut self, snapshot: PacingSnapshot) -> Self {
        self.snapshot = Some(snapshot);
        self
    }

    /// Takes the server's word for a limit above the configured one too, up to ten times as much. Not for limits that were
    /// configured to be a part of what there is.
    pub fn raise_limits(mut self, raise: bool) -> Self {
        self.rules.raise_limits = raise;
        self
    }

    /// Measures, and neither holds up nor refuses any call: [`KeyUsage::overdrafts`](super::KeyUsage::overdrafts) counts
    /// what would have been held up. Calls under credentials beyond [`max_keys`](Self::max_keys) are not measured. Memory
    /// grows with the requests of a window, however few of them the limits allow.
    pub fn shadow(mut self, shadow: bool) -> Self {
        self.shadow = shadow;
        self
    }

    /// Draws the key of the hash that stands for credentials from another source of randomness.
    pub fn randomness(mut self, random: Randomness) -> Self {
        self.random = random;
        self
    }

    /// What results mean.
    pub fn classifier<C2>(self, classifier: C2) -> PacingBuilder<C2> {
        let Self { limits, routes, rules, credential, max_keys, cold_start, snapshot, shadow, random, .. } = self;
        PacingBuilder { limits, routes, rules, credential, max_keys, cold_start, snapshot, shadow, random, classifier }
    }

    /// Builds the layer.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Duration`] for an ε or transit beyond an hour; [`ConfigError::Number`] for a share out of its range;
    /// [`ConfigError::ColdStart`] for a cold start that assumes slots of limits above a million;
    /// [`ConfigError::Zero`] if there may be no waiter or no credential; [`ConfigError::UnknownEndpoints`] if the limits
    /// count endpoints that the route table does not have. A limit of zero cannot be expressed: [`Limits`] refuses it.
    pub fn build(self) -> Result<PacingLayer<C>, ConfigError> {
        let rules = &self.rules;
        check_duration("epsilon", rules.epsilon, Duration::ZERO, Self::MAX)?;
        check_duration("transit", rules.transit, Duration::ZERO, Self::MAX)?;
        if let Some(wait) = rules.max_wait {
            check_duration("max_wait", wait, Duration::ZERO, Self::LONGEST_WAIT)?;
        }
        check_share("reserved_share", rules.reserved_share, Self::MAX_RESERVED_SHARE)?;
        if let ColdStart::Share(share) = self.cold_start {
            check_share("cold_start", share, 1.0)?;
        }
        let widest = self.limits.scopes().iter().map(|scope| scope.limit().get()).max();
        if let Some(limit) = widest.filter(|limit| *limit > Self::MOST_ASSUMED)
            && !matches!(self.cold_start, ColdStart::Empty | ColdStart::Share(0.0))
        {
            return Err(ConfigError::ColdStart { limit, most: Self::MOST_ASSUMED });
        }
        for (setting, value) in [("max_waiting", rules.max_waiting), ("max_keys", self.max_keys)] {
            if value == 0 {
                return Err(ConfigError::Zero { setting, least: "1" });
            }
        }
        let unknown = self.limits.unknown_endpoints(&self.routes);
        if !unknown.is_empty() {
            return Err(ConfigError::UnknownEndpoints { unknown });
        }
        Ok(self.into_layer())
    }

    /// The widest limit of which slots can be assumed to be taken: each takes memory, under each credential.
    const MOST_ASSUMED: u32 = 1_000_000;

    /// The longest wait that can be set: a day.
    const LONGEST_WAIT: Duration = Duration::from_secs(86_400);

    fn into_layer(self) -> PacingLayer<C> {
        let Self { limits, routes, rules, credential, max_keys, cold_start, snapshot, shadow, random, classifier } =
            self;
        let (table, since) = (limits.table(&routes), Instant::now());
        let default_pause = Self::DEFAULT_PAUSE;
        let config = Arc::new(Config { limits, routes, table, rules, default_pause, cold_start, since, shadow });
        let drawn = [random.bits(), random.bits()];
        let hash_key = snapshot.as_ref().map_or(drawn, |snapshot| snapshot.hash_key);
        let keys = Keys::new(credential, hash_key, max_keys, Arc::clone(&config));
        if let Some(snapshot) = snapshot {
            let age = snapshot.age(wall());
            for record in &snapshot.keys {
                let pacer = Pacer::restored(Arc::clone(&config), record.key, &record.scopes, age, since);
                // What has nothing to remember would only take up room. All others stay, were they too many: to forget
                // one is to send twice what its limit allows.
                if pacer.idle_at(since).is_none_or(|at| at > since) {
                    keys.put(pacer);
                }
            }
        }
        PacingLayer { keys: Arc::new(keys), classifier }
    }
}

fn check_share(setting: &'static str, value: f64, most: f64) -> Result<(), ConfigError> {
    if (0.0..=most).contains(&value) {
        return Ok(());
    }
    Err(ConfigError::Number { setting, value, least: 0.0, most })
}
