//! The call that all benchmarks make, and the service that answers it at once.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::Full;
use tower::Service;

/// The request body of all benchmarks.
pub type Body = Full<Bytes>;

/// Answers at once, with six headers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Instant;

impl<B> Service<Request<B>> for Instant {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Ready<Result<Response<()>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        drop(request);
        ready(Ok(Response::new(())))
    }
}

/// Session creation: six headers and a body of 300 bytes.
#[must_use]
pub fn create_session() -> Request<Body> {
    const FILLER: &str = concat!(
        r#"{"workflow_id":"99999999-2222-4333-8444-555555555555","vendor_data":"user-7","callback":"#,
        r#""https://shop.example/back","metadata":{"order":"0123456789","channel":"web","note":"#,
        r#""lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut labore et"}}"#,
    );
    let mut request = Request::new(Full::new(Bytes::from_static(FILLER.as_bytes())));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = http::Uri::from_static("https://verification.didit.me/v3/session/");
    let headers = request.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "application/json"),
        (header::ACCEPT, "application/json"),
        (header::USER_AGENT, "shop/1.0"),
        (header::ACCEPT_LANGUAGE, "en"),
        (header::CACHE_CONTROL, "no-cache"),
        (header::HeaderName::from_static("x-api-key"), "0123456789abcdef"),
    ] {
        headers.insert(name, header::HeaderValue::from_static(value));
    }
    request
}
