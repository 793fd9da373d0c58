//! Lets calls wait for their turns in virtual time, a hundred a second; meant to be watched by valgrind.
//!
//! `queued_calls <count>` ends with 0 if all of them were answered, in the order in which they came.

use std::{cell::Cell, convert::Infallible, future::ready, process::ExitCode, rc::Rc, time::Duration};

use http::{Method, Request, Response};
use tests::{Body, limits, to};
use tokio::task::{JoinSet, LocalSet};
use tower::{Layer, ServiceExt, service_fn};
use tower_didit::pacing::PacingLayer;

/// How many calls may start in a second.
const RATE: u32 = 100;

fn main() -> ExitCode {
    let count = std::env::args().nth(1).and_then(|count| count.parse().ok());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    match count.zip(runtime.ok()).and_then(|(count, runtime)| LocalSet::new().block_on(&runtime, make_calls(count))) {
        Some(()) => ExitCode::SUCCESS,
        None => ExitCode::FAILURE,
    }
}

async fn make_calls(count: usize) -> Option<()> {
    let layer = PacingLayer::builder().limits(limits(RATE, Duration::from_secs(1)).ok()?).build().ok()?;
    let service = layer.layer(service_fn(|_: Request<Body>| ready(Ok::<_, Infallible>(Response::new(())))));
    let answered = Rc::new(Cell::new(0));
    let mut calls = JoinSet::new();
    for number in 0..count {
        let (call, answered) = (service.clone().oneshot(to(Method::POST, "/v3/session/")), Rc::clone(&answered));
        calls.spawn_local(async move { call.await.is_ok() && answered.replace(number + 1) == number });
    }
    let mut in_order = true;
    while let Some(call) = calls.join_next().await {
        in_order &= call.ok()?;
    }
    in_order.then_some(())
}
