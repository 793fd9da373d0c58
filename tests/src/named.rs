//! Calls that belong to an operation, and what is done with them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::{fmt::Debug, path::PathBuf, time::Duration};

use didit_api::SessionStatus;
use didit_sandbox::Sandbox;
use http::{HeaderValue, Request, Response};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::task::yield_now;
use tower_didit::{
    call::CallOptions,
    idempotency::{
        HashSecret, IdempotencyLayer, StoredIdempotencyLayer,
        store::{
            Begun, Claim, Epoch, Key, MemoryStore, RedbStore, Settlement, Store, StoreError, StoreFuture, Timestamp,
        },
    },
};

use uuid::Uuid;

use crate::{Body, create_session};

/// The unit of most times in tests.
pub const SECOND: Duration = Duration::from_secs(1);

/// A layer over a store of its own, in memory.
pub fn stored() -> StoredIdempotencyLayer {
    IdempotencyLayer::new().store(MemoryStore::new())
}

/// The options of a call that belongs to an operation.
///
/// # Panics
///
/// If that is no name for one.
pub fn of(operation: &str) -> CallOptions {
    CallOptions::new().operation_id(operation.parse().unwrap())
}

/// A call with these options, and the key of the local Didit.
pub fn with(mut request: Request<Body>, options: CallOptions) -> Request<Body> {
    request.extensions_mut().insert(options);
    request.headers_mut().insert("x-api-key", HeaderValue::from_static("key"));
    request
}

/// A session creation that belongs to an operation, whose id is in its metadata too.
pub fn creation(vendor_data: Option<&str>, operation: &str) -> Request<Body> {
    with(create_session(vendor_data, operation), of(operation))
}

/// The body of a response.
///
/// # Panics
///
/// If it breaks off or is no JSON.
pub async fn json<B: http_body::Body<Error: Debug>>(response: Response<B>) -> Value {
    serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
}

/// Brings every session that was made to an end, so that no `vendor_data` finds it again.
pub fn approve_all(sandbox: &Sandbox) {
    for entry in sandbox.journal() {
        if let (Some(id), "session-create") = (entry.session_id, entry.route.as_str()) {
            // One that was approved before stays so.
            let _ = sandbox.set_session_status(&id, SessionStatus::Approved);
        }
    }
}

/// Lets everything run that can, without time passing.
pub async fn settle_down() {
    for _ in 0..50 {
        yield_now().await;
    }
}

/// A file that is gone after the test.
#[derive(Debug)]
pub struct File(pub PathBuf);

impl File {
    /// A place for a file of this process with such a name.
    pub fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("tower-didit-{}-{name}.redb", std::process::id())))
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A store in a file whose disk takes no time: a paused clock stands still while a blocking thread works.
#[derive(Clone, Debug)]
pub struct Still(pub RedbStore);

impl Still {
    /// Opens a file.
    ///
    /// # Panics
    ///
    /// If it cannot be opened.
    pub async fn open(file: &File) -> Self {
        Self(RedbStore::open(&file.0).await.unwrap())
    }

    fn wait<T: Send + 'static>(asked: StoreFuture<T>) -> StoreFuture<T> {
        Box::pin(async move {
            let runtime = tokio::runtime::Handle::current();
            tokio::task::spawn_blocking(move || runtime.block_on(asked)).await.unwrap_or(Err(StoreError::Closed))
        })
    }
}

impl Store for Still {
    fn secret(&self) -> &HashSecret {
        self.0.secret()
    }

    fn begin(&self, key: Key, claim: Claim, now: Timestamp) -> StoreFuture<Begun> {
        Self::wait(self.0.begin(key, claim, now))
    }

    fn renew(&self, key: Key, epoch: Epoch, until: Timestamp) -> StoreFuture<bool> {
        Self::wait(self.0.renew(key, epoch, until))
    }

    fn settle(&self, key: Key, epoch: Epoch, settlement: Settlement, now: Timestamp) -> StoreFuture<()> {
        Self::wait(self.0.settle(key, epoch, settlement, now))
    }

    fn holder(&self, id: Uuid) -> StoreFuture<Option<Key>> {
        Self::wait(self.0.holder(id))
    }
}
