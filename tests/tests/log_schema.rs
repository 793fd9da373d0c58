//! The lines of a journey, as `schema.md` of the telemetry module describes them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::{collections::BTreeSet, time::Duration};

use didit_sandbox::faults::{Fault, Faults, Rule, When};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use tests::{Body, JsonLog, create_session, limits, sandbox};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_didit::{
    DiditLayer, Randomness,
    correlation::{self, InboundCorrelationLayer},
    telemetry::{SessionIdLayer, names},
};
use tracing::{Level, instrument::WithSubscriber};

const GOLDEN: &str = include_str!("golden/journey.jsonl");
const SCHEMA: &str = include_str!("../../crates/tower-didit/src/telemetry/schema.md");

/// Session creations through an inbound layer, one after the other; the second has to wait for quota, and its first two
/// attempts fail.
async fn journey() -> JsonLog {
    let log = JsonLog::default();
    let quota = limits(1, Duration::from_secs(10)).unwrap();
    let faults = Faults::none()
        .with(Rule::new(Fault::status(StatusCode::SERVICE_UNAVAILABLE)).when(When::Nth(vec![2])))
        .with(Rule::new(Fault::ResetBeforeWork).when(When::Nth(vec![3])));
    let latency = Duration::from_millis(250)..=Duration::from_millis(250);
    let sandbox = sandbox(9).faults(faults).latency(latency).build().unwrap();
    let layer = DiditLayer::builder().api_key("key").randomness(Randomness::seeded(5)).limits(quota).build().unwrap();
    let didit = SessionIdLayer::didit().layer(layer.layer(sandbox));
    let mut server =
        ServiceBuilder::new().layer(InboundCorrelationLayer::new()).service_fn(move |request: Request<Body>| {
            let call = didit.clone().oneshot(request);
            // A handler reads the answer; a session is known only then.
            async move {
                Ok::<_, std::convert::Infallible>(http::Response::new(
                    call.await.unwrap().into_body().collect().await.unwrap().to_bytes(),
                ))
            }
        });
    async {
        for user in ["one", "two"] {
            let mut request = create_session(Some(user), user);
            request.headers_mut().insert(correlation::HEADER, HeaderValue::from_static("journey-7"));
            server.ready().await.unwrap().call(request).await.unwrap();
        }
    }
    .with_subscriber(log.subscriber(Level::DEBUG))
    .await;
    log
}

/// Takes out what differs from run to run.
fn normalised(mut value: Value) -> Value {
    fn walk(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    match name.as_str() {
                        "timestamp" | "trace_id" | "span_id" | "session_id" => *value = format!("<{name}>").into(),
                        // The layer is promised; the file within it is not.
                        "target" => {
                            let target = value.as_str().unwrap_or_default();
                            *value = target.split("::").take(2).collect::<Vec<_>>().join("::").into();
                        }
                        _ => walk(value),
                    }
                }
            }
            Value::Array(values) => values.iter_mut().for_each(walk),
            _ => {}
        }
    }
    walk(&mut value);
    value
}

#[tokio::test(start_paused = true)]
async fn the_lines_of_a_journey_are_the_golden_ones() {
    let lines: Vec<Value> = journey().await.grep("").unwrap().into_iter().map(normalised).collect();
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    // Run with BLESS=1 after a change that is meant.
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/journey.jsonl"), &text).unwrap();
        return;
    }
    let golden: Vec<Value> = GOLDEN.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (number, (line, golden)) in lines.iter().zip(&golden).enumerate() {
        assert_eq!(line, golden, "line {number}");
    }
    assert_eq!(lines.len(), golden.len());
}

#[test]
fn every_field_of_the_golden_lines_is_documented() {
    let mut fields = BTreeSet::new();
    for line in GOLDEN.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        fields.extend(line.as_object().unwrap().keys().cloned());
        for span in line["spans"].as_array().unwrap() {
            fields.extend(span.as_object().unwrap().keys().cloned());
        }
    }
    assert!(fields.len() > 15, "{fields:?}");
    for field in fields {
        assert!(SCHEMA.contains(&format!("| `{field}` |")), "{field} is not documented");
    }
    for span in [names::SPAN_REQUEST, names::SPAN_CALL, names::SPAN_ATTEMPT] {
        assert!(GOLDEN.contains(&format!("\"name\":\"{span}\"")), "{span}");
    }
}
