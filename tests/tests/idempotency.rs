//! Named calls happen once: held together, handed over, looked up, given again; in virtual time.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::{error::Error as StdError, time::Duration};

use didit_api::Limits;
use didit_sandbox::{
    Sandbox,
    faults::{Fault, Faults, Rule, When},
};
use http::{Method, Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt;
use tests::{
    Answer, Body, File, ReadinessProbe, SECOND, approve_all, create_session, creation, get, json, of, sandbox,
    settle_down, stored, to, with,
};
use tokio::time::Instant;
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_didit::{
    DiditLayer, Randomness,
    call::{CallOptions, CallReport, RetryOverride},
    deadline::DeadlineLayer,
    idempotency::{
        IdempotencyLayer, Provenance, Refused,
        reconcile::Undecided,
        store::{
            Begun, Claim, Epoch, Key, MemoryStore, RedbStore, Settlement, Store, StoreError, StoreFuture, Timestamp,
        },
        stored::Error,
    },
    outcome::{NeverSent, Outcome, of_error},
    retry::RetryLayer,
    stack::ErrorKind,
};
use uuid::Uuid;

/// Why a call was not sent, with the proof that everybody reads it so.
fn refused<T: std::fmt::Debug, E: StdError + 'static>(result: Result<T, Error<E>>) -> Refused {
    let error = result.unwrap_err();
    assert!(matches!(of_error(&error), Outcome::NotSent(_)), "{error:?}");
    let mut last: &dyn StdError = &error;
    while let Some(source) = last.source() {
        last = source;
    }
    assert!(last.is::<NeverSent>(), "{error:?}");
    error.as_layer().unwrap().clone()
}

/// A sandbox with one fault on its session creations.
fn faulty(seed: u64, fault: Fault, when: When) -> Sandbox {
    sandbox(seed).faults(Faults::none().with(Rule::new(fault).on_route("session-create").when(when))).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn calls_with_one_name_share_one_request_and_its_answer() {
    let sandbox = sandbox(1).latency(SECOND..=SECOND).build().unwrap();
    let service = stored().layer(sandbox.clone());
    let calls: Vec<_> = (0..10).map(|_| tokio::spawn(service.clone().oneshot(creation(None, "order-7")))).collect();
    let (mut sessions, mut coalesced) = (std::collections::HashSet::new(), 0);
    for call in calls {
        let response = call.await.unwrap().unwrap();
        assert_eq!(response.status(), StatusCode::CREATED);
        if let Some(provenance) = response.extensions().get::<Provenance>() {
            assert_eq!(*provenance, Provenance::Coalesced);
            assert_eq!(response.headers()["idempotency-replayed"], "true");
            coalesced += 1;
        }
        sessions.insert(json(response).await["session_token"].to_string());
    }
    assert_eq!((sessions.len(), coalesced, sandbox.stats().sessions_made), (1, 9, 1));
}

#[tokio::test(start_paused = true)]
async fn different_names_do_not_wait_for_each_other() {
    let sandbox = sandbox(2).latency(SECOND..=SECOND).build().unwrap();
    let service = stored().layer(sandbox.clone());
    let start = Instant::now();
    let calls: Vec<_> =
        (0..10).map(|n| tokio::spawn(service.clone().oneshot(creation(None, &format!("order-{n}"))))).collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!((start.elapsed().as_secs(), sandbox.stats().sessions_made), (1, 10));
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_leader_hands_over_to_a_follower_who_looks_before_sending() {
    let sandbox = faulty(3, Fault::Delay(60 * SECOND), When::First(1));
    let service = stored().layer(sandbox.clone());
    let leader = tokio::spawn(service.clone().oneshot(creation(Some("user-7"), "order-7")));
    settle_down().await;
    let followers: Vec<_> =
        (0..3).map(|_| tokio::spawn(service.clone().oneshot(creation(Some("user-7"), "order-7")))).collect();
    settle_down().await;
    assert_eq!(sandbox.stats().sessions_made, 1);
    approve_all(&sandbox);
    leader.abort();
    let made = sandbox.journal()[0].session_id.clone().unwrap();
    for follower in followers {
        let response = follower.await.unwrap().unwrap();
        assert_eq!(response.status(), StatusCode::CREATED);
        assert_eq!(response.extensions().get(), Some(&Provenance::Adopted));
        assert_eq!(response.headers()["idempotency-adopted"], "true");
        let body = json(response).await;
        assert_eq!((body["session_id"].as_str(), body["status"].as_str()), (Some(made.as_str()), Some("Approved")));
        assert!(body["url"].is_string() && body.get("session_token").is_none());
    }
    assert_eq!(sandbox.stats().sessions_made, 1);
}

#[tokio::test(start_paused = true)]
async fn a_leader_dropped_before_anything_was_sent_leaves_nothing_to_look_up() {
    // Never ready until told so.
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(1));
    let probe = ReadinessProbe::new([Answer::After(60 * SECOND)]);
    let inner = tower::limit::ConcurrencyLimit::with_semaphore(probe.clone(), std::sync::Arc::clone(&gate));
    let service = stored().layer(inner);
    let held = gate.acquire().await.unwrap();
    let leader = tokio::spawn(service.clone().oneshot(with(to(Method::POST, "/v3/face-match/"), of("one"))));
    let follower = tokio::spawn(service.clone().oneshot(with(to(Method::POST, "/v3/face-match/"), of("one"))));
    settle_down().await;
    leader.abort();
    drop(held);
    assert_eq!(follower.await.unwrap().unwrap().status(), 200, "an unsafe route, and still no doubt");
    assert_eq!(probe.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn followers_outlive_their_leaders_deadline_and_keep_to_their_own() {
    let probe = ReadinessProbe::new([Answer::After(60 * SECOND), Answer::After(4 * SECOND)]);
    let service = stored().layer(DeadlineLayer::new(120 * SECOND).layer(probe.clone()));
    let call = |deadline: u64| {
        let request = with(to(Method::POST, "/v3/aml/"), of("screening-7").deadline(Duration::from_secs(deadline)));
        tokio::spawn(service.clone().oneshot(request))
    };
    let start = Instant::now();
    let leader = call(10);
    settle_down().await;
    let (impatient, patient) = (call(5), call(30));
    assert!(matches!(refused(impatient.await.unwrap()), Refused::StillRunning { waited, .. } if waited == 5 * SECOND));
    assert_eq!(start.elapsed(), 5 * SECOND);
    assert!(leader.await.unwrap().unwrap_err().as_inner().is_some(), "its own deadline");
    // Didit honours the key on this route, so the one that follows may send it again.
    assert_eq!(patient.await.unwrap().unwrap().status(), 200);
    assert_eq!((start.elapsed(), probe.calls()), (14 * SECOND, 2));
}

#[tokio::test(start_paused = true)]
async fn another_payload_under_the_same_name_is_refused_while_it_runs_and_afterwards() {
    let sandbox = sandbox(4).latency(SECOND..=SECOND).build().unwrap();
    let service = stored().layer(sandbox.clone());
    let other = || {
        let mut request = creation(Some("somebody-else"), "order-7");
        request.extensions_mut().insert(of("order-7"));
        request
    };
    let running = tokio::spawn(service.clone().oneshot(creation(Some("user-7"), "order-7")));
    settle_down().await;
    assert!(matches!(refused(service.clone().oneshot(other()).await), Refused::Conflict { .. }));
    running.await.unwrap().unwrap();
    assert!(matches!(refused(service.clone().oneshot(other()).await), Refused::Conflict { .. }));
    // A key of the caller's own is as good a name.
    let keyed = |vendor_data| {
        let options = CallOptions::new().idempotency_key("key-1".parse().unwrap());
        with(create_session(Some(vendor_data), "x"), options)
    };
    service.clone().oneshot(keyed("a")).await.unwrap();
    assert!(matches!(refused(service.oneshot(keyed("b")).await), Refused::Conflict { .. }));
    assert_eq!(sandbox.stats().sessions_made, 2);
}

#[tokio::test(start_paused = true)]
async fn a_quoted_key_names_the_same_call_in_the_header_and_in_the_options() {
    let probe = ReadinessProbe::new([]);
    let service = IdempotencyLayer::new().quoted(true).store(MemoryStore::new()).layer(probe.clone());
    let mut in_header = to(Method::POST, "/v3/aml/");
    in_header.headers_mut().insert("idempotency-key", "\"key-1\"".parse().unwrap());
    service.clone().oneshot(in_header).await.unwrap();
    let in_options = with(to(Method::POST, "/v3/aml/"), CallOptions::new().idempotency_key("key-1".parse().unwrap()));
    assert!(matches!(refused(service.oneshot(in_options).await), Refused::AlreadyDone { .. }));
    assert_eq!(probe.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_done_is_given_again_only_if_replay_is_on() {
    for replay in [true, false] {
        let sandbox = sandbox(5).build().unwrap();
        let service = stored().replay(replay).layer(sandbox.clone());
        let first = service.clone().oneshot(creation(None, "order-7")).await.unwrap();
        assert!(first.extensions().get::<Provenance>().is_none(), "the server's own");
        let content_type = first.headers()["content-type"].clone();
        let first = json(first).await;
        let second = service.oneshot(creation(None, "order-7")).await;
        if replay {
            let second = second.unwrap();
            assert_eq!((second.status(), &second.headers()["content-type"]), (StatusCode::CREATED, &content_type));
            assert_eq!(second.extensions().get(), Some(&Provenance::Replayed));
            assert_eq!(json(second).await, first);
        } else {
            let Refused::AlreadyDone { status, session_id, .. } = refused(second) else { panic!("not refused") };
            assert_eq!(
                (status, session_id.unwrap().to_string()),
                (StatusCode::CREATED, first["session_id"].as_str().unwrap().to_owned())
            );
        }
        assert_eq!(sandbox.stats().sessions_made, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn refusals_failures_and_rejections_are_never_given_again() {
    let answers = [
        Answer::Status(429, Some(1)),
        Answer::Status(503, Some(1)),
        Answer::Status(429, None),
        Answer::Status(501, None),
        Answer::Status(400, None),
        Answer::Status(403, None),
        Answer::Status(301, None),
        Answer::ConnectionRefused,
    ];
    let probe = ReadinessProbe::new(answers);
    let service = stored().replay(true).layer(probe.clone());
    for answer in answers {
        let result = service.clone().oneshot(with(to(Method::POST, "/v3/face-match/"), of("one"))).await;
        match (answer, result) {
            (Answer::Status(status, _), Ok(response)) => assert_eq!(response.status().as_u16(), status),
            (_, result) => assert!(result.unwrap_err().as_inner().is_some(), "{answer:?}"),
        }
    }
    let last = service.oneshot(with(to(Method::POST, "/v3/face-match/"), of("one"))).await.unwrap();
    assert_eq!((last.status().as_u16(), probe.calls()), (200, answers.len() + 1));
}

#[tokio::test(start_paused = true)]
async fn a_rejection_goes_to_those_who_waited_for_it_and_a_failure_does_not() {
    for (status, requests) in [(400, 1), (403, 1), (501, 3), (429, 3)] {
        // The first answer comes late, so that the others wait for it.
        let answers = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let inner = tower::service_fn({
            let answers = std::sync::Arc::clone(&answers);
            move |_: Request<Body>| {
                answers.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                async move {
                    tokio::time::sleep(SECOND).await;
                    Response::builder().status(status).body(Body::from("no")).map_err(std::io::Error::other)
                }
            }
        });
        let service = stored().layer(inner);
        let call = || tokio::spawn(service.clone().oneshot(with(to(Method::POST, "/v3/face-match/"), of("one"))));
        for call in [call(), call(), call()] {
            let response = call.await.unwrap().unwrap();
            assert_eq!(response.status().as_u16(), status);
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "no");
        }
        assert_eq!(answers.load(std::sync::atomic::Ordering::Relaxed), requests, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_decided_is_surfaced_once_and_then_refused() {
    let probe = ReadinessProbe::new([Answer::Reset]);
    let service = stored().layer(probe.clone());
    let call = || service.clone().oneshot(with(to(Method::POST, "/v3/face-match/"), of("one")));
    let first = call().await.unwrap_err();
    assert_eq!(first.as_inner().unwrap().kind(), std::io::ErrorKind::ConnectionReset, "the client's own error");
    for _ in 0..2 {
        assert!(matches!(refused(call().await), Refused::Undecided { why: Undecided::NoTrace, .. }));
    }
    assert_eq!(probe.calls(), 1);
    // A caller who knows better may say so.
    let vouched = with(to(Method::POST, "/v3/face-match/"), of("one").retry(RetryOverride::Harmless));
    assert_eq!(service.clone().oneshot(vouched).await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_answer_was_lost_is_found_and_not_made_again() {
    let sandbox = faulty(6, Fault::WorkThenDrop, When::Always);
    let service = stored().layer(sandbox.clone());
    let call = tokio::spawn(service.clone().oneshot(creation(Some("user-7"), "order-7")));
    settle_down().await;
    approve_all(&sandbox);
    let response = call.await.unwrap().unwrap();
    assert_eq!(response.extensions().get(), Some(&Provenance::Adopted));
    let stats = sandbox.stats();
    assert_eq!((stats.sessions_made, stats.arrivals["session-create"]), (1, 1));
    // And it is remembered as done.
    let again = refused(service.oneshot(creation(Some("user-7"), "order-7")).await);
    assert!(matches!(again, Refused::AlreadyDone { session_id: Some(_), .. }));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_was_provably_not_made_is_made() {
    let sandbox = faulty(7, Fault::ResetBeforeWork, When::First(1));
    let start = Instant::now();
    let mut request = creation(Some("user-7"), "order-7");
    request.extensions_mut().insert(of("order-7").report());
    let service = ServiceBuilder::new()
        .layer(stored())
        .layer(RetryLayer::builder().max_attempts(1).build().unwrap())
        .service(sandbox.clone());
    let response = service.oneshot(request).await.unwrap();
    assert!(response.extensions().get::<Provenance>().is_none(), "the server's own answer");
    assert_eq!(response.extensions().get::<CallReport>().unwrap().attempts(), 2);
    assert!(json(response).await["session_token"].is_string());
    // Looked for after 2, 4, 8, 16 and 30 s.
    assert_eq!(start.elapsed(), 30 * SECOND);
    let arrivals = sandbox.stats().arrivals;
    assert_eq!((arrivals["session-create"], arrivals["session-list"]), (2, 5));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_may_have_worked_is_not_forgotten_when_the_next_one_was_refused() {
    // Done and lost; then every further attempt is refused at the door.
    let faults =
        Faults::none().with(Rule::new(Fault::WorkThenDrop).on_route("session-create").when(When::First(1))).with(
            Rule::new(Fault::status(StatusCode::SERVICE_UNAVAILABLE).with_retry_after(200)).on_route("session-create"),
        );
    let sandbox = sandbox(8).faults(faults).build().unwrap();
    let service = ServiceBuilder::new().layer(stored()).layer(RetryLayer::didit()).service(sandbox.clone());
    let response = service.oneshot(creation(Some("user-7"), "order-7")).await.unwrap();
    assert_eq!(response.extensions().get(), Some(&Provenance::Adopted), "and not the 503");
    assert_eq!(sandbox.stats().sessions_made, 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_whose_body_breaks_off_is_looked_up() {
    let sandbox = sandbox(9).build().unwrap();
    let inner = tower::service_fn({
        let sandbox = sandbox.clone();
        move |request: Request<Body>| {
            let (sandbox, breaks) = (sandbox.clone(), request.method() == Method::POST);
            async move {
                let response = sandbox.oneshot(request).await?;
                Ok::<_, didit_sandbox::ConnectionLost>(response.map(|body| {
                    let frames = body.map_err(|_| std::io::Error::other("unreachable"));
                    let torn = tokio_stream::iter([Err(std::io::ErrorKind::UnexpectedEof.into())]);
                    if breaks { http_body_util::StreamBody::new(torn).boxed_unsync() } else { frames.boxed_unsync() }
                }))
            }
        }
    });
    let response = stored().layer(inner).oneshot(creation(Some("user-7"), "order-7")).await.unwrap();
    assert_eq!(response.extensions().get(), Some(&Provenance::Adopted));
    let made = sandbox.journal()[0].session_id.clone().unwrap();
    assert_eq!(json(response).await["session_id"], made);
}

#[tokio::test(start_paused = true)]
async fn a_slow_list_is_asked_more_than_once() {
    // The first two looks show nothing yet.
    let sandbox = faulty(10, Fault::WorkThenDrop, When::First(1));
    let looks = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let inner = tower::service_fn({
        let (sandbox, looks) = (sandbox.clone(), std::sync::Arc::clone(&looks));
        move |mut request: Request<Body>| {
            let is_list = request.uri().path() == "/v3/sessions/";
            if is_list && looks.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 2 {
                *request.uri_mut() = http::Uri::from_static("/v3/sessions/?vendor_data=nobody");
            }
            sandbox.clone().oneshot(request)
        }
    });
    let response = stored().layer(inner).oneshot(creation(Some("user-7"), "order-7")).await.unwrap();
    assert_eq!(response.extensions().get(), Some(&Provenance::Adopted));
    assert_eq!(sandbox.stats().sessions_made, 1);
}

#[tokio::test(start_paused = true)]
async fn without_a_vendor_data_the_operation_may_stand_in_for_it() {
    let sandbox = faulty(11, Fault::WorkThenDrop, When::First(1));
    let service = stored().operation_as_vendor_data(true).layer(sandbox.clone());
    let mut request = creation(None, "order-7");
    let length = request.body().size_hint().exact().unwrap();
    request.headers_mut().insert("content-length", length.into());
    let response = service.clone().oneshot(request).await.unwrap();
    assert_eq!(json(response).await["vendor_data"], "order-7");
    // The caller's own is left alone.
    let response = service.oneshot(creation(Some("user-7"), "order-8")).await.unwrap();
    assert_eq!(json(response).await["vendor_data"], "user-7");
}

#[tokio::test(start_paused = true)]
async fn a_call_without_a_name_passes_through() {
    let store = MemoryStore::new();
    let probe = ReadinessProbe::new([]);
    let service = IdempotencyLayer::new().store(store.clone()).layer(probe.clone());
    for request in [to(Method::POST, "/v3/aml/"), to(Method::POST, "/v3/aml/"), get("/v3/sessions/")] {
        let mut request = with(request, CallOptions::new().report());
        let is_post = request.method() == Method::POST;
        request.headers_mut().remove("x-api-key");
        let response = service.clone().oneshot(request).await.unwrap();
        assert_eq!(response.extensions().get::<CallReport>().unwrap().idempotency_key().is_some(), is_post);
    }
    assert_eq!((probe.calls(), store.len()), (3, 0));
}

/// A store that is not there.
#[derive(Debug)]
struct Gone(tower_didit::idempotency::HashSecret);

impl Store for Gone {
    fn secret(&self) -> &tower_didit::idempotency::HashSecret {
        &self.0
    }

    fn begin(&self, _: Key, _: Claim, _: Timestamp) -> StoreFuture<Begun> {
        Box::pin(async { Err(StoreError::Closed) })
    }

    fn renew(&self, _: Key, _: Epoch, _: Timestamp) -> StoreFuture<bool> {
        Box::pin(async { Err(StoreError::Closed) })
    }

    fn settle(&self, _: Key, _: Epoch, _: Settlement, _: Timestamp) -> StoreFuture<()> {
        Box::pin(async { Err(StoreError::Closed) })
    }

    fn holder(&self, _: Uuid) -> StoreFuture<Option<Key>> {
        Box::pin(async { Err(StoreError::Closed) })
    }
}

#[tokio::test(start_paused = true)]
async fn without_its_store_nothing_is_sent() {
    let probe = ReadinessProbe::new([]);
    let gone = Gone(tower_didit::idempotency::HashSecret::random());
    let service = IdempotencyLayer::new().store(gone).layer(probe.clone());
    let result = service.oneshot(with(to(Method::POST, "/v3/aml/"), of("one"))).await;
    assert!(matches!(refused(result), Refused::Store { error: StoreError::Closed, .. }));
    assert_eq!(probe.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn two_layers_over_one_store_wait_for_each_other() {
    let sandbox = sandbox(12).latency(3 * SECOND..=3 * SECOND).build().unwrap();
    let store = MemoryStore::new();
    let service = || IdempotencyLayer::new().store(store.clone()).replay(true).layer(sandbox.clone());
    let (one, other) =
        tokio::join!(service().oneshot(creation(None, "order-7")), service().oneshot(creation(None, "order-7")),);
    assert_eq!(json(one.unwrap()).await, json(other.unwrap()).await);
    assert_eq!(sandbox.stats().sessions_made, 1);
}

#[tokio::test(start_paused = true)]
async fn in_the_assembled_stack_named_calls_happen_once_and_refusals_are_flat() {
    let sometimes = |fault, probability| Rule::new(fault).when(When::Probability(probability));
    let faults = Faults::none()
        .with(sometimes(Fault::status(StatusCode::SERVICE_UNAVAILABLE), 0.1))
        .with(sometimes(Fault::ResetBeforeWork, 0.1))
        .with(sometimes(Fault::WorkThenDrop, 0.1));
    let sandbox = sandbox(13)
        .faults(faults)
        .latency(Duration::from_millis(20)..=Duration::from_millis(120))
        .limits(Limits::none())
        .build()
        .unwrap();
    let didit = DiditLayer::builder()
        .api_key("key")
        .randomness(Randomness::seeded(13))
        .limits(Limits::none())
        // Nothing but the store keeps an operation from being done twice or given up.
        .retry(|retry| retry.max_attempts(1))
        .idempotency_store(MemoryStore::new())
        .build()
        .unwrap()
        .layer(sandbox.clone());
    let operation = |n: usize| {
        let (didit, sandbox) = (didit.clone(), sandbox.clone());
        async move {
            loop {
                let request = creation(Some(&format!("user-{n}")), &format!("order-{n}"));
                match didit.clone().oneshot(request).await {
                    Ok(response) if response.status().is_success() => break,
                    Err(error) if matches!(error.kind(), ErrorKind::Idempotency(Refused::AlreadyDone { .. })) => break,
                    _ => approve_all(&sandbox),
                };
                // Long enough for a circuit to try again.
                tokio::time::sleep(SECOND).await;
            }
        }
    };
    let operations: Vec<_> = (0..200).map(|n| tokio::spawn(operation(n))).collect();
    for operation in operations {
        operation.await.unwrap();
    }
    let stats = sandbox.stats();
    assert_eq!((stats.sessions_made, stats.duplicates_by_operation_id), (200, 0), "{stats:?}");
    let conflict = didit.oneshot(creation(Some("user-2"), "order-1")).await.unwrap_err();
    assert!(matches!(conflict.kind(), ErrorKind::Idempotency(Refused::Conflict { .. })), "{conflict:?}");
    assert!(conflict.report().unwrap().idempotency_key().is_some());
}

/// Many callers of few operations, who give up at random moments, over a server that loses what it did.
#[tokio::test(start_paused = true)]
async fn whoever_gives_up_whenever_every_operation_is_done_once_and_nobody_waits_for_ever() {
    for seed in 0..20 {
        let sometimes =
            |fault, probability| Rule::new(fault).on_route("session-create").when(When::Probability(probability));
        let faults = Faults::none()
            .with(sometimes(Fault::ResetBeforeWork, 0.1))
            .with(sometimes(Fault::WorkThenDrop, 0.2))
            .with(sometimes(Fault::Delay(3 * SECOND), 0.2));
        let sandbox = sandbox(seed)
            .faults(faults)
            .latency(Duration::from_millis(20)..=Duration::from_millis(500))
            .limits(Limits::none())
            .build()
            .unwrap();
        let random = Randomness::seeded(seed);
        let service = stored().layer(sandbox.clone());
        let approving = tokio::spawn({
            let sandbox = sandbox.clone();
            async move {
                loop {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    approve_all(&sandbox);
                }
            }
        });
        let mut callers = Vec::new();
        for number in 0..100 {
            let (n, patience) = (number % 10, SECOND.mul_f64(10.0 * random.unit()));
            let request = creation(Some(&format!("user-{n}")), &format!("order-{n}"));
            callers.push(tokio::spawn(tokio::time::timeout(patience, service.clone().oneshot(request))));
            tokio::time::sleep(SECOND.mul_f64(0.1 * random.unit())).await;
        }
        for caller in callers {
            let _ = caller.await.unwrap();
        }
        // Those who come last have all the time in the world, and patience with the server.
        for n in 0..10 {
            loop {
                let last = service.clone().oneshot(creation(Some(&format!("user-{n}")), &format!("order-{n}"))).await;
                match last {
                    Ok(response) if response.status().is_success() => break,
                    Err(Error::Layer(Refused::AlreadyDone { .. })) => break,
                    Err(Error::Inner(_lost)) => {}
                    other => panic!("seed {seed}: {other:?}"),
                }
            }
        }
        approving.abort();
        let stats = sandbox.stats();
        assert_eq!((stats.sessions_made, stats.duplicates_by_operation_id), (10, 0), "seed {seed}: {stats:?}");
    }
}

#[tokio::test]
async fn a_store_in_a_file_holds_nothing_personal_and_no_secret() {
    let path = File::new("canary");
    let store = RedbStore::open(&path.0).await.unwrap();
    let service = IdempotencyLayer::new().store(store).layer(sandbox(14).build().unwrap());
    let made = service.clone().oneshot(creation(Some("canary-person"), "canary-operation")).await.unwrap();
    let made = json(made).await;
    drop(service);
    let file = std::fs::read(&path.0).unwrap();
    let holds = |text: &str| file.windows(text.len()).any(|bytes| bytes == text.as_bytes());
    for secret in ["canary", made["session_token"].as_str().unwrap(), made["session_id"].as_str().unwrap()] {
        // The session's id is there as 16 bytes, and not as text.
        assert!(!holds(secret), "{secret}");
    }
}
