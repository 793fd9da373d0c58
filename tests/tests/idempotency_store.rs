//! What a store is left with when a caller goes away; in real time, as a disk is.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::{
    future::poll_fn,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    task::Poll,
    time::Duration,
};

use http::{Method, Request, Response, StatusCode};
use tests::{Body, File, of, to, with};
use tokio_test::task;
use tower::{Layer, ServiceExt, service_fn};
use tower_didit::idempotency::{
    HashSecret, IdempotencyLayer, Refused,
    store::{Begun, Claim, Epoch, Key, MemoryStore, RedbStore, Settlement, Store, StoreFuture, Timestamp},
    stored::Error,
};
use uuid::Uuid;

/// Long enough that nothing here ends by itself.
const CLAIM: Claim = Claim { fingerprint: [0; 32], lease: Duration::from_secs(3_600) };

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(1_000_000_000_000 + millis)
}

fn key(number: usize) -> Key {
    let mut key = [9; 32];
    key[..8].copy_from_slice(&number.to_le_bytes());
    key
}

fn face_match() -> Request<Body> {
    with(to(Method::POST, "/v3/face-match/"), of("a"))
}

#[tokio::test]
async fn a_claim_granted_to_a_caller_who_goes_away_unread_is_free_at_once() {
    let file = File::new("unread");
    let store = RedbStore::open(&file.0).await.unwrap();
    let mut unread = task::spawn(store.begin(key(1), CLAIM, at(0)));
    assert!(unread.poll().is_pending());
    // The store replies in order, so the first one's reply is there too by now.
    store.begin(key(2), CLAIM, at(0)).await.unwrap();
    drop(unread);
    let next = store.begin(key(1), CLAIM, at(1)).await.unwrap();
    assert!(matches!(next, Begun::Lead { .. }), "{next:?}");
}

#[tokio::test]
async fn a_doubtful_claim_granted_to_a_caller_who_goes_away_unread_stays_doubtful() {
    let file = File::new("doubtful");
    let store = RedbStore::open(&file.0).await.unwrap();
    let Begun::Lead { epoch } = store.begin(key(1), CLAIM, at(0)).await.unwrap() else { panic!("taken") };
    store.settle(key(1), epoch, Settlement::Unknown, at(1)).await.unwrap();
    let mut unread = task::spawn(store.begin(key(1), CLAIM, at(2)));
    assert!(unread.poll().is_pending());
    store.begin(key(2), CLAIM, at(2)).await.unwrap();
    drop(unread);
    let next = store.begin(key(1), CLAIM, at(3)).await.unwrap();
    assert!(matches!(next, Begun::Reconcile { since, .. } if since == at(0)), "{next:?}");
}

#[tokio::test]
async fn an_answered_call_is_not_sent_again_though_its_caller_left_while_the_store_was_full() {
    let file = File::new("full");
    let store = RedbStore::open(&file.0).await.unwrap();
    let sent = Arc::new(AtomicU32::new(0));
    let claims: Arc<Mutex<Vec<task::Spawn<StoreFuture<Begun>>>>> = Arc::default();
    let inner = service_fn({
        let (store, sent, claims) = (store.clone(), Arc::clone(&sent), Arc::clone(&claims));
        move |_: Request<Body>| {
            // Other calls' claims take every place, and more wait for one.
            if sent.fetch_add(1, Ordering::SeqCst) == 0 {
                let queued = (0..6 * RedbStore::QUEUE).map(|number| {
                    let mut claim = task::spawn(store.begin(key(number), CLAIM, at(0)));
                    let _ = claim.poll();
                    claim
                });
                claims.lock().unwrap().extend(queued);
            }
            std::future::ready(Ok::<_, io::Error>(Response::builder().status(201).body(Body::from("{}")).unwrap()))
        }
    });
    let service = IdempotencyLayer::new().store(store.clone()).layer(inner);
    let mut call = Box::pin(service.clone().oneshot(face_match()));
    poll_fn(|cx| {
        let answered = call.as_mut().poll(cx).is_ready();
        assert!(!answered, "nothing left to go away from");
        if sent.load(Ordering::SeqCst) == 0 { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    drop(call);
    let claims = std::mem::take(&mut *claims.lock().unwrap());
    drop(claims);
    let again = service.oneshot(face_match()).await;
    assert!(matches!(&again, Err(Error::Layer(Refused::AlreadyDone { status: StatusCode::CREATED, .. }))), "{again:?}");
    assert_eq!(sent.load(Ordering::SeqCst), 1);
}

/// A store that breaks its word: it takes a settlement over only when it is polled for the second time.
#[derive(Debug)]
struct TakesOverLate(MemoryStore);

impl Store for TakesOverLate {
    fn secret(&self) -> &HashSecret {
        self.0.secret()
    }

    fn begin(&self, key: Key, claim: Claim, now: Timestamp) -> StoreFuture<Begun> {
        self.0.begin(key, claim, now)
    }

    fn renew(&self, key: Key, epoch: Epoch, until: Timestamp) -> StoreFuture<bool> {
        self.0.renew(key, epoch, until)
    }

    fn holder(&self, id: Uuid) -> StoreFuture<Option<Key>> {
        self.0.holder(id)
    }

    fn settle(&self, key: Key, epoch: Epoch, settlement: Settlement, now: Timestamp) -> StoreFuture<()> {
        let store = self.0.clone();
        Box::pin(async move {
            tokio::task::yield_now().await;
            store.settle(key, epoch, settlement, now).await
        })
    }
}

#[tokio::test]
async fn a_settlement_that_a_store_is_slow_to_take_is_finished_when_the_caller_has_gone() {
    let inner = service_fn(async |_: Request<Body>| {
        Ok::<_, io::Error>(Response::builder().status(201).body(Body::from("{}")).unwrap())
    });
    let service = IdempotencyLayer::new().store(TakesOverLate(MemoryStore::new())).layer(inner);
    let mut call = task::spawn(service.clone().oneshot(face_match()));
    assert!(call.poll().is_pending(), "the store is slow");
    drop(call);
    let again = service.oneshot(face_match()).await;
    assert!(matches!(&again, Err(Error::Layer(Refused::AlreadyDone { status: StatusCode::CREATED, .. }))), "{again:?}");
}
