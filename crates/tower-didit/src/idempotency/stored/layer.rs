use std::{fmt, sync::Arc, time::Duration};

use didit_api::Routes;
#[cfg(feature = "stack")]
use http::HeaderName;
use tower::Layer;

use super::{StoredIdempotency, flight::Flights};
use crate::{
    idempotency::{
        IdempotencyLayer,
        keys::Keys,
        reconcile::{DiditReconcile, Reconcile},
        store::{Clock, Store},
    },
    outcome::DiditClassifier,
};

/// Lets every named call happen once; see the [module](super). Made by [`IdempotencyLayer::store`].
///
/// All services of one layer, and their clones, hold calls together; two layers over one store do so through the store.
#[derive(Clone)]
pub struct StoredIdempotencyLayer<C = DiditClassifier> {
    pub(super) shared: Arc<Shared>,
    classifier: C,
}

/// What all clones of a layer share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) keys: Keys,
    pub(super) store: Arc<dyn Store>,
    /// `None` for Didit's.
    pub(super) reconcile: Option<Arc<dyn Reconcile>>,
    pub(super) flights: Arc<Flights>,
    pub(super) clock: Clock,
    pub(super) routes: Arc<Routes>,
    /// The total time of a call that has no deadline of its own.
    pub(super) total: Duration,
    /// `None` for the total time.
    pub(super) wait: Option<Duration>,
    pub(super) lease: Duration,
    pub(super) replay: bool,
    pub(super) operation_as_vendor_data: bool,
}

impl IdempotencyLayer {
    /// Remembers in `store` which calls were made, so that each happens once; see [`stored`](super).
    ///
    /// | setting | default |
    /// |---|---|
    /// | reconciliation | [`DiditReconcile::new`] |
    /// | replay of bodies | off |
    /// | wait for another call with the same key | [`DEFAULT_WAIT`](StoredIdempotencyLayer::DEFAULT_WAIT), or the call's own deadline |
    /// | lease | [`DEFAULT_LEASE`](StoredIdempotencyLayer::DEFAULT_LEASE) |
    /// | operation id as `vendor_data` | off |
    pub fn store(self, store: impl Store) -> StoredIdempotencyLayer {
        let shared = Shared {
            keys: self.keys,
            store: Arc::new(store),
            reconcile: None,
            flights: Arc::default(),
            clock: Clock::start(),
            routes: Routes::didit(),
            total: StoredIdempotencyLayer::DEFAULT_WAIT,
            wait: None,
            lease: StoredIdempotencyLayer::DEFAULT_LEASE,
            replay: false,
            operation_as_vendor_data: false,
        };
        StoredIdempotencyLayer { shared: Arc::new(shared), classifier: DiditClassifier }
    }
}

impl StoredIdempotencyLayer {
    /// How long a call waits for another with the same key: 120 s, the total time that the other one has by default.
    pub const DEFAULT_WAIT: Duration = Duration::from_secs(120);

    /// How long a leader may be silent before others that share the store give it up for lost: 5 minutes.
    ///
    /// A call that is under way renews its lease when half of it is over, so a lease bounds no call; it says how long
    /// the operations of a process that died stay closed. Longer than Didit works on anything (120 s, the longest
    /// attempt timeout), so that what a leader sent just before it died has ended there before it is looked up; and
    /// half of it is longer than a store may hang and a runtime be blocked.
    pub const DEFAULT_LEASE: Duration = Duration::from_secs(300);

    /// The shortest lease; less is raised to this, so that renewing it is not all that is done: a second.
    pub const MIN_LEASE: Duration = Duration::from_secs(1);

    /// The longest wait and lease; more is cut to this, so that no instant overflows: a day.
    pub const MAX: Duration = Duration::from_secs(86_400);
}

impl<C> StoredIdempotencyLayer<C> {
    fn with(mut self, change: impl FnOnce(&mut Shared)) -> Self {
        change(Arc::make_mut(&mut self.shared));
        self
    }

    #[cfg(feature = "stack")]
    pub(crate) fn name(&self) -> &HeaderName {
        &self.shared.keys.header
    }

    /// Finds out in another way whether a call was carried out.
    #[must_use]
    pub fn reconcile(self, reconcile: impl Reconcile) -> Self {
        self.with(|shared| shared.reconcile = Some(Arc::new(reconcile)))
    }

    /// Keeps the bodies of answers, and gives them again to later calls with the same key. Off by default, because
    /// bodies are full of personal data, and of links that let their holder act.
    #[must_use]
    pub fn replay(self, replay: bool) -> Self {
        self.with(|shared| shared.replay = replay)
    }

    /// How long a call waits for another with the same key, unless it has a deadline of its own.
    #[must_use]
    pub fn wait(self, wait: Duration) -> Self {
        self.with(|shared| shared.wait = Some(wait.min(StoredIdempotencyLayer::MAX)))
    }

    /// How long a leader may be silent before others give it up for lost; from
    /// [`MIN_LEASE`](StoredIdempotencyLayer::MIN_LEASE) to [`MAX`](StoredIdempotencyLayer::MAX).
    #[must_use]
    pub fn lease(self, lease: Duration) -> Self {
        let least = StoredIdempotencyLayer::MIN_LEASE;
        self.with(|shared| shared.lease = lease.clamp(least, StoredIdempotencyLayer::MAX))
    }

    /// Reads results with another classifier: what was done, what was not, and what is in doubt.
    pub fn classifier<C2>(self, classifier: C2) -> StoredIdempotencyLayer<C2> {
        StoredIdempotencyLayer { shared: self.shared, classifier }
    }

    /// Knows these routes. A reconciliation that is set has [its own](DiditReconcile::routes).
    #[must_use]
    pub fn routes(self, routes: Arc<Routes>) -> Self {
        self.with(|shared| shared.routes = routes)
    }

    /// Takes from the stack around it what it was not told.
    #[cfg(feature = "stack")]
    pub(crate) fn within(self, routes: Arc<Routes>, random: crate::Randomness, total: Duration) -> Self {
        self.with(|shared| {
            shared.routes = routes;
            shared.keys.random = random;
            shared.total = total;
        })
    }

    /// Sends the operation id as `vendor_data` with a session creation that has none, so that the session can be found
    /// again. Off by default, because it changes what is sent.
    ///
    /// It is done to a JSON object in memory only, of which nothing else changes; a `vendor_data` that the request
    /// brings is left as it is.
    #[must_use]
    pub fn operation_as_vendor_data(self, fill: bool) -> Self {
        self.with(|shared| shared.operation_as_vendor_data = fill)
    }
}

impl Shared {
    pub(super) fn reconcile(&self) -> Arc<dyn Reconcile> {
        match &self.reconcile {
            Some(reconcile) => Arc::clone(reconcile),
            None => Arc::new(DiditReconcile::new().routes(Arc::clone(&self.routes))),
        }
    }
}

impl<C> fmt::Debug for StoredIdempotencyLayer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredIdempotencyLayer")
            .field("keys", &self.keys)
            .field("store", &self.store)
            .field("reconcile", &self.reconcile)
            .field("wait", &self.wait)
            .field("lease", &self.lease)
            .field("replay", &self.replay)
            .field("operation_as_vendor_data", &self.operation_as_vendor_data)
            .finish_non_exhaustive()
    }
}

impl<S, C: Clone> Layer<S> for StoredIdempotencyLayer<C> {
    type Service = StoredIdempotency<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        StoredIdempotency { inner, shared: Arc::clone(&self.shared), classifier: self.classifier.clone() }
    }
}
