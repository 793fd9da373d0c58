//! The sandbox as a tower service.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    ops::{Deref, DerefMut},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll},
    time::Duration,
};

use didit_api::{SessionStatus, webhook::SecretsError};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::Body;
use tokio::runtime::Handle;
use tower::Service;

use crate::{
    answer::Answer,
    body::SandboxBody,
    builder::{SandboxBuilder, Settings},
    call::{Call, Unreadable},
    clock::Clock,
    connection::{ConnectionLost, Work},
    faults::{Manner, http_date},
    journal::JournalEntry,
    resolve::canonical,
    routes,
    stats::Stats,
    webhooks::{WebhookRecord, deliver},
    world::{Outcome, Reply, World},
};

/// A local Didit; clones share everything.
///
/// As a service it needs no socket, and its time is tokio's, so that a paused clock drives windows, latency and
/// expiry alike. [`serve`](crate::serve) puts it on a port.
///
/// # Example
///
/// ```
/// use didit_sandbox::{DEFAULT_API_KEY, DEFAULT_WORKFLOW_ID, Sandbox};
/// use http::{Request, StatusCode};
/// use tower::ServiceExt;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let sandbox = Sandbox::builder().seed(7).build()?;
/// let request = Request::post("/v3/session/")
///     .header("x-api-key", DEFAULT_API_KEY)
///     .body(format!(r#"{{"workflow_id":"{DEFAULT_WORKFLOW_ID}","vendor_data":"user-7"}}"#))?;
/// let response = sandbox.clone().oneshot(request).await?;
/// assert_eq!(response.status(), StatusCode::CREATED);
/// assert_eq!(sandbox.stats().sessions_made, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Sandbox {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    /// Itself, for tasks that must not keep it alive.
    own: Weak<Shared>,
    clock: Clock,
    date_header: bool,
    world: Mutex<World>,
}

impl Sandbox {
    /// Starts from the defaults: one key, one workflow, Didit's limits, no latency, no faults.
    pub fn builder() -> SandboxBuilder {
        SandboxBuilder::default()
    }

    pub(crate) fn start(keys: Vec<String>, settings: Settings) -> Self {
        let clock = Clock::start(settings.epoch, settings.skew);
        let date_header = settings.date_header;
        let world = Mutex::new(World::new(keys, settings, clock.now()));
        Self { shared: Arc::new_cyclic(|own| Shared { own: own.clone(), clock, date_header, world }) }
    }

    /// The counts so far.
    pub fn stats(&self) -> Stats {
        self.shared.world().stats()
    }

    /// The last arrivals, oldest first.
    pub fn journal(&self) -> Vec<JournalEntry> {
        self.shared.world().journal()
    }

    /// How many effects each operation id had, by id and route. [`Stats::effects`] says what an effect is.
    pub fn effects(&self) -> BTreeMap<String, BTreeMap<String, u64>> {
        self.shared.world().book.effects()
    }

    /// How many effects one operation id had, over all routes.
    pub fn effects_of(&self, operation_id: &str) -> u64 {
        self.shared.world().book.effects_of(operation_id)
    }

    /// How many sessions were made for a `vendor_data`, deleted and expired ones included.
    pub fn sessions_made_for(&self, vendor_data: &str) -> u64 {
        self.shared.world().book.made_for(vendor_data)
    }

    /// The date on the sandbox's clock, for a `Date` header.
    pub(crate) fn date(&self) -> HeaderValue {
        http_date(self.shared.clock.now().as_secs())
    }

    /// Back to the beginning: nothing counted, nothing stored, every random sequence from its start.
    pub fn reset(&self) {
        let mut world = self.shared.world();
        let now = world.now();
        world.reset(now);
    }

    /// Sets the status of a session, as a user or a reviewer would bring it about.
    ///
    /// # Errors
    ///
    /// [`UnknownSession`] if there is no session with this id.
    pub fn set_session_status(&self, session_id: &str, status: SessionStatus) -> Result<(), UnknownSession> {
        self.finish(session_id, &status, None)
    }

    /// Sets the status of a session after a time, whether anybody looks at the sandbox then or not.
    ///
    /// # Errors
    ///
    /// [`UnknownSession`] if there is no session with this id.
    pub fn finish_session_after(
        &self,
        session_id: &str,
        after: Duration,
        status: SessionStatus,
    ) -> Result<(), UnknownSession> {
        self.finish(session_id, &status, Some(after))
    }

    fn finish(&self, session_id: &str, status: &SessionStatus, after: Option<Duration>) -> Result<(), UnknownSession> {
        let mut world = self.shared.world();
        let now = world.now();
        let known = canonical(session_id).is_some_and(|id| routes::finish(&mut world, now, id, status, after));
        known.then_some(()).ok_or_else(|| UnknownSession { id: session_id.to_owned() })
    }

    /// Every webhook so far and what became of it, in the order in which the events were made.
    pub fn webhooks(&self) -> Vec<WebhookRecord> {
        self.shared.world().outbox.records()
    }

    /// Sends an event again to all its destinations, as by hand in Didit's console: with a new time, signed with the
    /// current secret, under the same `event_id`. One that was dropped by a fault is sent too.
    ///
    /// # Errors
    ///
    /// [`UnknownEvent`] if there is no event with this id.
    pub fn resend_webhook(&self, event_id: &str) -> Result<(), UnknownEvent> {
        let mut world = self.shared.world();
        let now = world.now();
        let known = world.outbox.resend(now, event_id);
        known.then_some(()).ok_or_else(|| UnknownEvent { id: event_id.to_owned() })
    }

    /// Gives a destination another secret. The one before is gone at once, as at Didit: what is sent or sent again from
    /// now on is signed with the new one. Destinations are counted from 0.
    ///
    /// # Errors
    ///
    /// [`SetSecretError`] if there is no such destination, or the secret cannot be used.
    pub fn set_webhook_secret(&self, destination: usize, secret: &str) -> Result<(), SetSecretError> {
        match self.shared.world().outbox.set_secret(destination, secret) {
            Ok(true) => Ok(()),
            Ok(false) => Err(SetSecretError::Number { number: destination }),
            Err(error) => Err(error.into()),
        }
    }
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sandbox").finish_non_exhaustive()
    }
}

/// There is no session with this id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no session {id:?}")]
pub struct UnknownSession {
    id: String,
}

/// There is no event with this id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no event {id:?}")]
pub struct UnknownEvent {
    id: String,
}

/// Why a destination's secret cannot be set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SetSecretError {
    /// There are not so many destinations.
    #[error("there is no webhook destination {number}, counted from 0")]
    Number {
        /// Which one was meant.
        number: usize,
    },
    /// The secret cannot be used. It is not shown.
    #[error(transparent)]
    Secret(#[from] SecretsError),
}

/// The state, while it is looked at. What is to be done by tasks is given to them at the end.
pub(crate) struct Look<'s> {
    world: MutexGuard<'s, World>,
    shared: &'s Shared,
}

impl Deref for Look<'_> {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

impl DerefMut for Look<'_> {
    fn deref_mut(&mut self) -> &mut World {
        &mut self.world
    }
}

impl Drop for Look<'_> {
    fn drop(&mut self) {
        if !self.world.outbox.has_jobs() {
            return;
        }
        // Without a runtime they wait for somebody who looks from within one.
        let Ok(runtime) = Handle::try_current() else { return };
        while let Some(job) = self.world.outbox.next_job() {
            runtime.spawn(deliver(self.shared.own.clone(), job));
        }
    }
}

impl Shared {
    /// The time on the sandbox's clock.
    pub(crate) fn now(&self) -> Duration {
        self.clock.now()
    }

    /// The state, as it is now. A panic elsewhere cannot have left it half changed in a way that matters more than
    /// going on.
    pub(crate) fn world(&self) -> Look<'_> {
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        // The time is read under the lock, so that windows see arrivals in order.
        world.catch_up(self.clock.now());
        Look { world, shared: self }
    }

    async fn respond<B: Body>(&self, request: Request<B>) -> Result<(Answer, Manner), ConnectionLost> {
        let (parts, body) = request.into_parts();
        let call = match Call::read(parts, body).await {
            Ok(call) => call,
            Err(Unreadable::Broken) => return Err(ConnectionLost::new(Work::Refused)),
            Err(Unreadable::TooLarge) => {
                return Ok((Answer::empty(StatusCode::PAYLOAD_TOO_LARGE), Manner::default()));
            }
        };
        if routes::is_admin(call.path()) {
            let mut world = self.world();
            let now = world.now();
            return Ok((routes::admin(&mut world, now, &call), Manner::default()));
        }
        let (before, after) = self.world().draw_latency();
        let due = self.clock.now().saturating_add(before);
        let mut client = Client { shared: self, due, after, call: Some(call), waits: true };
        pause(before).await;
        let outcome = client.arrive();
        pause(after.saturating_add(outcome.delay)).await;
        client.waits = false;
        match outcome.reply {
            Reply::Answer(answer) => Ok((answer, outcome.manner)),
            Reply::Lost(work) => Err(ConnectionLost::new(work)),
        }
    }
}

/// Whoever waits for the answer of a request; it may be dropped at any time.
struct Client<'s> {
    shared: &'s Shared,
    due: Duration,
    after: Duration,
    /// The request, until it arrives.
    call: Option<Call>,
    waits: bool,
}

impl Client<'_> {
    fn arrive(&mut self) -> Outcome {
        let mut world = self.shared.world();
        let now = world.now();
        match self.call.take() {
            Some(call) => world.arrive(now, call, self.after),
            None => Outcome::at_once(Answer::empty(StatusCode::INTERNAL_SERVER_ERROR)),
        }
    }
}

impl Drop for Client<'_> {
    fn drop(&mut self) {
        if self.waits {
            self.shared.world().client_left(self.call.take().map(|call| (self.due, call, self.after)));
        }
    }
}

async fn pause(duration: Duration) {
    if !duration.is_zero() {
        tokio::time::sleep(duration).await;
    }
}

impl<B> Service<Request<B>> for Sandbox
where
    B: Body + Send + 'static,
    B::Data: Send,
{
    type Response = Response<SandboxBody>;
    type Error = ConnectionLost;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectionLost>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture {
        let sandbox = self.clone();
        ResponseFuture {
            inner: Box::pin(async move {
                let (answer, manner) = sandbox.shared.respond(request).await?;
                let mut response = answer.into_response(manner);
                if sandbox.shared.date_header {
                    response.headers_mut().insert(header::DATE, sandbox.date());
                }
                Ok(response)
            }),
        }
    }
}

/// The future of a response.
///
/// Dropped before the request arrives, nothing has happened, unless
/// [`abandoned_requests_arrive`](crate::SandboxBuilder::abandoned_requests_arrive); dropped after, the work is done.
pub struct ResponseFuture {
    inner: Pin<Box<dyn Future<Output = Result<Response<SandboxBody>, ConnectionLost>> + Send>>,
}

impl Future for ResponseFuture {
    type Output = Result<Response<SandboxBody>, ConnectionLost>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.inner.as_mut().poll(cx)
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
