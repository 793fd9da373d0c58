//! Takes webhooks in: verifies them, keeps them, and answers before Didit loses its patience.

use std::{
    convert::Infallible,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use didit_api::webhook::{Event, Rejected, Secrets, SignatureKind, Verified, Verifier, WebhookType};
use http::{HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use http_body::Body;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use serde_json::json;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};
use tower::Service;
use tracing::Instrument;

use super::{
    inbox::{Accepted, Arrival, Inbox, InboxError, Origin},
    journey,
};
use crate::{
    call::CorrelationId,
    clock,
    error::{ConfigError, check_duration},
    timestamp::Clock,
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Receives webhooks: a service for the one route that Didit posts to; see the [module](super). Clones share everything.
#[derive(Clone, Debug)]
pub struct Receiver {
    shared: Arc<Shared>,
}

struct Shared {
    verifier: Verifier,
    secrets: Secrets,
    max_body: usize,
    answer_within: Duration,
    places: Arc<Semaphore>,
    inbox: Arc<dyn Inbox>,
    clock: Clock,
}

/// Makes a [`Receiver`]: [`Receiver::builder`].
#[derive(Clone, Debug)]
#[must_use]
pub struct ReceiverBuilder {
    verifier: Verifier,
    secrets: Secrets,
    max_body: usize,
    answer_within: Duration,
    at_once: usize,
    inbox: Arc<dyn Inbox>,
}

/// A webhook that is Didit's and not taken in yet: what the axum extractor gives. `Debug` shows ids and statuses only.
#[derive(Clone)]
pub struct Webhook {
    verified: Verified,
    payload: Bytes,
    receiver: Receiver,
    until: Instant,
    // Until it is taken in, so that what waits for the inbox is bounded too.
    _place: Arc<OwnedSemaphorePermit>,
}

/// Why a webhook is not taken, and so which answer it gets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It is no POST: 405.
    #[error("a webhook is a POST")]
    Method,
    /// It is no event of Didit's: 401, 400 or 413, and Didit does not repeat it.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// Its body did not come to an end, or not in time: 503, and Didit repeats it.
    #[error("the body did not arrive")]
    Body,
    /// As many are being received as may be: 503.
    #[error("too many webhooks are being received")]
    Busy,
    /// It could not be kept: 503.
    #[error("the webhook could not be kept")]
    Inbox(#[from] InboxError),
    /// It was not kept in time: 503. It may be kept all the same, and is then recognised when it is repeated.
    #[error("the webhook was not kept in time")]
    Late,
}

// ===== impl Refusal =====

impl Refusal {
    /// The status to answer with. It is 503 for whatever a repetition may cure: Didit repeats an event after a 5xx, and
    /// drops it after any 4xx but 404.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Rejected(rejected) => rejected.status(),
            Self::Body | Self::Busy | Self::Inbox(_) | Self::Late => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The answer: a status, and nothing that would tell a forger more.
    pub fn to_response(&self) -> Response<Empty<Bytes>> {
        let mut response = answer(self.status());
        if matches!(self, Self::Method) {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
        }
        response
    }
}

fn answer(status: StatusCode) -> Response<Empty<Bytes>> {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = status;
    response
}

// ===== impl ReceiverBuilder =====

impl ReceiverBuilder {
    /// Verifies in this way; its longest body is that of [`max_body`](Self::max_body). [`Verifier::new`] by default.
    pub fn verifier(mut self, verifier: Verifier) -> Self {
        self.verifier = verifier;
        self
    }

    /// Sets the longest body that is read, in bytes. [`Receiver::MAX_BODY`] by default.
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.max_body = bytes;
        self
    }

    /// Sets when there has to be an answer, the arrival of the body included. [`Receiver::ANSWER_WITHIN`] by default.
    pub fn answer_within(mut self, time: Duration) -> Self {
        self.answer_within = time;
        self
    }

    /// Sets how many webhooks are received at once; one more is answered with 503. [`Receiver::AT_ONCE`] by default, which
    /// with [`max_body`](Self::max_body) bounds the memory that strangers can take.
    pub fn at_once(mut self, webhooks: usize) -> Self {
        self.at_once = webhooks;
        self
    }

    /// Makes the receiver.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Duration`] for an answer later than 5 s, when Didit has given up; [`ConfigError::Zero`] for a body or
    /// a number of nothing.
    pub fn build(self) -> Result<Receiver, ConfigError> {
        let Self { verifier, secrets, max_body, answer_within, at_once, inbox } = self;
        check_duration("answer_within", answer_within, Duration::from_millis(1), Receiver::DIDIT_WAITS)?;
        for (setting, value) in [("max_body", max_body), ("at_once", at_once)] {
            if value == 0 {
                return Err(ConfigError::Zero { setting, least: "1" });
            }
        }
        let places = Arc::new(Semaphore::new(at_once.min(Semaphore::MAX_PERMITS)));
        let (verifier, clock) = (verifier.max_body(max_body), Clock::start());
        let shared = Shared { verifier, secrets, max_body, answer_within, places, inbox, clock };
        Ok(Receiver { shared: Arc::new(shared) })
    }
}

// ===== impl Receiver =====

impl Receiver {
    /// How long Didit waits for an answer: 5 s (its webhooks page).
    pub const DIDIT_WAITS: Duration = Duration::from_secs(5);

    /// When there is an answer at the latest, by default: 4 s, which leaves a second for the way.
    pub const ANSWER_WITHIN: Duration = Duration::from_secs(4);

    /// The longest body that is read by default: 2 MiB. Didit documents no limit; a decision with every feature has some
    /// tens of kilobytes.
    pub const MAX_BODY: usize = 2 * 1024 * 1024;

    /// How many webhooks are received at once by default: 64.
    pub const AT_ONCE: usize = 64;

    /// A receiver of webhooks that were signed with these secrets, into this inbox.
    pub fn builder(secrets: Secrets, inbox: impl Inbox) -> ReceiverBuilder {
        ReceiverBuilder {
            verifier: Verifier::new(),
            secrets,
            max_body: Self::MAX_BODY,
            answer_within: Self::ANSWER_WITHIN,
            at_once: Self::AT_ONCE,
            inbox: Arc::new(inbox),
        }
    }

    /// Reads a request and verifies it. What comes of it is not taken in before [`Webhook::accept`] is called.
    ///
    /// # Errors
    ///
    /// [`Refusal`] says how to answer.
    pub async fn verify<B>(&self, request: Request<B>) -> Result<Webhook, Refusal>
    where
        B: Body<Error: Into<BoxError>>,
    {
        let until = Instant::now() + self.shared.answer_within;
        let place = Arc::clone(&self.shared.places).try_acquire_owned().map_err(|_| Refusal::Busy)?;
        let (parts, body) = request.into_parts();
        if parts.method != Method::POST {
            return Err(Refusal::Method);
        }
        let payload = self.read(&parts, body, until).await?;
        let verified = self.shared.verifier.verify(&payload, &parts.headers, &self.shared.secrets, self.now())?;
        Ok(Webhook { verified, payload, receiver: self.clone(), until, _place: Arc::new(place) })
    }

    async fn read<B>(&self, parts: &Parts, body: B, until: Instant) -> Result<Bytes, Refusal>
    where
        B: Body<Error: Into<BoxError>>,
    {
        let limit = self.shared.max_body;
        let too_large = || Refusal::Rejected(Rejected::TooLarge { limit });
        let announced = parts.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        if announced.is_some_and(|announced: u64| announced > u64::try_from(limit).unwrap_or(u64::MAX)) {
            return Err(too_large());
        }
        match timeout_at(until, Box::pin(Limited::new(body, limit)).collect()).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
            Ok(Err(_)) | Err(_) => Err(Refusal::Body),
        }
    }

    /// The time by the system's clock or tokio's, whichever is ahead: tokio's stands still while the machine sleeps, and is
    /// ahead in a test whose time is paused.
    fn now(&self) -> SystemTime {
        self.shared.clock.now().to_system_time().max(clock::wall())
    }

    async fn receive<B>(self, request: Request<B>) -> Response<Empty<Bytes>>
    where
        B: Body<Error: Into<BoxError>>,
    {
        let result = match self.verify(request).await {
            Ok(webhook) => webhook.accept().await.map(drop),
            Err(refusal) => {
                refusal.log();
                Err(refusal)
            }
        };
        match result {
            Ok(()) => answer(StatusCode::OK),
            Err(refusal) => refusal.to_response(),
        }
    }
}

impl Refusal {
    pub(super) fn log(&self) {
        // Text of our own: nothing of the request stands in it.
        let source = std::error::Error::source(self);
        match self.status() {
            StatusCode::SERVICE_UNAVAILABLE => tracing::error!(refusal = %self, source, "a webhook could not be taken"),
            _ => tracing::warn!(refusal = %self, source, "a webhook was refused"),
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shared = f.debug_struct("Shared");
        shared.field("verifier", &self.verifier).field("secrets", &self.secrets).field("inbox", &self.inbox);
        shared.finish_non_exhaustive()
    }
}

impl<B> Service<Request<B>> for Receiver
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<Empty<Bytes>>;
    type Error = Infallible;
    // A webhook is rare, next to what its handler does: one allocation.
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // It never keeps a caller waiting: one that has no place is answered at once.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let receiver = self.clone();
        Box::pin(async move { Ok(receiver.receive(request).await) })
    }
}

// ===== impl Webhook =====

impl Webhook {
    /// What it says. Everything in it was signed.
    pub fn event(&self) -> &Event {
        &self.verified.event
    }

    /// How that was verified.
    pub fn verified(&self) -> &Verified {
        &self.verified
    }

    /// Takes it into the inbox. When this is ready, it is as safe as the inbox makes it, and to be answered with a 2xx.
    ///
    /// # Errors
    ///
    /// [`Refusal::Inbox`] or [`Refusal::Late`], both to be answered with 503.
    pub async fn accept(self) -> Result<Accepted, Refusal> {
        let Self { verified, payload, receiver, until, _place } = self;
        // A root of its own: a request of Didit's carries no correlation id, so the one of the request is made up.
        let span = tracing::info_span!(
            parent: None,
            "webhook received",
            otel.kind = "server",
            correlation_id = tracing::field::Empty,
            session_id = verified.event.session_id,
            event = verified.event.key().as_str(),
            webhook_type = verified.event.webhook_type.as_ref().map(WebhookType::as_str),
            status = verified.event.status,
        );
        let payload = match verified.proof {
            // Nothing but these four was signed; the rest of the body could be anybody's.
            SignatureKind::Simple => signed_fields(&verified.event),
            _ => payload,
        };
        let stamped = journey::stamped_id(verified.event.metadata.as_ref());
        let id = stamped.clone().unwrap_or_else(CorrelationId::random);
        let arrival = Arrival::new(&verified.event, payload, id, Origin::Delivered, verified.test);
        let accepted = receiver.shared.inbox.accept(arrival, receiver.shared.clock.now());
        let accepting = async {
            let result = match timeout_at(until, accepted).await {
                Ok(result) => result.map_err(Refusal::from),
                Err(_elapsed) => Err(Refusal::Late),
            };
            match result {
                Ok(receipt) => {
                    tracing::Span::current().record("correlation_id", receipt.correlation_id.as_str());
                    let latest = stamped.filter(|stamped| stamped.as_str() != receipt.correlation_id);
                    // The session was handed out again, and its metadata replaced: the journey that began it goes on.
                    let latest = latest.as_ref().map(CorrelationId::as_str);
                    tracing::info!(accepted = ?receipt.accepted, latest_correlation_id = latest, "webhook received");
                    Ok(receipt.accepted)
                }
                Err(refusal) => {
                    refusal.log();
                    Err(refusal)
                }
            }
        };
        accepting.instrument(span).await
    }
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook").field("event", &self.verified.event).finish_non_exhaustive()
    }
}

fn signed_fields(event: &Event) -> Bytes {
    let fields = json!({
        "timestamp": event.timestamp,
        "session_id": event.session_id,
        "status": event.status,
        "webhook_type": event.webhook_type.as_ref().map(WebhookType::as_str),
    });
    fields.to_string().into()
}
