//! Sends no request that the server would refuse, at nearly the full quota.
//!
//! # Why a ledger and not a token bucket
//!
//! Didit counts requests in sliding windows of 60 s and says how many are left only when it refuses one. A token bucket of
//! the same rate and burst lets up to twice the limit into one window (599 of 300); made safe, it gives away a share of
//! the throughput that depends on a network delay it does not know. The ledger holds a slot from dispatch until its
//! *response* is a window old: since the request arrived somewhere in between, no window of the server can ever hold more
//! than the limit, whatever the network does. The price is 60 s in 61 s plus the round trip: over 98 % of the quota.
//!
//! # Scopes
//!
//! One request may be counted by several scopes (all writes, and session creation in particular). It takes a slot of each,
//! all or none. Calls that need the same scopes are served in order; a call that waits for a narrow scope holds up nobody
//! who does not need it.
//!
//! That has a price where scopes overlap and neither holds the other, which none of Didit's do: a call that needs both is
//! overtaken by those that need one of them, for as long as these take every slot the moment it becomes free. Such a call
//! needs a higher [priority](crate::call::CallOptions::priority), or a deadline.
//!
//! # Waiting
//!
//! A call that cannot start before its [deadline](crate::call::CallOptions::deadline) is refused at the door, with the
//! time to come back: when it would start is worked out over all scopes and all who go before it. One that is let in and
//! whose turn moves beyond its deadline, because the server asks for a pause or others go first, is refused as soon as
//! that is known. A waiting call reserves nothing of the inner service, and leaves no trace when it is dropped.
//!
//! Who goes first is a matter of [priority](crate::call::CallOptions::priority), then of repetitions before first
//! attempts, then of age:
//!
//! | priority | for | slots |
//! |---|---|---|
//! | high | somebody who is watching the screen | all |
//! | normal | everything else | all |
//! | low | batch work | all but the [reserved share](PacingBuilder::reserved_share); after a minute it goes by its age among those of normal priority, and is served in the end |
//!
//! A flood of calls of *high* priority does hold up all others. So do those that were sent already, whatever their priority:
//! only the share that *low* leaves free is there at once. A batch that is not marked as one makes everybody wait for
//! slots to come back, up to a window.
//!
//! One task keeps time for all who wait under one credential, while anybody does; it is spawned on their runtime, which
//! must be tokio's with time enabled: polling a call that has to wait panics outside of one. When a
//! call's turn comes it is given its slots and woken, and nobody else is. If its task does not come for them within a
//! second, the next one has them, and it has the turn after that. Once it has come for them they are its own, even while it
//! waits for the inner service to be ready, until it is sent or dropped.
//!
//! # Credentials
//!
//! Limits are per API key, so every key has a ledger of its own, and two never slow one another. All clones of a layer
//! share them. The key itself is not kept, but a keyed hash of it. A key whose slots are all free is forgotten when others
//! need the room, which changes nothing.
//!
//! # What others do
//!
//! A second process with the same key is unknown to this one. Its requests show in 429s, which pause the scope they belong
//! to and lower the limit that is kept to; answers raise it again. APIs whose successes say how much is left
//! (`X-RateLimit-*`, `RateLimit`) are believed at once. What the process before this one sent is told by its
//! [snapshot](PacingHandle::snapshot), or [assumed](PacingBuilder::cold_start).
//!
//! A limit that the server names in a 429 and that none of the scopes has is kept to as well, by calls to the same endpoint
//! alone: [`usage`](PacingHandle::usage) shows it as one of that endpoint, until calls to a second one are refused by it and
//! show that it is the new limit of a scope which counts both. It is taken to be for one window of the known scopes, and
//! relaxed by answers when the server has not named it for ten. Snapshots have those of endpoints, and none of paths that the
//! routes do not have.
//!
//! What the layer would do can be watched first, in [shadow mode](PacingBuilder::shadow), in which it holds up nobody.
//!
//! # Example
//!
//! ```
//! use didit_api::{Limits, Scope};
//! use tower::ServiceBuilder;
//! use tower_didit::pacing::PacingLayer;
//! # async fn client(_: http::Request<()>) -> Result<http::Response<()>, std::convert::Infallible> {
//! #     Ok(http::Response::new(()))
//! # }
//!
//! // Didit's limits, but no more than 100 session creations a minute from this process.
//! let limits = Limits::didit().with(Scope::endpoints("session-v2-create", 100, ["session-create"])?)?;
//! let service = ServiceBuilder::new()
//!     .layer(PacingLayer::builder().limits(limits).build()?)
//!     .service_fn(client);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
mod future;
mod handle;
#[cfg(all(test, interleavings))]
mod interleavings;
mod keys;
mod layer;
mod ledger;
mod pacer;
mod shape;
mod snapshot;
mod timer;

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use didit_api::ScopeSet;
use http::{Request, Response};
use tokio::time::Instant;
use tower::Service;

pub use self::{
    error::{Error, Refused, Why},
    future::ResponseFuture,
    handle::{KeyUsage, Overdrafts, PacingHandle, Usage},
    keys::KeyId,
    layer::{PacingBuilder, PacingLayer},
    ledger::ScopeRecord,
    pacer::ColdStart,
    snapshot::{KeyRecord, PacingSnapshot},
};
use self::{
    keys::Keys,
    ledger::{Asking, Target},
    pacer::Entry,
};
use crate::{
    call::{CallOptions, current},
    outcome::{Classify, DiditClassifier},
    readiness,
};

/// Sends no more than the quota allows; see the [module](self).
#[derive(Clone, Debug)]
pub struct Pacing<S, C = DiditClassifier> {
    inner: S,
    keys: Arc<Keys>,
    classifier: C,
}

// ===== impl Pacing =====

impl<S, C> Pacing<S, C> {
    inner_accessors!();

    /// Asks for slots on behalf of a request.
    fn enter<B>(&self, request: &Request<B>, target: Target, set: ScopeSet, now: Instant) -> Result<Entry, Refused> {
        let config = self.keys.config();
        let pacer = match self.keys.of(request.headers(), now) {
            Ok(pacer) => pacer,
            Err(_) if config.shadow => return Ok(Entry::Uncounted),
            Err(retry_at) => {
                let scope = set.iter().next().and_then(|id| config.name(id)).unwrap_or_default();
                return Err(Refused::new(scope, Why::TooManyKeys, retry_at, now));
            }
        };
        let options = request.extensions().get::<CallOptions>();
        let priority = options.map(|options| options.priority).unwrap_or_default();
        let running = current::with(|call| (call.deadline, call.report.attempts > 1));
        let (deadline, repeated) = running.unwrap_or_default();
        pacer.enter(&Asking { set, priority, repeated, deadline, target }, now)
    }
}

impl<S, C, B, RB> Service<Request<B>> for Pacing<S, C>
where
    S: Service<Request<B>, Response = Response<RB>> + Clone,
    C: Classify<S::Error> + Clone,
{
    type Response = S::Response;
    type Error = Error<S::Error>;
    type Future = ResponseFuture<S, C, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Error::Inner)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let classifier = self.classifier.clone();
        let config = self.keys.config();
        let endpoint = config.routes.find(request.method(), request.uri().path());
        let set = config.table.of(endpoint, request.method());
        if set.is_empty() {
            return ResponseFuture::free(self.inner.call(request), classifier);
        }
        let now = current::now();
        match self.enter(&request, Target::new(endpoint, request.uri().path()), set, now) {
            Ok(Entry::Granted(mut slots)) => {
                slots.sent(now);
                ResponseFuture::sent(self.inner.call(request), slots, classifier)
            }
            Ok(Entry::Uncounted) => ResponseFuture::free(self.inner.call(request), classifier),
            // NOTE: nothing is reserved while waiting, neither here nor by the call: it gets a clone that was not readied,
            // which is readied when its turn has come.
            Ok(Entry::Queued(place)) => {
                readiness::give_back(&mut self.inner);
                ResponseFuture::queued(self.inner.clone(), request, place, now, classifier)
            }
            Err(refused) => {
                readiness::give_back(&mut self.inner);
                ResponseFuture::refused(refused, classifier)
            }
        }
    }
}
