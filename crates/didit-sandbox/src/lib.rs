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
//! | `GET /v3/sessions/` | newest first; `vendor_data`, `status`, `workflow_id`, `limit`, `offset`; may lag behind ([`list_delay`](SandboxBuilder::list_delay)) |
//! | `PATCH /v3/session/{id}/update-status/` | the documented transitions; the same value is 400 with a bare array |
//! | `DELETE /v3/session/{id}/delete/` | 204, then 404 |
//! | `GET /v3/session/{id}/generate-pdf/` | a PDF |
//! | `POST /v3/aml/` | honours `Idempotency-Key`: same body replayed and billed once, other body 409 |
//! | `POST /v3/id-verification/` | multipart, `front_image` required |
//! | `POST /v3/transactions/` | a `transaction_id` is accepted once: then 400, or 409 while the first request with it is in flight |
//! | `POST /v3/events/`, `POST /v3/events/batch/` | each `event_id` `accepted` once and `replayed` after; 201, or 207 if an item is `rejected` |
//! | `POST /v3/phone/send/`, `POST /v3/session/imports/` | as any other route, with limits of their own if asked for (below) |
//! | `GET /system/healthcheck` | with and without its final slash, no key, no limit |
//! | any other route of the table | key and limits are checked; the answer is a small object with `request_id` |
//! | a path without its final slash | 301, the query kept |
//!
//! Rate limits are exact sliding windows per key and scope; refusals carry the documented headers and nothing else
//! does. Requests without a known key share one set of windows. Windows are all that a key has to itself: the keys of a
//! sandbox belong to one application, so that sessions, ids accepted once and what an `Idempotency-Key` replays are
//! shared by all of them. A request that arrives is counted before anything
//! else is looked at, so that invalid and faulted ones count too; redirects are not counted.
//!
//! A transaction is in flight from its arrival until its answer has reached the client: for as long as the simulated
//! latency and a [`Delay`](Fault::Delay) hold the answer back, and until a [late commit](Fault::LateCommit) is done.
//!
//! # What can be switched on
//!
//! | Builder | Command line | |
//! |---|---|---|
//! | [`faults`](SandboxBuilder::faults) | `--faults FILE` | what goes wrong: see [`faults`] |
//! | [`latency`](SandboxBuilder::latency) | `--latency TIME` | time until the arrival, and until the answer |
//! | [`neighbour`](SandboxBuilder::neighbour) | `--neighbour N` | somebody else uses the key |
//! | [`abandoned_requests_arrive`](SandboxBuilder::abandoned_requests_arrive) | `--abandoned-arrive` | a request arrives though its client is gone |
//! | [`list_delay`](SandboxBuilder::list_delay) | `--list-delay TIME` | new sessions are listed late |
//! | [`clock_ahead`](SandboxBuilder::clock_ahead), [`clock_behind`](SandboxBuilder::clock_behind) | `--clock-skew SECONDS` | the server's clock is wrong |
//! | [`date_header`](SandboxBuilder::date_header) | always | a `Date` on every answer |
//! | [`throttle_retry_after`](SandboxBuilder::throttle_retry_after) | `--retry-after FORM` | the `Retry-After` of a 429 |
//! | [`throttle_reset`](SandboxBuilder::throttle_reset) | `--reset FORM` | the `X-RateLimit-Reset` of a 429 |
//! | [`sandbox_quota`](SandboxBuilder::sandbox_quota) | `--sandbox-quota N` | sessions per 24 hours |
//! | [`phone_attempts`](SandboxBuilder::phone_attempts) | `--phone-attempts N` | codes per number and hour |
//! | [`import_time`](SandboxBuilder::import_time) | `--import-time MS` | one import at a time |
//! | [`count_rejected`](SandboxBuilder::count_rejected) | `--count-rejected` | refused requests count too |
//! | [`whole_second_stamps`](SandboxBuilder::whole_second_stamps) | `--whole-seconds` | windows of whole seconds |
//! | [`wrong_key_is_401`](SandboxBuilder::wrong_key_is_401) | `--wrong-key-401` | 401 instead of 403 |
//! | [`webhook`](SandboxBuilder::webhook) | `--webhook-url URL`, `--webhook-secret TEXT` | signed webhooks: see [`webhooks`] |
//! | [`webhook_fault`](SandboxBuilder::webhook_fault) | `--webhook-drop P`, `--webhook-duplicate P`, `--webhook-shuffle MS` | webhooks that never come, come twice, come in another order |
//! | [`finish_sessions`](SandboxBuilder::finish_sessions) | `--finish-after MS`, `--finish-status STATUS` | sessions that end by themselves |
//!
//! Sessions per day, codes per number and imports at a time are refused with a 429 that is no rate window: without
//! `X-RateLimit-*`, and for the quota alone with `Retry-After`.
//!
//! Nothing but webhooks runs in the background: late commits and abandoned requests happen at their times, whenever the
//! sandbox is next looked at.
//!
//! # For tests
//!
//! | In code | Over HTTP (no key, not counted) | |
//! |---|---|---|
//! | [`Sandbox::stats`] | `GET /_sandbox/stats` | [`Stats`] |
//! | [`Sandbox::journal`] | `GET /_sandbox/journal` | a list of [`JournalEntry`] |
//! | [`Sandbox::effects`] | `GET /_sandbox/effects` | effects by operation id and route: none lost, none twice |
//! | [`Sandbox::set_session_status`] | `POST /_sandbox/session/{id}/status`, `{"status": "Approved"}` | what a user or reviewer would bring about |
//! | [`Sandbox::finish_session_after`] | the same with `"after_ms": 5000` | what will have been brought about by then |
//! | [`Sandbox::webhooks`] | `GET /_sandbox/webhooks` | a list of [`WebhookRecord`] |
//! | [`Sandbox::resend_webhook`] | `POST /_sandbox/webhooks/{event_id}/resend` | an event again, as by hand |
//! | [`Sandbox::set_webhook_secret`] | | a rotation |
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

mod agenda;
mod answer;
mod body;
mod builder;
mod call;
mod clock;
mod connection;
mod faulted;
pub mod faults;
mod hints;
mod ids;
mod ingested;
mod journal;
mod latency;
mod limiter;
mod neighbour;
mod odd_limits;
mod replays;
mod resolve;
mod routes;
mod server;
mod service;
mod sessions;
mod stats;
pub mod webhooks;
mod window;
mod world;

pub use body::SandboxBody;
pub use builder::{
    BuildError, DEFAULT_API_KEY, DEFAULT_JOURNAL_CAPACITY, DEFAULT_SESSION_LIFETIME, DEFAULT_WORKFLOW_ID,
    DOCUMENTED_PHONE_ATTEMPTS, DOCUMENTED_SANDBOX_QUOTA, SandboxBuilder,
};
pub use connection::ConnectionLost;
pub use faults::{Ending, Fault, Faults, FaultsError, Refusal, RetryAfter, Rule, Truncation, When};
pub use hints::{ResetForm, RetryAfterForm};
pub use journal::JournalEntry;
pub use latency::{Distribution, Latency};
pub use neighbour::Neighbour;
pub use server::{ServeError, Server, serve, serve_anywhere};
pub use service::{ResponseFuture, Sandbox, SetSecretError, UnknownEvent, UnknownSession};
pub use stats::{Peak, Stats};
pub use webhooks::{
    DEFAULT_WEBHOOK_SECRET, Destination, DestinationError, RetryStamp, WebhookAttempt, WebhookError, WebhookFault,
    WebhookOutcome, WebhookRecord,
};
