//! Receiving webhooks: answered in time, handled once and in order, logged under the id of the request that caused them.
//!
//! # Why an inbox
//!
//! Didit waits five seconds for a 2xx, tries three times within about five minutes, and **drops the event** after any 4xx
//! but 404 (its webhooks page). It sends events twice and out of order. So what receives them must not do the work: it
//! verifies, keeps, and answers. The work happens afterwards, for as long as it takes.
//!
//! ```text
//!  Didit ──POST──▶ Receiver ──accept──▶ Inbox ──claim──▶ Worker ──▶ the handler
//!        ◀──2xx──  verifies, ≤ 4 s      once, durable    retries    a Service<Delivery>
//!                                         ▲  ▲
//!        a session is created, JourneyLayer  Sweep: sessions whose webhook never came
//! ```
//!
//! | part | what it does |
//! |---|---|
//! | [`Receiver`] | a service for the one route that Didit posts to; [`Webhook`] is the same as an axum extractor |
//! | [`inbox`] | holds events until they are handled, and knows which were: in memory, or in a file |
//! | [`Worker`] | hands events to the handler, in order, again after a failure |
//! | [`journey`] | tells which request began a session |
//! | [`sweep`] | finds what never came |
//!
//! What is promised about an event that was answered with a 2xx is said where it is [kept](inbox#what-is-promised).
//!
//! # The answers
//!
//! | case | answer | Didit |
//! |---|---|---|
//! | taken in, or known already | 200 | is done with it |
//! | a forgery: a wrong or missing signature, another time than signed | 401 | drops it |
//! | not an event, headers that are there twice or malformed, signed too long ago | 400 | drops it |
//! | a body longer, or nested deeper, than is taken | 413 | drops it |
//! | not a POST | 405 | drops it |
//! | the inbox failed, is full or slow; the body broke off or was slow; too many at once | 503 | repeats it |
//!
//! Nothing else is ever answered, whatever comes in.
//!
//! # Example
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use bytes::Bytes;
//! use didit_api::webhook::{Secrets, encode, sign};
//! use http::Request;
//! use http_body_util::Full;
//! use tower::{ServiceExt, service_fn};
//! use tower_didit::webhook::{Delivery, Failure, Receiver, Worker, inbox::MemoryInbox};
//!
//! let secrets = Secrets::new(["example-secret-not-real-0123456789abcdefghi"])?;
//! // In production a `RedbInbox`, so that nothing is lost in a crash.
//! let inbox = MemoryInbox::new();
//! let receiver = Receiver::builder(secrets.clone(), inbox.clone()).build()?;
//! let (handled, mut seen) = tokio::sync::mpsc::channel(1);
//! let handler = service_fn(move |delivery: Delivery| {
//!     let handled = handled.clone();
//!     async move {
//!         handled.send(delivery.event.status.clone()).await?;
//!         Ok::<(), Failure>(())
//!     }
//! });
//! tokio::spawn(Worker::builder(inbox).build(handler)?.run());
//!
//! // What Didit does; with axum, `Router::new().route_service("/webhooks/didit", receiver)` listens for it.
//! let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
//! let body = encode(&serde_json::json!({
//!     "event_id": "e-1", "webhook_type": "status.updated", "timestamp": now, "session_id": "s-1", "status": "Approved",
//! }))?;
//! let mut request = Request::post("/webhooks/didit").body(Full::<Bytes>::from(body.clone()))?;
//! request.headers_mut().extend(sign(body.as_bytes(), &secrets)?);
//! assert_eq!(receiver.oneshot(request).await?.status(), 200);
//! assert_eq!(seen.recv().await.flatten().as_deref(), Some("Approved"));
//! # Ok(())
//! # }
//! ```
//!
//! # Correlation
//!
//! The handler runs under the correlation id of the request that began the session, and so does everything it calls
//! through the stack. Where that id comes from is told in [`journey`]. The receiver's own log line has it too; it stands
//! outside the span of the request, which knows another id or none, so the route needs no
//! [`InboundCorrelationLayer`](crate::correlation::InboundCorrelationLayer).
//!
//! # Log lines
//!
//! They stand in spans of their own, `webhook received`, `webhook` while it is handled, and `sweep`. Each has
//! `correlation_id` and `session_id`; the first two have `event` (its key), `webhook_type` and `status` too, and `webhook`
//! has `attempt`. Nothing else of a body is told. An `event` without an id of Didit's is named after what it is about, which
//! for persons is their `vendor_data`.
//!
//! # Secrets
//!
//! During a rotation the receiver is given both secrets. An event that is signed with one it does not have is answered with
//! 401 and dropped by Didit, without further notice; the [sweep] finds what it said.

mod delivery;
#[cfg(feature = "webhook-axum")]
mod extract;
pub mod inbox;
pub mod journey;
mod receiver;
pub mod sweep;
mod worker;

pub use self::{
    delivery::{Delivery, Failure},
    receiver::{Receiver, ReceiverBuilder, Refusal, Webhook},
    worker::{Worker, WorkerBuilder},
};
