//! The lines of a journey, as `schema.md` of the telemetry module describes them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

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
    let [lines, spans] = rows();
    let cells = lines.iter().map(|row| row[0]).chain(spans.iter().map(|row| row[1]));
    let documented: BTreeSet<_> = cells.flat_map(names).collect();
    for field in fields {
        assert!(documented.contains(field.as_str()), "{field} is not documented");
    }
    for span in [names::SPAN_REQUEST, names::SPAN_CALL, names::SPAN_ATTEMPT] {
        assert!(GOLDEN.contains(&format!("\"name\":\"{span}\"")), "{span}");
    }
}

/// The rows of the schema's tables, cell by cell: of lines (field, on, type, what it is; without `on`, of every line), and
/// of spans (span, field, type, what it is).
fn rows() -> [Vec<Vec<&'static str>>; 2] {
    let (lines, spans) = SCHEMA.split_once("| span | field |").unwrap();
    [lines, spans].map(|part| {
        let rows = part.lines().filter(|line| line.starts_with("| "));
        rows.map(|row| row.trim_matches('|').split(" | ").map(str::trim).collect()).collect()
    })
}

/// What stands in backticks.
fn names(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// A place in the sources where something is told.
#[derive(Debug)]
struct Told {
    is_span: bool,
    /// The span's name or the event's message.
    text: String,
    fields: Vec<String>,
}

/// Everything that the layers tell, as it stands in a source.
fn told_in(source: &str) -> Vec<Told> {
    let code: Vec<_> = source.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    let mut found = Vec::new();
    for level in ["error", "warn", "info", "debug", "trace"] {
        for (is_span, name) in [(false, format!("tracing::{level}!(")), (true, format!("tracing::{level}_span!("))] {
            found.extend(code.match_indices(&name).map(|(at, _)| told(is_span, &code[at + name.len()..])));
        }
    }
    found
}

/// Reads the arguments of a macro of `tracing`, up to the bracket that ends them.
fn told(is_span: bool, rest: &str) -> Told {
    let (mut arguments, mut depth, mut quoted, mut before) = (vec![String::new()], 0, false, ' ');
    for c in rest.chars() {
        if c == '"' && before != '\\' {
            quoted = !quoted;
        }
        if !quoted {
            depth += i32::from("([{".contains(c)) - i32::from(")]}".contains(c));
            if depth < 0 {
                break;
            }
            if c == ',' && depth == 0 {
                arguments.push(String::new());
                before = c;
                continue;
            }
        }
        arguments.last_mut().unwrap().push(c);
        before = c;
    }
    let arguments: Vec<_> =
        arguments.iter().map(|argument| argument.trim()).filter(|argument| !argument.is_empty()).collect();
    let text = arguments.iter().find(|argument| argument.starts_with('"')).unwrap().trim_matches('"').to_owned();
    let of_call = |argument: &&&str| !argument.starts_with('"') && !argument.starts_with("parent:");
    let field = |argument: &&str| argument.split('=').next().unwrap().trim().trim_start_matches(['%', '?']).to_owned();
    Told { is_span, text, fields: arguments.iter().filter(of_call).map(field).collect() }
}

fn sources(folder: &Path, into: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(std::fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_field_that_stands_in_a_source_is_documented() {
    let mut texts = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/tower-didit/src"), &mut texts);
    let told: Vec<Told> = texts.iter().flat_map(|text| told_in(text)).collect();
    let (spans, events): (Vec<_>, Vec<_>) = told.iter().partition(|told| told.is_span);
    assert!(events.len() > 40 && spans.len() > 5, "{told:#?}");
    let [of_lines, of_spans] = rows();
    let of_lines: BTreeSet<_> = of_lines.iter().flat_map(|row| names(row[0])).collect();
    for event in events {
        for field in &event.fields {
            assert!(of_lines.contains(field.as_str()), "{field} of {:?} is not documented", event.text);
        }
    }
    for span in spans {
        for field in &span.fields {
            let is_row = |row: &Vec<&str>| {
                let (which, named) = (row[0], names(row[0]).contains(&span.text.as_str()));
                names(row[1]) == [field] && (which == "all" || which.starts_with("all but") != named)
            };
            assert!(of_spans.iter().any(is_row), "{field} of the span {:?} is not documented", span.text);
        }
    }
}

#[test]
fn no_field_has_two_types() {
    let [lines, spans] = rows();
    let of_lines = lines.iter().map(|row| (row[0], row[row.len() - 2]));
    let of_spans = spans.iter().map(|row| (row[1], row[2]));
    let mut types = BTreeMap::new();
    for (fields, kinds) in of_lines.chain(of_spans) {
        for (field, kind) in names(fields).into_iter().zip(kinds.split(", ").cycle()) {
            assert_eq!(*types.entry(field).or_insert(kind), kind, "{field}");
        }
    }
    assert!(types.len() > 40, "{types:?}");
    assert!(types.values().all(|kind| ["string", "number", "array"].contains(kind)), "{types:?}");
}
