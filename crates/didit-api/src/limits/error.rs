//! Why limits are refused.

use std::time::Duration;

use super::Limits;

/// Why limits cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LimitsError {
    /// A limit of 0 would refuse every request for ever.
    #[error("scope {scope:?}: a limit of 0 would admit nothing; the least is 1")]
    Zero {
        /// The scope's name.
        scope: String,
    },
    /// A window outside what can be kept.
    #[error("scope {scope:?}: a window of {window:?} is outside 1 ms to 24 h")]
    Window {
        /// The scope's name.
        scope: String,
        /// The offending window.
        window: Duration,
    },
    /// The text is not JSON, or not in the form of limits.
    #[error("limits, line {line}, column {column}: {reason}")]
    Json {
        /// The line, from 1.
        line: usize,
        /// The column, from 1; 0 before the line's first character.
        column: usize,
        /// What was met, and what was expected.
        reason: String,
    },
    /// A scope of a file counts methods and endpoints at once, or neither.
    #[error("scope {scope:?}: exactly one of \"methods\" and \"endpoints\" is needed")]
    Either {
        /// The scope's name.
        scope: String,
    },
    /// A scope of methods replaces, or is given a mode in a file.
    #[error(
        "scope {scope:?}: \"mode\" belongs to \"endpoints\"; a scope of methods is the one that others add to or replace"
    )]
    Mode {
        /// The scope's name.
        scope: String,
    },
    /// An empty list: the scope would count no request at all.
    #[error("scope {scope:?} counts nothing: its list is empty")]
    Nothing {
        /// The scope's name.
        scope: String,
    },
    /// Not a method as requests carry it.
    #[error("scope {scope:?}: {method:?} is not a method in capital letters")]
    Method {
        /// The scope's name.
        scope: String,
        /// The offending method.
        method: String,
    },
    /// Two scopes of a file have one name.
    #[error("scope {scope:?} is given twice; names must be unique")]
    Duplicate {
        /// The scope's name.
        scope: String,
    },
    /// More scopes than a [`ScopeSet`](super::ScopeSet) can hold.
    #[error("more than {} scopes", Limits::MAX_SCOPES)]
    TooMany,
}

/// An endpoint that a scope names and no route has; see [`Limits::unknown_endpoints`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("scope {scope:?} counts endpoint {endpoint:?}, which is not a known route")]
#[non_exhaustive]
pub struct UnknownEndpoint {
    /// The scope's name.
    pub scope: String,
    /// The endpoint's name as the scope spells it.
    pub endpoint: String,
}
