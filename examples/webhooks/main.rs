//! An axum service that creates sessions and is told by webhook what came of them.
//!
//! ```text
//! cargo run --example webhooks     starts a local Didit and the service, plays one verification, exits
//! ```
//!
//! | request | answer |
//! |---|---|
//! | `POST /verifications` `{"user": "…"}` | 201, where to send the user |
//! | `POST /webhooks/didit` | Didit's webhooks: 200 as soon as they are on the disk |
//!
//! The id in `X-Correlation-ID` goes from the service's caller to Didit, and comes back with the webhook: it stands in
//! every log line, from the first request to what the handler does with the decision, though Didit never sends it.
//! The local Didit sends every event twice, and its first answer is a 503.
//!
//! [`app`], [`settle`] and what they use is the service. The rest of this file stands it up and shows it at work.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

use std::{error::Error, net::Ipv4Addr, path::PathBuf, process::ExitCode, time::Duration};

use axum::{Json, Router, extract::State, routing::post};
use bytes::Bytes;
use didit_api::{
    SessionStatus,
    shapes::{CreateSession, CreatedSession, Decision},
    webhook::Secrets,
};
use didit_sandbox::{
    DEFAULT_API_KEY, DEFAULT_WEBHOOK_SECRET, DEFAULT_WORKFLOW_ID, Destination, Fault, Faults, Rule, Sandbox,
    WebhookFault, When,
};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    net::TcpListener,
    sync::mpsc,
    time::{sleep, timeout},
};
use tower::{Layer, ServiceExt, service_fn};
use tower_didit::{
    DiditLayer, DiditService,
    body::ReplayBody,
    correlation::InboundCorrelationLayer,
    webhook::{
        Delivery, Failure, Receiver, Worker,
        inbox::{Capacity, Inbox, RedbInbox},
        journey::{JourneyLayer, Journeys},
        sweep::Sweep,
    },
};

/// The most of an answer that is read.
const LARGEST_ANSWER: usize = 1024 * 1024;

// ===== the service =====

/// A hyper client with all layers around it, and outermost the one that keeps whose session it is.
type Didit = Journeys<DiditService<Client<HttpConnector, ReplayBody<Full<Bytes>>>>>;

/// The routes.
fn app(didit: Didit, receiver: Receiver) -> Router {
    Router::new()
        .route("/verifications", post(create))
        .layer(InboundCorrelationLayer::new())
        .with_state(didit)
        // Outside of the layer: a webhook's id is that of the journey it belongs to.
        .route_service("/webhooks/didit", receiver)
}

#[derive(Deserialize)]
struct NewVerification {
    /// The caller's own id of the user.
    user: String,
}

#[derive(Serialize)]
struct Verification {
    session_id: String,
    /// Where to send the user. It belongs into this answer and in no log.
    url: String,
}

async fn create(
    State(didit): State<Didit>,
    Json(new): Json<NewVerification>,
) -> Result<(StatusCode, Json<Verification>), StatusCode> {
    let session = CreateSession::new(DEFAULT_WORKFLOW_ID).vendor_data(new.user);
    let body = serde_json::to_vec(&session).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    let request = Request::post("/v3/session/").header(header::CONTENT_TYPE, "application/json").body(Full::from(body));
    let request = request.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    let session: CreatedSession = call(&didit, request).await.map_err(|error| {
        tracing::error!(%error, "no session was created");
        StatusCode::BAD_GATEWAY
    })?;
    tracing::info!(session_id = session.session_id, "session created");
    let url = session.url.expose().to_owned();
    Ok((StatusCode::CREATED, Json(Verification { session_id: session.session_id, url })))
}

/// Handles one event: fetches the decision and does with it what the application has to do. What fails is tried again.
async fn settle(didit: Didit, delivery: Delivery, settled: mpsc::Sender<String>) -> Result<(), Failure> {
    // An event is a hint: what counts is what the API says now.
    let Some(session_id) = &delivery.event.session_id else { return Ok(()) };
    if !delivery.event.session_status().is_some_and(|status| status.is_decision()) {
        return Ok(());
    }
    let request = Request::get(format!("/v3/session/{session_id}/decision/")).body(Full::default())?;
    let decision: Decision = call(&didit, request).await.map_err(Failure::for_now)?;
    // The application's own transaction, with `delivery.key()` in it: then this happens once, whatever dies.
    tracing::info!(status = decision.status.as_str(), attempt = delivery.attempt, "verification settled");
    let user = decision.vendor_data.as_deref().unwrap_or("somebody");
    settled.send(format!("{user} is {}, correlation id {}", decision.status, delivery.correlation_id)).await?;
    Ok(())
}

/// Makes one call to Didit.
async fn call<T: DeserializeOwned>(
    didit: &Didit,
    request: Request<Full<Bytes>>,
) -> Result<T, Box<dyn Error + Send + Sync>> {
    let response = didit.clone().oneshot(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await?.to_bytes();
    if !status.is_success() {
        return Err(format!("Didit answered {status}").into());
    }
    Ok(serde_json::from_slice(&body)?)
}

// ===== the demonstration =====

#[tokio::main]
async fn main() -> ExitCode {
    // JSON lines with the spans that they were written in, and with them the correlation id.
    let lines = tracing_subscriber::fmt().json().flatten_event(true).with_current_span(false);
    lines.with_writer(std::io::stderr).init();
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("webhooks: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let loopback = (Ipv4Addr::LOCALHOST, 0);
    let listener = TcpListener::bind(loopback).await?;
    let service = format!("http://{}", listener.local_addr()?);
    let hiccup =
        Rule::new(Fault::status(StatusCode::SERVICE_UNAVAILABLE)).on_route("session-create").when(When::First(1));
    let sandbox = Sandbox::builder()
        .faults(Faults::none().with(hiccup))
        .webhook(Destination::url(format!("{service}/webhooks/didit"), DEFAULT_WEBHOOK_SECRET))
        .webhook_fault(WebhookFault::Duplicate(1), When::Always)
        // What a user does, in a moment.
        .finish_sessions(Duration::from_millis(300), SessionStatus::Approved)
        .build()?;
    let local = didit_sandbox::serve(TcpListener::bind(loopback).await?, sandbox.clone())?;

    let file = File(std::env::temp_dir().join(format!("tower-didit-webhooks-{}.redb", std::process::id())));
    let inbox = RedbInbox::open(&file.0, Capacity::DEFAULT).await?;
    let client = Client::builder(TokioExecutor::new()).build_http();
    let stack = DiditLayer::builder()
        .base_url(format!("http://{}", local.local_addr()))
        .api_key(DEFAULT_API_KEY)
        .build()?
        .layer(client);
    let didit = JourneyLayer::new(inbox.clone()).stamp(true).layer(stack);

    let receiver = Receiver::builder(Secrets::new([DEFAULT_WEBHOOK_SECRET])?, inbox.clone()).build()?;
    let (settled, mut seen) = mpsc::channel(1);
    let handler = {
        let didit = didit.clone();
        service_fn(move |delivery| settle(didit.clone(), delivery, settled.clone()))
    };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let worker = Worker::builder(inbox.clone()).build(handler)?;
    let worker = tokio::spawn(worker.run_until(async {
        let _ = stopped.await;
    }));
    // Looks for what never came, every quarter of an hour; the demonstration is over before the first one begins.
    let sweep = Sweep::builder(inbox.clone()).build(didit.clone())?;
    let sweep = tokio::spawn(async {
        sleep(Duration::from_secs(900)).await;
        sweep.run().await;
    });
    tokio::spawn(axum::serve(listener, app(didit, receiver)).into_future());

    demonstrate(&service).await?;
    println!("{}", timeout(Duration::from_secs(30), seen.recv()).await?.ok_or("nothing was settled")?);
    // The second delivery of the same event.
    let deliveries = || {
        sandbox.webhooks().iter().flat_map(|record| record.attempts.clone()).filter(|it| it.status.is_some()).count()
    };
    while deliveries() < 2 {
        sleep(Duration::from_millis(5)).await;
    }
    // What has begun is finished.
    drop(stop);
    worker.await?;
    println!("{} deliveries, {} handled", deliveries(), inbox.counts().await?.done);
    println!("\nwhat Didit saw of order-7:");
    for entry in sandbox.journal().iter().filter(|entry| entry.correlation_id.as_deref() == Some("order-7")) {
        let status = entry.status.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
        println!("  {:5} {:18}{status}", entry.method, entry.route);
    }

    sweep.abort();
    local.shutdown().await;
    Ok(())
}

/// Uses the service as its caller would.
async fn demonstrate(service: &str) -> Result<(), Box<dyn Error>> {
    println!("POST /verifications");
    let request = Request::post(format!("{service}/verifications"))
        .header(header::CONTENT_TYPE, "application/json")
        .header("x-correlation-id", "order-7")
        .body(Full::<Bytes>::from(r#"{"user":"user-7"}"#))?;
    let response = Client::builder(TokioExecutor::new()).build_http().request(request).await?;
    let status = response.status();
    let body: serde_json::Value = serde_json::from_slice(&response.into_body().collect().await?.to_bytes())?;
    // The link is the user's alone: here it is only said that it came.
    println!("  {status}{}", if body.get("url").is_some() { ", with a link for the user" } else { "" });
    println!("waiting for the webhook");
    Ok(())
}

/// A file that is gone after the demonstration.
struct File(PathBuf);

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
