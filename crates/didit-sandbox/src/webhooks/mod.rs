//! Webhooks: what the sandbox sends when a session's status changes.
//!
//! Each [`Destination`] gets its own copy of every event it subscribes to, signed with its own secret. An attempt has
//! 5 s; a 5xx, a 404, a time-out or a broken connection is followed by another attempt after about one minute, and by a
//! last one after four more. Any other answer that is no 2xx ends it: Didit drops the event, and so does the sandbox.
//!
//! An event is `status.updated`, with the session's `vendor_data` and `metadata` as they are then, and with its decision
//! where Didit sends one. It is sent when a status is set by `PATCH …/update-status/`, by
//! [`set_session_status`](crate::Sandbox::set_session_status), by
//! [`finish_session_after`](crate::Sandbox::finish_session_after), or by
//! [`finish_sessions`](crate::SandboxBuilder::finish_sessions) for every session; making a session sends nothing, and
//! neither does a session that expires because nobody opens it.
//!
//! What goes wrong on request stands in [`WebhookFault`]; what became of each event in
//! [`Sandbox::webhooks`](crate::Sandbox::webhooks). Deliveries are tasks of the tokio runtime that the sandbox is used
//! in, on its clock, and end when the last clone of the sandbox is dropped.
//!
//! # Example
//!
//! ```
//! use std::time::Duration;
//! use bytes::Bytes;
//! use didit_api::{SessionStatus, webhook::{Secrets, verify}};
//! use didit_sandbox::{DEFAULT_API_KEY, DEFAULT_WORKFLOW_ID, Destination, Sandbox, WebhookOutcome};
//! use http::{Request, Response, StatusCode};
//! use http_body_util::{BodyExt, Full};
//! use tower::{ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let secrets = Secrets::new(["not-a-real-secret"])?;
//! let start = std::time::UNIX_EPOCH + Duration::from_secs(1_790_000_000);
//! let receiver = service_fn(move |request: Request<Full<Bytes>>| {
//!     let secrets = secrets.clone();
//!     async move {
//!         let (head, body) = request.into_parts();
//!         let body = body.collect().await?.to_bytes();
//!         let status = match verify(&body, &head.headers, &secrets, start + Duration::from_secs(3_600)) {
//!             Ok(_) => StatusCode::OK,
//!             Err(rejected) => rejected.status(),
//!         };
//!         Ok::<_, std::convert::Infallible>(Response::builder().status(status).body(()).unwrap())
//!     }
//! });
//! // Every session is approved an hour after it was made.
//! let sandbox = Sandbox::builder()
//!     .epoch(start)
//!     .webhook(Destination::service(receiver, "not-a-real-secret"))
//!     .finish_sessions(Duration::from_secs(3_600), SessionStatus::Approved)
//!     .build()?;
//! let request = Request::post("/v3/session/")
//!     .header("x-api-key", DEFAULT_API_KEY)
//!     .body(format!(r#"{{"workflow_id":"{DEFAULT_WORKFLOW_ID}"}}"#))?;
//! sandbox.clone().oneshot(request).await?;
//!
//! tokio::time::sleep(Duration::from_secs(3_601)).await;
//! assert_eq!(sandbox.webhooks()[0].outcome, WebhookOutcome::Delivered);
//! # Ok(())
//! # }
//! ```

mod builder;
mod deliver;
mod destination;
mod fault;
mod outbox;
mod payload;
mod record;

pub use builder::WebhookError;
pub(crate) use builder::Webhooks;
pub(crate) use deliver::deliver;
pub use destination::{DEFAULT_WEBHOOK_SECRET, Destination, DestinationError};
pub use fault::{RetryStamp, WebhookFault};
pub(crate) use outbox::{Attempt, Job, Outbox};
pub use record::{WebhookAttempt, WebhookOutcome, WebhookRecord};
