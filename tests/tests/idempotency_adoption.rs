//! What a look-up may take for a call's own where one `vendor_data` stands for a person and not for an operation; in
//! virtual time.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::{
    future::ready,
    io,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use didit_sandbox::{
    DEFAULT_WORKFLOW_ID, Sandbox,
    faults::{Fault, Faults, Rule, When},
};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use serde_json::json;
use tests::{Body, File, SECOND, Still, approve_all, creation, json as read, of, sandbox, to, with};
use tokio::time::{sleep, timeout};
use tower::{Layer, ServiceExt, service_fn, util::Oneshot};
use tower_didit::idempotency::{
    HashSecret, IdempotencyLayer, Provenance, Refused, StoredIdempotency,
    reconcile::Undecided,
    store::{Begun, Claim, Epoch, Key, MemoryStore, Settlement, Store, StoreFuture, Timestamp},
};
use uuid::Uuid;

/// A session creation for the one person, with nothing in it that names the operation.
fn unmarked(operation: &str) -> Request<Body> {
    let mut request = with(to(Method::POST, "/v3/session/"), of(operation));
    request.headers_mut().insert("x-operation-id", operation.parse().unwrap());
    let body = json!({ "workflow_id": DEFAULT_WORKFLOW_ID, "vendor_data": "one person" });
    *request.body_mut() = Full::from(Bytes::from(body.to_string()));
    request
}

/// The same with the operation's id in its metadata.
fn marked(operation: &str) -> Request<Body> {
    creation(Some("one person"), operation)
}

struct Case {
    sandbox: Sandbox,
    service: StoredIdempotency<Sandbox>,
}

impl Case {
    /// What goes wrong, with the second session creation.
    fn new(seed: u64, fault: Fault) -> Self {
        Self::over(seed, fault, MemoryStore::new())
    }

    fn over(seed: u64, fault: Fault, store: impl Store) -> Self {
        let fault = Rule::new(fault).on_route("session-create").when(When::Nth(vec![2]));
        let sandbox = sandbox(seed).faults(Faults::none().with(fault)).build().unwrap();
        let service = IdempotencyLayer::new().store(store).layer(sandbox.clone());
        Self { sandbox, service }
    }

    fn call(&self, request: Request<Body>) -> Oneshot<StoredIdempotency<Sandbox>, Request<Body>> {
        self.service.clone().oneshot(request)
    }

    async fn made(&self, request: Request<Body>) -> (String, Option<Provenance>) {
        let response = self.call(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::CREATED);
        let provenance = response.extensions().get().copied();
        (read(response).await["session_id"].as_str().unwrap().to_owned(), provenance)
    }
}

/// Less than the second that `Date` counts in: what was made then may have been made since, for all that can be seen.
const A_MOMENT: Duration = Duration::from_millis(300);

async fn a_finished_session_of_another_is_not_adopted(store: impl Store) {
    let case = Case::over(1, Fault::ResetBeforeWork, store);
    let (first, _) = case.made(unmarked("first")).await;
    approve_all(&case.sandbox);
    sleep(A_MOMENT).await;
    let (second, provenance) = case.made(unmarked("second")).await;
    assert_ne!(second, first);
    assert_eq!((provenance, case.sandbox.stats().sessions_made), (None, 2), "the server's own answer");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_another_operation_made_a_moment_ago_is_not_adopted() {
    a_finished_session_of_another_is_not_adopted(MemoryStore::new()).await;
}

#[tokio::test(start_paused = true)]
async fn over_a_file_too_a_session_that_another_operation_made_a_moment_ago_is_not_adopted() {
    let file = File::new("adoption");
    a_finished_session_of_another_is_not_adopted(Still::open(&file).await).await;
}

#[tokio::test(start_paused = true)]
async fn an_unfinished_session_is_shared_because_the_server_says_so() {
    // The second is answered with the first one's session, and the answer is lost.
    let case = Case::new(3, Fault::WorkThenDrop);
    let (first, _) = case.made(unmarked("first")).await;
    sleep(A_MOMENT).await;
    let (second, provenance) = case.made(unmarked("second")).await;
    assert_eq!((&second, provenance), (&first, None), "not adopted, but answered");
    let stats = case.sandbox.stats();
    assert_eq!((stats.sessions_made, stats.sessions_reused, stats.arrivals["session-create"]), (1, 2, 3));
    // Both are done.
    for operation in ["first", "second"] {
        let again = case.call(unmarked(operation)).await.unwrap_err();
        let Some(Refused::AlreadyDone { session_id: Some(id), .. }) = again.as_layer() else { panic!("{again:?}") };
        assert_eq!(id.to_string(), first);
    }
}

#[tokio::test(start_paused = true)]
async fn its_own_session_is_adopted_though_another_was_made_a_moment_ago() {
    let case = Case::new(4, Fault::WorkThenDrop);
    let (first, _) = case.made(unmarked("first")).await;
    approve_all(&case.sandbox);
    sleep(A_MOMENT).await;
    let (second, provenance) = case.made(unmarked("second")).await;
    assert_ne!(second, first);
    assert_eq!(provenance, Some(Provenance::Adopted));
    assert_eq!((case.sandbox.stats().sessions_made, case.sandbox.effects_of("second")), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn two_sessions_of_nobody_cannot_be_told_apart() {
    let case = Case::new(5, Fault::WorkThenDrop);
    // Somebody who does not use the store.
    let mut stranger = unmarked("stranger");
    stranger.extensions_mut().clear();
    case.sandbox.clone().oneshot(stranger).await.unwrap();
    approve_all(&case.sandbox);
    sleep(A_MOMENT).await;
    let lost = case.call(unmarked("mine")).await.unwrap_err();
    assert!(lost.as_inner().is_some(), "{lost:?}");
    let refused = case.call(unmarked("mine")).await.unwrap_err();
    let several = Undecided::Several { candidates: 2 };
    assert!(matches!(refused.as_layer(), Some(Refused::Undecided { why, .. }) if *why == several), "{refused:?}");
    assert_eq!(case.sandbox.effects_of("mine"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_marker_lets_an_operation_share_what_the_server_gave_it() {
    // The second was answered with the first one's unfinished session, which has its metadata now.
    let case = Case::new(6, Fault::WorkThenDrop);
    let (first, _) = case.made(marked("first")).await;
    sleep(60 * SECOND).await;
    let (second, provenance) = case.made(marked("second")).await;
    assert_eq!((second, provenance), (first, Some(Provenance::Adopted)));
    let stats = case.sandbox.stats();
    assert_eq!((stats.sessions_made, stats.arrivals["session-create"]), (1, 2), "it was not sent again");
}

#[tokio::test(start_paused = true)]
async fn with_a_marker_nothing_is_shared_that_the_server_did_not_share() {
    let case = Case::new(7, Fault::WorkThenDrop);
    let (first, _) = case.made(marked("first")).await;
    approve_all(&case.sandbox);
    sleep(A_MOMENT).await;
    let (second, provenance) = case.made(marked("second")).await;
    assert_ne!(second, first);
    assert_eq!((provenance, case.sandbox.stats().sessions_made), (Some(Provenance::Adopted), 2));
}

/// A store as a process sees it whose clock is ahead by so much.
#[derive(Debug)]
struct Ahead(MemoryStore, Duration);

impl Store for Ahead {
    fn secret(&self) -> &HashSecret {
        self.0.secret()
    }

    fn begin(&self, key: Key, claim: Claim, now: Timestamp) -> StoreFuture<Begun> {
        self.0.begin(key, claim, now.plus(self.1))
    }

    fn renew(&self, key: Key, epoch: Epoch, until: Timestamp) -> StoreFuture<bool> {
        self.0.renew(key, epoch, until.plus(self.1))
    }

    fn settle(&self, key: Key, epoch: Epoch, settlement: Settlement, now: Timestamp) -> StoreFuture<()> {
        self.0.settle(key, epoch, settlement, now.plus(self.1))
    }

    fn holder(&self, id: Uuid) -> StoreFuture<Option<Key>> {
        self.0.holder(id)
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_of_last_week_is_not_adopted_because_clocks_differ() {
    for ahead in [Duration::ZERO, 10 * SECOND] {
        let fault = Rule::new(Fault::ResetBeforeWork).on_route("session-create").when(When::Nth(vec![2]));
        let sandbox = sandbox(8).faults(Faults::none().with(fault)).build().unwrap();
        let store = MemoryStore::new();
        let one = IdempotencyLayer::new().store(Ahead(store.clone(), ahead)).layer(sandbox.clone());
        let other = IdempotencyLayer::new().store(store).layer(sandbox.clone());
        // The store has forgotten it long ago.
        let last_week = read(sandbox.clone().oneshot(unmarked("first")).await.unwrap()).await;
        approve_all(&sandbox);
        sleep(7 * 86_400 * SECOND).await;
        // One process is cancelled in doubt although nothing was made, and the other takes over.
        assert!(timeout(SECOND, one.oneshot(unmarked("renewal"))).await.is_err());
        let response = other.oneshot(unmarked("renewal")).await.unwrap();
        assert_eq!(response.extensions().get::<Provenance>(), None, "ahead by {ahead:?}");
        assert_ne!(read(response).await["session_id"], last_week["session_id"]);
    }
}

const FIRST: &str = r#"{"session_id":"11111111-2222-4333-8444-555555555555","status":"Approved"}"#;

#[tokio::test(start_paused = true)]
async fn a_session_whose_answer_could_not_be_read_is_not_adopted_by_another_operation() {
    for readable in [true, false] {
        let requests = Arc::new(AtomicU32::new(0));
        let client = service_fn(move |request: Request<Body>| {
            let first: &[u8] = if readable { FIRST.as_bytes() } else { b"\x1f\x8b" };
            let response = |status, body: Body| Ok(Response::builder().status(status).body(body).unwrap());
            ready(match (request.method(), requests.fetch_add(1, Ordering::SeqCst)) {
                (&Method::GET, _) => response(200, Body::from(format!(r#"{{"count":1,"results":[{FIRST}]}}"#))),
                (_, 0) => response(201, Body::from(Bytes::from_static(first))),
                // Never arrived.
                (_, 1) => Err(io::Error::from(io::ErrorKind::ConnectionReset)),
                _ => response(201, Body::from("{}")),
            })
        });
        let service = IdempotencyLayer::new().store(MemoryStore::new()).layer(client);
        assert!(service.clone().oneshot(unmarked("first")).await.is_ok());
        let second = service.clone().oneshot(unmarked("second")).await;
        if readable {
            assert_eq!(second.unwrap().extensions().get::<Provenance>(), None, "sent again");
            continue;
        }
        assert!(second.unwrap_err().as_inner().is_some());
        let refused = service.clone().oneshot(unmarked("second")).await.unwrap_err();
        let Some(Refused::Undecided { why: Undecided::Unread, .. }) = refused.as_layer() else { panic!("{refused:?}") };
        // Whoever made it knows that it is done, and no more.
        let again = service.oneshot(unmarked("first")).await.unwrap_err();
        assert!(matches!(again.as_layer(), Some(Refused::AlreadyDone { session_id: None, .. })), "{again:?}");
    }
}
