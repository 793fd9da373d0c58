//! What the tests of the workspace share: a probe for readiness, requests to the local Didit, a server that counts its
//! connections, and a log in memory.

mod date;
mod json_log;
mod named;
mod probe;
mod requests;
mod upload;
mod upstream;

pub use self::{
    date::date,
    json_log::JsonLog,
    named::{File, SECOND, Still, approve_all, creation, json, of, settle_down, stored, with},
    probe::{Answer, ReadinessProbe},
    requests::{Body, create_session, get, limits, sandbox, to},
    upload::{Digest, Upload},
    upstream::{AnyBody, Upstream},
};
