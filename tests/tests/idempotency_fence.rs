//! Who leads sends, and nobody else: leases that are renewed, and leaders that come back late; in virtual time.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use didit_sandbox::{
    Sandbox,
    faults::{Fault, Faults, Rule, When},
};
use http::{Method, Request, Response, StatusCode};
use tests::{Body, File, SECOND, Still, approve_all, creation, of, sandbox, settle_down, stored, to, with};
use tokio::time::{Instant, advance, sleep};
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, ServiceExt, service_fn};
use tower_didit::{
    call::{CallOptions, CallReport, Provenance},
    idempotency::{
        HashSecret, IdempotencyLayer, Refused, StoredIdempotencyLayer,
        reconcile::{DiditReconcile, Doubt, Lookup, LookupFuture, Reconcile, Undecided, Verdict},
        store::{Begun, Claim, Epoch, Key, MemoryStore, Settlement, Store, StoreError, StoreFuture, Timestamp},
        stored::Error,
    },
    outcome::{Outcome, classify_fn, of_error, of_response},
};
use uuid::Uuid;

const LEASE: Duration = Duration::from_secs(10);

/// A layer over this store which takes so long to find that nothing was made.
fn over(store: impl Store, absent_after: Duration) -> StoredIdempotencyLayer {
    let reconcile = DiditReconcile::new().absent_after(absent_after).unwrap();
    IdempotencyLayer::new().store(store).lease(LEASE).reconcile(reconcile)
}

/// A local Didit whose first session creation comes to nothing.
fn resets_once(seed: u64) -> Sandbox {
    let fault = Rule::new(Fault::ResetBeforeWork).on_route("session-create").when(When::First(1));
    sandbox(seed).faults(Faults::none().with(fault)).build().unwrap()
}

async fn a_look_up_longer_than_the_lease(store: impl Store + Clone) {
    let sandbox = resets_once(1);
    let patient = over(store.clone(), 60 * SECOND).layer(sandbox.clone());
    let hasty = over(store, SECOND).layer(sandbox.clone());
    let leader = tokio::spawn(patient.oneshot(creation(Some("user-7"), "order-7")));
    sleep(SECOND).await;
    let other = hasty.oneshot(creation(Some("user-7"), "order-7")).await;
    assert_eq!(leader.await.unwrap().unwrap().status(), StatusCode::CREATED);
    assert!(matches!(other, Err(Error::Layer(Refused::AlreadyDone { .. }))), "{other:?}");
    let stats = sandbox.stats();
    // The one that was reset, and the one that followed the look-up.
    assert_eq!((stats.sessions_made, stats.arrivals["session-create"]), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_look_up_outlives_its_lease_stays_the_only_one_to_send() {
    a_look_up_longer_than_the_lease(MemoryStore::new()).await;
}

#[tokio::test(start_paused = true)]
async fn over_a_file_too_a_leader_whose_look_up_outlives_its_lease_is_the_only_one_to_send() {
    let file = File::new("fence-look");
    a_look_up_longer_than_the_lease(Still::open(&file).await).await;
}

/// Leaves a leader alone for longer than its lease, somewhere within its call, and lets another finish the call.
async fn a_leader_that_stands_still(store: impl Store + Clone, absent_after: Duration) {
    let sandbox = resets_once(2);
    let stalled = over(store.clone(), absent_after).layer(sandbox.clone());
    let other = over(store, SECOND).layer(sandbox.clone());
    let mut leader = task::spawn(stalled.oneshot(creation(Some("user-7"), "order-7")));
    while sandbox.stats().arrivals.is_empty() {
        assert_pending!(leader.poll());
        settle_down().await;
    }
    // In the middle of its look-up.
    assert_pending!(leader.poll());
    let response = other.oneshot(creation(Some("user-7"), "order-7")).await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    // So that no `vendor_data` would save it.
    approve_all(&sandbox);
    sleep(absent_after).await;
    let late = leader.await;
    assert!(matches!(late, Err(Error::Layer(Refused::AlreadyDone { session_id: Some(_), .. }))), "{late:?}");
    assert_eq!(of_error(&late.unwrap_err()), Outcome::Ambiguous, "it was sent");
    let stats = sandbox.stats();
    assert_eq!((stats.sessions_made, stats.arrivals["session-create"]), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_stood_still_for_longer_than_its_lease_sends_nothing_more() {
    a_leader_that_stands_still(MemoryStore::new(), 30 * SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn over_a_file_too_a_leader_that_stood_still_sends_nothing_more() {
    let file = File::new("fence-still");
    a_leader_that_stands_still(Still::open(&file).await, 30 * SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_waits_below_is_not_sent_after_the_lease_was_lost() {
    let (sandbox, store) = (sandbox(3).build().unwrap(), MemoryStore::new());
    // Five seconds in some queue, and then on the wire.
    let queued = service_fn({
        let sandbox = sandbox.clone();
        move |request: Request<Body>| {
            let sandbox = sandbox.clone();
            async move {
                sleep(5 * SECOND).await;
                sandbox.oneshot(request).await
            }
        }
    });
    let other = over(store.clone(), SECOND).layer(sandbox.clone());
    let mut leader = task::spawn(over(store, SECOND).layer(queued).oneshot(creation(Some("a"), "order-7")));
    assert_pending!(leader.poll());
    assert_eq!(other.oneshot(creation(Some("a"), "order-7")).await.unwrap().status(), StatusCode::CREATED);
    approve_all(&sandbox);
    let late = leader.await;
    assert!(matches!(late, Err(Error::Layer(Refused::AlreadyDone { .. }))), "{late:?}");
    assert_eq!(sandbox.stats().arrivals["session-create"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_stood_still_and_lost_nothing_goes_on() {
    let sandbox = resets_once(4);
    let service = over(MemoryStore::new(), 30 * SECOND).layer(sandbox.clone());
    let mut leader = task::spawn(service.oneshot(creation(Some("user-7"), "order-7")));
    assert_pending!(leader.poll());
    advance(100 * SECOND).await;
    assert_eq!(leader.await.unwrap().status(), StatusCode::CREATED);
    assert_eq!(sandbox.stats().sessions_made, 1);
}

#[tokio::test(start_paused = true)]
async fn who_lost_the_lead_to_one_that_is_still_at_it_hands_out_what_really_came() {
    let (sandbox, store) = (resets_once(5), MemoryStore::new());
    let options = || of("order-7").deadline(5 * SECOND);
    let request = || with(tests::create_session(Some("user-7"), "order-7"), options());
    // Both made now: a layer reads the date when it is made.
    let [service, other] = [store.clone(), store].map(|store| over(store, 30 * SECOND).layer(sandbox.clone()));
    let mut leader = task::spawn(service.oneshot(request()));
    while sandbox.stats().arrivals.is_empty() {
        assert_pending!(leader.poll());
        settle_down().await;
    }
    assert_pending!(leader.poll());
    advance(2 * LEASE).await;
    let mut other = task::spawn(other.oneshot(request()));
    assert_pending!(other.poll());
    let late = assert_ready!(leader.poll());
    assert!(matches!(late, Err(Error::Inner(_))), "the connection that was reset: {late:?}");
    assert_eq!(other.await.unwrap().status(), StatusCode::CREATED);
    assert_eq!(sandbox.stats().arrivals["session-create"], 2);
}

/// A store that fails to renew so many leases.
#[derive(Debug)]
struct Fails(MemoryStore, AtomicU32);

impl Store for Fails {
    fn secret(&self) -> &HashSecret {
        self.0.secret()
    }

    fn begin(&self, key: Key, claim: Claim, now: Timestamp) -> StoreFuture<Begun> {
        self.0.begin(key, claim, now)
    }

    fn renew(&self, key: Key, epoch: Epoch, until: Timestamp) -> StoreFuture<bool> {
        let fails = self.1.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if fails { Box::pin(async { Err(StoreError::Closed) }) } else { self.0.renew(key, epoch, until) }
    }

    fn settle(&self, key: Key, epoch: Epoch, settlement: Settlement, now: Timestamp) -> StoreFuture<()> {
        self.0.settle(key, epoch, settlement, now)
    }

    fn holder(&self, id: Uuid) -> StoreFuture<Option<Key>> {
        self.0.holder(id)
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_to_renew_is_asked_again_until_the_lease_is_over() {
    for (failures, lost) in [(3, false), (u32::MAX, true)] {
        let sandbox = sandbox(6).latency(30 * SECOND..=30 * SECOND).build().unwrap();
        let store = Fails(MemoryStore::new(), AtomicU32::new(failures));
        let service = over(store, SECOND).layer(sandbox.clone());
        let start = Instant::now();
        let result = service.oneshot(creation(Some("user-7"), "order-7")).await;
        if lost {
            let error = result.unwrap_err();
            assert!(matches!(error.as_layer(), Some(Refused::LeadLost { error: StoreError::Closed })), "{error:?}");
            assert_eq!(of_error(&error), Outcome::Ambiguous, "it was sent");
            assert!(start.elapsed() >= LEASE && start.elapsed() <= LEASE + LEASE / 4, "{:?}", start.elapsed());
        } else {
            assert_eq!(result.unwrap().status(), StatusCode::CREATED);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_never_ready_costs_no_more_than_the_time_of_the_call() {
    let store = MemoryStore::new();
    let full = Arc::new(tokio::sync::Semaphore::new(0));
    let inner = tower::limit::ConcurrencyLimit::with_semaphore(sandbox(7).build().unwrap(), full);
    let service = IdempotencyLayer::new().store(store.clone()).layer(inner);
    // One without a name waits below the same bound.
    for options in [of("order-7"), CallOptions::new()] {
        let start = Instant::now();
        let call = with(tests::create_session(None, "order-7"), options.deadline(5 * SECOND));
        let error = service.clone().oneshot(call).await.unwrap_err();
        assert!(
            matches!(error.as_layer(), Some(Refused::NotReady { waited, .. }) if *waited == 5 * SECOND),
            "{error:?}"
        );
        assert!(matches!(of_error(&error), Outcome::NotSent(_)), "{error:?}");
        assert_eq!(start.elapsed(), 5 * SECOND);
    }
    assert!(store.is_empty(), "nothing was sent");
}

/// Never decides.
#[derive(Debug)]
struct Ponders;

impl Reconcile for Ponders {
    fn reconcile<'a>(&'a self, _: &'a Doubt, _: &'a mut dyn Lookup) -> LookupFuture<'a, Verdict> {
        Box::pin(std::future::pending())
    }

    fn waits(&self) -> Duration {
        7 * SECOND
    }
}

#[tokio::test(start_paused = true)]
async fn a_reconciliation_that_never_ends_decides_nothing_in_time() {
    let sandbox = resets_once(8);
    let service = stored().reconcile(Ponders).layer(sandbox.clone());
    let call = || with(tests::create_session(Some("user-7"), "a"), of("a").deadline(5 * SECOND));
    let start = Instant::now();
    assert!(service.clone().oneshot(call()).await.unwrap_err().as_inner().is_some(), "what really came");
    assert_eq!(start.elapsed(), 12 * SECOND);
    let error = service.oneshot(call()).await.unwrap_err();
    let refused = error.as_layer().unwrap();
    assert!(matches!(refused, Refused::Undecided { why: Undecided::LookupFailed, .. }), "{refused:?}");
    assert_eq!((start.elapsed(), sandbox.stats().arrivals["session-create"]), (24 * SECOND, 1));
}

#[tokio::test(start_paused = true)]
async fn what_is_in_doubt_is_the_classifiers_to_say() {
    let sent = Arc::new(AtomicU32::new(0));
    let inner = service_fn({
        let sent = Arc::clone(&sent);
        move |_: Request<Body>| {
            sent.fetch_add(1, Ordering::SeqCst);
            std::future::ready(Response::builder().status(409).body(Body::from("{}")).map_err(io::Error::other))
        }
    });
    // At this API a 409 says that somebody else is at it.
    let busy = classify_fn(
        |status, headers: &http::HeaderMap| match status {
            StatusCode::CONFLICT => Outcome::Ambiguous,
            _ => of_response(status, headers),
        },
        |error: &io::Error| of_error(error),
    );
    let service = stored().classifier(busy).layer(inner);
    let call = || with(to(Method::POST, "/v3/face-match/"), of("a"));
    assert_eq!(service.clone().oneshot(call()).await.unwrap().status(), StatusCode::CONFLICT);
    let error = service.oneshot(call()).await.unwrap_err();
    let refused = error.as_layer().unwrap();
    assert!(matches!(refused, Refused::Undecided { why: Undecided::NoTrace, .. }), "{refused:?}");
    assert_eq!(sent.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn the_report_says_where_a_response_comes_from() {
    let sandbox = sandbox(9).build().unwrap();
    let service = stored().replay(true).layer(sandbox);
    let first = service.clone().oneshot(creation(None, "order-7")).await.unwrap();
    assert!(first.extensions().get::<CallReport>().is_none(), "nothing to tell");
    let second = service.oneshot(creation(None, "order-7")).await.unwrap();
    let report = second.extensions().get::<CallReport>().unwrap();
    assert_eq!(report.provenance(), Some(Provenance::Replayed));
    assert_eq!(second.extensions().get(), Some(&Provenance::Replayed));
}
