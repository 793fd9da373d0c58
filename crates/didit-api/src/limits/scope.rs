//! One scope: how many requests of which kind in which time.

use std::{num::NonZeroU32, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Limits, LimitsError, file};

/// One counter: at most `limit` requests in any window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "file::RawScope", into = "file::RawScope")]
pub struct Scope {
    pub(super) name: String,
    pub(super) limit: NonZeroU32,
    pub(super) window: Duration,
    pub(super) counts: Counts,
    /// [`Mode::Add`] if methods are counted, or [`Limits::with`] refuses the scope.
    pub(super) mode: Mode,
}

// ===== impl Scope =====

impl Scope {
    /// The least that a clock of milliseconds can tell apart.
    const SHORTEST_WINDOW: Duration = Duration::from_millis(1);

    /// Didit's longest is the sandbox's quota of a day.
    const LONGEST_WINDOW: Duration = Duration::from_secs(86_400);

    /// A scope that counts every request with one of these methods.
    ///
    /// # Errors
    ///
    /// [`LimitsError::Zero`] if `limit` is 0, [`LimitsError::Nothing`] if no method is given, [`LimitsError::Method`]
    /// if one is not a method in capital letters (methods are case-sensitive: `get` would never match).
    pub fn methods<'a>(
        name: impl Into<String>,
        limit: u32,
        methods: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, LimitsError> {
        let methods = methods.into_iter().map(str::to_owned).collect();
        Self::new(name.into(), limit, Counts::Methods(methods))
    }

    /// A scope that counts these endpoints, in addition to the scope of their method.
    ///
    /// # Errors
    ///
    /// [`LimitsError::Zero`] if `limit` is 0, [`LimitsError::Nothing`] if no endpoint is given.
    pub fn endpoints<'a>(
        name: impl Into<String>,
        limit: u32,
        endpoints: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, LimitsError> {
        let endpoints = endpoints.into_iter().map(str::to_owned).collect();
        Self::new(name.into(), limit, Counts::Endpoints(endpoints))
    }

    pub(super) fn new(name: String, limit: u32, counts: Counts) -> Result<Self, LimitsError> {
        let Some(limit) = NonZeroU32::new(limit) else {
            return Err(LimitsError::Zero { scope: name });
        };
        let (Counts::Methods(counted) | Counts::Endpoints(counted)) = &counts;
        if counted.is_empty() {
            return Err(LimitsError::Nothing { scope: name });
        }
        if let Counts::Methods(methods) = &counts {
            let usable = |method: &&String| !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase());
            if let Some(method) = methods.iter().find(|method| !usable(method)) {
                return Err(LimitsError::Method { scope: name, method: method.clone() });
            }
        }
        Ok(Self { name, limit, window: Limits::WINDOW, counts, mode: Mode::Add })
    }

    /// Counts its endpoints *instead of* the scope of their method.
    ///
    /// A scope of methods is the one that is replaced: [`Limits::with`] refuses it with [`LimitsError::Mode`].
    #[must_use]
    pub fn replacing(mut self) -> Self {
        self.mode = Mode::Replace;
        self
    }

    /// Counts its endpoints *in addition to* the scope of their method, as every scope does at first.
    #[must_use]
    pub fn adding(mut self) -> Self {
        self.mode = Mode::Add;
        self
    }

    /// Changes the limit.
    ///
    /// # Errors
    ///
    /// [`LimitsError::Zero`] if `limit` is 0.
    pub fn with_limit(mut self, limit: u32) -> Result<Self, LimitsError> {
        self.limit = NonZeroU32::new(limit).ok_or(LimitsError::Zero { scope: self.name.clone() })?;
        Ok(self)
    }

    /// Changes the window; Didit's are all 60 s.
    ///
    /// # Errors
    ///
    /// [`LimitsError::Window`] if it is shorter than 1 ms or longer than a day.
    pub fn with_window(mut self, window: Duration) -> Result<Self, LimitsError> {
        if !(Self::SHORTEST_WINDOW..=Self::LONGEST_WINDOW).contains(&window) {
            return Err(LimitsError::Window { scope: self.name, window });
        }
        self.window = window;
        Ok(self)
    }

    /// A short, stable name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The most requests that any one window may hold.
    pub fn limit(&self) -> NonZeroU32 {
        self.limit
    }

    /// The length of the sliding window.
    pub fn window(&self) -> Duration {
        self.window
    }

    /// The names of the methods this scope counts; none if it counts endpoints.
    pub fn method_names(&self) -> impl Iterator<Item = &str> {
        let names = if let Counts::Methods(names) = &self.counts { names.as_slice() } else { &[] };
        names.iter().map(String::as_str)
    }

    /// The names of the endpoints this scope counts; none if it counts methods.
    pub fn endpoint_names(&self) -> impl Iterator<Item = &str> {
        let names = if let Counts::Endpoints(names) = &self.counts { names.as_slice() } else { &[] };
        names.iter().map(String::as_str)
    }

    /// Whether its endpoints are counted here *instead of* by the scope of their method.
    pub fn is_replacing(&self) -> bool {
        self.mode == Mode::Replace
    }
}

/// What a scope counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Counts {
    Methods(Vec<String>),
    Endpoints(Vec<String>),
}

/// How a scope of endpoints stands to the scope of their method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mode {
    #[default]
    Add,
    Replace,
}
