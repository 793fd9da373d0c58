//! What the metrics say, value by value, in virtual time.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::{
    collections::BTreeMap,
    io::Write,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use didit_api::{Routes, ServiceGroup};
use didit_sandbox::faults::{Fault, Faults, Rule, When};
use http::{Request, Response, StatusCode};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use tests::{Answer, Body, ReadinessProbe, approve_all, create_session, creation, get, limits, of, sandbox, to};
use tokio::time::Instant;
use tower::{Layer, ServiceExt};
use tower_didit::{
    DiditLayer, Randomness,
    body::ReplayBody,
    call::{CallOptions, RetryOverride},
    correlation::InboundCorrelationLayer,
    idempotency::store::MemoryStore,
    retry::Budget,
    stack::DiditBuilder,
    telemetry::{
        self, TelemetryLayer,
        names::{self, Kind, Metric},
    },
};

const SECOND: Duration = Duration::from_secs(1);

fn stack() -> DiditBuilder {
    DiditLayer::builder().api_key("key").randomness(Randomness::seeded(11))
}

/// A recorder of this thread.
struct Recorded {
    snapshotter: Snapshotter,
    _installed: metrics::LocalRecorderGuard<'static>,
}

impl Recorded {
    fn install() -> Self {
        // Leaked, because a guard borrows it; one for each test.
        let recorder: &'static DebuggingRecorder = Box::leak(Box::default());
        Self { snapshotter: recorder.snapshotter(), _installed: metrics::set_default_local_recorder(recorder) }
    }

    /// All values by name and labels; those of histograms and counters since the last time.
    fn take(&self) -> BTreeMap<String, DebugValue> {
        let snapshot = self.snapshotter.snapshot().into_vec();
        let values = snapshot.into_iter().map(|(key, _, _, value)| {
            let (_, key) = key.into_parts();
            let labels: Vec<_> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
            (format!("{}{{{}}}", key.name(), labels.join(",")), value)
        });
        values.collect()
    }
}

fn counter(values: &BTreeMap<String, DebugValue>, series: &str) -> u64 {
    match values.get(series) {
        Some(DebugValue::Counter(count)) => *count,
        other => panic!("{series} is {other:?} in {:#?}", values.keys()),
    }
}

/// All series of a counter together.
fn total(values: &BTreeMap<String, DebugValue>, name: &str) -> u64 {
    let of_it = values.keys().filter(|series| series.split('{').next() == Some(name));
    of_it.map(|series| counter(values, series)).sum()
}

fn gauge(values: &BTreeMap<String, DebugValue>, series: &str) -> f64 {
    match values.get(series) {
        Some(DebugValue::Gauge(value)) => value.into_inner(),
        other => panic!("{series} is {other:?} in {:#?}", values.keys()),
    }
}

/// What a histogram was told, in nanoseconds.
fn nanos(values: &BTreeMap<String, DebugValue>, series: &str) -> Vec<u128> {
    match values.get(series) {
        Some(DebugValue::Histogram(seconds)) => {
            seconds.iter().map(|seconds| Duration::from_secs_f64(seconds.into_inner()).as_nanos()).collect()
        }
        other => panic!("{series} is {other:?} in {:#?}", values.keys()),
    }
}

const CREATE: &str = "http_request_method=POST,url_template=/v3/session/,service_group=core";
const LIST: &str = "http_request_method=GET,url_template=/v3/sessions/,service_group=core";

#[tokio::test(start_paused = true)]
async fn queue_backoff_and_wire_add_up_to_the_duration_to_the_nanosecond() {
    let recorded = Recorded::install();
    let faults = Faults::none()
        .with(Rule::new(Fault::status(StatusCode::SERVICE_UNAVAILABLE)).when(When::Probability(0.3)))
        .with(Rule::new(Fault::ResetBeforeWork).when(When::Probability(0.1)));
    // Odd latencies, and a quota that makes calls wait.
    let latency = Duration::from_nanos(20_000_001)..=Duration::from_nanos(123_456_789);
    let sandbox = sandbox(3).faults(faults).latency(latency).build().unwrap();
    let quota = limits(10, 7 * SECOND).unwrap();
    let didit = stack().limits(quota).deadline(600 * SECOND).build().unwrap().layer(sandbox);
    let phase = |name: &str| format!("didit_call_phase_duration_seconds{{{CREATE},phase={name}}}");
    let (mut waited, mut backed_off) = (0, 0);
    for number in 0..60 {
        let start = Instant::now();
        let user = format!("user-{number}");
        // Some come to nothing, and took time all the same.
        let _either = didit.clone().oneshot(create_session(Some(&user), &user)).await;
        let values = recorded.take();
        let total = nanos(&values, &format!("didit_call_duration_seconds{{{CREATE}}}"));
        let [queue, backoff, wire] = ["queue", "backoff", "wire"].map(|name| nanos(&values, &phase(name))[0]);
        assert_eq!(total, [start.elapsed().as_nanos()], "call {number}");
        assert_eq!(queue + backoff + wire, total[0], "call {number}");
        let attempts = nanos(&values, &format!("didit_attempt_duration_seconds{{{CREATE}}}"));
        assert_eq!(attempts.iter().sum::<u128>(), wire, "the wire time of a call is that of its attempts");
        waited += u32::from(queue > 0);
        backed_off += u32::from(backoff > 0);
    }
    assert!(waited > 3 && backed_off > 10, "{waited} waited, {backed_off} backed off");
}

#[tokio::test(start_paused = true)]
async fn every_call_and_attempt_is_counted_by_what_came_of_it() {
    let recorded = Recorded::install();
    let probe = ReadinessProbe::new([
        Answer::Status(503, None),
        Answer::Reset,
        Answer::Status(429, Some(1)),
        Answer::After(60 * SECOND),
        Answer::Status(404, None),
    ]);
    let didit = stack().deadline(600 * SECOND).build().unwrap().layer(probe);
    assert_eq!(didit.clone().oneshot(get("/v3/sessions/")).await.unwrap().status(), 404);
    assert_eq!(didit.clone().oneshot(get("/v3/sessions/")).await.unwrap().status(), 200);
    let values = recorded.take();
    for (outcome, class, count) in [
        ("ambiguous", "5xx", 1),
        // The connection that broke, and the answer that did not come in time.
        ("ambiguous", "none", 2),
        ("throttled", "4xx", 1),
        ("answered", "4xx", 1),
        ("answered", "2xx", 1),
    ] {
        let series = format!("didit_attempts_total{{{LIST},outcome={outcome},status_class={class}}}");
        assert_eq!(counter(&values, &series), count, "{series}");
    }
    assert_eq!(counter(&values, &format!("didit_retries_total{{{LIST}}}")), 4);
    for class in ["2xx", "4xx"] {
        let series = format!("didit_calls_total{{{LIST},outcome=answered,status_class={class}}}");
        assert_eq!(counter(&values, &series), 1, "{series}");
    }
    assert_eq!(total(&values, "didit_calls_total"), 2);
}

#[tokio::test(start_paused = true)]
async fn what_a_call_may_come_to_is_at_0_while_the_first_of_its_route_is_under_way() {
    let recorded = Recorded::install();
    let didit = stack().build().unwrap().layer(ReadinessProbe::new([Answer::After(5 * SECOND)]));
    let call = tokio::spawn(didit.oneshot(get("/v3/sessions/")));
    tokio::time::sleep(SECOND).await;
    let values = recorded.take();
    for (outcome, class) in [
        ("answered", "2xx"),
        ("answered", "4xx"),
        ("throttled", "4xx"),
        ("unavailable", "5xx"),
        ("ambiguous", "5xx"),
        ("ambiguous", "none"),
        ("not_sent", "none"),
        ("cancelled", "none"),
    ] {
        for metric in [names::CALLS, names::ATTEMPTS] {
            let series = format!("{}{{{LIST},outcome={outcome},status_class={class}}}", metric.name);
            assert_eq!(counter(&values, &series), 0, "{series}");
        }
    }
    assert_eq!(counter(&values, &format!("didit_calls_total{{{LIST},outcome=held_back,status_class=none}}")), 0);
    assert_eq!(counter(&values, &format!("didit_retries_total{{{LIST}}}")), 0);
    assert_eq!(counter(&values, "didit_correlation_ids_replaced_total{}"), 0);
    assert!(!values.keys().any(|series| series.contains(CREATE)), "nothing of a route that is not called");
    call.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_call_that_its_caller_gave_up_is_counted_with_the_time_it_took() {
    let recorded = Recorded::install();
    let didit = stack().build().unwrap().layer(ReadinessProbe::new([Answer::After(5 * SECOND)]));
    assert!(tokio::time::timeout(2 * SECOND, didit.oneshot(get("/v3/sessions/"))).await.is_err());
    let values = recorded.take();
    let cancelled = "outcome=cancelled,status_class=none";
    assert_eq!(counter(&values, &format!("didit_calls_total{{{LIST},{cancelled}}}")), 1);
    assert_eq!(counter(&values, &format!("didit_attempts_total{{{LIST},{cancelled}}}")), 1);
    let wire = nanos(&values, &format!("didit_call_phase_duration_seconds{{{LIST},phase=wire}}"));
    assert_eq!(wire, nanos(&values, &format!("didit_call_duration_seconds{{{LIST}}}")));
    assert_eq!(wire, [2_000_000_000]);
}

#[tokio::test(start_paused = true)]
async fn what_is_held_back_in_this_process_is_no_attempt() {
    let recorded = Recorded::install();
    let layer = stack().build().unwrap();
    layer.circuit_breaker().handle().force_open(ServiceGroup::Core);
    let probe = ReadinessProbe::new([]);
    let mut request = get("/v3/sessions/");
    request.extensions_mut().insert(CallOptions::new().retry(RetryOverride::Never));
    assert!(layer.layer(probe.clone()).oneshot(request).await.is_err());
    let values = recorded.take();
    assert_eq!(counter(&values, &format!("didit_calls_total{{{LIST},outcome=held_back,status_class=none}}")), 1);
    assert_eq!(total(&values, "didit_attempts_total"), 0);
    assert_eq!(probe.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_state_of_a_circuit_is_one_hot_in_every_state() {
    let recorded = Recorded::install();
    let layer = stack().retry(|retry| retry.max_attempts(1)).build().unwrap();
    let (handle, gauges) = (layer.circuit_breaker().handle(), layer.gauges());
    let state = || {
        gauges.record();
        let values = recorded.take();
        let hot = |state: &str| gauge(&values, &format!("didit_circuit_state{{service_group=core,state={state}}}"));
        let states = ["closed", "half_open", "open", "forced_open", "forced_closed"];
        let hot: Vec<_> = states.into_iter().filter(|state| hot(state) == 1.0).collect();
        let sum: f64 = values
            .iter()
            .filter(|(series, _)| series.starts_with("didit_circuit_state{service_group=core,"))
            .map(|(series, _)| gauge(&values, series))
            .sum();
        assert_eq!((hot.len(), sum), (1, 1.0));
        (hot[0], gauge(&values, "didit_circuit_next_probe_seconds{service_group=core}"))
    };
    assert_eq!(state(), ("closed", 0.0));
    handle.force_open(ServiceGroup::Core);
    assert_eq!(state().0, "forced_open");
    handle.force_closed(ServiceGroup::Core);
    assert_eq!(state().0, "forced_closed");
    handle.reset(ServiceGroup::Core);
    let failing = layer.layer(ReadinessProbe::new([Answer::Reset; 5]));
    for _ in 0..5 {
        let _reset = failing.clone().oneshot(get("/v3/sessions/")).await;
    }
    let (open, wait) = state();
    assert!(open == "open" && wait > 0.0, "{open}, {wait} s");
}

#[tokio::test(start_paused = true)]
async fn the_share_of_failures_is_that_of_the_circuits_window() {
    let recorded = Recorded::install();
    let layer = stack().retry(|retry| retry.max_attempts(1)).build().unwrap();
    let didit = layer.layer(ReadinessProbe::new([Answer::Status(200, None), Answer::Status(500, None)]));
    for share in [0.0, 0.5, 1.0 / 3.0, 0.25] {
        let _either = didit.clone().oneshot(get("/v3/sessions/")).await;
        layer.gauges().record();
        let values = recorded.take();
        assert_eq!(gauge(&values, "didit_circuit_failure_ratio{service_group=core}"), share);
        assert_eq!(gauge(&values, "didit_circuit_failure_ratio{service_group=aml}"), 0.0);
    }
}

#[tokio::test(start_paused = true)]
async fn the_predicted_wait_is_the_wait_of_the_next_call() {
    let recorded = Recorded::install();
    let layer = stack().limits(limits(2, 10 * SECOND).unwrap()).deadline(600 * SECOND).build().unwrap();
    let didit = layer.layer(sandbox(3).build().unwrap());
    let predicted = || {
        layer.gauges().record();
        gauge(&recorded.take(), "didit_quota_predicted_wait_seconds{scope=generic-write}")
    };
    assert_eq!(predicted(), 0.0);
    for user in ["a", "b"] {
        didit.clone().oneshot(create_session(Some(user), user)).await.unwrap();
    }
    tokio::time::sleep(SECOND).await;
    let predicted = predicted();
    didit.clone().oneshot(create_session(Some("c"), "c")).await.unwrap();
    let queue = format!("didit_call_phase_duration_seconds{{{CREATE},phase=queue}}");
    let waited = nanos(&recorded.take(), &queue).into_iter().max().unwrap();
    assert!(predicted > 5.0);
    assert_eq!(waited, Duration::from_secs_f64(predicted).as_nanos());
}

#[tokio::test(start_paused = true)]
async fn answers_that_didit_did_not_give_are_counted_by_where_they_come_from() {
    let recorded = Recorded::install();
    let lost = Rule::new(Fault::WorkThenDrop).when(When::Nth(vec![2]));
    let sandbox = sandbox(6).latency(SECOND..=SECOND).faults(Faults::none().with(lost)).build().unwrap();
    let layer = stack().deadline(600 * SECOND).idempotency_store(MemoryStore::new());
    let layer = layer.idempotency(|stored| stored.replay(true)).build().unwrap();
    let didit = layer.layer(sandbox.clone());
    let make = |operation: &str, options: fn(CallOptions) -> CallOptions| {
        let mut request = creation(Some("user-7"), operation);
        request.extensions_mut().insert(options(of(operation)));
        didit.clone().oneshot(request)
    };
    let (first, second, third) = tokio::join!(make("one", |own| own), make("one", |own| own), make("one", |own| own));
    assert!(first.is_ok() && second.is_ok() && third.is_ok());
    make("one", |own| own).await.unwrap();
    approve_all(&sandbox);
    // Its answer is lost, and it is not repeated but looked for.
    make("two", |own| own.retry(RetryOverride::Never)).await.unwrap();
    let values = recorded.take();
    for (provenance, count) in [("coalesced", 2), ("replayed", 1), ("adopted", 1)] {
        let series = format!("didit_idempotency_answers_total{{provenance={provenance}}}");
        assert_eq!(counter(&values, &series), count, "{provenance}");
    }
}

#[tokio::test(start_paused = true)]
async fn quota_and_budget_are_what_the_handles_say() {
    let recorded = Recorded::install();
    let layer = stack().limits(limits(2, 60 * SECOND).unwrap()).deadline(600 * SECOND).build().unwrap();
    let probe = ReadinessProbe::new([Answer::Reset]);
    let didit = layer.layer(probe);
    let calls: Vec<_> = ["a", "b", "c"]
        .map(|user| tokio::spawn(didit.clone().oneshot(create_session(Some(user), user))))
        .into_iter()
        .collect();
    tokio::time::sleep(SECOND / 10).await;
    layer.gauges().record();
    let values = recorded.take();
    assert_eq!(gauge(&values, "didit_quota_limit{scope=generic-write}"), 2.0);
    assert_eq!(gauge(&values, "didit_quota_used{scope=generic-write}"), 2.0);
    assert!(gauge(&values, "didit_quota_waiting_calls{scope=generic-write}") >= 1.0);
    assert_eq!(gauge(&values, "didit_retry_budget_capacity_tokens{}"), 500.0);
    // An ambiguous failure was dear, and another call succeeded meanwhile.
    let tokens = Budget::DEFAULT_CAPACITY - Budget::DEAR + 1;
    assert_eq!(gauge(&values, "didit_retry_budget_tokens{}"), f64::from(tokens));
    for call in calls {
        call.await.unwrap().unwrap();
    }
}

#[test]
fn gauges_of_two_stacks_are_told_apart_by_their_names() {
    let recorded = Recorded::install();
    let capacity = |name: &'static str, tokens| {
        let layer = stack().retry(|retry| retry.budget(Some(Budget::new(tokens)))).build().unwrap();
        layer.gauges().named(name).record();
    };
    capacity("users", 100);
    capacity("batch", 200);
    let values = recorded.take();
    assert_eq!(gauge(&values, "didit_retry_budget_capacity_tokens{stack=users}"), 100.0);
    assert_eq!(gauge(&values, "didit_retry_budget_capacity_tokens{stack=batch}"), 200.0);
    for stack in ["users", "batch"] {
        gauge(&values, &format!("didit_quota_used{{scope=generic-write,stack={stack}}}"));
        gauge(&values, &format!("didit_circuit_state{{service_group=core,state=open,stack={stack}}}"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_status_beyond_599_has_a_class_of_its_own() {
    let recorded = Recorded::install();
    let didit = stack().build().unwrap().layer(ReadinessProbe::new([Answer::Status(799, None)]));
    didit.oneshot(get("/v3/sessions/")).await.unwrap();
    let values = recorded.take();
    assert_eq!(counter(&values, &format!("didit_calls_total{{{LIST},outcome=answered,status_class=7xx}}")), 1);
}

#[tokio::test(start_paused = true)]
async fn baggage_is_not_sent_without_correlation_either() {
    let telemetry = TelemetryLayer::didit();
    let client = telemetry.attempts().layer(tower::service_fn(|request: Request<Body>| async move {
        Ok::<_, std::io::Error>(Response::new(request.into_parts().0.headers))
    }));
    let mut request = get("/v3/sessions/");
    for (name, value) in [
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("tracestate", "vendor=opaque"),
        ("baggage", "user=ada"),
    ] {
        request.headers_mut().insert(name, http::HeaderValue::from_static(value));
    }
    let sent = telemetry.layer(client).oneshot(request).await.unwrap().into_body();
    assert!(!sent.contains_key("baggage"));
    assert_eq!(sent["tracestate"], "vendor=opaque");
    let parent = sent["traceparent"].to_str().unwrap();
    assert!(
        parent.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && !parent.contains("b7ad6b7169203331"),
        "{parent}"
    );
}

#[tokio::test(start_paused = true)]
async fn no_path_and_no_method_of_a_caller_makes_a_series() {
    let recorded = Recorded::install();
    let didit = stack().build().unwrap().layer(ReadinessProbe::new([]));
    let own = http::Method::from_bytes(b"STEAL").unwrap();
    for path in ["/one", "/two", "/three/11111111-2222-4333-8444-555555555555/"] {
        didit.clone().oneshot(to(http::Method::GET, path)).await.unwrap();
        didit.clone().oneshot(to(own.clone(), path)).await.unwrap();
    }
    let values = recorded.take();
    let unknown = "url_template=unknown,service_group=core,outcome=answered,status_class=2xx";
    assert_eq!(counter(&values, &format!("didit_calls_total{{http_request_method=GET,{unknown}}}")), 3);
    assert_eq!(counter(&values, &format!("didit_calls_total{{http_request_method=_OTHER,{unknown}}}")), 3);
    let templates: Vec<String> = Routes::didit().iter().map(|(_, endpoint)| endpoint.path().to_owned()).collect();
    for (_, rest) in values.keys().filter_map(|series| series.split_once("url_template=")) {
        let template = rest.split(',').next().unwrap();
        assert!(template == "unknown" || templates.iter().any(|known| known == template), "{template}");
    }
}

#[test]
fn every_name_is_described_and_follows_prometheus() {
    for metric in names::METRICS {
        assert!(metric.name.starts_with("didit_"), "{}", metric.name);
        assert_eq!(metric.kind == Kind::Counter, metric.name.ends_with("_total"), "{}", metric.name);
        assert_eq!(metric.unit == metrics::Unit::Seconds, metric.name.ends_with("_seconds"), "{}", metric.name);
        assert!(metric.description.ends_with('.'), "{}", metric.name);
    }
    let recorded = Recorded::install();
    telemetry::describe();
    assert!(recorded.take().is_empty(), "a description is no value");
}

/// What an application installs for Prometheus, on this thread.
struct Scraped {
    handle: PrometheusHandle,
    _installed: metrics::LocalRecorderGuard<'static>,
}

impl Scraped {
    fn install() -> Self {
        let durations = Matcher::Suffix("_duration_seconds".to_owned());
        let builder = PrometheusBuilder::new().set_buckets_for_metric(durations, names::DURATION_BUCKETS);
        let recorder = builder.unwrap().build_recorder();
        let handle = recorder.handle();
        let recorder: &'static _ = Box::leak(Box::new(recorder));
        Self { handle, _installed: metrics::set_default_local_recorder(recorder) }
    }
}

/// What a scrape gives before the first call.
fn first_scrape() -> String {
    let scraped = Scraped::install();
    stack().build().unwrap().gauges().record();
    scraped.handle.render()
}

/// What a scrape gives, after calls of every kind.
async fn scrape() -> String {
    let scraped = Scraped::install();
    let layer = stack()
        .deadline(600 * SECOND)
        .idempotency_store(MemoryStore::new())
        .idempotency(|stored| stored.replay(true))
        .build()
        .unwrap();
    let probe = ReadinessProbe::new([Answer::Status(503, None), Answer::Reset, Answer::Status(404, None)]);
    let server = InboundCorrelationLayer::new().layer(layer.layer(probe));
    server.clone().oneshot(get("/v3/sessions/")).await.unwrap();
    let mut hostile = create_session(Some("user"), "one");
    hostile.headers_mut().insert("x-correlation-id", http::HeaderValue::from_static("<hostile>"));
    server.clone().oneshot(hostile).await.unwrap();
    for _ in 0..2 {
        server.clone().oneshot(creation(Some("user"), "order-7")).await.unwrap();
    }
    layer.gauges().record();
    scraped.handle.render()
}

/// Whether an exposition has a metric, described and with a value.
fn assert_shows(text: &str, metric: &Metric) {
    assert!(text.contains(&format!("# HELP {} {}\n", metric.name, metric.description)), "{} in {text}", metric.name);
    // Histograms are scraped as `_bucket`, `_sum` and `_count`.
    let is_value = |line: &str| line.strip_prefix(metric.name).is_some_and(|rest| rest.starts_with(['{', ' ', '_']));
    assert!(text.lines().any(is_value), "{} in {text}", metric.name);
}

#[test]
fn a_scrape_before_the_first_call_describes_what_it_shows() {
    let text = first_scrape();
    for metric in names::METRICS.iter().filter(|metric| metric.kind == Kind::Gauge) {
        assert_shows(&text, metric);
    }
    assert!(text.contains("\ndidit_correlation_ids_replaced_total 0\n"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_scrape_has_every_metric_with_its_description() {
    let text = scrape().await;
    for metric in names::METRICS {
        assert_shows(&text, metric);
    }
    let line = format!("didit_attempts_total{{{},outcome=\"ambiguous\",status_class=\"5xx\"}} 1\n", prometheus(LIST));
    assert!(text.contains(&line), "{text}");
    assert!(text.contains("\ndidit_correlation_ids_replaced_total 1\n"), "{text}");
    assert!(text.contains("\ndidit_idempotency_answers_total{provenance=\"replayed\"} 1\n"), "{text}");
    assert!(text.contains("didit_call_duration_seconds_bucket"), "{text}");
}

/// Labels as an exporter writes them.
fn prometheus(labels: &str) -> String {
    let labels: Vec<_> = labels.split(',').filter_map(|label| label.split_once('=')).collect();
    labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect::<Vec<_>>().join(",")
}

#[tokio::test(start_paused = true)]
async fn promtool_has_nothing_to_say_about_a_scrape() {
    for text in [first_scrape(), scrape().await] {
        let mut promtool = Command::new("promtool");
        promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let Ok(mut promtool) = promtool.spawn() else {
            println!("promtool is not installed (Debian's package `prometheus` has it): the scrape was not checked");
            return;
        };
        promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let said = promtool.wait_with_output().unwrap();
        let problems = String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
        assert!(said.status.success() && problems.trim().is_empty(), "{problems} in {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_goes_out_carries_a_new_parent_each_time_and_never_baggage() {
    let sent = Arc::new(Mutex::new(Vec::new()));
    let client = tower::service_fn({
        let sent = sent.clone();
        move |request: Request<ReplayBody<Body>>| {
            sent.lock().unwrap().push(request.headers().clone());
            let status = if sent.lock().unwrap().len() < 3 { 503 } else { 200 };
            async move { Response::builder().status(status).body(Body::default()).map_err(std::io::Error::other) }
        }
    });
    let didit = DiditLayer::builder().api_key("key").build().unwrap().layer(client);
    let mut request = get("/v3/sessions/");
    for (name, value) in [
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"),
        ("tracestate", "vendor=opaque"),
        ("baggage", "user=ada"),
    ] {
        request.headers_mut().insert(name, http::HeaderValue::from_static(value));
    }
    didit.clone().oneshot(request).await.unwrap();
    // One without a trace of its own begins one; nobody records it.
    didit.oneshot(get("/v3/sessions/")).await.unwrap();
    let sent = sent.lock().unwrap();
    let parents: Vec<_> = sent.iter().map(|headers| headers["traceparent"].to_str().unwrap().to_owned()).collect();
    assert_eq!(parents.len(), 4);
    for (headers, parent) in sent.iter().zip(&parents).take(3) {
        assert!(parent.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && parent.ends_with("-00"), "{parent}");
        assert_eq!(headers["tracestate"], "vendor=opaque");
    }
    assert!(parents[0] != parents[1] && parents[1] != parents[2] && parents[0] != parents[2]);
    assert!(!parents[3].contains("0af7651916cd43dd8448eb211c80319c") && parents[3].ends_with("-02"), "{parents:?}");
    assert!(
        sent.iter()
            .all(|headers| !headers.contains_key("baggage") && headers.get_all("traceparent").iter().count() == 1)
    );
    assert!(!sent[3].contains_key("tracestate"));
}
