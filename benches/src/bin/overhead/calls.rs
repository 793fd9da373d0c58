//! The call that every subject makes, and the service below all of them.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
};

use benches::{Body, create_session};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use tower::Service;

/// Answers at once, with the headers of the request: a response has headers to walk over, and they cost nothing to make.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Echo;

impl<B> Service<Request<B>> for Echo {
    type Response = Response<Empty<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut response = Response::new(Empty::new());
        *response.headers_mut() = request.into_parts().0.headers;
        ready(Ok(response))
    }
}

/// So many calls, made beforehand.
pub(crate) fn requests(count: usize) -> Vec<Request<Body>> {
    (0..count).map(|_| create_session()).collect()
}
