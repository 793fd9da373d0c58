//! Limits as a file holds them, before and after they are checked.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Counts, Limits, LimitsError, Mode, Scope};

/// What a file holds.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLimits {
    version: String,
    scopes: Vec<RawScope>,
}

/// One scope in a file: exactly one of `methods` and `endpoints` is given.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawScope {
    name: String,
    limit: u32,
    #[serde(default = "default_window_ms")]
    window_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    methods: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    endpoints: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mode: Option<Mode>,
}

/// [`Limits::WINDOW`] in milliseconds.
fn default_window_ms() -> u64 {
    60_000
}

pub(super) fn read(json: &str) -> Result<Limits, LimitsError> {
    let raw: RawLimits = serde_json::from_str(json).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let text = error.to_string();
        // serde_json ends its sentence with the place, which the error says by itself.
        let reason = text.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&text);
        LimitsError::Json { line, column, reason: reason.to_owned() }
    })?;
    raw.try_into()
}

// ===== impl RawLimits =====

impl TryFrom<RawLimits> for Limits {
    type Error = LimitsError;

    fn try_from(raw: RawLimits) -> Result<Self, LimitsError> {
        let empty = Self { version: raw.version, scopes: Vec::new() };
        raw.scopes.into_iter().try_fold(empty, |limits, raw| {
            let scope = Scope::try_from(raw)?;
            if limits.scope(&scope.name).is_some() {
                return Err(LimitsError::Duplicate { scope: scope.name });
            }
            limits.with(scope)
        })
    }
}

impl From<Limits> for RawLimits {
    fn from(limits: Limits) -> Self {
        Self { version: limits.version, scopes: limits.scopes.into_iter().map(RawScope::from).collect() }
    }
}

// ===== impl RawScope =====

impl TryFrom<RawScope> for Scope {
    type Error = LimitsError;

    fn try_from(raw: RawScope) -> Result<Self, LimitsError> {
        let (counts, mode) = match (raw.methods, raw.endpoints, raw.mode) {
            (Some(methods), None, None) => (Counts::Methods(methods), Mode::Add),
            (Some(_), None, Some(_)) => return Err(LimitsError::Mode { scope: raw.name }),
            (None, Some(endpoints), mode) => (Counts::Endpoints(endpoints), mode.unwrap_or_default()),
            (Some(_), Some(_), _) | (None, None, _) => return Err(LimitsError::Either { scope: raw.name }),
        };
        let scope = Self::new(raw.name, raw.limit, counts)?.with_window(Duration::from_millis(raw.window_ms))?;
        Ok(Self { mode, ..scope })
    }
}

impl From<Scope> for RawScope {
    fn from(scope: Scope) -> Self {
        let (methods, endpoints, mode) = match (scope.counts, scope.mode) {
            // A mode beside methods is kept, so that reading refuses it as `Limits::with` does.
            (Counts::Methods(names), mode) => (Some(names), None, (mode == Mode::Replace).then_some(mode)),
            (Counts::Endpoints(names), mode) => (None, Some(names), Some(mode)),
        };
        // A window is a day at most, so it fits; a fraction of a millisecond is rounded up, to the careful side.
        let whole = u64::try_from(scope.window.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        Self { name: scope.name, limit: scope.limit.get(), window_ms: whole, methods, endpoints, mode }
    }
}
