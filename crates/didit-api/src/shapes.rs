//! Requests and responses for serde.
//!
//! Fields that Didit adds later are no error: what a type does not name is kept in its `others`, where dropping it
//! would lose something, or else skipped. Requests leave out what is not given. Where the documentation is open, so
//! is the type ([`serde_json::Value`]).
//!
//! `Debug` of every type here shows ids and statuses only: bodies are full of personal data, and a log is the wrong
//! place for it.

mod aml;
mod decision;
mod session_create;
mod session_list;

pub use aml::{AmlReport, AmlScreening, ScreenAml};
pub use decision::{Decision, Environment, FeatureResult, Warning, WarningLevel};
pub use session_create::{CallbackMethod, ContactDetails, CreateSession, CreatedSession, ExpectedDetails};
pub use session_list::{ListSessions, SessionFeature, SessionKind, SessionPage, SessionRow};

/// `Debug` that shows the named fields and keeps the rest to itself.
macro_rules! debug_only {
    ($name:ident: $($field:ident),*) => {
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name))$(.field(stringify!($field), &self.$field))*.finish_non_exhaustive()
            }
        }
    };
}

pub(crate) use debug_only;

/// A list that Didit may write as `null`.
fn null_as_empty<'de, T, D>(from: D) -> Result<Vec<T>, D::Error>
where
    T: serde::Deserialize<'de>,
    D: serde::Deserializer<'de>,
{
    Ok(<Option<Vec<T>> as serde::Deserialize>::deserialize(from)?.unwrap_or_default())
}
