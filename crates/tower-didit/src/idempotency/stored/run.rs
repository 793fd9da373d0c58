//! One named call from its claim to its settlement.

use std::{future::poll_fn, sync::Arc, time::Duration};

use bytes::Bytes;
use didit_api::{Endpoint, RetryClass};
use http::{Method, Request, Response, StatusCode, header, request::Parts};
use http_body::Body;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tower::Service;
use uuid::Uuid;

use super::{
    AnswerBody, Error, Provenance, Refused, StoredIdempotencyLayer,
    body::read,
    flight::{Left, Turn},
    layer::Shared,
    lead::{Lead, Lease},
    lookup::Lookups,
    named::Named,
    unread::Mark,
};
use crate::{
    call::{CallOptions, CallReport, RetryOverride, current},
    idempotency::{
        payload,
        reconcile::{Doubt, Found, Undecided, Verdict},
        store::{Answer, Begun, Claim, Settlement, StoreError, Timestamp},
    },
    outcome::{Classify, Outcome, repeated},
};

/// The first wait for a leader in another process; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest wait for a leader in another process, before the store is asked again.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The longest that the body of an answer is waited for: 30 s, within the time of the call. Answers that make something are
/// some hundred bytes, and come with their headers; a connection that brings no more of one for so long is as good as
/// broken, and those who wait for the answer have waited long enough.
const BODY_TIME: Duration = Duration::from_secs(30);

/// The least that the store is given to answer a claim, however late it is: 10 s, a hundred times what a disk takes.
const ASKING_TIME: Duration = Duration::from_secs(10);

/// A named call.
pub(super) struct Run<S, C> {
    shared: Arc<Shared>,
    inner: S,
    classifier: C,
    named: Named,
    /// The total time that the call has, waiting for others apart.
    total: Duration,
    wait: Duration,
    /// Whether waiting for others takes from the total time.
    wait_counts: bool,
    /// What is left of the total time for sending the call for the first time.
    left: Duration,
    start: Instant,
    retry: Option<RetryOverride>,
    /// Whether anything was sent by this call.
    sent: bool,
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
    /// Whether an attempt below may have been carried out with no answer to show for it.
    in_doubt: bool,
    /// What the route table knows of it.
    route: (Method, RetryClass),
}

/// What a leader comes to who asked the server what became of the call.
enum Looked<RB: Body> {
    /// It was done; the lead is settled.
    Adopted(Box<Response<AnswerBody<RB>>>),
    Absent,
    Harmless,
    Undecided(Undecided),
}

/// Why a leader does not go on.
enum Stopped<RB: Body, E> {
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

/// Waits until a service can be called, but no longer than this.
pub(super) async fn ready<S, R>(inner: &mut S, within: Duration) -> Result<(), Error<S::Error>>
where
    S: Service<R>,
{
    match timeout(within, poll_fn(|cx| inner.poll_ready(cx))).await {
        Ok(ready) => ready.map_err(Error::Inner),
        Err(_elapsed) => Err(Error::Layer(Refused::not_ready(within))),
    }
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

    /// Claims the call, or waits for whoever has claimed it.
    async fn claim<RB: Body>(&mut self, turn: Turn) -> Result<Place<RB>, Refused> {
        let Self { shared, named, start, total, wait, .. } = &*self;
        let give_up = *start + *wait;
        // NOTE: not `give_up` alone: whoever does not want to wait for other calls still has time to ask the store.
        let ask_until = give_up.max(*start + *total).max(Instant::now() + ASKING_TIME.min(*total));
        let claim = Claim { fingerprint: named.fingerprint, lease: shared.lease };
        let lead =
            |epoch, lease, turn| Lead::new(Arc::clone(&shared.store), shared.clock, (named.key, epoch), lease, turn);
        let mut pause = FIRST_PAUSE;
        loop {
            let (now, lease) = (shared.clock.now(), Lease::from_now(shared.lease));
            let begun = timeout_at(ask_until, shared.store.begin(named.key, claim, now)).await;
            let begun = begun.map_err(|elapsed| StoreError::Database(Arc::new(elapsed))).flatten();
            match begun.map_err(Refused::store)? {
                Begun::Lead { epoch } => return Ok(Place::Lead { lead: lead(epoch, lease, turn), since: now }),
                Begun::Reconcile { epoch, since } => {
                    let mut lead = lead(epoch, lease, turn);
                    lead.in_doubt = true;
                    return Ok(Place::Lead { lead, since });
                }
                Begun::Done(answer) => return replayed(answer).map(Place::Answered),
                Begun::Conflict => return Err(Refused::conflict()),
                Begun::Busy { .. } if Instant::now() + pause > give_up => return Err(Refused::still_running(*wait)),
                Begun::Busy { .. } => sleep(pause).await,
            }
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }

    /// Sends the call, through everything below, which has to be ready within this time.
    async fn send<B, RB>(
        &mut self,
        lead: &mut Lead,
        request: Request<B>,
        within: Duration,
    ) -> Result<Came<RB, S::Error>, Stopped<RB, S::Error>>
    where
        S: Service<Request<B>, Response = Response<RB>>,
        C: Classify<S::Error>,
        RB: Body + Unpin,
    {
        lead.hold(ready(&mut self.inner, within)).await?.map_err(Stopped::Ended)?;
        let doubted_before = std::mem::replace(&mut lead.in_doubt, true);
        let mut came = lead.hold(self.attempt(request)).await?;
        lead.in_doubt = doubted_before || came.in_doubt;
        if let (Ok(response), Some(whole), true) = (&came.result, &came.whole, lead.in_doubt) {
            let (method, class) = &came.route;
            came.done_before = repeated(method, *class, response.status(), whole).is_some();
        }
        if came.done_before {
            // Whoever reads the answer is told by whom else it may have been carried out: a process before this one.
            current::with(|call| {
                call.report.doubts = call.report.doubts.max(1);
                call.report.route.get_or_insert(came.route.clone());
            });
        }
        Ok(came)
    }

    /// Calls the service, and reads what has to be read.
    async fn attempt<B, RB>(&mut self, request: Request<B>) -> Came<RB, S::Error>
    where
        S: Service<Request<B>, Response = Response<RB>>,
        C: Classify<S::Error>,
        RB: Body + Unpin,
    {
        self.sent = true;
        let sent = Instant::now();
        let route = (request.method().clone(), self.class(&request));
        // The retry layer counts afresh; what is for the caller to read adds up.
        let before = current::with(|call| (call.report.attempts, call.report.doubts));
        let within_before = current::doubts_within();
        let result = self.inner.call(request).await;
        let doubted_below = current::with(|call| {
            let (attempts, doubts) = before.unwrap_or_default();
            call.report.attempts += attempts;
            call.report.doubts > doubts
        });
        // A whole stack below reports for itself.
        let doubted_within = match &result {
            Ok(response) => response.extensions().get::<CallReport>().is_some_and(|report| report.doubts > 0),
            Err(_) => current::doubts_within() > within_before,
        };
        let mut outcome = self.classifier.of(&result);
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
        let in_doubt = doubted_below.unwrap_or_default() || doubted_within || outcome == Outcome::Ambiguous;
        Came { result, outcome, whole, done_before: false, in_doubt, route }
    }

    fn class<B>(&self, request: &Request<B>) -> RetryClass {
        let routes = &self.shared.routes;
        let endpoint = routes.find(request.method(), request.uri().path()).map(|id| routes.get(id));
        endpoint.map_or_else(|| RetryClass::of_method(request.method()), Endpoint::retry_class)
    }

    /// Until when the body of the answer to what was `sent` then is waited for.
    fn read_until(&self, sent: Instant) -> Instant {
        let until = (Instant::now() + BODY_TIME).min(sent + self.total);
        current::deadline().map_or(until, |outer| until.min(outer))
    }

    /// Writes down what came, and hands it out.
    async fn settle<RB: Body, E>(&mut self, lead: &mut Lead, came: Came<RB, E>) -> Result<Response<AnswerBody<RB>>, E> {
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
        if let Settlement::Done(Answer { status, session_id, .. }) = &settlement
            && status.is_success()
        {
            self.mark(lead, came.route.1, *session_id).await;
        }
        let turn = lead.settle(settlement).await;
        // Whoever waited asked for the same at the same time, so a rejection is theirs too.
        if let (Some(turn), Ok(response), Some(data)) = (turn, &came.result, came.whole) {
            let (status, headers) = (response.status(), response.headers().clone());
            turn.leave(Left { status, headers, data, provenance: Provenance::Coalesced });
        }
        came.result
    }

    /// Remembers that a session was made whose id could not be read, if that is so.
    async fn mark(&mut self, lead: &mut Lead, class: RetryClass, id: Option<Uuid>) {
        let Shared { store, lease, clock, .. } = &*self.shared;
        let Some(mark) = Mark::of(store.secret(), &self.named.key, self.named.body.as_ref(), class, id) else { return };
        // If the caller goes away meanwhile, what was done must not be taken for undone.
        lead.in_doubt = true;
        let claim = Claim { fingerprint: self.named.fingerprint, lease: *lease };
        let written = timeout(ASKING_TIME, mark.write(&**store, claim, clock.now())).await;
        if !matches!(written, Ok(Ok(()))) {
            tracing::warn!("a session whose id could not be read was not marked in the idempotency store");
        }
    }

    /// What the store keeps of a success.
    fn kept<RB: Body>(&self, response: &Response<AnswerBody<RB>>, whole: Option<&Bytes>) -> Answer {
        let answer = Answer::new(response.status());
        let Some(whole) = whole else { return answer };
        let answer = answer.with_id_of(whole);
        // One that is encoded all the same would be given again to somebody who may not be able to read it.
        if !self.shared.replay || response.headers().contains_key(header::CONTENT_ENCODING) {
            return answer;
        }
        answer.with_body(response.headers().get(header::CONTENT_TYPE).cloned(), whole.clone())
    }

    /// Asks the server what became of the call, and adopts what is found.
    async fn look<B, RB>(&mut self, lead: &mut Lead, parts: &Parts, since: Timestamp) -> Result<Looked<RB>, StoreError>
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
        let known = (Arc::clone(&self.shared.store), self.named.key);
        let header = &self.shared.keys.header;
        let mut lookups = Lookups::<S, B>::new(self.inner.clone(), (uri, headers), header, known);
        let reconcile = self.shared.reconcile();
        let within = self.total.saturating_add(reconcile.waits()).min(StoredIdempotencyLayer::MAX);
        let verdict = lead.hold(timeout(within, reconcile.reconcile(&doubt, &mut lookups))).await?;
        let verdict = verdict.unwrap_or(Verdict::Undecided(Undecided::LookupFailed));
        tracing::info!(?verdict, "looked up what became of a call");
        Ok(match verdict {
            Verdict::Found(found) => match self.adopt(lead, found).await {
                Ok(response) => Looked::Adopted(Box::new(response)),
                Err(_taken) => Looked::Undecided(Undecided::Taken),
            },
            Verdict::Absent => Looked::Absent,
            Verdict::Harmless => Looked::Harmless,
            Verdict::Undecided(why) => Looked::Undecided(why),
        })
    }

    /// Answers with what a look-up found, unless it belongs to another operation by now.
    async fn adopt<RB: Body>(&mut self, lead: &mut Lead, found: Found) -> Result<Response<AnswerBody<RB>>, StoreError> {
        // NOTE: its body is not kept even if replay is on: given again, it would pass for the server's own.
        let answer = Answer { session_id: found.session_id, ..Answer::new(found.status) };
        let settlement = if found.inferred { Settlement::Adopted(answer) } else { Settlement::Done(answer) };
        let turn = lead.adopt(settlement).await?;
        let json = header::HeaderValue::from_static("application/json");
        let headers = header::HeaderMap::from_iter([(header::CONTENT_TYPE, json)]);
        let left = Left { status: found.status, headers, data: found.body, provenance: Provenance::Adopted };
        let response = given_again(&left);
        if let Some(turn) = turn {
            turn.leave(left);
        }
        Ok(response)
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
