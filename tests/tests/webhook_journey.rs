//! One id from the incoming request to the webhook that comes an hour later.
//!
//! Alone in its program: whether a span is enabled is remembered for all threads, and another test on a thread without a
//! subscriber could be the one that is asked.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::{convert::Infallible, time::Duration};

use didit_api::{Limits, SessionStatus, webhook::Secrets};
use didit_sandbox::{Destination, Fault, Faults, Rule, When};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use tests::{Body, JsonLog, create_session, get, sandbox};
use tokio::time::{Instant, sleep};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_didit::{
    DiditLayer,
    correlation::{self, InboundCorrelationLayer},
    webhook::{Delivery, Failure, Receiver, Worker, inbox::MemoryInbox, journey::JourneyLayer},
};
use tracing::Level;

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test(start_paused = true)]
async fn one_id_stands_in_every_line_from_the_request_to_the_webhook_an_hour_later() {
    let log = JsonLog::default();
    let _logging = tracing::subscriber::set_default(log.subscriber(Level::DEBUG));
    let inbox = MemoryInbox::new();
    let twice =
        Rule::new(Fault::status(StatusCode::SERVICE_UNAVAILABLE)).on_route("session-create").when(When::First(2));
    let secrets = Secrets::new(["not-a-real-secret"]).unwrap();
    let receiver = Receiver::builder(secrets, inbox.clone()).build().unwrap();
    let sandbox = sandbox(7)
        .limits(Limits::none())
        .webhook(Destination::service(receiver, "not-a-real-secret"))
        .faults(Faults::none().with(twice))
        .finish_sessions(HOUR, SessionStatus::Approved)
        .build()
        .unwrap();
    let stack = DiditLayer::builder().api_key("key").build().unwrap();
    let client = ServiceBuilder::new().layer(JourneyLayer::new(inbox.clone())).layer(stack).service(sandbox.clone());
    let (create, decide) = (client.clone(), client);
    let server = InboundCorrelationLayer::new().layer(service_fn(move |_: Request<Body>| {
        let client = create.clone();
        async move {
            let response = client.oneshot(create_session(Some("user-7"), "op-7")).await.unwrap();
            let created: Value =
                serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
            tracing::info!("session created");
            Ok::<_, Infallible>(Response::new(created["session_id"].as_str().unwrap().to_owned()))
        }
    }));
    let handler = service_fn(move |delivery: Delivery| {
        let client = decide.clone();
        async move {
            let path = format!("/v3/session/{}/decision/", delivery.event.session_id.unwrap());
            let mut request = get("/");
            *request.uri_mut() = path.parse().unwrap();
            let response = client.oneshot(request).await.map_err(Failure::for_now)?;
            tracing::info!(status = response.status().as_u16(), "decision read");
            Ok::<_, Failure>(())
        }
    });
    tokio::spawn(Worker::builder(inbox.clone()).build(handler).unwrap().run());

    let start = Instant::now();
    let mut request = get("/signup");
    request.headers_mut().insert(correlation::HEADER, "journey-7".parse().unwrap());
    server.oneshot(request).await.unwrap();
    let created = start.elapsed();
    sleep(HOUR + Duration::from_secs(60)).await;

    assert!(created < HOUR, "{created:?}");
    let lines: Vec<Value> = log.grep("").unwrap();
    let messages: Vec<_> = lines.iter().map(|line| line["message"].as_str().unwrap()).collect();
    let order = ["repeating", "repeating", "session created", "webhook received", "decision read"];
    let mut rest = messages.iter();
    for wanted in order {
        assert!(rest.any(|message| message.contains(wanted)), "{wanted} is missing or out of order: {messages:#?}");
    }
    for line in log.text().lines() {
        assert!(line.contains(r#""correlation_id":"journey-7""#), "{line}");
        assert_eq!(
            line.matches(r#""correlation_id":"#).count(),
            line.matches(r#""correlation_id":"journey-7""#).count()
        );
        assert!(!line.contains("verify.didit.me"), "{line}");
    }
    let calls: Vec<_> =
        sandbox.journal().into_iter().map(|entry| (entry.route, entry.correlation_id.unwrap())).collect();
    let id = || "journey-7".to_owned();
    let create = ("session-create".to_owned(), id());
    assert_eq!(calls, [create.clone(), create.clone(), create, ("session-decision".to_owned(), id())]);
}
