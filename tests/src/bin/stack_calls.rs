//! Makes session creations through the assembled stack to a service that answers at once; meant to be watched by valgrind.
//!
//! `stack_calls <count>` ends with 0 if all of them were answered.

use std::{
    convert::Infallible,
    pin::pin,
    process::ExitCode,
    task::{Context, Poll, Waker},
    time::Duration,
};

use http::{Method, Request, Response};
use http_body_util::Empty;
use tests::{Body, limits, to};
use tower::{Layer, Service};
use tower_didit::{DiditLayer, body::ReplayBody};

fn main() -> ExitCode {
    let count = std::env::args().nth(1).and_then(|count| count.parse::<usize>().ok());
    match count.and_then(make_calls) {
        Some(()) => ExitCode::SUCCESS,
        None => ExitCode::FAILURE,
    }
}

fn make_calls(count: usize) -> Option<()> {
    let answer = tower::service_fn(|_: Request<ReplayBody<Body>>| {
        std::future::ready(Ok::<_, Infallible>(Response::new(Empty::<bytes::Bytes>::new())))
    });
    let builder = DiditLayer::builder().api_key("key").limits(limits(u32::MAX, Duration::from_secs(1)).ok()?);
    let mut stack = builder.build().ok()?.layer(answer);
    let mut cx = Context::from_waker(Waker::noop());
    (0..count).try_for_each(|_| {
        let Poll::Ready(Ok(())) = stack.poll_ready(&mut cx) else { return None };
        let call = pin!(stack.call(to(Method::POST, "/v3/session/")));
        matches!(call.poll(&mut cx), Poll::Ready(Ok(_))).then_some(())
    })
}
