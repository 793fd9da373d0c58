//! One named call from its claim to its settlement.

use std::{sync::Arc, time::Duration};

use http::{Request, Response, request::Parts};
use http_body::Body;
use tokio::time::{Instant, timeout_at};
use tower::Service;

use super::{
    AnswerBody, Error, Refused, StoredIdempotencyLayer,
    claim::{Place, given_again},
    flight::Turn,
    layer::Shared,
    lead::Lead,
    look::Looked,
    named::Named,
};
use crate::{
    call::{CallOptions, RetryOverride},
    idempotency::{
        payload,
        store::{Settlement, StoreError, Timestamp},
    },
    outcome::Classify,
};

/// The least that the store is given to answer a claim, however late it is: 10 s, a hundred times what a disk takes.
pub(super) const ASKING_TIME: Duration = Duration::from_secs(10);

/// A named call.
pub(super) struct Run<S, C> {
    pub(super) shared: Arc<Shared>,
    pub(super) inner: S,
    pub(super) classifier: C,
    pub(super) named: Named,
    /// The total time that the call has, waiting for others apart.
    pub(super) total: Duration,
    pub(super) wait: Duration,
    /// Whether waiting for others takes from the total time.
    wait_counts: bool,
    /// What is left of the total time for sending the call for the first time.
    left: Duration,
    pub(super) start: Instant,
    retry: Option<RetryOverride>,
    /// Whether anything was sent by this call.
    pub(super) sent: bool,
}

/// Why a leader does not go on.
pub(super) enum Stopped<RB: Body, E> {
    /// The call has ended.
    Ended(Error<E>),
    /// Somebody else may lead; the last result that really came.
    Lost(StoreError, Option<Box<Result<Response<AnswerBody<RB>>, E>>>),
}

impl<RB: Body, E> From<StoreError> for Stopped<RB, E> {
    fn from(error: StoreError) -> Self {
        Self::Lost(error, None)
    }
}

/// The total time of a call.
pub(super) fn total(shared: &Shared, options: Option<&CallOptions>) -> Duration {
    let deadline = options.and_then(|options| options.deadline);
    deadline.unwrap_or(shared.total).min(StoredIdempotencyLayer::MAX)
}

impl<S, C> Run<S, C> {
    pub(super) fn new(
        shared: Arc<Shared>,
        inner: S,
        classifier: C,
        named: Named,
        options: Option<&CallOptions>,
    ) -> Self {
        let total = total(&shared, options);
        let deadline = options.and_then(|options| options.deadline);
        let wait = deadline.or(shared.wait).unwrap_or(total).min(StoredIdempotencyLayer::MAX);
        // Whoever set a wait of its own wants it on top.
        let wait_counts = deadline.is_some() || shared.wait.is_none();
        let (retry, start) = (options.and_then(|options| options.retry), Instant::now());
        Self { shared, inner, classifier, named, total, wait, wait_counts, left: total, start, retry, sent: false }
    }

    pub(super) async fn run<B, RB>(mut self, request: Request<B>) -> Result<Response<AnswerBody<RB>>, Error<S::Error>>
    where
        S: Service<Request<B>, Response = Response<RB>, Future: Send, Error: Send + 'static> + Clone + Send,
        C: Classify<S::Error>,
        B: Default + Send + 'static,
        RB: Body<Data: Send, Error: Send> + Send + Unpin,
    {
        self.start = Instant::now();
        let seat = self.shared.flights.join((self.named.key, self.named.fingerprint));
        let turn = timeout_at(self.start + self.wait, seat.turn()).await;
        let mut turn = turn.map_err(|_elapsed| Error::Layer(Refused::still_running(self.wait)))?;
        if let Some(left) = turn.answer() {
            return Ok(given_again(left));
        }
        let (parts, body) = request.into_parts();
        let mut body = Some(body);
        loop {
            let (mut lead, since) = match self.claim(turn).await.map_err(Error::Layer)? {
                Place::Lead { lead, since } => (lead, since),
                Place::Answered(response) => return Ok(response),
            };
            if self.wait_counts {
                self.left = self.total.saturating_sub(self.start.elapsed());
            }
            let (error, last) = match self.lead(&mut lead, since, &parts, &mut body).await {
                Ok(response) => return Ok(response),
                Err(Stopped::Ended(error)) => return Err(error),
                Err(Stopped::Lost(error, last)) => (error, last.map(|last| *last)),
            };
            tracing::warn!(%error, "the lead of a call was lost");
            // If the store cannot be asked, it is told what this leader knows, should it come back.
            let handed_on = if matches!(error, StoreError::Fenced) { lead.resign() } else { None };
            turn = match handed_on {
                Some(turn) if self.sent => return self.follow(turn, error, last).await,
                Some(turn) => turn,
                None if self.sent => return given_up(error, last),
                None => return Err(Error::Layer(Refused::store(error))),
            };
        }
    }

    /// Sees the call through as its leader, who settles it unless the lead is lost.
    async fn lead<B, RB>(
        &mut self,
        lead: &mut Lead,
        since: Timestamp,
        parts: &Parts,
        body: &mut Option<B>,
    ) -> Result<Response<AnswerBody<RB>>, Stopped<RB, S::Error>>
    where
        S: Service<Request<B>, Response = Response<RB>, Future: Send, Error: Send + 'static> + Clone + Send,
        C: Classify<S::Error>,
        B: Default + Send + 'static,
        RB: Body<Data: Send, Error: Send> + Send + Unpin,
    {
        if lead.in_doubt {
            match self.look::<B, RB>(lead, parts, since).await? {
                Looked::Adopted(response) => return Ok(*response),
                Looked::Absent => lead.in_doubt = false,
                Looked::Harmless => {}
                Looked::Undecided(_) if self.retry == Some(RetryOverride::Harmless) => {}
                Looked::Undecided(why) => {
                    lead.settle(Settlement::Unknown).await;
                    return Err(Stopped::Ended(Error::Layer(Refused::undecided(why))));
                }
            }
            lead.confirm().await?;
        }
        // Gone if the lead was lost at the very moment of sending, and streaming, so that there is no other.
        let Some(first) = body.take().or_else(|| payload::of_bytes(self.named.body.clone()?)) else {
            return Err(Stopped::Ended(Error::Layer(Refused::store(StoreError::Fenced))));
        };
        let mut request = Request::from_parts(parts.clone(), first);
        if self.left < self.total {
            request.extensions_mut().get_or_insert_default::<CallOptions>().deadline = Some(self.left);
        }
        let came = self.send(lead, request, self.left).await?;
        if !came.is_in_doubt(lead) {
            return self.settle(lead, came).await.map_err(|error| Stopped::Ended(Error::Inner(error)));
        }
        let looked = match self.look::<B, RB>(lead, parts, since).await {
            Ok(looked) => looked,
            Err(error) => return Err(Stopped::Lost(error, Some(Box::new(came.result)))),
        };
        let settlement = match looked {
            Looked::Adopted(response) => return Ok(*response),
            Looked::Absent => {
                lead.in_doubt = false;
                // NOTE: what comes of this one is not looked up again, so that every call comes to an end.
                if self.retry != Some(RetryOverride::Never)
                    && let Some(again) = self.named.body.clone().and_then(payload::of_bytes)
                {
                    let confirmed = lead.confirm().await;
                    let sent = match confirmed {
                        Ok(()) => self.send(lead, Request::from_parts(parts.clone(), again), self.total).await,
                        Err(error) => Err(error.into()),
                    };
                    return match sent {
                        Ok(came) => self.settle(lead, came).await.map_err(|error| Stopped::Ended(Error::Inner(error))),
                        Err(Stopped::Lost(error, _)) => Err(Stopped::Lost(error, Some(Box::new(came.result)))),
                        // It could not be sent again, which says nothing of the first time.
                        Err(Stopped::Ended(_)) => came.result.map_err(|error| Stopped::Ended(Error::Inner(error))),
                    };
                }
                Settlement::Keep
            }
            Looked::Harmless | Looked::Undecided(_) => Settlement::Unknown,
        };
        lead.settle(settlement).await;
        came.result.map_err(|error| Stopped::Ended(Error::Inner(error)))
    }

    /// Waits for what becomes of a call that was sent before somebody else took it over.
    async fn follow<RB: Body, E>(
        &mut self,
        turn: Turn,
        error: StoreError,
        last: Option<Result<Response<AnswerBody<RB>>, E>>,
    ) -> Result<Response<AnswerBody<RB>>, Error<E>> {
        match self.claim(turn).await {
            Ok(Place::Answered(response)) => Ok(response),
            Err(done @ Refused::AlreadyDone { .. }) => Err(Error::Layer(done.after_sending())),
            // Nothing is sent twice by one call: a lead is left to the next, as it was found.
            Ok(Place::Lead { .. }) | Err(_) => given_up(error, last),
        }
    }
}

/// What the caller gets of a call that was sent and is somebody else's by now: the last real result, if there was one.
fn given_up<RB: Body, E>(
    error: StoreError,
    last: Option<Result<Response<AnswerBody<RB>>, E>>,
) -> Result<Response<AnswerBody<RB>>, Error<E>> {
    match last {
        Some(result) => result.map_err(Error::Inner),
        None => Err(Error::Layer(Refused::LeadLost { error })),
    }
}
