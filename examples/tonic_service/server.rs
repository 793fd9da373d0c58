//! A tonic service whose methods call Didit through the stack.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use bytes::Bytes;
use didit_api::{
    ErrorBody,
    shapes::{CreateSession, CreatedSession, Decision},
};
use http::{StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tonic::{Request, Response, Status, metadata::MetadataValue};
use tower::ServiceExt;
use tower_didit::{
    DiditService,
    body::ReplayBody,
    call::CallOptions,
    stack::{Error, ErrorKind},
};

use crate::{
    client::PUSHBACK,
    messages::{ReadRequest, StartRequest, Verification, verifications_server::Verifications},
};

/// How long a call to Didit may take, quota and repetitions included.
const PATIENCE: Duration = Duration::from_secs(10);

/// The most of an answer that is read.
const LARGEST_ANSWER: usize = 1024 * 1024;

/// A hyper client with all layers around it.
pub(crate) type Didit = DiditService<Client<HttpConnector, ReplayBody<Full<Bytes>>>>;

/// The service.
pub(crate) struct Service {
    didit: Didit,
    workflow_id: String,
    // Refuses its first call, so that the client has something to repeat.
    warmed_up: AtomicBool,
}

impl Service {
    pub(crate) fn new(didit: Didit, workflow_id: impl Into<String>) -> Self {
        Self { didit, workflow_id: workflow_id.into(), warmed_up: AtomicBool::new(false) }
    }

    /// Makes one call to Didit.
    async fn call<T: DeserializeOwned>(&self, request: http::request::Builder, body: Vec<u8>) -> Result<T, Status> {
        let request = request
            .header(header::CONTENT_TYPE, "application/json")
            .extension(CallOptions::new().deadline(PATIENCE))
            .body(Full::from(body))
            .map_err(|_| Status::internal("the request could not be built"))?;
        let response = self.didit.clone().oneshot(request).await.map_err(unanswered)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await;
        let body = body.map_err(|_| Status::unknown("the answer could not be read"))?.to_bytes();
        if !status.is_success() {
            return Err(refused(status, &body));
        }
        serde_json::from_slice(&body).map_err(|_| Status::internal("the answer could not be understood"))
    }
}

#[tonic::async_trait]
impl Verifications for Service {
    async fn start(&self, request: Request<StartRequest>) -> Result<Response<Verification>, Status> {
        if !self.warmed_up.swap(true, Ordering::Relaxed) {
            return Err(busy(Duration::from_millis(50)));
        }
        let session = CreateSession::new(self.workflow_id.as_str()).vendor_data(request.into_inner().user);
        let body = serde_json::to_vec(&session).map_err(|_| Status::internal("the request could not be written"))?;
        let session: CreatedSession = self.call(http::Request::post("/v3/session/"), body).await?;
        tracing::info!(session_id = session.session_id, "session created");
        Ok(Response::new(Verification {
            session_id: session.session_id,
            status: session.status.as_str().to_owned(),
            url: session.url.expose().to_owned(),
        }))
    }

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<Verification>, Status> {
        let session_id = request.into_inner().session_id;
        // The id becomes part of a path, so nothing but an id may pass.
        if !session_id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') {
            return Err(Status::invalid_argument("this is not the id of a session"));
        }
        let path = format!("/v3/session/{session_id}/decision/");
        let decision: Decision = self.call(http::Request::get(path), Vec::new()).await?;
        Ok(Response::new(Verification {
            session_id: decision.session_id,
            status: decision.status.as_str().to_owned(),
            url: String::new(),
        }))
    }
}

/// Says that nothing was done, and when to come back.
fn busy(wait: Duration) -> Status {
    let mut status = Status::unavailable("the verification service is busy");
    let milliseconds = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    status.metadata_mut().insert(PUSHBACK, MetadataValue::from(milliseconds));
    status
}

/// What an error of the stack means to the service's callers.
fn unanswered<E: std::error::Error + 'static>(error: Error<E>) -> Status {
    tracing::error!(error = &error as &(dyn std::error::Error + 'static), "the call failed");
    if let Some(at) = error.retry_at() {
        return busy(at.saturating_duration_since(Instant::now()));
    }
    match error.kind() {
        ErrorKind::Deadline(_) | ErrorKind::AttemptTimeout(_) => Status::deadline_exceeded("it took too long"),
        // No hint: it is not known whether anything was done.
        ErrorKind::Client(_) => Status::unavailable("the verification service cannot be reached"),
        _ => Status::internal("the request could not be sent"),
    }
}

/// What an answer of Didit that is not a success means to the service's callers.
fn refused(status: StatusCode, body: &[u8]) -> Status {
    // `ErrorBody` leaves out of its text whatever may repeat what a user entered.
    tracing::warn!(status = status.as_u16(), body = %ErrorBody::parse(body), "refused");
    match status {
        StatusCode::NOT_FOUND => Status::not_found("there is no such verification"),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Status::unavailable("it is busy"),
        // A wrong key, an empty account, an unknown workflow: nothing that the caller could change.
        _ => Status::failed_precondition("the verification service refused the request"),
    }
}
