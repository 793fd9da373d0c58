//! An axum service whose handlers call Didit through the stack.
//!
//! ```text
//! cargo run --example axum_service              starts a local Didit and the service, sends requests, exits
//! cargo run --example axum_service -- --serve   starts both and keeps them running
//! ```
//!
//! | request | answer |
//! |---|---|
//! | `POST /verifications` `{"user": "…"}` | 201, where to send the user |
//! | `GET /verifications/{session_id}` | 200, how far the user is |
//! | `GET /metrics` | 200, what Prometheus scrapes |
//!
//! The id in `X-Correlation-ID` goes from the service's caller to Didit and back without being passed by hand: it
//! stands in every log line, in every answer, and in every request that Didit gets.
//!
//! [`app`] and everything under it is the service. The rest of this file stands it up and shows it at work; errors are
//! turned into answers in `problem.rs`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

mod problem;

use std::{error::Error, net::Ipv4Addr, process::ExitCode, time::Duration};

use axum::{
    Json, Router,
    extract::{Path, State, rejection::JsonRejection},
    routing::{get, post},
};
use bytes::Bytes;
use didit_api::{
    Limits, Scope, SessionStatus,
    shapes::{CreateSession, CreatedSession, Decision},
};
use didit_sandbox::{DEFAULT_API_KEY, DEFAULT_WORKFLOW_ID, Fault, Faults, Rule, Sandbox, When};
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::net::TcpListener;
use tower::{Layer, ServiceExt};
use tower_didit::{
    DiditLayer, DiditService,
    body::ReplayBody,
    call::CallOptions,
    correlation::InboundCorrelationLayer,
    error::ConfigError,
    telemetry::{self, Gauges},
};

use self::problem::Problem;

/// How long a call to Didit may take, quota and repetitions included: a user is waiting for the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The most of an answer that is read.
const LARGEST_ANSWER: usize = 1024 * 1024;

// ===== the service =====

/// A hyper client with all layers around it. `HttpConnector` is enough for the local Didit; the real one needs TLS, as
/// in the quickstart.
type Didit = DiditService<Client<HttpConnector, ReplayBody<Full<Bytes>>>>;

/// What the handlers share. Clones of [`Didit`] share connections, quota, circuits and budget.
#[derive(Clone)]
struct App {
    didit: Didit,
    workflow_id: String,
    metrics: Metrics,
}

/// What is measured, and what is read when somebody looks.
#[derive(Clone)]
struct Metrics {
    rendered: PrometheusHandle,
    gauges: Gauges,
}

/// The routes.
fn app(app: App) -> Router {
    Router::new()
        .route("/verifications", post(create))
        .route("/verifications/{session_id}", get(read))
        // Outermost of these, so that every handler, log line and answer has the id.
        .layer(InboundCorrelationLayer::new())
        .route("/metrics", get(scrape))
        .with_state(app)
}

#[derive(Deserialize)]
struct NewVerification {
    /// The caller's own id of the user. Asking twice for the same user returns the same unfinished session.
    user: String,
}

#[derive(Serialize)]
struct Verification {
    session_id: String,
    status: SessionStatus,
    /// Where to send the user. Whoever has it can open the session: it belongs into this answer and in no log.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
}

async fn create(
    State(app): State<App>,
    new: Result<Json<NewVerification>, JsonRejection>,
) -> Result<(StatusCode, Json<Verification>), Problem> {
    let Json(new) = new.map_err(|_| Problem::bad_request("the body must be JSON with a user"))?;
    if new.user.is_empty() {
        return Err(Problem::bad_request("the user must not be empty"));
    }
    let session = CreateSession::new(app.workflow_id).vendor_data(new.user);
    let body = Full::from(serde_json::to_vec(&session)?);
    let request = Request::post("/v3/session/").header(header::CONTENT_TYPE, "application/json").body(body)?;
    let session: CreatedSession = call(&app.didit, request).await?;
    tracing::info!(session_id = session.session_id, "session created");
    let url = Some(session.url.expose().to_owned());
    Ok((StatusCode::CREATED, Json(Verification { session_id: session.session_id, status: session.status, url })))
}

async fn read(State(app): State<App>, Path(session_id): Path<String>) -> Result<Json<Verification>, Problem> {
    // The id becomes part of another path, so nothing but an id may pass.
    if !session_id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') {
        return Err(Problem::not_found());
    }
    let request = Request::get(format!("/v3/session/{session_id}/decision/")).body(Full::default())?;
    let decision: Decision = call(&app.didit, request).await?;
    Ok(Json(Verification { session_id: decision.session_id, status: decision.status, url: None }))
}

async fn scrape(State(app): State<App>) -> String {
    app.metrics.gauges.record();
    app.metrics.rendered.render()
}

/// Makes one call to Didit.
async fn call<T: DeserializeOwned>(didit: &Didit, mut request: Request<Full<Bytes>>) -> Result<T, Problem> {
    request.extensions_mut().insert(CallOptions::new().deadline(PATIENCE));
    let response = didit.clone().oneshot(request).await?;
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, LARGEST_ANSWER).collect().await.map_err(Problem::unreadable)?.to_bytes();
    if !parts.status.is_success() {
        return Err(Problem::refused(&parts, &body));
    }
    Ok(serde_json::from_slice(&body)?)
}

/// The stack around a client, and its gauges. With a real key, and neither base URL nor limits given, it talks to Didit
/// itself.
fn connect(base_url: &str, api_key: &str, limits: Limits) -> Result<(Didit, Gauges), ConfigError> {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let layer = DiditLayer::builder().base_url(base_url).api_key(api_key).limits(limits).build()?;
    Ok((layer.layer(client), layer.gauges()))
}

// ===== the demonstration =====

#[tokio::main]
async fn main() -> ExitCode {
    // JSON lines with the spans that they were written in, and with them the correlation id; what stands in a line is
    // described in the documentation of `tower_didit::telemetry`.
    let lines = tracing_subscriber::fmt().json().flatten_event(true).with_current_span(false);
    lines.with_writer(std::io::stderr).init();
    let result = match std::env::args().nth(1).as_deref() {
        None => run(false).await,
        Some("--serve") => run(true).await,
        Some(_) => Err("the only argument is --serve, which keeps the service running".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("axum_service: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(keep_running: bool) -> Result<(), Box<dyn Error>> {
    let loopback = (Ipv4Addr::LOCALHOST, 0);
    // Before the first call, so that nothing goes uncounted.
    let durations = Matcher::Suffix("_duration_seconds".to_owned());
    let recorder = PrometheusBuilder::new().set_buckets_for_metric(durations, telemetry::names::DURATION_BUCKETS)?;
    let rendered = recorder.install_recorder()?;
    // A local Didit whose first two answers are a 503, so that there are repetitions to see.
    let hiccup = Rule::new(Fault::status(StatusCode::SERVICE_UNAVAILABLE)).when(When::First(2));
    let sandbox = Sandbox::builder().faults(Faults::none().with(hiccup)).build()?;
    let local = didit_sandbox::serve(TcpListener::bind(loopback).await?, sandbox.clone())?;

    // The demonstration allows itself two GETs a minute, so that the third shows what a caller learns then.
    let limits = match keep_running {
        true => Limits::didit(),
        false => Limits::didit().with(Scope::methods("generic-get", 2, ["GET"])?)?,
    };
    let (didit, gauges) = connect(&format!("http://{}", local.local_addr()), DEFAULT_API_KEY, limits)?;
    let listener = TcpListener::bind(loopback).await?;
    let service = format!("http://{}", listener.local_addr()?);
    let metrics = Metrics { rendered, gauges };
    let router = app(App { didit, workflow_id: DEFAULT_WORKFLOW_ID.to_owned(), metrics });

    if keep_running {
        println!(
            "listening (Ctrl-C stops); try:\n\
             curl -i {service}/verifications -H 'content-type: application/json' -H 'x-correlation-id: order-7' \
             -d '{{\"user\":\"user-7\"}}'\n\
             curl -i {service}/verifications/SESSION_ID\n\
             curl {service}/metrics\n\
             curl {}/_sandbox/journal",
            format_args!("http://{}", local.local_addr()),
        );
        axum::serve(listener, router).with_graceful_shutdown(ctrl_c()).await?;
    } else {
        tokio::spawn(axum::serve(listener, router).into_future());
        demonstrate(&service, &sandbox).await?;
    }
    local.shutdown().await;
    Ok(())
}

async fn ctrl_c() {
    // Without a handler the only way left is to stop at once.
    let _ = tokio::signal::ctrl_c().await;
}

/// Uses the service as its callers would, and shows what Didit saw of it.
async fn demonstrate(service: &str, sandbox: &Sandbox) -> Result<(), Box<dyn Error>> {
    let id = "order-7";
    let json = Request::post(format!("{service}/verifications"))
        .header(header::CONTENT_TYPE, "application/json")
        .header("x-correlation-id", id)
        .body(Full::from(r#"{"user":"user-7"}"#))?;
    let created = ask(json).await?;
    let session_id = created["session_id"].as_str().ok_or("no session was created")?;

    let path = format!("{service}/verifications/{session_id}");
    ask(Request::get(path).header("x-correlation-id", id).body(Full::default())?).await?;

    // An unknown session, and then one request more than the quota has room for.
    for _ in 0..2 {
        let path = format!("{service}/verifications/00000000-0000-4000-8000-000000000000");
        ask(Request::get(path).header("x-correlation-id", id).body(Full::default())?).await?;
    }

    println!("\nwhat Didit saw of {id}:");
    for entry in sandbox.journal().iter().filter(|entry| entry.correlation_id.as_deref() == Some(id)) {
        let status = entry.status.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
        println!("  {:5} {:18}{status}", entry.method, entry.route);
    }

    println!("\nwhat Prometheus sees of its calls:");
    let scrape = Request::get(format!("{service}/metrics")).body(Full::<Bytes>::default())?;
    let scraped = Client::builder(TokioExecutor::new()).build_http().request(scrape).await?;
    let scraped = String::from_utf8(scraped.into_body().collect().await?.to_bytes().into())?;
    for line in scraped.lines().filter(|line| line.starts_with(telemetry::names::CALLS.name)) {
        println!("  {line}");
    }
    Ok(())
}

/// Sends one request to the service and prints the answer.
async fn ask(request: Request<Full<Bytes>>) -> Result<serde_json::Value, Box<dyn Error>> {
    println!("{} {}", request.method(), request.uri().path());
    let client = Client::builder(TokioExecutor::new()).build_http();
    let response: Response<_> = client.request(request).await?;
    let (parts, body) = response.into_parts();
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let id = header("x-correlation-id").unwrap_or("none");
    let body: serde_json::Value = serde_json::from_slice(&body.collect().await?.to_bytes())?;
    let shown = |name: &str| body[name].as_str().unwrap_or("none").to_owned();
    match parts.status.is_success() {
        // The link is the user's alone: here it is only said that it came.
        true => println!(
            "  {}, correlation id {id}, session {} is {:?}{}",
            parts.status,
            shown("session_id"),
            shown("status"),
            if body.get("url").is_some() { ", with a link for the user" } else { "" },
        ),
        false => println!(
            "  {}, correlation id {id}: {}{}",
            parts.status,
            shown("title"),
            header("retry-after").map(|seconds| format!("; come back in {seconds} s")).unwrap_or_default(),
        ),
    }
    Ok(body)
}
