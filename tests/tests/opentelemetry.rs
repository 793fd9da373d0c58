//! The ids on the wire are those that OpenTelemetry exports.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use http::{HeaderMap, HeaderValue, Request, Response};
use opentelemetry::trace::{SpanId, SpanKind, TracerProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, Sampler, SdkTracerProvider, SpanData};
use tests::{Body, get};
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_didit::{DiditLayer, body::ReplayBody, correlation::InboundCorrelationLayer};
use tracing::instrument::WithSubscriber;
use tracing_subscriber::{Registry, layer::SubscriberExt};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// One request through a server that calls Didit, whose first answer is a 503: the headers of both attempts, and the
/// spans that were exported.
async fn journey(traceparent: Option<String>, sampler: Sampler) -> (Vec<HeaderMap>, Vec<SpanData>) {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_sampler(sampler).with_simple_exporter(exporter.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let sent = Arc::new(Mutex::new(Vec::new()));
    let client = tower::service_fn({
        let sent = Arc::clone(&sent);
        move |request: Request<ReplayBody<Body>>| {
            let mut sent = sent.lock().unwrap();
            sent.push(request.headers().clone());
            let status = if sent.len() == 1 { 503 } else { 200 };
            async move { Response::builder().status(status).body(Body::default()).map_err(std::io::Error::other) }
        }
    });
    let didit = DiditLayer::builder().api_key("key").build().unwrap().layer(client);
    let server = ServiceBuilder::new().layer(InboundCorrelationLayer::new()).service_fn(move |_: Request<Body>| {
        let call = didit.clone().oneshot(get("/v3/sessions/"));
        async move { Ok::<_, Infallible>(call.await.unwrap()) }
    });
    let mut request = get("/signup");
    if let Some(parent) = traceparent {
        request.headers_mut().insert("traceparent", HeaderValue::try_from(parent).unwrap());
        request.headers_mut().insert("tracestate", HeaderValue::from_static("vendor=opaque"));
    }
    server.oneshot(request).with_subscriber(Registry::default().with(layer)).await.unwrap();
    provider.force_flush().unwrap();
    let sent = sent.lock().unwrap().clone();
    (sent, exporter.get_finished_spans().unwrap())
}

/// Trace id, parent id and flags of a request.
fn parts(headers: &HeaderMap) -> (String, String, String) {
    let parts: Vec<_> = headers["traceparent"].to_str().unwrap().split('-').map(str::to_owned).collect();
    (parts[1].clone(), parts[2].clone(), parts[3].clone())
}

fn named<'s>(spans: &'s [SpanData], name: &str) -> Vec<&'s SpanData> {
    spans.iter().filter(|span| span.name == name).collect()
}

#[tokio::test(start_paused = true)]
async fn each_attempt_is_sent_under_the_span_that_is_exported_for_it() {
    let (sent, spans) =
        journey(Some(format!("00-{TRACE}-{PARENT}-01")), Sampler::ParentBased(Box::new(Sampler::AlwaysOff))).await;
    let (request, call, attempts) =
        (named(&spans, "request"), named(&spans, "call"), named(&spans, "GET /v3/sessions/"));
    assert_eq!((request.len(), call.len(), attempts.len(), sent.len()), (1, 1, 2, 2), "{spans:#?}");
    assert!(spans.iter().all(|span| span.span_context.trace_id().to_string() == TRACE));
    assert_eq!(request[0].parent_span_id.to_string(), PARENT, "the caller's trace goes on");
    assert_eq!(call[0].parent_span_id, request[0].span_context.span_id());
    for (headers, attempt) in sent.iter().zip(&attempts) {
        let (trace, parent, flags) = parts(headers);
        assert_eq!((trace.as_str(), flags.as_str()), (TRACE, "01"));
        assert_eq!(parent, attempt.span_context.span_id().to_string());
        assert_eq!(attempt.parent_span_id, call[0].span_context.span_id());
        assert_eq!(headers["tracestate"], "vendor=opaque");
    }
    let kinds = [request[0], call[0], attempts[0]].map(|span| span.span_kind.clone());
    assert_eq!(kinds, [SpanKind::Server, SpanKind::Internal, SpanKind::Client]);
}

#[tokio::test(start_paused = true)]
async fn a_trace_that_begins_here_has_the_id_that_is_exported() {
    let (sent, spans) = journey(None, Sampler::AlwaysOn).await;
    let request = named(&spans, "request")[0];
    assert_eq!(request.parent_span_id, SpanId::INVALID);
    for headers in &sent {
        assert_eq!(parts(headers).0, request.span_context.trace_id().to_string());
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_sampler_leaves_out_is_sent_as_not_sampled() {
    let (sent, spans) =
        journey(Some(format!("00-{TRACE}-{PARENT}-00")), Sampler::ParentBased(Box::new(Sampler::AlwaysOn))).await;
    assert!(spans.is_empty());
    for headers in &sent {
        let (trace, parent, flags) = parts(headers);
        assert_eq!((trace.as_str(), flags.as_str()), (TRACE, "00"));
        assert_ne!(parent, PARENT);
    }
}
