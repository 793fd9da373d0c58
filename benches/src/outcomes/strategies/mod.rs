//! The clients that are compared: ours, and each published crate used as its documentation says.
//!
//! All of them stand on the same [`Wire`] and take the same [`Request`]s. Their time is tokio's, so that a paused clock
//! drives them; what had to be done for that stands where they are.

mod backon;
mod didit;
pub(super) mod failsafe;
mod governor;
mod hints;
mod resilience;
mod tower;

use std::{error::Error, time::Duration};

use ::tower::{Service, ServiceExt, service_fn, util::BoxCloneSyncService};
use http::{Request, Response, StatusCode};

pub use self::{
    backon::Backon,
    didit::{Pacing, Stack},
    failsafe::Failsafe,
    governor::Governor,
    hints::{RetryAfter, RetryJittered, ScopePause},
    resilience::{Retrying as ResilienceRetry, SlidingOrFixed, WindowType},
    tower::{RateLimited, Retrying as TowerRetry},
};
use super::{
    Problem,
    world::{LIMIT, Leg, MINUTE, Server, Wire},
};
use crate::Body;

/// The error of a client, whatever it is made of.
pub type AnyError = Box<dyn Error + Send + Sync>;

/// A client: a request in, the head of the answer out.
pub type Client = BoxCloneSyncService<Request<Body>, Response<()>, AnyError>;

/// One strategy among others.
pub type AnyStrategy = Box<dyn Strategy>;

/// A way to make calls.
pub trait Strategy: Send + Sync {
    /// What it is called in tables.
    fn name(&self) -> String;

    /// Whether it reads a clock other than tokio's, which has to be moved along.
    fn has_own_clock(&self) -> bool {
        false
    }

    /// A client on this wire. `quota` is what its user knows of the limits.
    ///
    /// # Errors
    ///
    /// If it cannot be configured so.
    fn client(&self, wire: Wire, quota: &Quota) -> Result<Client, Problem>;
}

/// What the user of a client knows and tells it.
#[derive(Clone, Copy, Debug)]
pub struct Quota {
    /// Requests per window.
    pub limit: u32,
    /// The window.
    pub window: Duration,
    /// What the server's stamps are coarse by.
    pub epsilon: Duration,
    /// How long a request may be on its way.
    pub transit: Duration,
    /// The seed of the client's randomness.
    pub seed: u64,
}

impl Quota {
    /// [`LIMIT`] a minute, at a server and over a distance of these kinds.
    pub fn of(server: Server, leg: Leg, seed: u64) -> Self {
        Self { limit: LIMIT, window: MINUTE, epsilon: server.epsilon(), transit: leg.longest(), seed }
    }
}

/// A limiter: a strategy that can also stand before another client.
pub trait Gate: Strategy {
    /// The client behind the limiter.
    ///
    /// # Errors
    ///
    /// If it cannot be configured so.
    fn gate(&self, inner: Client, quota: &Quota) -> Result<Client, Problem>;
}

/// Makes a client of a service, whatever its answers and errors are.
pub fn boxed<S, RB, E>(service: S) -> Client
where
    S: Service<Request<Body>, Response = Response<RB>, Error = E> + Clone + Send + Sync + 'static,
    S::Future: Send,
    RB: 'static,
    E: Into<AnyError> + 'static,
{
    BoxCloneSyncService::new(service.map_response(|response: Response<RB>| response.map(drop)).map_err(Into::into))
}

/// A client that only sends.
pub fn wired(wire: Wire) -> Client {
    boxed(wire)
}

/// A client for one path, and another for all else.
pub fn routed(path: &'static str, there: Client, elsewhere: Client) -> Client {
    boxed(service_fn(move |request: Request<Body>| {
        let client = if request.uri().path() == path { &there } else { &elsewhere };
        client.clone().oneshot(request)
    }))
}

/// What retries that know nothing of Didit repeat: 429 and whatever the server's side got wrong.
fn is_transient(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}
