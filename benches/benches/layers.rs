//! The cost of each layer and of the stack on a call that succeeds at once: time and allocations.
//!
//! `cargo bench -p benches`. Compare rows of one run; times of two runs say little on a shared machine.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use benches::{Instant, Reading, create_session, create_session_in_pieces};
use bytes::Bytes;
use didit_api::Limits;
use divan::{AllocProfiler, Bencher, counter::ItemsCount};
use http::{Request, Response};
use http_body_util::Empty;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use tokio::{runtime::Builder, sync::Semaphore, task::JoinSet};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_didit::{
    DiditLayer,
    attempt_timeout::AttemptTimeoutLayer,
    call::CallOptions,
    circuit_breaker::CircuitBreakerLayer,
    correlation::CorrelationLayer,
    deadline::DeadlineLayer,
    idempotency::{IdempotencyLayer, store::MemoryStore},
    pacing::PacingLayer,
    retry::RetryLayer,
    telemetry::TelemetryLayer,
};
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};

#[global_allocator]
static ALLOC: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

/// Limits that never make anybody wait: what is measured is the ledger, not the queue.
fn wide() -> Limits {
    let documented = Limits::didit();
    let widened = documented.scopes().iter().cloned().map(|scope| {
        // A short window keeps the ledger as full as it is under load, and no fuller.
        scope.with_limit(100_000_000).and_then(|scope| scope.with_window(Duration::from_millis(1)))
    });
    widened.flatten().try_fold(Limits::none(), Limits::with).unwrap_or_else(|_| Limits::none())
}

fn pacing() -> PacingLayer {
    let builder = PacingLayer::builder().limits(wide()).epsilon(Duration::ZERO).transit(Duration::ZERO);
    builder.build().unwrap_or_else(|_| PacingLayer::didit())
}

fn measure<S>(bencher: Bencher<'_, '_>, service: S)
where
    S: Service<Request<benches::Body>, Response = Response<Empty<Bytes>>>,
{
    measure_with(bencher, create_session, service);
}

fn measure_with<S, B, RB>(bencher: Bencher<'_, '_>, request: impl FnMut() -> Request<B>, mut service: S)
where
    S: Service<Request<B>, Response = Response<RB>>,
{
    let Ok(runtime) = Builder::new_current_thread().enable_time().build() else { return };
    bencher
        .counter(ItemsCount::new(1_usize))
        .with_inputs(request)
        .bench_local_values(|request| runtime.block_on(async { service.ready().await.ok()?.call(request).await.ok() }));
}

/// Session creations of one operation after the other.
fn named() -> impl FnMut() -> Request<benches::Body> {
    let mut number = 0_u64;
    move || {
        number += 1;
        let mut request = create_session();
        if let Ok(id) = format!("operation-{number}").parse() {
            request.extensions_mut().insert(CallOptions::new().operation_id(id));
        }
        request
    }
}

#[divan::bench]
fn a_bare(bencher: Bencher<'_, '_>) {
    measure(bencher, Instant);
}

#[divan::bench]
fn a_bare_with_a_stream(bencher: Bencher<'_, '_>) {
    measure_with(bencher, create_session_in_pieces, Reading);
}

#[divan::bench]
fn b_correlation(bencher: Bencher<'_, '_>) {
    measure(bencher, CorrelationLayer::new().layer(Instant));
}

/// The peer of correlation: an id into the request, and out again with the response. It opens no span and hands its id
/// to no task; `uuid` draws it from the system, correlation from the thread's generator.
#[divan::bench]
fn b_tower_http_request_id(bencher: Bencher<'_, '_>) {
    let propagated = PropagateRequestIdLayer::x_request_id().layer(Instant);
    measure(bencher, SetRequestIdLayer::x_request_id(MakeRequestUuid).layer(propagated));
}

#[divan::bench]
fn c_idempotency(bencher: Bencher<'_, '_>) {
    measure(bencher, IdempotencyLayer::new().layer(Instant));
}

/// The key is made of an operation id and the call.
#[divan::bench]
fn c_idempotency_named(bencher: Bencher<'_, '_>) {
    measure_with(bencher, named(), IdempotencyLayer::new().layer(Instant));
}

/// Every operation is claimed and settled in a store in memory.
#[divan::bench]
fn c_idempotency_stored(bencher: Bencher<'_, '_>) {
    measure_with(bencher, named(), IdempotencyLayer::new().store(MemoryStore::new()).layer(Instant));
}

#[divan::bench]
fn d_deadline(bencher: Bencher<'_, '_>) {
    measure(bencher, DeadlineLayer::default().layer(Instant));
}

#[divan::bench]
fn e_retry(bencher: Bencher<'_, '_>) {
    measure(bencher, RetryLayer::didit().layer(Instant));
}

#[divan::bench]
fn e_retry_of_a_stream(bencher: Bencher<'_, '_>) {
    measure_with(bencher, create_session_in_pieces, RetryLayer::didit().layer(Reading));
}

#[divan::bench]
fn f_pacing(bencher: Bencher<'_, '_>) {
    measure(bencher, pacing().layer(Instant));
}

/// The second of two credentials: its ledger is found under a lock.
#[divan::bench]
fn f_pacing_of_a_second_key(bencher: Bencher<'_, '_>) {
    let service = pacing().layer(Instant);
    let mut first = create_session();
    first.headers_mut().insert("x-api-key", http::HeaderValue::from_static("fedcba9876543210"));
    let Ok(runtime) = Builder::new_current_thread().enable_time().build() else { return };
    if runtime.block_on(service.clone().oneshot(first)).is_ok() {
        measure(bencher, service);
    }
}

/// What one more permit costs while so many wait: it is given, its call is woken, sent and answered, and another joins the
/// end of the queue. Half of those who wait go out in one window, which is as short as can be.
#[divan::bench(args = [1_000, 10_000, 100_000], sample_count = 20, sample_size = 1)]
fn f_pacing_permits(bencher: Bencher<'_, '_>, waiting: usize) {
    const PERMITS: usize = 10_000;

    let Ok(runtime) = Builder::new_current_thread().enable_time().build() else { return };
    let builder = PacingLayer::builder().epsilon(Duration::ZERO).transit(Duration::ZERO);
    let Some(layer) = writes(waiting / 2).and_then(|limits| builder.limits(limits).build().ok()) else { return };
    let service = layer.layer(Instant);
    let mut calls = JoinSet::new();
    runtime.block_on(async {
        (0..waiting).for_each(|_| drop(calls.spawn(service.clone().oneshot(create_session()))));
        tokio::task::yield_now().await;
    });
    bencher.counter(ItemsCount::new(PERMITS)).bench_local(|| {
        runtime.block_on(async {
            for _ in 0..PERMITS {
                calls.join_next().await;
                calls.spawn(service.clone().oneshot(create_session()));
            }
        });
    });
}

/// The reference: a first-in-first-out semaphore that gets as many permits at a time.
#[divan::bench(args = [1_000, 10_000, 100_000], sample_count = 20, sample_size = 1)]
fn f_semaphore_permits(bencher: Bencher<'_, '_>, waiting: usize) {
    const PERMITS: usize = 10_000;

    let Ok(runtime) = Builder::new_current_thread().enable_time().build() else { return };
    let turns = Arc::new(Semaphore::new(0));
    let call = |turns: Arc<Semaphore>| async move {
        if let Ok(turn) = turns.acquire().await {
            turn.forget();
        }
        Instant.oneshot(create_session()).await
    };
    let mut calls = JoinSet::new();
    runtime.block_on(async {
        (0..waiting).for_each(|_| drop(calls.spawn(call(Arc::clone(&turns)))));
        tokio::task::yield_now().await;
    });
    bencher.counter(ItemsCount::new(PERMITS)).bench_local(|| {
        runtime.block_on(async {
            for place in 0..PERMITS {
                if place % (waiting / 2) == 0 {
                    turns.add_permits(waiting / 2);
                }
                calls.join_next().await;
                calls.spawn(call(Arc::clone(&turns)));
            }
        });
    });
}

/// What it costs to refuse a call that comes too late, with so many in the queue.
#[divan::bench(args = [1_000, 100_000])]
fn f_pacing_refusals(bencher: Bencher<'_, '_>, waiting: usize) {
    let Ok(runtime) = Builder::new_current_thread().enable_time().build() else { return };
    let layer = PacingLayer::didit();
    let service = layer.layer(Instant);
    let mut calls = JoinSet::new();
    runtime.block_on(async {
        (0..waiting).for_each(|_| drop(calls.spawn(service.clone().oneshot(create_session()))));
        tokio::task::yield_now().await;
    });
    let late = DeadlineLayer::new(Duration::from_secs(30)).layer(service);
    let refuse = |request: Request<benches::Body>| runtime.block_on(late.clone().oneshot(request)).is_err();
    bencher.counter(ItemsCount::new(1_usize)).with_inputs(create_session).bench_local_values(refuse);
}

/// One scope of so many writes a millisecond.
fn writes(limit: usize) -> Option<Limits> {
    let limit = u32::try_from(limit).ok()?;
    let scope = didit_api::Scope::methods("generic-write", limit, ["POST"]).ok()?;
    Limits::none().with(scope.with_window(Duration::from_millis(1)).ok()?).ok()
}

#[divan::bench]
fn g_circuit_breaker(bencher: Bencher<'_, '_>) {
    measure(bencher, CircuitBreakerLayer::didit().layer(Instant));
}

#[divan::bench]
fn h_attempt_timeout(bencher: Bencher<'_, '_>) {
    measure(bencher, AttemptTimeoutLayer::didit().layer(Instant));
}

fn stack() -> Option<DiditLayer> {
    let built = DiditLayer::builder()
        .api_key("0123456789abcdef")
        .pacing(|pacing| pacing.limits(wide()).epsilon(Duration::ZERO).transit(Duration::ZERO))
        .build();
    built.ok()
}

/// Nobody listens: no subscriber, no recorder.
#[divan::bench]
fn i_stack(bencher: Bencher<'_, '_>) {
    if let Some(layer) = stack() {
        measure(bencher, layer.layer(Instant));
    }
}

/// The same layers without those of telemetry.
#[divan::bench]
fn i_stack_by_hand(bencher: Bencher<'_, '_>) {
    let breaker = CircuitBreakerLayer::didit();
    let layers = ServiceBuilder::new()
        .layer(CorrelationLayer::new().attempts_traced(true))
        .layer(IdempotencyLayer::new())
        .layer(DeadlineLayer::default())
        .layer(RetryLayer::didit())
        .layer(breaker.peek())
        .layer(pacing())
        .layer(breaker)
        .layer(AttemptTimeoutLayer::didit());
    measure(bencher, layers.service(Instant));
}

/// The same with those of telemetry, and nobody listens.
#[divan::bench]
fn i_stack_by_hand_with_telemetry(bencher: Bencher<'_, '_>) {
    let (breaker, telemetry) = (CircuitBreakerLayer::didit(), TelemetryLayer::didit());
    let layers = ServiceBuilder::new()
        .layer(CorrelationLayer::new().attempts_traced(true))
        .layer(telemetry.clone())
        .layer(IdempotencyLayer::new())
        .layer(DeadlineLayer::default())
        .layer(RetryLayer::didit())
        .layer(breaker.peek())
        .layer(pacing())
        .layer(breaker)
        .layer(telemetry.attempts())
        .layer(AttemptTimeoutLayer::didit());
    measure(bencher, layers.service(Instant));
}

/// Both layers of telemetry alone: `traceparent`, and nobody listens.
#[divan::bench]
fn j_telemetry(bencher: Bencher<'_, '_>) {
    let telemetry = TelemetryLayer::didit();
    measure(bencher, telemetry.layer(telemetry.attempts().layer(Instant)));
}

/// A header made at the same place: what `traceparent` is measured beside.
#[divan::bench]
fn j_set_header(bencher: Bencher<'_, '_>) {
    let header = |mut request: Request<benches::Body>| {
        let value = Bytes::from_owner(*b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        if let Ok(value) = http::HeaderValue::from_maybe_shared(value) {
            request.headers_mut().insert(http::HeaderName::from_static("traceparent"), value);
        }
        request
    };
    measure(bencher, ServiceBuilder::new().map_request(header).service(Instant));
}

/// Both layers of telemetry alone, counting for Prometheus.
#[divan::bench]
fn j_telemetry_prometheus(bencher: Bencher<'_, '_>) {
    let telemetry = TelemetryLayer::didit();
    let _recorder = metrics::set_default_local_recorder(prometheus());
    measure(bencher, telemetry.layer(telemetry.attempts().layer(Instant)));
}

/// A recorder of the process, as an application installs one; made once, because the guard borrows it.
fn prometheus() -> &'static PrometheusRecorder {
    static RECORDER: OnceLock<PrometheusRecorder> = OnceLock::new();
    RECORDER.get_or_init(|| PrometheusBuilder::new().build_recorder())
}

#[divan::bench]
fn k_stack_prometheus(bencher: Bencher<'_, '_>) {
    if let Some(layer) = stack() {
        let _recorder = metrics::set_default_local_recorder(prometheus());
        measure(bencher, layer.layer(Instant));
    }
}

// NOTE: rows with a subscriber come last, because what was enabled once stays so in the caches of the rows above.

#[divan::bench]
fn y_stack_registry(bencher: Bencher<'_, '_>) {
    if let Some(layer) = stack() {
        tracing::subscriber::with_default(tracing_subscriber::registry(), || measure(bencher, layer.layer(Instant)));
    }
}

/// JSON lines, as the examples write them, into nothing.
#[divan::bench]
fn z_stack_json(bencher: Bencher<'_, '_>) {
    let lines = tracing_subscriber::fmt().json().flatten_event(true).with_current_span(false);
    let subscriber = lines.with_writer(std::io::sink).finish();
    if let Some(layer) = stack() {
        tracing::subscriber::with_default(subscriber, || measure(bencher, layer.layer(Instant)));
    }
}
