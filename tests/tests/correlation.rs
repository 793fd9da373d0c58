//! One id from the incoming request to every attempt, in headers, spans and events.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::{
    fmt::Write,
    sync::{Arc, Mutex},
};

use http::{Request, Response};
use tests::{Answer, Body, ReadinessProbe, get};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_didit::{
    DiditLayer,
    call::CallOptions,
    correlation::{self, CorrelationId, CorrelationLayer, InboundCorrelationLayer},
};
use tracing::{
    field::{Field, Visit},
    instrument::WithSubscriber,
    span,
};
use tracing_subscriber::{Registry, layer::SubscriberExt, registry::LookupSpan};

/// What was logged: each event with the fields of all spans around it.
#[derive(Clone, Default)]
struct Journal(Arc<Mutex<Vec<String>>>);

/// The fields of a span or an event, as text.
#[derive(Default)]
struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = write!(self.0, "{}={value:?} ", field.name());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let _ = write!(self.0, "{}={value} ", field.name());
    }
}

impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> tracing_subscriber::Layer<S> for Journal {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: LayerContext<'_, S>) {
        let mut fields = Fields(format!("{}: ", attributes.metadata().name()));
        attributes.record(&mut fields);
        context.span(id).unwrap().extensions_mut().insert(fields);
    }

    fn on_event(&self, event: &tracing::Event<'_>, context: LayerContext<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        for span in context.event_scope(event).into_iter().flatten() {
            fields.0.push_str(&span.extensions().get::<Fields>().unwrap().0);
        }
        self.0.lock().unwrap().push(fields.0);
    }
}

type LayerContext<'a, S> = tracing_subscriber::layer::Context<'a, S>;

impl Journal {
    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

#[tokio::test(start_paused = true)]
async fn one_id_stands_in_every_line_of_a_journey_and_no_secret_in_any() {
    let journal = Journal::default();
    let didit = DiditLayer::builder().api_key("canary-key").build().unwrap();
    let client = didit.layer(ReadinessProbe::new([Answer::Status(503, None), Answer::Reset]));
    let server = ServiceBuilder::new().layer(InboundCorrelationLayer::new()).service_fn(move |_: Request<Body>| {
        let client = client.clone();
        async move { client.oneshot(get("/v3/sessions/?search=canary-query")).await }
    });
    let mut request = get("/signup");
    request.headers_mut().insert(correlation::HEADER, "journey-7".parse().unwrap());
    let response = server.oneshot(request).with_subscriber(Registry::default().with(journal.clone())).await.unwrap();
    assert_eq!(response.headers()[correlation::HEADER], "journey-7");
    let lines = journal.lines();
    let attempts: Vec<_> = lines.iter().filter(|line| line.contains("attempt failed, repeating")).collect();
    assert_eq!(attempts.len(), 2, "{lines:#?}");
    for line in attempts {
        assert!(line.contains("call: ") && line.contains("request: "), "both spans: {line}");
        assert!(line.matches("correlation_id=journey-7").count() >= 2, "{line}");
        assert!(line.contains("http.request.method=GET") && line.contains("url.template=/v3/sessions/"), "{line}");
    }
    assert!(lines.iter().all(|line| !line.contains("canary")), "{lines:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_hostile_incoming_id_is_replaced_and_that_is_logged() {
    let tenfold = "x".repeat(10_240);
    for hostile in ["a b", "\"quoted\"", "<script>", "\u{fffd}", tenfold.as_str(), ""] {
        let journal = Journal::default();
        let server = InboundCorrelationLayer::new().layer(service_fn(|request: Request<Body>| async move {
            let seen = request.headers().get(correlation::HEADER).cloned();
            Ok::<_, std::convert::Infallible>(Response::new((seen, correlation::current())))
        }));
        let mut request = get("/");
        let value = http::HeaderValue::from_bytes(hostile.as_bytes()).unwrap();
        request.headers_mut().insert(correlation::HEADER, value);
        let response =
            server.oneshot(request).with_subscriber(Registry::default().with(journal.clone())).await.unwrap();
        let (parts, (seen, current)) = response.into_parts();
        let id: CorrelationId = parts.headers[correlation::HEADER].clone().try_into().unwrap();
        assert_ne!(id.as_str(), hostile);
        assert_eq!((seen.as_ref(), current.as_ref()), (Some(&id.to_header()), Some(&id)));
        let lines = journal.lines();
        assert!(lines.len() == 1 && lines[0].contains("was replaced"), "{lines:?}");
        assert!(hostile.is_empty() || !lines[0].contains(hostile), "the log repeats it");
    }
}

#[tokio::test]
async fn a_spawned_task_takes_the_id_along_only_if_told_to() {
    let id: CorrelationId = "journey-8".parse().unwrap();
    let (with, without) = correlation::scope(id.clone(), async move {
        let without = tokio::spawn(async { correlation::current() }).await.unwrap();
        let with = tokio::spawn(correlation::scope(id, async { correlation::current() })).await.unwrap();
        (with, without)
    })
    .await;
    assert_eq!(with.map(|id| id.to_string()).as_deref(), Some("journey-8"));
    assert_eq!(without, None);
}

#[tokio::test]
async fn an_outgoing_call_takes_the_first_valid_id_there_is() {
    let sent = |request: Request<Body>| async {
        let client = CorrelationLayer::new().layer(service_fn(|request: Request<Body>| async move {
            let id = request.headers()[correlation::HEADER].to_str().unwrap().to_owned();
            Ok::<_, std::convert::Infallible>(Response::new(id))
        }));
        correlation::scope("served".parse().unwrap(), client.oneshot(request)).await.unwrap().into_body()
    };
    let with_header = |value: &'static str| {
        let mut request = get("/v3/sessions/");
        request.headers_mut().insert(correlation::HEADER, http::HeaderValue::from_static(value));
        request
    };
    let mut with_both = with_header("header");
    with_both.extensions_mut().insert(CallOptions::new().correlation_id("options".parse().unwrap()));
    assert_eq!(sent(with_both).await, "options");
    assert_eq!(sent(with_header("header")).await, "header");
    assert_eq!(sent(with_header("<hostile>")).await, "served", "an id that could forge a log line is not sent on");
    assert_eq!(sent(get("/v3/sessions/")).await, "served");
}
