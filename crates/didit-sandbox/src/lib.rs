//! A local Didit: its routes, bodies, statuses and rate limits as documented, and on top of them faults on request
//! and statistics that tests count with.
//!
//! The [`Sandbox`] is a tower service. It needs no socket, all of its time is tokio's, so that a paused clock drives it,
//! and all of its randomness comes from a seed. [`serve`] puts it on a loopback port, and the binary `didit-sandbox`
//! does so from the command line.
//!
//! # What it does
//!
//! | Request | Behaviour |
//! |---|---|
//! | `POST /v3/session/` | 201; an unfinished session with the same `vendor_data` and workflow is returned again, its `callback` and `metadata` replaced |
//! | `GET /v3/session/{id}/decision/` | the decision of version 3, with arrays that are null until the check has run |
//! | `GET /v3/sessions/` | newest first; `vendor_data`, `status`, `workflow_id`, `limit`, `offset` |
//! | `PATCH /v3/session/{id}/update-status/` | the documented transitions; the same value is 400 with a bare array |
//! | `DELETE /v3/session/{id}/delete/` | 204, then 404 |
//! | `GET /v3/session/{id}/generate-pdf/` | a PDF |
//! | `POST /v3/aml/` | honours `Idempotency-Key`: same body replayed and billed once, other body 409 |
//! | `POST /v3/id-verification/` | multipart, `front_image` required |
//! | `GET /system/healthcheck` | with and without its final slash, no key, no limit |
//! | any other route of the table | key and limits are checked; the answer is a small object with `request_id` |
//! | a path without its final slash | 301, the query kept |
//!
//! Rate limits are exact sliding windows per key and scope; refusals carry the documented headers and nothing else
//! does. Requests without a known key share one set of windows. A request that arrives is counted before anything
//! else is looked at, so that invalid and faulted ones count too; redirects are not counted.
//!
//! # For tests
//!
//! | In code | Over HTTP (no key, not counted) | |
//! |---|---|---|
//! | [`Sandbox::stats`] | `GET /_sandbox/stats` | [`Stats`] |
//! | [`Sandbox::journal`] | `GET /_sandbox/journal` | a list of [`JournalEntry`] |
//! | [`Sandbox::set_session_status`] | `POST /_sandbox/session/{id}/status`, `{"status": "Approved"}` | what a user or reviewer would bring about |
//! | [`Sandbox::reset`] | `POST /_sandbox/reset` | back to the beginning |
//!
//! Faults are described in [`faults`].
//!
//! # Example
//!
//! Ten requests meet a limit of three:
//!
//! ```
//! use didit_api::{Limits, Scope};
//! use didit_sandbox::{DEFAULT_API_KEY, Sandbox};
//! use http::Request;
//! use tower::ServiceExt;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let limits = Limits::none().with(Scope::methods("generic-get", 3, ["GET"])?)?;
//! let sandbox = Sandbox::builder().limits(limits).build()?;
//! for _ in 0..10 {
//!     let request = Request::get("/v3/sessions/").header("x-api-key", DEFAULT_API_KEY).body(String::new())?;
//!     sandbox.clone().oneshot(request).await?;
//! }
//! assert_eq!((sandbox.stats().accepted, sandbox.stats().throttled), (3, 7));
//! # Ok(())
//! # }
//! ```

mod answer;
mod body;
mod builder;
mod call;
mod clock;
mod connection;
mod fault_file;
pub mod faults;
mod ids;
mod journal;
mod latency;
mod limiter;
mod replays;
mod resolve;
mod routes;
mod server;
mod service;
mod sessions;
mod stats;
mod window;
mod world;

pub use body::SandboxBody;
pub use builder::{
    BuildError, DEFAULT_API_KEY, DEFAULT_JOURNAL_CAPACITY, DEFAULT_SESSION_LIFETIME, DEFAULT_WORKFLOW_ID,
    SandboxBuilder,
};
pub use connection::ConnectionLost;
pub use faults::{Fault, Faults, FaultsError, Rule, When};
pub use journal::JournalEntry;
pub use latency::Latency;
pub use server::{ServeError, Server, serve, serve_anywhere};
pub use service::{ResponseFuture, Sandbox, UnknownSession};
pub use stats::{Peak, Stats};
