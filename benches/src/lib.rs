//! The call that all benchmarks make, the service that answers it at once, and simulated worlds ([`outcomes`]).

pub mod outcomes;

pub mod relay;

use std::{
    convert::Infallible,
    future::{Ready, ready},
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body::Frame;
use http_body_util::{Empty, Full};
use tower::Service;

/// The request body of all benchmarks.
pub type Body = Full<Bytes>;

/// Answers at once, without headers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Instant;

impl<B> Service<Request<B>> for Instant {
    type Response = Response<Empty<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        drop(request);
        ready(Ok(Response::new(Empty::new())))
    }
}

/// Reads the request's body, which must not make it wait, and answers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading;

impl<B: http_body::Body + Unpin> Service<Request<B>> for Reading {
    type Response = Response<Empty<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut body = request.into_body();
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(Ok(_))) = Pin::new(&mut body).poll_frame(&mut cx) {}
        ready(Ok(Response::new(Empty::new())))
    }
}

/// A body that comes in pieces of 100 bytes, without a length.
#[derive(Clone, Debug)]
pub struct Pieces(Bytes);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.0.len().min(100);
        let piece = (piece > 0).then(|| Frame::data(self.0.split_to(piece)));
        Poll::Ready(piece.map(Ok))
    }
}

const CREATION: &str = concat!(
    r#"{"workflow_id":"99999999-2222-4333-8444-555555555555","vendor_data":"user-7","callback":"#,
    r#""https://shop.example/back","metadata":{"order":"0123456789","channel":"web","note":"#,
    r#""lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut labore et"}}"#,
);

/// Session creation, its body in three pieces.
#[must_use]
pub fn create_session_in_pieces() -> Request<Pieces> {
    create_session().map(|_| Pieces(Bytes::from_static(CREATION.as_bytes())))
}

/// Session creation: six headers and a body of 300 bytes.
#[must_use]
pub fn create_session() -> Request<Body> {
    let mut request = Request::new(Full::new(Bytes::from_static(CREATION.as_bytes())));
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
