//! Rate limits as versioned data: which scopes there are, how wide each is, and which requests it counts.
//!
//! Didit counts requests per scope and credential in a sliding window. A request may be counted by several scopes at
//! once, and the first one breached answers 429. The numbers changed several times within a year, so they are data:
//! [`Limits::didit`] is what the newest page says, [`Limits::version_named`] an older state, and both can be changed
//! scope by scope or read from a file.
//!
//! # What the documentation says, and where it disagrees with itself
//!
//! Source: Didit's rate-limiting page (July and November 2026).
//!
//! | scope | per minute | counts |
//! |---|---|---|
//! | `generic-get` | 600 | every GET |
//! | `generic-write` | 300 | every POST, PATCH, DELETE (PUT is named nowhere; it is counted here) |
//! | `ingest-write` | 600 | creating transactions and events, **instead of** `generic-write`; since version 2026-11 |
//! | `session-v2-create` | 600 | session creation |
//! | `session-generate-pdf` | 50 | PDF reports |
//! | `session-add-images` | 10 | adding images, POST and PATCH |
//! | `session-update-kyc` | 10 | correcting document data, POST and PATCH |
//! | `session-update-poa` | 10 | correcting proof-of-address data, POST and PATCH |
//!
//! The page's scope `session-decision` (100) covers versions 1 and 2 of the API only; a decision of version 3 is
//! counted by `generic-get` alone.
//!
//! Endpoint scopes apply in addition to the global one, says the page; by that rule session creation meets
//! `generic-write` too, and 300 a minute is the limit that matters. Didit's OpenAPI file says that 600 is the only
//! limit there. The careful reading is the default, and one line takes the other:
//!
//! ```
//! use didit_api::{Limits, Scope};
//!
//! let limits = Limits::didit().with(Scope::endpoints("session-v2-create", 600, ["session-create"])?.replacing())?;
//! # Ok::<(), didit_api::limits::LimitsError>(())
//! ```
//!
//! # As a file
//!
//! A scope counts either methods or endpoints (by their [`Endpoint::name`](crate::Endpoint::name)). `window_ms` is
//! 60000 unless given; `mode` is `add` unless it is `replace`, and belongs to endpoints only.
//!
//! ```
//! use didit_api::{Limits, Routes};
//!
//! let limits = Limits::from_json(r#"{
//!     "version": "our contract, 2026",
//!     "scopes": [
//!         { "name": "generic-get",   "limit": 1200, "methods": ["GET"] },
//!         { "name": "generic-write", "limit": 600,  "methods": ["POST", "PATCH", "DELETE", "PUT"] },
//!         { "name": "aml",  "limit": 5,   "window_ms": 1000, "endpoints": ["aml"] },
//!         { "name": "bulk", "limit": 900, "endpoints": ["transaction-create", "event-batch"], "mode": "replace" }
//!     ]
//! }"#)?;
//! assert!(limits.unknown_endpoints(&Routes::didit()).is_empty());
//! # Ok::<(), didit_api::limits::LimitsError>(())
//! ```

use std::time::Duration;

use http::Method;
use serde::{Deserialize, Serialize};

use crate::Routes;

mod documented;
mod error;
mod file;
mod scope;
mod table;

pub use error::{LimitsError, UnknownEndpoint};
pub use scope::Scope;
use scope::{Counts, Mode};
pub use table::{ScopeId, ScopeSet, ScopeTable};

/// A set of scopes with a version that says which state of the documentation it reflects.
///
/// # Example
///
/// ```
/// use didit_api::{Limits, Scope};
///
/// let limits = Limits::didit().with(Scope::endpoints("reports", 20, ["report-create"])?)?;
/// assert_eq!(limits.scope("reports").map(|scope| scope.limit().get()), Some(20));
/// # Ok::<(), didit_api::limits::LimitsError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "file::RawLimits", into = "file::RawLimits")]
pub struct Limits {
    version: String,
    scopes: Vec<Scope>,
}

// ===== impl Limits =====

impl Limits {
    /// The window of every documented scope.
    pub const WINDOW: Duration = Duration::from_secs(60);

    /// The most scopes one set can hold: as many as a [`ScopeSet`] has bits.
    pub const MAX_SCOPES: usize = 64;

    /// What the newest documentation says, as a client should take it (see [`crate::limits`]).
    pub fn didit() -> Self {
        documented::newest()
    }

    /// A documented state by its version, `None` if it is not known. [`Limits::VERSIONS`] lists them.
    pub fn version_named(version: &str) -> Option<Self> {
        match version {
            "2026-11" => Some(documented::newest()),
            "2026-07" => Some(documented::july_2026()),
            _ => None,
        }
    }

    /// The versions that [`version_named`](Self::version_named) knows, newest first.
    pub const VERSIONS: [&'static str; 2] = ["2026-11", "2026-07"];

    /// Reads limits from JSON, in the form that [`crate::limits`] shows.
    ///
    /// # Errors
    ///
    /// [`LimitsError::Json`] with line and column if the text is not JSON or holds a field that means nothing;
    /// otherwise what [`Scope`] and [`with`](Self::with) refuse, and [`LimitsError::Duplicate`].
    pub fn from_json(json: &str) -> Result<Self, LimitsError> {
        file::read(json)
    }

    /// A set without scopes: nothing is limited.
    pub fn none() -> Self {
        Self { version: "none".to_owned(), scopes: Vec::new() }
    }

    /// Adds a scope, or replaces the one of the same name.
    ///
    /// # Errors
    ///
    /// [`LimitsError::Mode`] if a scope of methods is [`replacing`](Scope::replacing), [`LimitsError::TooMany`] beyond
    /// [`MAX_SCOPES`](Self::MAX_SCOPES).
    pub fn with(mut self, scope: Scope) -> Result<Self, LimitsError> {
        if scope.is_replacing() && matches!(scope.counts, Counts::Methods(_)) {
            return Err(LimitsError::Mode { scope: scope.name });
        }
        match self.scopes.iter().position(|known| known.name == scope.name) {
            Some(index) => self.scopes[index] = scope,
            None if self.scopes.len() == Self::MAX_SCOPES => return Err(LimitsError::TooMany),
            None => self.scopes.push(scope),
        }
        Ok(self)
    }

    /// Drops the scope of that name, if there is one.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.scopes.retain(|scope| scope.name != name);
        self
    }

    /// Which state of the documentation this is.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The scope of that name.
    pub fn scope(&self, name: &str) -> Option<&Scope> {
        self.scopes.iter().find(|scope| scope.name == name)
    }

    /// All scopes, in order of their [`ScopeId`]s.
    pub fn scopes(&self) -> &[Scope] {
        &self.scopes
    }

    /// All scopes with their ids.
    pub fn iter(&self) -> impl Iterator<Item = (ScopeId, &Scope)> {
        (0u8..).map(ScopeId).zip(&self.scopes)
    }

    /// Works out, once, which scopes count each endpoint of a route table.
    pub fn table(&self, routes: &Routes) -> ScopeTable {
        let endpoints = routes.iter().map(|(_, endpoint)| {
            if endpoint.is_limited() {
                self.counting(endpoint.method(), Some(endpoint.name()))
            } else {
                ScopeSet::EMPTY
            }
        });
        let mut methods: Vec<(ScopeSet, Method)> = Vec::new();
        for name in self.scopes.iter().flat_map(Scope::method_names) {
            if let Ok(method) = Method::from_bytes(name.as_bytes())
                && !methods.iter().any(|(_, known)| *known == method)
            {
                methods.push((self.counting(&method, None), method));
            }
        }
        ScopeTable { endpoints: endpoints.collect(), methods }
    }

    /// The endpoints that scopes name and a route table does not have: misspelt, most likely, and counted by nothing.
    ///
    /// ```
    /// use didit_api::{Limits, Routes, Scope};
    ///
    /// let limits = Limits::didit().with(Scope::endpoints("aml", 5, ["aml-screening"])?)?;
    /// let unknown = limits.unknown_endpoints(&Routes::didit());
    /// assert_eq!(unknown[0].to_string(), r#"scope "aml" counts endpoint "aml-screening", which is not a known route"#);
    /// # Ok::<(), didit_api::limits::LimitsError>(())
    /// ```
    pub fn unknown_endpoints(&self, routes: &Routes) -> Vec<UnknownEndpoint> {
        let counted = self.scopes.iter().flat_map(|scope| scope.endpoint_names().map(move |name| (scope, name)));
        counted
            .filter(|(_, name)| routes.named(name).is_none())
            .map(|(scope, name)| UnknownEndpoint { scope: scope.name.clone(), endpoint: name.to_owned() })
            .collect()
    }

    fn counting(&self, method: &Method, endpoint: Option<&str>) -> ScopeSet {
        let (mut added, mut replacing, mut global) = (ScopeSet::EMPTY, ScopeSet::EMPTY, ScopeSet::EMPTY);
        for (id, scope) in self.iter() {
            match &scope.counts {
                Counts::Methods(methods) if methods.iter().any(|name| name == method.as_str()) => global.insert(id),
                Counts::Endpoints(endpoints) if endpoints.iter().any(|name| Some(name.as_str()) == endpoint) => {
                    match scope.mode {
                        Mode::Add => added.insert(id),
                        Mode::Replace => replacing.insert(id),
                    }
                }
                Counts::Methods(..) | Counts::Endpoints(..) => {}
            }
        }
        if replacing.is_empty() { global.union(added) } else { replacing.union(added) }
    }
}
