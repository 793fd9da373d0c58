//! A tonic service whose methods call Didit through the stack, and a client that repeats what the service refuses.
//!
//! ```text
//! cargo run --example tonic_service
//! ```
//!
//! Starts a local Didit, the service and a client, makes three calls and exits. One correlation id goes all the way:
//! from the client's task through the channel into the service, and from there to Didit.
//!
//! | file | what it shows |
//! |---|---|
//! | `server.rs` | methods that call Didit; errors of the stack as gRPC statuses |
//! | `client.rs` | the layers around a channel: gRPC's own reading of a response, and bodies that can be sent again |
//! | `messages.rs`, `build.rs` | the service's definition |

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

mod client;
#[allow(unreachable_pub, reason = "the code that tonic writes is public, and so is what it speaks about")]
mod messages;
mod server;

use std::{error::Error, net::Ipv4Addr};

use didit_sandbox::{DEFAULT_API_KEY, DEFAULT_WORKFLOW_ID, Fault, Faults, Rule, Sandbox, When};
use http::StatusCode;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tonic::{
    Response, Status,
    transport::{Channel, Server, server::TcpIncoming},
};
use tower::Layer;
use tower_didit::{
    DiditLayer,
    call::{CallReport, CorrelationId},
    correlation::{self, InboundCorrelationLayer},
};

use self::{
    messages::{ReadRequest, StartRequest, Verification, verifications_server::VerificationsServer},
    server::{Didit, Service},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // What stands in a line is described in the documentation of `tower_didit::telemetry`.
    let lines = tracing_subscriber::fmt().json().flatten_event(true).with_current_span(false);
    lines.with_writer(std::io::stderr).init();
    let loopback = (Ipv4Addr::LOCALHOST, 0);

    // A local Didit whose first two answers are a 503, so that there are repetitions to see.
    let hiccup = Rule::new(Fault::status(StatusCode::SERVICE_UNAVAILABLE)).when(When::First(2));
    let sandbox = Sandbox::builder().faults(Faults::none().with(hiccup)).build()?;
    let local = didit_sandbox::serve(TcpListener::bind(loopback).await?, sandbox.clone())?;
    let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http();
    let base_url = format!("http://{}", local.local_addr());
    let didit: Didit = DiditLayer::builder().base_url(base_url).api_key(DEFAULT_API_KEY).build()?.layer(client);

    let listener = TcpListener::bind(loopback).await?;
    let address = format!("http://{}", listener.local_addr()?);
    let server = Server::builder()
        // Takes the id that a call brings along, or makes one.
        .layer(InboundCorrelationLayer::new())
        .add_service(VerificationsServer::new(Service::new(didit, DEFAULT_WORKFLOW_ID)))
        .serve_with_incoming(TcpIncoming::from(listener));
    let server = tokio::spawn(server);

    let id: CorrelationId = "order-7".parse()?;
    let channel = Channel::from_shared(address)?.connect().await?;
    // Whatever runs in this scope belongs to one journey; nothing is passed by hand.
    correlation::scope(id.clone(), demonstrate(client::client(channel)?)).await?;

    println!("\nwhat Didit saw of {id}:");
    for entry in sandbox.journal().iter().filter(|entry| entry.correlation_id.as_deref() == Some(id.as_str())) {
        let status = entry.status.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
        println!("  {:5} {:18}{status}", entry.method, entry.route);
    }
    server.abort();
    local.shutdown().await;
    Ok(())
}

/// Uses the service as its callers would.
async fn demonstrate(mut client: client::Client) -> Result<(), Box<dyn Error>> {
    // The service refuses its first call. The caller does not notice.
    let started = client.start(StartRequest { user: "user-7".to_owned() }).await;
    show("Start", &started);
    let session_id = started?.into_inner().session_id;

    let read = client.read(ReadRequest { session_id }).await;
    show("Read", &read);

    // A final answer: not repeated.
    let unknown = client.read(ReadRequest { session_id: "00000000-0000-4000-8000-000000000000".to_owned() }).await;
    show("Read", &unknown);
    Ok(())
}

fn show(method: &str, result: &Result<Response<Verification>, Status>) {
    match result {
        Ok(response) => {
            let id = response.metadata().get("x-correlation-id").and_then(|id| id.to_str().ok()).unwrap_or("none");
            // Without a report nothing happened: one attempt, no wait.
            let attempts = response.extensions().get::<CallReport>().map_or(1, CallReport::attempts);
            println!("{method}: ok, correlation id {id}, attempts: {attempts}, {:?}", response.get_ref());
        }
        Err(status) => println!("{method}: {:?}, {}", status.code(), status.message()),
    }
}
