//! What the layers allocate on a call that succeeds at once, and what the retry layer holds for an upload that is repeated.
//!
//! Counted per thread: the server is on another one, so all that is counted is the client's.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::{
    convert::Infallible,
    future::{Ready, ready},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use allocation_counter::{AllocationInfo, measure};
use bytes::Bytes;
use didit_api::{Limits, Scope};
use http::{
    Request, Response, StatusCode,
    header::{
        ACCEPT, ACCEPT_LANGUAGE, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, USER_AGENT,
    },
};
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tests::{Digest, Upload, Upstream};
use tower::{Layer, Service, ServiceExt};
use tower_didit::{
    DiditLayer, Randomness,
    attempt_timeout::AttemptTimeoutLayer,
    circuit_breaker::CircuitBreakerLayer,
    correlation::CorrelationLayer,
    deadline::DeadlineLayer,
    idempotency::IdempotencyLayer,
    pacing::PacingLayer,
    retry::{ExponentialBackoff, RetryLayer},
};

const MIB: usize = 1024 * 1024;

// ===== How often =====

/// Reads the request's body, which must not make it wait, and answers.
#[derive(Clone)]
struct Reading;

impl<B: http_body::Body + Unpin> Service<Request<B>> for Reading {
    type Response = Response<Empty<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut body = request.into_body();
        while let Poll::Ready(Some(_)) = Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop())) {}
        ready(Ok(Response::new(Empty::new())))
    }
}

/// A request as an application makes it, with six headers.
fn request<B>(body: B) -> Request<B> {
    let mut request = Request::new(body);
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = http::Uri::from_static("https://verification.didit.me/v3/session/");
    for name in [CONTENT_TYPE, ACCEPT, USER_AGENT, ACCEPT_LANGUAGE, CACHE_CONTROL, AUTHORIZATION] {
        request.headers_mut().insert(name, HeaderValue::from_static("value"));
    }
    request
}

/// How many allocations one call takes that succeeds at once.
fn allocations<B, S>(service: &mut S, body: B) -> u64
where
    S: Service<Request<B>, Response = Response<Empty<Bytes>>>,
{
    let request = request(body);
    let mut cx = Context::from_waker(Waker::noop());
    let counted = measure(|| {
        assert!(matches!(service.poll_ready(&mut cx), Poll::Ready(Ok(()))));
        let call = std::pin::pin!(service.call(request));
        assert!(matches!(call.poll(&mut cx), Poll::Ready(Ok(_))));
    });
    counted.count_total
}

/// A service that has been called once: what a thread keeps for all calls is there.
fn warm<S>(mut service: S) -> S
where
    S: Service<Request<Full<Bytes>>, Response = Response<Empty<Bytes>>>,
{
    allocations(&mut service, Full::default());
    service
}

#[test]
fn each_layer_allocates_what_its_headers_take_and_nothing_else() {
    let body = || Full::new(Bytes::from_static(b"{}"));
    let count = |service: &mut dyn FnMut(Full<Bytes>) -> u64| [service(body()), service(body())][1];
    let wide = || Limits::none().with(Scope::endpoints("wide", 1_000, ["session-create"]).unwrap()).unwrap();
    let pacing = || PacingLayer::builder().limits(wide()).build().unwrap();
    let mut correlation = CorrelationLayer::new().layer(Reading);
    let mut idempotency = IdempotencyLayer::new().layer(Reading);
    let mut deadline = DeadlineLayer::default().layer(Reading);
    let mut paced = pacing().layer(Reading);
    let mut peek = CircuitBreakerLayer::didit().peek().layer(Reading);
    let mut breaker = CircuitBreakerLayer::didit().layer(Reading);
    let mut timeout = AttemptTimeoutLayer::didit().layer(Reading);
    let builder = || DiditLayer::builder().api_key("key").limits(wide());
    let mut stack = builder().build().unwrap().layer(Reading);
    let mut once = builder().retry(|retry| retry.max_attempts(1)).build().unwrap().layer(Reading);

    // The identifier, for correlation with the trace in one block, and the two halves of the map of headers, which grows.
    assert_eq!(count(&mut |body| allocations(&mut correlation, body)), 3);
    assert_eq!(count(&mut |body| allocations(&mut idempotency, body)), 3);
    assert_eq!(count(&mut |body| allocations(&mut deadline, body)), 0);
    assert_eq!(count(&mut |body| allocations(&mut paced, body)), 0);
    assert_eq!(count(&mut |body| allocations(&mut peek, body)), 0);
    assert_eq!(count(&mut |body| allocations(&mut breaker, body)), 0);
    assert_eq!(count(&mut |body| allocations(&mut timeout, body)), 0);
    // Two identifiers and the trace in one block, the map's growth, and the future of everything below the deadline.
    assert_eq!(count(&mut |body| allocations(&mut stack, body)), 4);
    assert_eq!(count(&mut |body| allocations(&mut once, body)), 4);
}

#[test]
fn a_future_is_as_large_as_its_layers_need() {
    fn future<S: Service<Request<Full<Bytes>>>>(_: &S) -> usize {
        size_of::<S::Future>() - size_of::<<Reading as Service<Request<Full<Bytes>>>>::Future>()
    }
    // What is copied about in every call: a change that makes one larger should be worth it.
    assert!(future(&CorrelationLayer::new().layer(Reading)) <= 64);
    assert!(future(&IdempotencyLayer::new().layer(Reading)) <= 16);
    assert!(future(&DeadlineLayer::default().layer(Reading)) <= 64);
    assert!(future(&RetryLayer::didit().layer(Reading)) <= 160);
    assert!(future(&PacingLayer::didit().layer(Reading)) <= 384);
    assert!(future(&CircuitBreakerLayer::didit().peek().layer(Reading)) <= 16);
    assert!(future(&CircuitBreakerLayer::didit().layer(Reading)) <= 96);
    assert!(future(&AttemptTimeoutLayer::didit().layer(Reading)) <= 48);
    let stack = DiditLayer::builder().api_key("key").build().unwrap().layer(Reading);
    // Most of it lies in a box.
    assert!(future(&stack) <= 64, "{}", future(&stack));
}

#[test]
fn a_call_with_a_body_in_memory_allocates_nothing_to_keep_it() {
    let body = || Full::new(Bytes::from_static(b"{}"));
    let mut service = warm(RetryLayer::didit().layer(Reading));
    assert_eq!(allocations(&mut Reading, body()), 0);
    assert_eq!(allocations(&mut service, body()), 0);
    assert_eq!(allocations(&mut service, Empty::<Bytes>::new()), 0);
    // Bytes that were never shared before get the counter that sharing needs; they are not copied.
    assert_eq!(allocations(&mut service, Full::new(Bytes::from(vec![0; 1000]))), 1);
}

#[test]
fn a_call_that_will_not_be_repeated_allocates_nothing() {
    let mut service = warm(RetryLayer::builder().max_attempts(1).build().unwrap().layer(Reading));
    assert_eq!(allocations(&mut service, Full::new(Bytes::from_static(b"{}"))), 0);
    assert_eq!(allocations(&mut service, Upload::new(1000)), allocations(&mut Reading, Upload::new(1000)));
}

#[test]
fn a_call_with_a_stream_allocates_two_more_times_and_as_its_list_grows() {
    let own = |frames| {
        let body = || Upload::new(frames * Upload::FRAME).chunked();
        let mut service = warm(RetryLayer::didit().layer(Reading));
        allocations(&mut service, body()) - allocations(&mut Reading, body())
    };
    // The recording, its list, and for each frame the counter that shared bytes get.
    assert_eq!([1, 2, 4].map(own), [2 + 1, 2 + 2, 2 + 4]);
    // 256 frames are 16 MiB: the list doubles six times from 4.
    assert_eq!(own(256), 2 + 256 + 6);
}

// ===== How much =====

/// Sends an upload to a server that refuses the first `refusals` requests after it has read them, with or without the
/// retry layer, and says what came back, what arrived, and what the thread allocated.
fn upload<F>(body: &Upload, refusals: usize, send: F) -> (StatusCode, Vec<Digest>, AllocationInfo)
where
    F: AsyncFnOnce(Request<Upload>) -> Response<hyper::body::Incoming>,
{
    let arrived = Arc::new(Mutex::new(Vec::new()));
    let upstream = Upstream::http({
        let arrived = Arc::clone(&arrived);
        move |number, request| {
            let arrived = Arc::clone(&arrived);
            async move {
                let digest = Digest::of(request.into_body()).await;
                arrived.lock().unwrap().extend(digest);
                let mut response = Response::new(Empty::new().boxed_unsync());
                if number <= refusals {
                    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                    response.headers_mut().insert(RETRY_AFTER, 0.into());
                }
                response
            }
        }
    });
    let upstream = upstream.unwrap();
    let uri = upstream.uri("/v3/id-verification/");
    let request = Request::post(uri).header(CONTENT_TYPE, Upload::CONTENT_TYPE).body(body.clone()).unwrap();
    let mut status = None;
    let counted = measure(|| {
        // One thread, so that the client's tasks are counted too.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        status = Some(runtime.block_on(send(request)).status());
    });
    let arrived = arrived.lock().unwrap().clone();
    (status.unwrap(), arrived, counted)
}

fn client<B>() -> Client<hyper_util::client::legacy::connect::HttpConnector, B>
where
    B: http_body::Body<Data: Send> + Send,
{
    Client::builder(TokioExecutor::new()).build_http()
}

async fn bare(request: Request<Upload>) -> Response<hyper::body::Incoming> {
    client().oneshot(request).await.unwrap()
}

async fn retrying(request: Request<Upload>) -> Response<hyper::body::Incoming> {
    // Real sockets, real time: the default backoff would take seconds.
    let short = ExponentialBackoff::new(Duration::from_millis(1), Duration::from_millis(1)).unwrap();
    let layer = RetryLayer::builder().backoff(short).randomness(Randomness::seeded(1)).build().unwrap();
    layer.layer(client()).oneshot(request).await.unwrap()
}

#[test]
fn an_upload_of_16_mib_refused_twice_is_byte_identical_the_third_time_and_is_kept_once() {
    warm(RetryLayer::didit().layer(Reading));
    for body in [Upload::new(16 * MIB), Upload::new(16 * MIB).chunked()] {
        let (_, _, without) = upload(&body, 0, bare);
        let (status, arrived, with) = upload(&body, 2, retrying);
        assert_eq!((status, arrived), (StatusCode::OK, vec![body.digest(); 3]));
        let extra = with.bytes_max - without.bytes_max;
        let body = u64::try_from(16 * MIB).unwrap();
        println!(
            "peak: {} without, {} with, {:.4} of the body more",
            without.bytes_max,
            with.bytes_max,
            extra as f64 / body as f64
        );
        assert!(extra > body * 9 / 10, "the recording was not there: {extra}");
        assert!(extra < body * 11 / 10, "{extra}");
        assert!(with.bytes_current <= 0, "something is left: {}", with.bytes_current);
    }
}

#[test]
fn an_upload_of_17_mib_goes_out_once() {
    for (body, most) in [(Upload::new(17 * MIB), 1), (Upload::new(17 * MIB).chunked(), 17)] {
        let (_, _, without) = upload(&body, 0, bare);
        let (status, arrived, with) = upload(&body, 2, retrying);
        assert_eq!((status, arrived), (StatusCode::SERVICE_UNAVAILABLE, vec![body.digest()]));
        let extra = with.bytes_max.saturating_sub(without.bytes_max);
        println!("peak: {} without, {} with", without.bytes_max, with.bytes_max);
        // With a length it is known from the start; without, the recording goes as far as the cap.
        assert!(extra < most * u64::try_from(MIB).unwrap(), "{extra}");
    }
}
