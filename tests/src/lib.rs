//! What the tests of the workspace share: a probe for readiness, and requests to the local Didit.

mod probe;
mod requests;

pub use self::{
    probe::{Answer, ReadinessProbe},
    requests::{Body, create_session, get, limits, sandbox, to},
};
