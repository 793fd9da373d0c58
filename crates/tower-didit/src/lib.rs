//! [Tower] layers around calls to [Didit]'s identity verification API: they repeat what may be repeated, send no more
//! than the quota has room for, leave a failing part of Didit alone, and let every call be followed by one id.
//!
//! # Why
//!
//! Didit's API is remote, rate limited and billed per check, and a check takes up to two minutes. A client that repeats
//! every failure pays for some checks twice; one that repeats none loses calls; one that learns of a limit from a 429
//! has already sent too much, because Didit says how much is left only when it refuses. What is right differs from route
//! to route, so the layers here decide by a [route table](didit_api::Routes), and all of them read one verdict about
//! what an attempt came to: [`outcome`].
//!
//! # A first program
//!
//! The application keeps building `http::Request`s and keeps its client. [`DiditLayer`] puts all layers around it:
//!
#![cfg_attr(feature = "full", doc = "```no_run")]
#![cfg_attr(not(feature = "full"), doc = "```ignore")]
//! use bytes::Bytes;
//! use http::Request;
//! use http_body_util::Empty;
//! use hyper_util::{client::legacy::Client, rt::TokioExecutor};
//! use tower::{Layer, ServiceExt};
//! use tower_didit::DiditLayer;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let https = hyper_rustls::HttpsConnectorBuilder::new().with_webpki_roots().https_only().enable_http1().build();
//! let client = Client::builder(TokioExecutor::new()).build(https);
//! let didit = DiditLayer::builder().api_key("secret").build()?.layer(client);
//!
//! // The host and the key are filled in; clones are cheap and share quota, circuits and budget.
//! let request = Request::get("/v3/sessions/?limit=5").body(Empty::<Bytes>::new())?;
//! let response = didit.clone().oneshot(request).await?;
//! assert_eq!(response.status(), 200);
//! # Ok(())
//! # }
//! ```
//!
//! The repository's README has the same as a whole program, and a local Didit to run it against.
//!
//! # The order of the layers
//!
//! ```text
//! correlation            opens the call: everything below logs under its id
//!   telemetry, calls       tells what came of it, and what its time went into
//!     idempotency          names the call once: all attempts share the key
//!       deadline           bounds everything below, waiting included
//!         retry            repeats what is under it
//!           breaker, peek    an open circuit refuses before the call queues
//!             pacing           every attempt takes a slot of each scope that counts it
//!               breaker, ticket  admission is decided at dispatch, after the queue
//!                 telemetry, attempts  below every wait: a span and a traceparent each
//!                   attempt timeout      wire time only
//!                     the client
//! ```
//!
//! Each layer also stands alone around any HTTP service, and [`tower::ServiceBuilder`] composes them; the outermost is
//! written first:
//!
#![cfg_attr(feature = "full", doc = "```no_run")]
#![cfg_attr(not(feature = "full"), doc = "```ignore")]
//! # use bytes::Bytes;
//! # use http::Request;
//! # use http_body_util::Full;
//! use std::time::Duration;
//! # use hyper_util::{client::legacy::Client, rt::TokioExecutor};
//! # use tower::ServiceExt;
//! use tower::ServiceBuilder;
//! use tower_didit::{
//!     attempt_timeout::AttemptTimeoutLayer, circuit_breaker::CircuitBreakerLayer, correlation::CorrelationLayer,
//!     deadline::DeadlineLayer, idempotency::IdempotencyLayer, pacing::PacingLayer, retry::RetryLayer,
//!     telemetry::TelemetryLayer,
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let https = hyper_rustls::HttpsConnectorBuilder::new().with_webpki_roots().https_only().enable_http1().build();
//! # let client = Client::builder(TokioExecutor::new()).build(https);
//! let (breaker, telemetry) = (CircuitBreakerLayer::didit(), TelemetryLayer::didit());
//! let service = ServiceBuilder::new()
//!     .layer(CorrelationLayer::new().attempts_traced(true))
//!     .layer(telemetry.clone())
//!     .layer(IdempotencyLayer::new())
//!     .layer(DeadlineLayer::new(Duration::from_secs(120)))
//!     .layer(RetryLayer::didit())
//!     .layer(breaker.peek())
//!     .layer(PacingLayer::didit())
//!     .layer(breaker)
//!     .layer(telemetry.attempts())
//!     .layer(AttemptTimeoutLayer::didit())
//!     .service(client);
//! # let request = Request::post("https://verification.didit.me/v3/aml/").body(Full::<Bytes>::default())?;
//! # service.oneshot(request).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What the caller sees
//!
//! - **Responses** are the server's own, 4xx and 5xx included: an answer is never turned into an error.
//! - **Errors** keep the client's own error type, with its sources intact. A layer that refused a call says when to come
//!   back, as [`stack::Error::retry_at`] does for the whole stack.
//! - **One call** asks for something else with [`call::CallOptions`] in its request's extensions, and tells how it went
//!   in a [`call::CallReport`] in its response's extensions.
//! - **One business operation** that is named with [`call::CallOptions::operation_id`] has one idempotency key in every
//!   process, and with a [store](idempotency::stored) it happens once, restarts included.
//! - **Request bodies** in memory (`Full`, `Empty`) are sent again by reference count. A streaming body is recorded as
//!   it is sent, up to 16 MiB, and sent again from there; a larger one goes out once.
//! - **Time** is tokio's, so that a test with a paused clock drives every layer.
//!
//! # The answer that comes hours later
//!
//! What came of a session is told by webhook. [`webhook`] receives it: answered in time, kept on the disk, handled once and
//! in order, and logged under the correlation id of the request that created the session.
//!
//! # Feature flags
//!
//! Nothing is on by default.
//!
//! | feature | what it adds | default |
//! |---|---|---|
//! | `full` | `stack`, `config`, `hyper`, `h2`, `idempotency-redb`, `telemetry`, `webhook-axum` and `webhook-redb` | |
//! | `stack` | [`DiditLayer`]: all layers in the right order | |
//! | `config` | [`config`]: the stack's settings as a file, from the environment, and their JSON Schema; includes `stack` | |
//! | `attempt-timeout` | [`attempt_timeout`]: a time on the wire for each endpoint | |
//! | `circuit-breaker` | [`circuit_breaker`]: a failing service group is left alone | |
//! | `correlation` | [`correlation`]: one id and one trace for a journey, in and out | |
//! | `deadline` | [`deadline`]: one time for the whole call | |
//! | `idempotency` | [`idempotency`]: one key for all attempts, and stores that let each operation happen once | |
//! | `idempotency-redb` | [`RedbStore`](idempotency::store::RedbStore): a store that outlives the process | |
//! | `pacing` | [`pacing`]: no more requests than the quota has room for | |
//! | `retry` | [`retry`] and [`body`]: repeats what may be repeated, streams included | |
//! | `telemetry` | [`telemetry`]: spans of attempts, and metrics through the [`metrics`] facade | |
//! | `opentelemetry` | the ids of traces are those of OpenTelemetry's layer, where it keeps any; includes `correlation` and `telemetry` | |
//! | `webhook` | [`webhook`]: receives Didit's webhooks, once, in order, and under the id of their journey | |
//! | `webhook-axum` | [`Webhook`](webhook::Webhook) as an axum extractor | |
//! | `webhook-redb` | [`RedbInbox`](webhook::inbox::RedbInbox): an inbox that outlives the process | |
//! | `hyper` | reads the errors of hyper's clients: what was never sent is told from what broke | |
//! | `h2` | the same for single requests of an HTTP/2 connection | |
//! | `serde` | reads and writes [snapshots](pacing::PacingSnapshot) of the quota | |
//! | `reqwest` | the same for reqwest; includes `hyper` | |
//!
//! [`call`], [`error`], [`outcome`] and [`quota`] are always there. Without `hyper`, a failed connection counts as
//! ambiguous, which is the careful reading, unless the system refused it.
//!
//! [Tower]: https://docs.rs/tower
//! [Didit]: https://docs.didit.me

#![cfg_attr(docsrs, feature(doc_cfg))]

#[macro_use]
mod macros;

pub mod call;
mod clock;
#[cfg(any(feature = "idempotency", feature = "webhook"))]
mod created_at;
pub mod error;
#[cfg(any(feature = "attempt-timeout", feature = "deadline"))]
mod expiring;
#[cfg(any(feature = "correlation", feature = "idempotency"))]
mod ids;
#[cfg(any(feature = "idempotency", feature = "telemetry", feature = "webhook"))]
mod in_memory;
#[cfg(any(feature = "correlation", feature = "telemetry"))]
mod method;
pub mod outcome;
#[cfg(any(feature = "idempotency", feature = "webhook"))]
mod payload;
#[cfg_attr(not(feature = "stack"), allow(dead_code, reason = "each layer that uses a part has its own feature"))]
mod pool;
pub mod quota;
mod random;
#[cfg(any(feature = "circuit-breaker", feature = "deadline", feature = "pacing"))]
mod readiness;
#[cfg(any(feature = "circuit-breaker", feature = "deadline"))]
mod refusable;
#[cfg(any(feature = "circuit-breaker", feature = "pacing"))]
mod sync;
#[cfg(any(feature = "idempotency", feature = "webhook"))]
mod timestamp;
#[cfg(any(feature = "correlation", feature = "telemetry"))]
mod trace;

#[cfg(feature = "attempt-timeout")]
pub mod attempt_timeout;
#[cfg(feature = "retry")]
pub mod body;
#[cfg(feature = "circuit-breaker")]
pub mod circuit_breaker;
#[cfg(feature = "config")]
pub mod config;
#[cfg(feature = "correlation")]
pub mod correlation;
#[cfg(feature = "deadline")]
pub mod deadline;
#[cfg(feature = "idempotency")]
pub mod idempotency;
#[cfg(feature = "pacing")]
pub mod pacing;
#[cfg(feature = "retry")]
pub mod retry;
#[cfg(feature = "stack")]
pub mod stack;
#[cfg(feature = "telemetry")]
pub mod telemetry;
#[cfg(feature = "webhook")]
pub mod webhook;

#[cfg(feature = "stack")]
pub use self::stack::{DiditLayer, DiditService, StoredDiditService};
pub use self::{error::ConfigError, random::Randomness};

/// Compiles the program of the README.
#[cfg(all(doctest, feature = "full"))]
#[doc = include_str!("../../../README.md")]
struct Readme;
