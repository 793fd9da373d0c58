//! What a closed circuit costs, on one thread and on two that share it, beside the breakers that others publish.
//!
//! `cargo bench -p benches --bench breaker`. Each row does the same call; compare rows of one run.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll},
    time::Duration,
};

use benches::Instant;
use bytes::Bytes;
use divan::{AllocProfiler, Bencher, black_box};
use failsafe::{CircuitBreaker as _, backoff, failure_policy};
use futures_executor::block_on;
use http::{Request, Response};
use http_body_util::Empty;
use tower::{Layer, Service, ServiceExt};
use tower_didit::circuit_breaker::CircuitBreakerLayer;

#[global_allocator]
static ALLOC: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

fn request() -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = http::Uri::from_static("/v3/session/");
    request
}

fn measure<S>(bencher: Bencher<'_, '_>, service: S)
where
    S: Service<Request<()>, Response = Response<Empty<Bytes>>> + Clone + Send + Sync,
{
    bencher.with_inputs(|| (service.clone(), request())).bench_values(|(mut service, request)| {
        block_on(async { service.ready().await.ok()?.call(request).await.ok() })
    });
}

/// What every call pays anyway: the inner service.
#[divan::bench(threads = [1, 2], sample_size = 100)]
fn a_bare(bencher: Bencher<'_, '_>) {
    measure(bencher, Instant);
}

/// The least that a time-aware breaker can do: a look at the clock and an atomic addition.
#[divan::bench(threads = [1, 2], sample_size = 100)]
fn b_clock_and_addition(bencher: Bencher<'_, '_>) {
    #[derive(Clone)]
    struct Counting(std::sync::Arc<AtomicU64>);

    impl Service<Request<()>> for Counting {
        type Response = Response<Empty<Bytes>>;
        type Error = Infallible;
        type Future = Ready<Result<Response<Empty<Bytes>>, Infallible>>;

        fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<()>) -> Self::Future {
            black_box(tokio::time::Instant::now());
            self.0.fetch_add(1, Ordering::Relaxed);
            drop(request);
            ready(Ok(Response::new(Empty::new())))
        }
    }

    measure(bencher, Counting(std::sync::Arc::default()));
}

#[divan::bench(threads = [1, 2], sample_size = 100)]
fn c_ours(bencher: Bencher<'_, '_>) {
    measure(bencher, CircuitBreakerLayer::didit().layer(Instant));
}

/// Consecutive failures alone: it keeps no window.
#[divan::bench(threads = [1, 2], sample_size = 100)]
fn d_failsafe_consecutive(bencher: Bencher<'_, '_>) {
    let waits = backoff::exponential(Duration::from_secs(10), Duration::from_secs(30));
    let breaker = failsafe::Config::new().failure_policy(failure_policy::consecutive_failures(5, waits)).build();
    bencher.with_inputs(request).bench_values(|request| breaker.call(|| block_on(Instant.oneshot(request))).ok());
}

/// Consecutive failures or the success rate of the last seconds, as failsafe's own default does.
#[divan::bench(threads = [1, 2], sample_size = 100)]
fn e_failsafe_default(bencher: Bencher<'_, '_>) {
    let breaker = failsafe::Config::new().build();
    bencher.with_inputs(request).bench_values(|request| breaker.call(|| block_on(Instant.oneshot(request))).ok());
}

#[divan::bench(threads = [1, 2], sample_size = 100)]
fn f_tower_resilience(bencher: Bencher<'_, '_>) {
    let built = tower_resilience_circuitbreaker::CircuitBreakerLayer::builder()
        .failure_rate_threshold(0.5)
        .sliding_window_size(100)
        .build();
    if let Ok(layer) = built {
        measure(bencher, layer.layer(Instant));
    }
}

/// A refusal: the circuit is open, and nothing else happens.
#[divan::bench(threads = [1, 2], sample_size = 100)]
fn g_ours_refusing(bencher: Bencher<'_, '_>) {
    let layer = CircuitBreakerLayer::didit();
    layer.handle().force_open(didit_api::ServiceGroup::Core);
    measure(bencher, layer.layer(Instant));
}
