//! Settings of the pacing layer, and the limits it keeps to.

use std::{num::NonZeroU32, sync::Arc};

use didit_api::{Limits, Routes, Scope, limits::LimitsError};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use super::{HumanDuration, Invalid, OrOff, error::At, misfit};
use crate::{
    error::ConfigError,
    pacing::{ColdStart, PacingBuilder},
};

/// Settings of the [pacing layer](crate::pacing).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct PacingConfig {
    /// Which documented limits to start from: a version such as "2026-11", or "none".
    pub limits: String,
    /// Scopes that are added to them, or take the place of the one with the same name.
    pub scopes: Vec<ScopeConfig>,
    /// What a slot is held beyond the window, for the coarseness of the server's clock; at most an hour.
    pub epsilon: HumanDuration,
    /// How long a request that was given up may still be on its way; at most an hour.
    pub transit: HumanDuration,
    /// How many requests of a scope may go out at once; "off" for a whole window's worth.
    pub burst: OrOff<NonZeroU32>,
    /// The share of each limit that calls of low priority leave to the others, 0 to 0.9.
    #[schemars(range(min = 0, max = 0.9))]
    pub reserved_share: f64,
    /// How many calls may wait for a scope; more are refused.
    #[schemars(range(min = 1))]
    pub max_waiting: usize,
    /// The longest wait, at most a day; calls that would wait longer are refused. "off" for the deadline alone.
    pub max_wait: OrOff<HumanDuration>,
    /// How many API keys are kept count of at a time.
    #[schemars(range(min = 1))]
    pub max_keys: usize,
    /// What is assumed about the process before this one: "empty", "full", or a share of each limit, 0 to 1.
    pub cold_start: ColdStartConfig,
    /// Whether a limit that the server names is taken over even if it is above the configured one.
    pub raise_limits: bool,
    /// Whether waits are only counted, and no call is held up or refused.
    pub shadow: bool,
}

/// What a process assumes that its predecessor sent: a word, or a share of each limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ColdStartConfig(pub ColdStart);

const EMPTY: &str = "empty";
const FULL: &str = "full";

/// One rate limit: at most `limit` requests in any window. It counts either methods or endpoints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ScopeConfig {
    /// A short, stable name.
    pub name: String,
    /// The most requests that any one window may hold.
    pub limit: NonZeroU32,
    /// The length of the sliding window, 1 ms to a day.
    #[serde(default = "didits_window")]
    pub window: HumanDuration,
    /// The methods it counts, in capital letters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// The endpoints it counts, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<String>,
    /// Whether its endpoints are counted here instead of by the scope of their method.
    #[serde(default)]
    pub replacing: bool,
}

fn didits_window() -> HumanDuration {
    Limits::WINDOW.into()
}

// ===== impl PacingConfig =====

impl PacingConfig {
    /// No limits at all.
    pub(super) const NO_LIMITS: &str = "none";

    pub(super) fn of(builder: &PacingBuilder) -> Self {
        let rules = &builder.rules;
        Self {
            limits: builder.limits.version().to_owned(),
            scopes: Vec::new(),
            epsilon: rules.epsilon.into(),
            transit: rules.transit.into(),
            burst: rules.burst.into(),
            reserved_share: rules.reserved_share,
            max_waiting: rules.max_waiting,
            max_wait: rules.max_wait.map(HumanDuration::from).into(),
            max_keys: builder.max_keys,
            cold_start: ColdStartConfig(builder.cold_start),
            raise_limits: rules.raise_limits,
            shadow: builder.shadow,
        }
    }

    pub(super) fn apply(&self, builder: PacingBuilder, routes: &Arc<Routes>) -> Result<PacingBuilder, Invalid> {
        let mut builder = builder
            .limits(self.limits()?)
            .epsilon(self.epsilon.0)
            .transit(self.transit.0)
            .reserved_share(self.reserved_share)
            .max_waiting(self.max_waiting)
            .max_keys(self.max_keys)
            .cold_start(self.cold_start.0)
            .raise_limits(self.raise_limits)
            .shadow(self.shadow);
        if let OrOff::On(wait) = self.max_wait {
            builder = builder.max_wait(wait.0);
        }
        if let OrOff::On(burst) = self.burst {
            builder = builder.burst(burst);
        }
        // Checked here, so that an error is known to be about these settings.
        match builder.clone().routes(Arc::clone(routes)).build() {
            Ok(_) => Ok(builder),
            Err(error) => match self.unknown(&error) {
                Some(key) => Err(Invalid::new(&key, error)),
                None => Err(error).at("pacing"),
            },
        }
    }

    /// Which of the scopes here names an endpoint that there is not.
    fn unknown(&self, error: &ConfigError) -> Option<String> {
        let ConfigError::UnknownEndpoints { unknown } = error else { return None };
        unknown.iter().find_map(|unknown| {
            let (index, scope) = self.scopes.iter().enumerate().rfind(|(_, scope)| scope.name == unknown.scope)?;
            let endpoint = scope.endpoints.iter().position(|endpoint| *endpoint == unknown.endpoint)?;
            Some(format!("pacing.scopes.{index}.endpoints.{endpoint}"))
        })
    }

    fn limits(&self) -> Result<Limits, Invalid> {
        let mut limits = match self.limits.as_str() {
            Self::NO_LIMITS => Limits::none(),
            version => Limits::version_named(version).ok_or_else(|| {
                let known = Limits::VERSIONS.join(", ");
                Invalid::text("pacing.limits", format!("{version:?} is not known; allowed are {known} and none"))
            })?,
        };
        for (index, scope) in self.scopes.iter().enumerate() {
            limits = scope.build().and_then(|scope| limits.with(scope)).map_err(|error| {
                let place = scope.place(&error);
                Invalid::new(&format!("pacing.scopes.{index}{place}"), error)
            })?;
        }
        Ok(limits)
    }
}

impl Default for PacingConfig {
    fn default() -> Self {
        Self::of(&PacingBuilder::default())
    }
}

// ===== impl ColdStartConfig =====

impl Serialize for ColdStartConfig {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            ColdStart::Empty => to.serialize_str(EMPTY),
            ColdStart::Share(share) => to.serialize_f64(share),
            ColdStart::Full => to.serialize_str(FULL),
        }
    }
}

impl<'de> Deserialize<'de> for ColdStartConfig {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(from)?;
        let known = match value.as_str() {
            Some(EMPTY) => Some(ColdStart::Empty),
            Some(FULL) => Some(ColdStart::Full),
            _ => value.as_f64().map(ColdStart::Share),
        };
        let wrong = || {
            let value = misfit::show(&value);
            D::Error::custom(format_args!("{value} does not fit; allowed is {EMPTY:?}, {FULL:?} or a share, 0 to 1"))
        };
        known.map(Self).ok_or_else(wrong)
    }
}

impl JsonSchema for ColdStartConfig {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ColdStart".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "enum": [EMPTY, FULL] }, { "type": "number", "minimum": 0, "maximum": 1 }] })
    }
}

// ===== impl ScopeConfig =====

impl ScopeConfig {
    /// A scope of endpoints, counted in Didit's window.
    pub(super) fn endpoints(name: &str, limit: NonZeroU32, endpoints: &[&str]) -> Self {
        let endpoints = endpoints.iter().map(ToString::to_string).collect();
        let (name, window) = (name.to_owned(), didits_window());
        Self { name, limit, window, methods: Vec::new(), endpoints, replacing: false }
    }

    /// Where in it an error lies, as the end of a key.
    fn place(&self, error: &LimitsError) -> String {
        match error {
            LimitsError::Zero { .. } => ".limit".to_owned(),
            LimitsError::Window { .. } => ".window".to_owned(),
            LimitsError::Mode { .. } => ".replacing".to_owned(),
            LimitsError::Duplicate { .. } => ".name".to_owned(),
            LimitsError::Method { method, .. } => {
                let index = self.methods.iter().position(|known| known == method).unwrap_or_default();
                format!(".methods.{index}")
            }
            _ => String::new(),
        }
    }

    fn build(&self) -> Result<Scope, LimitsError> {
        let Self { name, limit, window, methods, endpoints, replacing } = self;
        let scope = match (methods.is_empty(), endpoints.is_empty()) {
            (false, true) => Scope::methods(name, limit.get(), methods.iter().map(String::as_str))?,
            (true, false) => Scope::endpoints(name, limit.get(), endpoints.iter().map(String::as_str))?,
            _ => return Err(LimitsError::Either { scope: name.clone() }),
        };
        let scope = scope.with_window(window.0)?;
        Ok(if *replacing { scope.replacing() } else { scope })
    }
}
