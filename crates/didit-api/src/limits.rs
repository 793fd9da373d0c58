//! Rate limits as versioned data: which scopes there are, how wide each is, and which requests it counts.
//!
//! Didit counts requests per scope and credential in a sliding window. A request may be counted by several scopes at
//! once, and the first one breached answers 429. The numbers changed several times within a year, so they are data:
//! [`Limits::didit`] is what the newest page says, [`Limits::version`] an older state, and both can be changed scope
//! by scope or read from a file.

use std::{num::NonZeroU32, time::Duration};

use http::Method;
use serde::{Deserialize, Serialize};

use crate::{EndpointId, Routes};

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
#[serde(deny_unknown_fields, try_from = "RawLimits")]
pub struct Limits {
    version: String,
    scopes: Vec<Scope>,
}

impl Limits {
    /// The window of every documented scope.
    pub const WINDOW: Duration = Duration::from_secs(60);

    /// The most scopes one set can hold: as many as a [`ScopeSet`] has bits.
    pub const MAX_SCOPES: usize = 64;

    /// What the newest documentation says, as a client should take it (see [`crate::limits`]).
    pub fn didit() -> Self {
        documented("2026-11")
    }

    /// A documented state by its version, `None` if it is not known. [`Limits::VERSIONS`] lists them.
    pub fn version_named(version: &str) -> Option<Self> {
        Self::VERSIONS.contains(&version).then(|| documented(version))
    }

    /// The versions that [`version_named`](Self::version_named) knows, newest first.
    pub const VERSIONS: [&'static str; 2] = ["2026-11", "2026-07"];

    /// A set without scopes: nothing is limited.
    pub fn none() -> Self {
        Self { version: "none".to_owned(), scopes: Vec::new() }
    }

    /// Adds a scope, or replaces the one of the same name.
    ///
    /// # Errors
    ///
    /// [`LimitsError::TooMany`] beyond [`MAX_SCOPES`](Self::MAX_SCOPES).
    pub fn with(mut self, scope: Scope) -> Result<Self, LimitsError> {
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

    /// Works out, once, which scopes count each endpoint of a route table.
    pub fn table(&self, routes: &Routes) -> ScopeTable {
        let endpoints = routes.iter().map(|(_, endpoint)| {
            if endpoint.is_limited() {
                self.counting(endpoint.method(), Some(endpoint.name()))
            } else {
                ScopeSet::EMPTY
            }
        });
        let methods = [Method::GET, Method::POST, Method::PATCH, Method::DELETE, Method::PUT, Method::HEAD];
        ScopeTable {
            endpoints: endpoints.collect(),
            methods: methods.map(|method| (self.counting(&method, None), method)).into(),
        }
    }

    fn counting(&self, method: &Method, endpoint: Option<&str>) -> ScopeSet {
        let (mut added, mut replacing, mut global) = (ScopeSet::EMPTY, ScopeSet::EMPTY, ScopeSet::EMPTY);
        for (id, scope) in (0u8..).map(ScopeId).zip(&self.scopes) {
            match &scope.counts {
                Counts::Methods { methods } if methods.iter().any(|name| name == method.as_str()) => global.insert(id),
                Counts::Endpoints { endpoints, mode }
                    if endpoints.iter().any(|name| Some(name.as_str()) == endpoint) =>
                {
                    match mode {
                        Mode::Add => added.insert(id),
                        Mode::Replace => replacing.insert(id),
                    }
                }
                Counts::Methods { .. } | Counts::Endpoints { .. } => {}
            }
        }
        if replacing.is_empty() { global.union(added) } else { replacing.union(added) }
    }
}

/// One counter: at most `limit` requests in any window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    name: String,
    limit: NonZeroU32,
    #[serde(rename = "window_ms", with = "millis", default = "default_window")]
    window: Duration,
    #[serde(flatten)]
    counts: Counts,
}

impl Scope {
    /// A scope that counts every request with one of these methods.
    ///
    /// # Errors
    ///
    /// [`LimitsError::Zero`] if `limit` is 0.
    pub fn methods<'a>(
        name: impl Into<String>,
        limit: u32,
        methods: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, LimitsError> {
        let methods = methods.into_iter().map(str::to_owned).collect();
        Self::new(name.into(), limit, Counts::Methods { methods })
    }

    /// A scope that counts these endpoints, in addition to the scope of their method.
    ///
    /// # Errors
    ///
    /// [`LimitsError::Zero`] if `limit` is 0.
    pub fn endpoints<'a>(
        name: impl Into<String>,
        limit: u32,
        endpoints: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, LimitsError> {
        let endpoints = endpoints.into_iter().map(str::to_owned).collect();
        Self::new(name.into(), limit, Counts::Endpoints { endpoints, mode: Mode::Add })
    }

    fn new(name: String, limit: u32, counts: Counts) -> Result<Self, LimitsError> {
        match NonZeroU32::new(limit) {
            Some(limit) => Ok(Self { name, limit, window: Limits::WINDOW, counts }),
            None => Err(LimitsError::Zero { scope: name }),
        }
    }

    /// Counts its endpoints *instead of* the scope of their method. Without effect on a scope of methods.
    #[must_use]
    pub fn replacing(mut self) -> Self {
        if let Counts::Endpoints { mode, .. } = &mut self.counts {
            *mode = Mode::Replace;
        }
        self
    }

    /// Counts its endpoints *in addition to* the scope of their method. Without effect on a scope of methods.
    #[must_use]
    pub fn adding(mut self) -> Self {
        if let Counts::Endpoints { mode, .. } = &mut self.counts {
            *mode = Mode::Add;
        }
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
        self.window = window;
        self.checked()
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

    fn checked(self) -> Result<Self, LimitsError> {
        if self.window < Duration::from_millis(1) || self.window > Duration::from_secs(86_400) {
            return Err(LimitsError::Window { scope: self.name, window: self.window });
        }
        Ok(self)
    }
}

/// What a scope counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Counts {
    Methods {
        methods: Vec<String>,
    },
    Endpoints {
        endpoints: Vec<String>,
        #[serde(default)]
        mode: Mode,
    },
}

/// How a scope of endpoints stands to the scope of their method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    #[default]
    Add,
    Replace,
}

/// What a file holds before it is checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLimits {
    version: String,
    scopes: Vec<Scope>,
}

impl TryFrom<RawLimits> for Limits {
    type Error = LimitsError;

    fn try_from(raw: RawLimits) -> Result<Self, LimitsError> {
        raw.scopes.into_iter().try_fold(Self { version: raw.version, scopes: Vec::new() }, |limits, scope| {
            if limits.scope(&scope.name).is_some() {
                return Err(LimitsError::Duplicate { scope: scope.name });
            }
            limits.with(scope.checked()?)
        })
    }
}

fn default_window() -> Duration {
    Limits::WINDOW
}

mod millis {
    //! A duration as whole milliseconds.

    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}

/// Names one scope of one [`Limits`]; an index into [`Limits::scopes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ScopeId(u8);

impl ScopeId {
    /// The scope's place in [`Limits::scopes`].
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// The scopes that count one request, as a set of bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ScopeSet(u64);

impl ScopeSet {
    /// No scope: nothing counts the request.
    pub const EMPTY: Self = Self(0);

    fn insert(&mut self, id: ScopeId) {
        self.0 |= 1 << id.0;
    }

    fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether a scope is in the set.
    pub fn contains(self, id: ScopeId) -> bool {
        self.0 & (1 << id.0) != 0
    }

    /// The scopes in the set, in order.
    pub fn iter(self) -> impl Iterator<Item = ScopeId> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let id = u8::try_from(rest.trailing_zeros()).ok().filter(|_| rest != 0)?;
            rest &= rest - 1;
            Some(ScopeId(id))
        })
    }
}

/// Which scopes count which request, worked out once by [`Limits::table`].
#[derive(Clone, Debug)]
pub struct ScopeTable {
    endpoints: Vec<ScopeSet>,
    methods: Vec<(ScopeSet, Method)>,
}

impl ScopeTable {
    /// The scopes that count a request: those of its endpoint, or those of its method if the path is not known.
    pub fn of(&self, endpoint: Option<EndpointId>, method: &Method) -> ScopeSet {
        match endpoint.and_then(|id| self.endpoints.get(id.index())) {
            Some(scopes) => *scopes,
            None => self.methods.iter().find(|(_, known)| known == method).map_or(ScopeSet::EMPTY, |(set, _)| *set),
        }
    }
}

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
    /// Two scopes of a file have one name.
    #[error("scope {scope:?} is given twice; names must be unique")]
    Duplicate {
        /// The scope's name.
        scope: String,
    },
    /// More scopes than a [`ScopeSet`] can hold.
    #[error("more than {} scopes", Limits::MAX_SCOPES)]
    TooMany,
}

/// The documented states, didit-facts 2.2.
fn documented(version: &str) -> Limits {
    let ingest = ["transaction-create", "event-create", "event-batch"];
    let all = [
        Scope::methods("generic-get", 600, ["GET"]),
        // PUT is named nowhere; counting it here is the careful reading.
        Scope::methods("generic-write", 300, ["POST", "PATCH", "DELETE", "PUT"]),
        // Named by the newest page only.
        Scope::endpoints("ingest-write", 600, ingest).map(Scope::replacing),
        // Whether creation also meets generic-write is contradicted by Didit's own sources: the careful reading adds.
        Scope::endpoints("session-v2-create", 600, ["session-create"]),
        Scope::endpoints("session-generate-pdf", 50, ["session-generate-pdf"]),
        Scope::endpoints("session-add-images", 10, ["session-add-images", "session-add-images-patch"]),
        Scope::endpoints("session-update-kyc", 10, ["session-update-data"]),
        Scope::endpoints("session-update-poa", 10, ["session-update-poa-data"]),
    ];
    let known = |scope: &Scope| version == "2026-11" || scope.name() != "ingest-write";
    Limits { version: version.to_owned(), scopes: all.into_iter().flatten().filter(known).collect() }
}
