//! One named call from its claim to its settlement.

use std::{error::Error as StdError, future::poll_fn, sync::Arc, time::Duration};

use bytes::Bytes;
use didit_api::{Endpoint, RetryClass};
use http::{Request, Response, StatusCode, header, request::Parts};
use http_body::Body;
use tokio::time::{Instant, sleep, timeout_at};
use tower::Service;

use super::{
    AnswerBody, Error, Provenance, Refused, StoredIdempotencyLayer, body::read, flight::Left, layer::Shared,
    lead::Lead, lookup::Lookups, named::Named,
};
use crate::{
    call::{CallOptions, RetryOverride, current},
    idempotency::{
        payload,
        reconcile::{Doubt, Found, Verdict},
        store::{Answer, Begun, Claim, Settlement, StoreError, Timestamp},
    },
    outcome::{Classify, DiditClassifier, Outcome, repeated},
};

/// The first wait for a leader in another process; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest wait for a leader in another process, before the store is asked again.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The longest that the body of an answer is waited for: 30 s, within the time of the call. Answers that make something are
/// some hundred bytes, and come with their headers; a connection that brings no more of one for so long is as good as
/// broken, and those who wait for the answer have waited long enough.
const BODY_TIME: Duration = Duration::from_secs(30);

/// What a lease has beyond the deadline of its call: time for a look-up.
const LEASE_BEYOND_DEADLINE: Duration = Duration::from_secs(60);

/// A named call.
pub(super) struct Run<S> {
    shared: Arc<Shared>,
    inner: S,
    named: Named,
    deadline: Option<Duration>,
    retry: Option<RetryOverride>,
}

/// What a call finds when its turn has come.
enum Place<RB: Body> {
    /// It leads.
    Lead { lead: Lead, since: Timestamp },
    /// There is an answer already.
    Answered(Response<AnswerBody<RB>>),
}

/// A result of the inner service, its body read as far as is needed.
struct Came<RB: Body, E> {
    result: Result<Response<AnswerBody<RB>>, E>,
    outcome: Outcome,
    /// The body of an answer that may be shared, if all of it came.
    whole: Option<Bytes>,
    /// Whether the answer says that an earlier attempt worked.
    done_before: bool,
}

impl<S> Run<S> {
    pub(super) fn new(shared: Arc<Shared>, inner: S, named: Named, options: Option<&CallOptions>) -> Self {
        let deadline = options.and_then(|options| options.deadline);
        Self { shared, inner, named, deadline, retry: options.and_then(|options| options.retry) }
    }

    pub(super) async fn run<B, RB>(mut self, request: Request<B>) -> Result<Response<AnswerBody<RB>>, Error<S::Error>>
    where
        S: Service<Request<B>, Response = Response<RB>, Future: Send, Error: StdError + Send + 'static> + Clone + Send,
        B: Default + Send + 'static,
        RB: Body<Data: Send, Error: Send> + Send + Unpin,
    {
        let (mut lead, since) = match self.take_place().await.map_err(Error::Layer)? {
            Place::Lead { lead, since } => (lead, since),
            Place::Answered(response) => return Ok(response),
        };
        let (parts, body) = request.into_parts();
        if lead.in_doubt {
            match self.look::<B, RB>(&parts, since).await {
                Verdict::Found(found) => return Ok(self.adopt(lead, found).await),
                Verdict::Absent => lead.in_doubt = false,
                Verdict::Harmless => {}
                Verdict::Undecided(_) if self.retry == Some(RetryOverride::Harmless) => {}
                Verdict::Undecided(why) => {
                    lead.settle(Settlement::Unknown).await;
                    return Err(Error::Layer(Refused::undecided(why)));
                }
            }
        }
        let again = (self.retry != Some(RetryOverride::Never)).then(|| parts.clone());
        let came = self.send(&mut lead, Request::from_parts(parts.clone(), body)).await?;
        if !came.is_in_doubt(&lead) {
            return self.settle(lead, came).await;
        }
        match self.look::<B, RB>(&parts, since).await {
            Verdict::Found(found) => Ok(self.adopt(lead, found).await),
            Verdict::Absent => {
                lead.in_doubt = false;
                // NOTE: what comes of this one is not looked up again, so that every call comes to an end.
                if let Some(parts) = again
                    && let Some(body) = self.named.body.clone().and_then(payload::of_bytes)
                {
                    let came = self.send(&mut lead, Request::from_parts(parts, body)).await?;
                    return self.settle(lead, came).await;
                }
                lead.settle(Settlement::Keep).await;
                came.result.map_err(Error::Inner)
            }
            Verdict::Harmless | Verdict::Undecided(_) => {
                lead.settle(Settlement::Unknown).await;
                came.result.map_err(Error::Inner)
            }
        }
    }

    /// Waits until this call leads, or there is an answer.
    async fn take_place<RB: Body>(&mut self) -> Result<Place<RB>, Refused> {
        let Self { shared, named, deadline, .. } = &*self;
        let total = deadline.unwrap_or(shared.total);
        let wait = deadline.or(shared.wait).unwrap_or(total).min(StoredIdempotencyLayer::MAX);
        let start = Instant::now();
        let give_up = start + wait;
        // NOTE: not `give_up` alone: whoever does not want to wait for other calls still has time to ask the store.
        let ask_until = give_up.max(start + total.min(StoredIdempotencyLayer::MAX));
        let seat = shared.flights.join(named.key, named.fingerprint)?;
        let turn = timeout_at(give_up, seat.turn()).await.map_err(|_elapsed| Refused::still_running(wait))?;
        if let Some(left) = turn.answer() {
            return Ok(Place::Answered(given_again(left)));
        }
        let lease = shared.lease.max(total.saturating_add(LEASE_BEYOND_DEADLINE));
        let claim = Claim { fingerprint: named.fingerprint, lease: lease.min(StoredIdempotencyLayer::MAX) };
        let lead = |epoch, in_doubt, turn| {
            Lead::new(Arc::clone(&shared.store), shared.clock, named.key, epoch, in_doubt, turn)
        };
        let mut pause = FIRST_PAUSE;
        loop {
            let now = shared.clock.now();
            let begun = timeout_at(ask_until, shared.store.begin(named.key, claim, now)).await;
            let begun = begun.map_err(|elapsed| StoreError::Database(Arc::new(elapsed))).flatten();
            match begun.map_err(Refused::store)? {
                Begun::Lead { epoch } => return Ok(Place::Lead { lead: lead(epoch, false, turn), since: now }),
                Begun::Reconcile { epoch, since } => return Ok(Place::Lead { lead: lead(epoch, true, turn), since }),
                Begun::Done(answer) => return replayed(answer).map(Place::Answered),
                Begun::Conflict => return Err(Refused::conflict()),
                Begun::Busy { .. } if Instant::now() + pause > give_up => return Err(Refused::still_running(wait)),
                Begun::Busy { .. } => sleep(pause).await,
            }
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }

    /// Sends the call, through everything below.
    async fn send<B, RB>(&mut self, lead: &mut Lead, request: Request<B>) -> Result<Came<RB, S::Error>, Error<S::Error>>
    where
        S: Service<Request<B>, Response = Response<RB>, Error: StdError + 'static>,
        RB: Body + Unpin,
    {
        poll_fn(|cx| self.inner.poll_ready(cx)).await.map_err(Error::Inner)?;
        let sent = Instant::now();
        let (method, class) = (request.method().clone(), self.class(&request));
        let doubted_before = std::mem::replace(&mut lead.in_doubt, true);
        // What the layers below note about a call is theirs to note afresh; what is for the caller to read adds up.
        let outer = current::with(|call| (call.deadline, call.retried, call.report.attempts));
        current::with(|call| call.in_doubt = false);
        let result = self.inner.call(request).await;
        let doubted_below = current::with(|call| {
            (call.deadline, call.retried) = outer.map_or((None, false), |(deadline, retried, _)| (deadline, retried));
            call.report.attempts += outer.map_or(0, |(_, _, attempts)| attempts);
            call.in_doubt
        });
        let mut outcome = DiditClassifier.of(&result);
        let (result, whole) = match result {
            Ok(response) if outcome == Outcome::Answered && is_shared(response.status()) => {
                let (parts, body) = response.into_parts();
                let read = read(body, self.read_until(sent)).await;
                if read.broken && parts.status.is_success() {
                    // It was done, and what was made is not known.
                    outcome = Outcome::Ambiguous;
                }
                (Ok(Response::from_parts(parts, read.body)), read.whole)
            }
            Ok(response) => (Ok(response.map(AnswerBody::streaming)), None),
            Err(error) => (Err(error), None),
        };
        lead.in_doubt = doubted_before || doubted_below.unwrap_or_default() || outcome == Outcome::Ambiguous;
        let done_before = match (&result, &whole) {
            (Ok(response), Some(whole)) if lead.in_doubt => {
                repeated(&method, class, response.status(), whole).is_some()
            }
            _ => false,
        };
        if done_before {
            // Whoever reads the answer is told by whom else it may have been carried out: a process before this one.
            current::with(|call| {
                call.report.ambiguous_before = true;
                call.report.route.get_or_insert((method, class));
            });
        }
        Ok(Came { result, outcome, whole, done_before })
    }

    fn class<B>(&self, request: &Request<B>) -> RetryClass {
        let routes = &self.shared.routes;
        let endpoint = routes.find(request.method(), request.uri().path()).map(|id| routes.get(id));
        endpoint.map_or_else(|| RetryClass::of_method(request.method()), Endpoint::retry_class)
    }

    /// Until when the body of the answer to what was `sent` then is waited for.
    fn read_until(&self, sent: Instant) -> Instant {
        let total = self.deadline.unwrap_or(self.shared.total).min(StoredIdempotencyLayer::MAX);
        let until = (Instant::now() + BODY_TIME).min(sent + total);
        current::deadline().map_or(until, |outer| until.min(outer))
    }

    /// Writes down what came, and hands it out.
    async fn settle<RB: Body, E>(
        &mut self,
        lead: Lead,
        came: Came<RB, E>,
    ) -> Result<Response<AnswerBody<RB>>, Error<E>> {
        let settlement = match (&came.result, Settlement::of(came.outcome, lead.in_doubt)) {
            (_, Some(settlement)) => settlement,
            // NOTE: without the answer's body: given again, it would pass for a failure.
            (Ok(response), None) if came.done_before => Settlement::Done(Answer::new(response.status())),
            (Ok(response), None) if response.status().is_success() => {
                Settlement::Done(self.kept(response, came.whole.as_ref()))
            }
            // A rejection is an answer too, but nothing was done: the next call may find its reason gone.
            (_, None) if lead.in_doubt => Settlement::Unknown,
            (_, None) => Settlement::Forget,
        };
        let turn = lead.settle(settlement).await;
        // Whoever waited asked for the same at the same time, so a rejection is theirs too.
        if let (Some(turn), Ok(response), Some(data)) = (turn, &came.result, came.whole) {
            let (status, headers) = (response.status(), response.headers().clone());
            turn.leave(Left { status, headers, data, provenance: Provenance::Coalesced });
        }
        came.result.map_err(Error::Inner)
    }

    /// What the store keeps of a success.
    fn kept<RB: Body>(&self, response: &Response<AnswerBody<RB>>, whole: Option<&Bytes>) -> Answer {
        let answer = Answer::new(response.status());
        let Some(whole) = whole else { return answer };
        let answer = answer.with_id_of(whole);
        if !self.shared.replay {
            return answer;
        }
        answer.with_body(response.headers().get(header::CONTENT_TYPE).cloned(), whole.clone())
    }

    /// Answers with what a look-up found.
    async fn adopt<RB: Body>(&mut self, lead: Lead, found: Found) -> Response<AnswerBody<RB>> {
        // NOTE: its body is not kept even if replay is on: given again, it would pass for the server's own.
        let answer = Answer { session_id: found.session_id, ..Answer::new(found.status) };
        let turn = lead.settle(Settlement::Done(answer)).await;
        let json = header::HeaderValue::from_static("application/json");
        let headers = header::HeaderMap::from_iter([(header::CONTENT_TYPE, json)]);
        let left = Left { status: found.status, headers, data: found.body, provenance: Provenance::Adopted };
        let response = given_again(&left);
        if let Some(turn) = turn {
            turn.leave(left);
        }
        response
    }

    /// Asks the server what became of the call.
    async fn look<B, RB>(&mut self, parts: &Parts, since: Timestamp) -> Verdict
    where
        S: Service<Request<B>, Response = Response<RB>, Future: Send, Error: Send> + Clone + Send,
        B: Default + Send,
        RB: Body<Data: Send, Error: Send> + Send,
    {
        let doubt = Doubt {
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            headers: parts.headers.clone(),
            body: self.named.body.clone(),
            operation_id: self.named.operation_id.clone(),
            since,
            now: self.shared.clock.now(),
        };
        let (uri, headers) = (parts.uri.clone(), parts.headers.clone());
        let mut lookups = Lookups::<S, B>::new(self.inner.clone(), uri, headers, &self.shared.keys.header);
        let verdict = self.shared.reconcile().reconcile(&doubt, &mut lookups).await;
        tracing::info!(?verdict, "looked up what became of a call");
        verdict
    }
}

impl<RB: Body, E> Came<RB, E> {
    /// Whether the call may have been carried out although nothing says so.
    fn is_in_doubt(&self, lead: &Lead) -> bool {
        let succeeded = self.result.as_ref().is_ok_and(|response| response.status().is_success());
        lead.in_doubt && !self.done_before && (self.outcome == Outcome::Ambiguous || !succeeded)
    }
}

/// Whether an answer is given to those who wait for it as well: not a server's failure, and not a 429, which says
/// something about how much was asked and nothing about what.
fn is_shared(status: StatusCode) -> bool {
    !status.is_server_error() && status != StatusCode::TOO_MANY_REQUESTS
}

/// An answer that was left by a call with the same key.
fn given_again<RB: Body>(left: &Left) -> Response<AnswerBody<RB>> {
    let mut response = Response::new(AnswerBody::whole(left.data.clone()));
    *response.status_mut() = left.status;
    response.headers_mut().clone_from(&left.headers);
    left.provenance.mark(response)
}

/// An answer out of the store.
fn replayed<RB: Body>(answer: Answer) -> Result<Response<AnswerBody<RB>>, Refused> {
    let Some(kept) = answer.body else {
        return Err(Refused::already_done(answer.status, answer.session_id));
    };
    let mut response = Response::new(AnswerBody::whole(kept.data));
    *response.status_mut() = answer.status;
    if let Some(content_type) = kept.content_type {
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    }
    Ok(Provenance::Replayed.mark(response))
}
