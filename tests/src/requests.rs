//! Requests to the local Didit, and limits for it.

use std::time::Duration;

use bytes::Bytes;
use didit_api::{Limits, Scope};
use didit_sandbox::{DEFAULT_WORKFLOW_ID, Sandbox, SandboxBuilder};
use http::{Method, Request};
use http_body_util::Full;
use serde_json::json;

/// The request body of all tests.
pub type Body = Full<Bytes>;

/// A session creation, recognisable by `vendor_data` if there is one.
pub fn create_session(vendor_data: Option<&str>, operation: &str) -> Request<Body> {
    let body = json!({
        "workflow_id": DEFAULT_WORKFLOW_ID,
        "vendor_data": vendor_data,
        "metadata": { "operation_id": operation },
    });
    let mut request = to(Method::POST, "/v3/session/");
    *request.body_mut() = Full::from(body.to_string());
    request
}

/// A request that reads.
pub fn get(path: &'static str) -> Request<Body> {
    to(Method::GET, path)
}

/// A request without a body.
pub fn to(method: Method, path: &'static str) -> Request<Body> {
    let mut request = Request::new(Full::default());
    *request.method_mut() = method;
    *request.uri_mut() = http::Uri::from_static(path);
    request
}

/// The scopes of Didit, with the write scope as wide as given, over a window as long as given.
///
/// # Errors
///
/// If the limit is zero or the window out of range.
pub fn limits(writes: u32, window: Duration) -> Result<Limits, didit_api::limits::LimitsError> {
    let scope = Scope::methods("generic-write", writes, ["POST", "PATCH", "DELETE"])?;
    Limits::none().with(scope.with_window(window)?)
}

/// A local Didit with a seed and, unless the test sets others, Didit's limits.
pub fn sandbox(seed: u64) -> SandboxBuilder {
    Sandbox::builder().seed(seed).api_key("key")
}
