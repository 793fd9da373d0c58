//! The shape of every layer's error, and what configuration can get wrong.

use std::{fmt, marker::PhantomData, time::Duration};

use didit_api::limits::UnknownEndpoint;

/// The error of a layer that can refuse or end a call on its own: its own small error, or the inner service's.
///
/// The inner error is never wrapped away: it is a variant here and the [`source`](std::error::Error::source) of this
/// error, so that whatever recognises it by downcasting still does. `Debug` shows it by its type only: what it says may
/// include the URL, as reqwest's errors do.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LayerError<L, E> {
    /// The layer's own decision.
    #[error(transparent)]
    Layer(L),
    /// The inner service's error.
    #[error("the inner service failed")]
    Inner(#[source] E),
}

impl<L, E> LayerError<L, E> {
    /// The layer's own error, if it is one.
    pub fn as_layer(&self) -> Option<&L> {
        match self {
            Self::Layer(error) => Some(error),
            Self::Inner(_) => None,
        }
    }

    /// The inner service's error, if it is one.
    pub fn as_inner(&self) -> Option<&E> {
        match self {
            Self::Inner(error) => Some(error),
            Self::Layer(_) => None,
        }
    }
}

impl<L: fmt::Debug, E> fmt::Debug for LayerError<L, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layer(error) => f.debug_tuple("Layer").field(error).finish(),
            Self::Inner(_) => f.debug_tuple("Inner").field(&Unseen::<E>::NEW).finish(),
        }
    }
}

/// Stands in `Debug` output for an error that is not ours: its type, and nothing that it says.
pub(crate) struct Unseen<E>(PhantomData<E>);

impl<E> Unseen<E> {
    pub(crate) const NEW: Self = Self(PhantomData);
}

impl<E> fmt::Debug for Unseen<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::any::type_name::<E>())
    }
}

/// Why a layer or the stack cannot be built. Each names the setting, the offending value, and what is allowed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A setting that must not be zero.
    #[error("{setting} is zero; it must be at least {least}")]
    Zero {
        /// The setting.
        setting: &'static str,
        /// The least that is allowed.
        least: &'static str,
    },
    /// A duration outside its range.
    #[error("{setting} is {value:?}; allowed is {least:?} to {most:?}")]
    Duration {
        /// The setting.
        setting: &'static str,
        /// The offending value.
        value: Duration,
        /// The least that is allowed.
        least: Duration,
        /// The most that is allowed.
        most: Duration,
    },
    /// A size beyond its bound.
    #[error("{setting} is {value} bytes; allowed is at most {most}")]
    Bytes {
        /// The setting.
        setting: &'static str,
        /// The offending value, in bytes.
        value: usize,
        /// The most that is allowed, in bytes.
        most: usize,
    },
    /// A number outside its range.
    #[error("{setting} is {value}; allowed is {least} to {most}")]
    Number {
        /// The setting.
        setting: &'static str,
        /// The offending value.
        value: f64,
        /// The least that is allowed.
        least: f64,
        /// The most that is allowed.
        most: f64,
    },
    /// A cold start that assumes slots of so wide a limit that they would not fit into memory.
    #[error("cold_start assumes slots of a limit of {limit}; allowed are limits of at most {most}")]
    ColdStart {
        /// The widest limit.
        limit: u32,
        /// The widest that is allowed.
        most: u32,
    },
    /// The longest wait of a backoff is below its first.
    #[error("the cap of a backoff is {cap:?}, below its base of {base:?}; it must be at least the base")]
    CapBelowBase {
        /// The base.
        base: Duration,
        /// The cap.
        cap: Duration,
    },
    /// An API key that cannot stand in a header. The key itself is not shown.
    #[error("the API key is {problem}; allowed is visible ASCII, without spaces and line ends")]
    ApiKey {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A base URL that requests cannot be sent to.
    #[error("base URL {url:?} {problem}; allowed is http:// or https:// with a host and no path")]
    BaseUrl {
        /// The offending text, without user information.
        url: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A header's name that the stack cannot put a value of its own under.
    #[error(
        "{setting} is {name:?}, {problem}; allowed is a header that neither HTTP nor the stack uses, such as {such_as}"
    )]
    Header {
        /// The setting.
        setting: &'static str,
        /// The offending name.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
        /// One that can be used.
        such_as: &'static str,
    },
    /// Limits that name endpoints which the route table does not have.
    #[error("the limits count what the route table does not have: {}", list(unknown))]
    UnknownEndpoints {
        /// The endpoints, and the scopes that name them.
        unknown: Vec<UnknownEndpoint>,
    },
}

fn list(unknown: &[UnknownEndpoint]) -> String {
    unknown.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Checks that a duration lies in a range.
#[allow(dead_code, reason = "each layer that checks a duration has its own feature")]
pub(crate) fn check_duration(
    setting: &'static str,
    value: Duration,
    least: Duration,
    most: Duration,
) -> Result<Duration, ConfigError> {
    if value < least || value > most {
        return Err(ConfigError::Duration { setting, value, least, most });
    }
    Ok(value)
}
