//! Named calls come to an end and stay protected, whatever server, store and caller do; in virtual time.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use tests::{Body, SECOND, create_session, of, sandbox, settle_down, stored, to, with};
use tokio::time::{Instant, sleep};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn, util::BoxCloneService};
use tower_didit::{
    DiditLayer,
    body::ReplayBody,
    call::{CallOptions, CallReport, RetryOverride},
    deadline::DeadlineLayer,
    idempotency::{
        HashSecret, IdempotencyLayer, Refused, StoredIdempotencyLayer,
        reconcile::Undecided,
        store::{Begun, Claim, Epoch, Key, MemoryStore, Settlement, Store, StoreFuture, Timestamp},
    },
    outcome::{NotSent, Outcome, Settled, classify_fn, of_response},
    retry::RetryLayer,
    stack,
};
use uuid::Uuid;

/// Didit's answer to a transaction that it has.
const DUPLICATE: &str = r#"{"transaction_id":["A transaction with this transaction_id already exists."]}"#;

fn creation(options: CallOptions) -> Request<Body> {
    with(create_session(Some("user-7"), "order-7"), options)
}

type Answered = UnsyncBoxBody<Bytes, io::Error>;

/// A response whose body brings `first` and then nothing for ever.
fn stalling(status: u16, first: &'static str) -> Response<Answered> {
    let first = tokio_stream::once(Ok(Frame::data(Bytes::from_static(first.as_bytes()))));
    let stream = tokio_stream::StreamExt::chain(first, tokio_stream::pending());
    Response::builder().status(status).body(StreamBody::new(stream).boxed_unsync()).unwrap()
}

fn answer(status: u16, text: &'static str) -> Response<Answered> {
    let body = Full::from(text).map_err(|never| match never {}).boxed_unsync();
    let response = Response::builder().status(status);
    // Without a hint a 429 is no refusal of a rate window.
    let response = if status == 429 { response.header("retry-after", 1) } else { response };
    response.body(body).unwrap()
}

/// A status and a body, or what breaks.
type Scripted = io::Result<(u16, &'static str)>;

/// Whose requests are answered from a script: each GET with an empty list, everything else with the next answer.
#[derive(Clone, Default)]
struct Script {
    answers: Arc<Mutex<VecDeque<Scripted>>>,
    methods: Arc<Mutex<Vec<Method>>>,
}

impl Script {
    fn new(answers: impl IntoIterator<Item = Scripted>) -> Self {
        Self { answers: Arc::new(Mutex::new(answers.into_iter().collect())), methods: Arc::default() }
    }

    fn service<B: Send + 'static>(&self) -> BoxCloneService<Request<B>, Response<Answered>, io::Error> {
        let script = self.clone();
        BoxCloneService::new(service_fn(move |request: Request<B>| {
            script.methods.lock().unwrap().push(request.method().clone());
            let answer = match *request.method() {
                Method::GET => Ok(answer(200, r#"{"count":0,"results":[]}"#)),
                _ => script.answers.lock().unwrap().pop_front().unwrap().map(|(status, text)| answer(status, text)),
            };
            std::future::ready(answer)
        }))
    }

    /// The methods of the requests since the last time.
    fn methods(&self) -> Vec<Method> {
        std::mem::take(&mut *self.methods.lock().unwrap())
    }

    /// How many requests since the last time were no look-ups.
    fn sent(&self) -> usize {
        self.methods().iter().filter(|method| **method != Method::GET).count()
    }
}

fn reset() -> Scripted {
    Err(io::ErrorKind::ConnectionReset.into())
}

fn connection_refused() -> Scripted {
    Err(io::ErrorKind::ConnectionRefused.into())
}

#[tokio::test(start_paused = true)]
async fn a_success_whose_body_stalls_ends_in_doubt_in_the_time_of_its_call() {
    for (deadline, bound) in [(Some(5 * SECOND), 5 * SECOND), (Some(60 * SECOND), 30 * SECOND), (None, 30 * SECOND)] {
        let inner = service_fn(async |_: Request<Body>| Ok::<_, io::Error>(stalling(201, "{")));
        let service = stored().layer(DeadlineLayer::new(120 * SECOND).layer(inner));
        let options = || deadline.map_or(of("a"), |deadline| of("a").deadline(deadline));
        // Nothing tells one face match from another, so it stays in doubt.
        let request = || with(to(Method::POST, "/v3/face-match/"), options());
        let start = Instant::now();
        let leader = tokio::spawn(service.clone().oneshot(request()));
        settle_down().await;
        let follower = tokio::spawn(service.clone().oneshot(with(to(Method::POST, "/v3/face-match/"), of("a"))));
        let response = leader.await.unwrap().unwrap();
        assert_eq!((response.status(), start.elapsed()), (StatusCode::CREATED, bound), "what is known is handed out");
        let refused = follower.await.unwrap().unwrap_err().as_layer().unwrap().clone();
        assert!(matches!(refused, Refused::Undecided { why: Undecided::NoTrace, .. }), "{refused:?}");
        assert_eq!(start.elapsed(), bound);
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_answer_stalls_is_found() {
    let sandbox = sandbox(1).build().unwrap();
    let inner = service_fn({
        let sandbox = sandbox.clone();
        move |request: Request<Body>| {
            let (sandbox, stalls) = (sandbox.clone(), request.method() == Method::POST);
            async move {
                let response = sandbox
                    .oneshot(request)
                    .await?
                    .map(|body| body.map_err(|_| io::Error::other("unreachable")).boxed_unsync());
                Ok::<_, didit_sandbox::ConnectionLost>(if stalls { stalling(201, "{") } else { response })
            }
        }
    });
    let response = stored().layer(inner).oneshot(creation(of("order-7"))).await.unwrap();
    assert_eq!(response.headers()["idempotency-adopted"], "true");
    assert_eq!(sandbox.stats().sessions_made, 1);
}

#[tokio::test(start_paused = true)]
async fn a_look_up_that_stalls_comes_to_nothing_in_time() {
    let in_headers = |request: Request<Body>| async move {
        if request.method() == Method::GET {
            sleep(86_400 * SECOND).await;
        }
        Ok::<_, io::Error>(answer(502, ""))
    };
    let in_body = |request: Request<Body>| async move {
        Ok::<_, io::Error>(if request.method() == Method::GET { stalling(200, "{") } else { answer(502, "") })
    };
    for service in [
        BoxCloneService::new(stored().layer(service_fn(in_headers))),
        BoxCloneService::new(stored().layer(service_fn(in_body))),
    ] {
        let start = Instant::now();
        let response = service.clone().oneshot(creation(of("order-7"))).await.unwrap();
        assert_eq!(
            (response.status(), start.elapsed()),
            (StatusCode::BAD_GATEWAY, 32 * SECOND),
            "settle time, look-up"
        );
        let error = service.oneshot(creation(of("order-7"))).await.unwrap_err();
        let refused = error.as_layer().unwrap();
        assert!(matches!(refused, Refused::Undecided { why: Undecided::LookupFailed, .. }), "{refused:?}");
    }
}

/// Takes its time for a claim.
#[derive(Debug)]
struct Slow {
    store: MemoryStore,
    takes: Duration,
}

impl Slow {
    fn new(takes: Duration) -> Self {
        Self { store: MemoryStore::default(), takes }
    }
}

impl Store for Slow {
    fn secret(&self) -> &HashSecret {
        self.store.secret()
    }

    fn begin(&self, key: Key, claim: Claim, now: Timestamp) -> StoreFuture<Begun> {
        let (store, takes) = (self.store.clone(), self.takes);
        Box::pin(async move {
            sleep(takes).await;
            store.begin(key, claim, now).await
        })
    }

    fn renew(&self, key: Key, epoch: Epoch, until: Timestamp) -> StoreFuture<bool> {
        self.store.renew(key, epoch, until)
    }

    fn holder(&self, id: Uuid) -> StoreFuture<Option<Key>> {
        self.store.holder(id)
    }

    fn settle(&self, key: Key, epoch: Epoch, settlement: Settlement, now: Timestamp) -> StoreFuture<()> {
        self.store.settle(key, epoch, settlement, now)
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_with_another_payload_does_not_get_the_right_one_refused() {
    let script = Script::new([Ok((201, "{}"))]);
    let service = IdempotencyLayer::new().store(Slow::new(SECOND)).replay(true).layer(script.service::<Body>());
    let call = |body: &'static str| with(to(Method::POST, "/v3/face-match/"), of("a")).map(|_| Full::from(body));
    service.clone().oneshot(call("right")).await.unwrap();
    let (wrong, right) = tokio::join!(service.clone().oneshot(call("wrong")), service.clone().oneshot(call("right")));
    assert!(matches!(wrong.unwrap_err().as_layer(), Some(Refused::Conflict { .. })));
    assert_eq!((right.unwrap().status(), script.sent()), (StatusCode::CREATED, 1));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_costs_no_more_than_the_time_of_the_call() {
    for (deadline, bound) in [(Some(5 * SECOND), 5 * SECOND), (None, StoredIdempotencyLayer::DEFAULT_WAIT)] {
        let script = Script::new([]);
        // Not waiting for other calls is no reason not to wait for the store.
        let service =
            IdempotencyLayer::new().store(Slow::new(Duration::MAX)).wait(Duration::ZERO).layer(script.service());
        let start = Instant::now();
        let options = deadline.map_or(of("a"), |deadline| of("a").deadline(deadline));
        let error = service.oneshot(creation(options)).await.unwrap_err();
        assert!(matches!(error.as_layer(), Some(Refused::Store { .. })), "{error:?}");
        assert_eq!((start.elapsed(), script.sent()), (bound, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_header_that_is_no_key_does_not_take_the_operation_its_protection() {
    for odd in ["", &"x".repeat(300)] {
        let sandbox = sandbox(2).build().unwrap();
        let service = stored().layer(sandbox.clone());
        let request = || {
            let mut request = with(create_session(None, "order-7"), of("order-7"));
            request.headers_mut().insert("idempotency-key", odd.parse().unwrap());
            request
        };
        assert_eq!(service.clone().oneshot(request()).await.unwrap().status(), StatusCode::CREATED);
        let error = service.oneshot(request()).await.unwrap_err();
        assert!(matches!(error.as_layer(), Some(Refused::AlreadyDone { .. })), "{error:?}");
        assert_eq!(sandbox.stats().sessions_made, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_again_and_ended_in_doubt_is_looked_up_before_it_is_sent_once_more() {
    // The call ends in doubt and is found absent. What is sent then may have worked, before it was held off, refused or
    // rejected.
    for (last, status) in [
        (connection_refused(), None),
        (Ok((429, "")), Some(StatusCode::TOO_MANY_REQUESTS)),
        (Ok((400, "{}")), Some(StatusCode::BAD_REQUEST)),
    ] {
        let script = Script::new([reset(), reset(), reset(), last, Ok((201, "{}"))]);
        let retry = RetryLayer::builder().max_attempts(2).build().unwrap();
        let service = ServiceBuilder::new().layer(stored()).layer(retry).service(script.service());
        let result = service.clone().oneshot(creation(of("order-7"))).await;
        assert_eq!(result.ok().map(|response| response.status()), status);
        let expected = [vec![Method::POST; 2], vec![Method::GET; 5], vec![Method::POST; 2]].concat();
        assert_eq!(script.methods(), expected);
        let response = service.oneshot(creation(of("order-7"))).await.unwrap();
        assert_eq!(response.status(), StatusCode::CREATED);
        assert_eq!(script.methods(), [vec![Method::GET; 5], vec![Method::POST]].concat(), "after {status:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_the_server_has_is_done() {
    // Within one call, by the retry layer; and over two, of which the first was dropped.
    for cancelled in [false, true] {
        let script = Script::new([reset(), Ok((400, DUPLICATE))]);
        let inner = script.service::<ReplayBody<Body>>();
        let slow = service_fn(move |request| {
            let inner = inner.clone();
            async move {
                let answered = inner.oneshot(request).await;
                if cancelled && answered.is_err() {
                    sleep(60 * SECOND).await;
                }
                answered
            }
        });
        let store = MemoryStore::new();
        let stack = DiditLayer::builder().api_key("key").base_url("http://127.0.0.1:1").idempotency_store(store);
        let service = stack.build().unwrap().layer(slow);
        let request = || {
            let request = with(to(Method::POST, "/v3/transactions/"), of("tx").report());
            request.map(|_| Full::from(r#"{"transaction_id":"t1"}"#))
        };
        if cancelled {
            let first = tokio::spawn(service.clone().oneshot(request()));
            sleep(SECOND).await;
            first.abort();
        }
        let response = service.clone().oneshot(request()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let report = parts.extensions.get::<CallReport>().unwrap();
        assert!(report.ambiguous_before());
        assert_eq!(report.settled_by(parts.status, &body), Some(Settled::EarlierAttempt));
        assert_eq!((script.sent(), body.as_ref()), (2, DUPLICATE.as_bytes()));
        let error = service.oneshot(request()).await.unwrap_err();
        assert!(format!("{error:?}").contains("AlreadyDone"), "{error:?}");
        assert_eq!(script.sent(), 0, "it is known to be done");
    }
}

#[tokio::test(start_paused = true)]
async fn a_doubt_within_a_stack_reaches_a_store_around_it() {
    // The first attempt may have worked, and the second did not.
    for last in [Ok((429, "")), connection_refused()] {
        let script = Script::new([reset(), last, Ok((201, "{}"))]);
        let within = DiditLayer::builder().api_key("key").retry(|retry| retry.max_attempts(2)).build().unwrap();
        // It takes errors for what they look like from outside, and knows nothing of what is in them.
        let not_sent = |_: &stack::Error<io::Error>| Outcome::NotSent(NotSent::Transport);
        let classifier = classify_fn(|status, headers: &HeaderMap| of_response(status, headers), not_sent);
        let service = stored().classifier(classifier).layer(within.layer(script.service()));
        let _ = service.clone().oneshot(creation(of("order-7"))).await;
        let sent = [vec![Method::POST; 2], vec![Method::GET; 5], vec![Method::POST]].concat();
        assert_eq!(script.methods(), sent, "looked up before it is sent again");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_read_here_is_not_asked_for_in_a_form_that_cannot_be() {
    let seen: Arc<Mutex<Vec<(Method, HeaderMap)>>> = Arc::default();
    let inner = service_fn({
        let seen = Arc::clone(&seen);
        move |request: Request<Body>| {
            seen.lock().unwrap().push((request.method().clone(), request.headers().clone()));
            std::future::ready(match *request.method() {
                Method::GET => Ok(answer(200, r#"{"count":0,"results":[]}"#)),
                _ => Err(io::Error::from(io::ErrorKind::ConnectionReset)),
            })
        }
    });
    let mut call = creation(of("order-7"));
    let about_the_call = ["range", "if-none-match", "prefer", "digest", "content-digest", "want-digest", "te"];
    for name in about_the_call.into_iter().chain(["accept-encoding", "x-correlation-id"]) {
        call.headers_mut().insert(name, "gzip".parse().unwrap());
    }
    stored().layer(inner).oneshot(call).await.unwrap_err();
    for (method, headers) in &*seen.lock().unwrap() {
        assert_eq!(headers["accept-encoding"], "identity", "{method}");
        assert!(headers.contains_key("x-correlation-id") && headers.contains_key("x-api-key"));
        let kept = about_the_call.iter().filter(|name| headers.contains_key(**name)).count();
        assert_eq!(kept, if method == Method::GET { 0 } else { about_the_call.len() }, "{headers:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_encoded_body_is_not_given_again() {
    let inner = service_fn(async |_: Request<Body>| {
        let mut response = answer(201, "\u{1f}");
        response.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
        Ok::<_, io::Error>(response)
    });
    let service = stored().replay(true).layer(inner);
    service.clone().oneshot(creation(of("order-7"))).await.unwrap();
    let again = service.oneshot(creation(of("order-7"))).await.unwrap_err();
    assert!(matches!(again.as_layer(), Some(Refused::AlreadyDone { .. })), "{again:?}");
}

#[tokio::test(start_paused = true)]
async fn what_a_call_waits_for_another_is_taken_from_its_own_time() {
    for own in [true, false] {
        let calls = Arc::new(AtomicU32::new(0));
        let inner = service_fn(move |_: Request<ReplayBody<Body>>| {
            let first = calls.fetch_add(1, Ordering::SeqCst) == 0;
            async move {
                sleep(if first { 8 * SECOND } else { 3_600 * SECOND }).await;
                // Nothing was done, so the next one may.
                Ok::<_, io::Error>(answer(429, ""))
            }
        });
        let stack = DiditLayer::builder().api_key("key").deadline(10 * SECOND).idempotency_store(MemoryStore::new());
        let service = stack.build().unwrap().layer(inner);
        let call =
            |options: CallOptions| with(to(Method::POST, "/v3/face-match/"), options.retry(RetryOverride::Never));
        let leader = tokio::spawn(service.clone().oneshot(call(of("a"))));
        settle_down().await;
        let start = Instant::now();
        let options = if own { of("a").deadline(10 * SECOND) } else { of("a") };
        let late = service.oneshot(call(options)).await.unwrap_err();
        assert!(matches!(late.kind(), stack::ErrorKind::Deadline(_)), "{late:?}");
        assert_eq!(start.elapsed(), 10 * SECOND);
        assert_eq!(leader.await.unwrap().unwrap().status(), StatusCode::TOO_MANY_REQUESTS);
    }
}
