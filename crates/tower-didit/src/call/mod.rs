//! One logical call: what the caller may ask of it, what the layers know about it while it runs, and what the caller
//! may learn afterwards.
//!
//! A *call* is what the application makes; an *attempt* is one request on the wire. What a caller wants of one call
//! goes into the request's extensions as [`CallOptions`]; how it went comes back in the response's extensions as a
//! [`CallReport`], if that was asked for or if anything happened that a caller may want to know: a repetition or a
//! wait.
//!
//! # Example
//!
//! ```
//! use std::time::Duration;
//! use http::Request;
//! use tower_didit::call::CallOptions;
//!
//! let request = Request::post("/v3/session/")
//!     .extension(CallOptions::new().deadline(Duration::from_secs(10)).report())
//!     .body(())?;
//! # Ok::<(), http::Error>(())
//! ```

#[cfg_attr(not(feature = "stack"), allow(dead_code, reason = "each layer that uses a part has its own feature"))]
pub(crate) mod current;
mod id;
mod options;
#[cfg(feature = "telemetry")]
pub(crate) mod phases;
mod report;
mod sender;

pub use self::{
    id::{CorrelationId, IdempotencyKey, InvalidId, OperationId},
    options::{CallOptions, Priority, RetryOverride},
    report::{CallReport, Provenance},
    sender::{SenderSlow, SenderWait},
};
