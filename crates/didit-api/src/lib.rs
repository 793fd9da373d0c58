//! Didit's HTTP API as data: which routes there are and what each one is worth, how often it may be called, what
//! a session can be, and what an error looks like. No runtime, no I/O, no opinion about clients.

pub mod endpoint;
pub mod limits;
pub mod routes;
mod table;

pub use endpoint::{Endpoint, RetryClass, ServiceGroup};
pub use limits::{Limits, Scope, ScopeId, ScopeSet, ScopeTable};
pub use routes::{EndpointId, Routes};
