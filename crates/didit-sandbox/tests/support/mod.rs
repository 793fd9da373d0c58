//! Talking to a sandbox in a line.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "a helper of tests")]

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use didit_sandbox::{ConnectionLost, DEFAULT_API_KEY, DEFAULT_WORKFLOW_ID, Sandbox};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower::ServiceExt;

/// Where every test's calendar begins: a whole minute.
pub(crate) const EPOCH: u64 = 1_790_000_040;

pub(crate) fn epoch() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(EPOCH)
}

pub(crate) fn sandbox() -> Sandbox {
    Sandbox::builder().seed(1).epoch(epoch()).build().unwrap()
}

/// A response, read whole.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Bytes,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    pub(crate) fn text(&self, field: &str) -> String {
        self.json()[field].as_str().unwrap().to_owned()
    }
}

pub(crate) async fn try_send(sandbox: &Sandbox, request: Request<Full<Bytes>>) -> Result<Reply, ConnectionLost> {
    let response = sandbox.clone().oneshot(request).await?;
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    Ok(Reply { status: parts.status, headers: parts.headers, bytes })
}

pub(crate) async fn send(sandbox: &Sandbox, request: Request<Full<Bytes>>) -> Reply {
    try_send(sandbox, request).await.unwrap()
}

/// A request with the default key.
pub(crate) fn request(method: &str, path: &str, body: &Value) -> Request<Full<Bytes>> {
    let builder = Request::builder().method(method).uri(path).header("x-api-key", DEFAULT_API_KEY);
    let bytes = if body.is_null() { Bytes::new() } else { body.to_string().into() };
    builder.header("content-type", "application/json").body(Full::new(bytes)).unwrap()
}

pub(crate) fn get(path: &str) -> Request<Full<Bytes>> {
    request("GET", path, &Value::Null)
}

pub(crate) fn create(vendor_data: Option<&str>) -> Request<Full<Bytes>> {
    request("POST", "/v3/session/", &json!({ "workflow_id": DEFAULT_WORKFLOW_ID, "vendor_data": vendor_data }))
}

pub(crate) fn without_key(mut request: Request<Full<Bytes>>) -> Request<Full<Bytes>> {
    request.headers_mut().remove("x-api-key");
    request
}

pub(crate) fn with(mut request: Request<Full<Bytes>>, name: &'static str, value: &str) -> Request<Full<Bytes>> {
    request.headers_mut().insert(name, value.parse().unwrap());
    request
}

/// Makes a session and says its id.
pub(crate) async fn made(sandbox: &Sandbox, vendor_data: Option<&str>) -> String {
    send(sandbox, create(vendor_data)).await.text("session_id")
}
