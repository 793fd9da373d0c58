//! Calls that belong to an operation, and what is done with them.

use std::{fmt::Debug, path::PathBuf, time::Duration};

use didit_api::SessionStatus;
use didit_sandbox::Sandbox;
use http::{HeaderValue, Request, Response};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::task::yield_now;
use tower_didit::{
    call::CallOptions,
    idempotency::{IdempotencyLayer, StoredIdempotencyLayer, store::MemoryStore},
};

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
    match operation.parse() {
        Ok(id) => CallOptions::new().operation_id(id),
        Err(error) => panic!("{operation:?}: {error}"),
    }
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
    let body = match response.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => panic!("{error:?}"),
    };
    match serde_json::from_slice(&body) {
        Ok(value) => value,
        Err(error) => panic!("{error}: {body:?}"),
    }
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
