//! A tonic client with the correlation and retry layers around its channel.

use std::time::Duration;

use http::{HeaderMap, Request, Response, StatusCode};
use tonic::{Code, Status, body::Body, transport};
use tower::{ServiceBuilder, util::BoxCloneSyncService};
use tower_didit::{
    body::ReplayBody,
    correlation::CorrelationLayer,
    error::ConfigError,
    outcome::{Outcome, Refusal, classify_fn, of_error, of_response},
    retry::{ExponentialBackoff, RetryLayer},
};

use crate::messages::verifications_client::VerificationsClient;

/// The header in which a gRPC server says how long to wait before the next attempt (gRPC proposal A6).
pub(crate) const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// The generated client. What it sends goes through the layers first.
pub(crate) type Client = VerificationsClient<BoxCloneSyncService<Request<Body>, Response<Body>, transport::Error>>;

/// The client around a channel.
pub(crate) fn client(channel: transport::Channel) -> Result<Client, ConfigError> {
    let retry = RetryLayer::builder()
        .classifier(classify_fn(outcome, |error: &transport::Error| of_error(error)))
        .backoff(ExponentialBackoff::new(Duration::from_millis(100), Duration::from_secs(2))?)
        .build()?;
    let service = ServiceBuilder::new()
        .layer(CorrelationLayer::new())
        .layer(retry)
        // A channel takes one type of body only.
        .map_request(|request: Request<ReplayBody<Body>>| request.map(Body::new))
        .service(channel);
    Ok(VerificationsClient::new(BoxCloneSyncService::new(service)))
}

/// What a gRPC response means.
///
/// A call that failed before its first message is answered by headers alone, the gRPC status among them. Whatever
/// comes after a message is for the application to read.
fn outcome(status: StatusCode, headers: &HeaderMap) -> Outcome {
    let Some(code) = headers.get(Status::GRPC_STATUS) else {
        // A proxy's page, or a stream of messages.
        return of_response(status, headers);
    };
    let pushback = headers.get(PUSHBACK).and_then(|value| value.to_str().ok()?.parse().ok()).map(Duration::from_millis);
    match (Code::from_bytes(code.as_bytes()), pushback) {
        // Busy, says the server itself: nothing was done.
        (Code::Unavailable, Some(wait)) => Outcome::Refused { retry_after: Some(wait), reason: Refusal::Unavailable },
        // Without a hint the same code may stand for a connection that broke half-way. Every gRPC call is a POST, so
        // the default policy does not repeat it; one that reads the path could allow it where it does no harm.
        (Code::Unavailable | Code::DeadlineExceeded, _) => Outcome::Ambiguous,
        _ => Outcome::Answered,
    }
}
