//! The messages, and what tonic wrote around them (see `build.rs`).
//!
//! As a `.proto` file:
//!
//! ```proto
//! syntax = "proto3";
//! package demo.verification.v1;
//!
//! service Verifications {
//!   rpc Start(StartRequest) returns (Verification);
//!   rpc Read(ReadRequest) returns (Verification);
//! }
//!
//! message StartRequest { string user = 1; }
//! message ReadRequest { string session_id = 1; }
//! message Verification { string session_id = 1; string status = 2; string url = 3; }
//! ```

use std::fmt;

/// Asks for a verification of a user, or for the unfinished one that the user already has.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StartRequest {
    /// The caller's own id of the user.
    #[prost(string, tag = "1")]
    pub user: String,
}

/// Asks how far a verification is.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReadRequest {
    /// The session's id.
    #[prost(string, tag = "1")]
    pub session_id: String,
}

/// A verification.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct Verification {
    /// The session's id.
    #[prost(string, tag = "1")]
    pub session_id: String,
    /// How far it is, in Didit's words.
    #[prost(string, tag = "2")]
    pub status: String,
    /// Where to send the user; empty except in the answer to `Start`.
    #[prost(string, tag = "3")]
    pub url: String,
}

/// Leaves the link out: whoever has it can open the session, so it belongs in no log.
impl fmt::Debug for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verification")
            .field("session_id", &self.session_id)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

pub use self::generated::{verifications_client, verifications_server};

#[allow(unused_qualifications, clippy::doc_markdown, reason = "written by tonic")]
mod generated {
    tonic::include_proto!("demo.verification.v1.Verifications");
}
