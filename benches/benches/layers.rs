//! The cost of each layer and of the stack on a call that succeeds at once: time and allocations.
//!
//! `cargo bench -p benches`. Compare rows of one run; times of two runs say little on a shared machine.

use std::{sync::OnceLock, time::Duration};

use benches::{Instant, Reading, create_session, create_session_in_pieces};
use bytes::Bytes;
use didit_api::Limits;
use divan::{AllocProfiler, Bencher, counter::ItemsCount};
use http::{Request, Response};
use http_body_util::Empty;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use tokio::runtime::Builder;
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
