//! Didit's HTTP API as data: which routes there are and what each one is worth, how often it may be called, what
//! a session can be, and what an error looks like. No runtime, no I/O, no opinion about clients.
//!
//! | module | what it answers |
//! |---|---|
//! | [`routes`], [`endpoint`] | which route a request is, whether it may be repeated, how long it may take |
//! | [`limits`] | which rate limits count it, and how wide they are |
//! | [`status`] | what a session's status means, and whether it can still change |
//! | [`error`] | what Didit's many error bodies say |
//! | [`shapes`] | requests and responses for serde |
//! | `webhook` (feature `webhook`) | whether a webhook is Didit's, which event it is, and whether it is out of date |
//!
//! Didit's API grows without a new version: values are added to enumerations and fields to objects. Every type here
//! is open-ended, so that an addition is data and never an error.
//!
//! # Example
//!
//! ```
//! use didit_api::{Limits, RetryClass, Routes};
//! use http::Method;
//!
//! let routes = Routes::didit();
//! let limits = Limits::didit();
//! let scopes = limits.table(&routes);
//!
//! let aml = routes.find(&Method::POST, "/v3/aml/").ok_or("a known route")?;
//! assert_eq!(routes.get(aml).retry_class(), RetryClass::IdempotencyKey);
//!
//! let counted = scopes.of(Some(aml), &Method::POST);
//! let names: Vec<_> = counted.iter().map(|id| limits.scopes()[id.index()].name()).collect();
//! assert_eq!(names, ["generic-write"]);
//! # Ok::<(), &str>(())
//! ```

pub mod endpoint;
pub mod error;
pub mod limits;
mod open_enum;
pub mod routes;
pub mod secret;
pub mod shapes;
pub mod status;
mod table;
#[cfg(feature = "webhook")]
pub mod webhook;

pub use endpoint::{Endpoint, RetryClass, ServiceGroup};
pub use error::ErrorBody;
pub use limits::{Limits, Scope, ScopeId, ScopeSet, ScopeTable};
pub use open_enum::Unrecognised;
pub use routes::{EndpointId, Routes};
pub use secret::Secret;
pub use status::{FeatureStatus, Phase, SessionStatus};
