//! The stack's settings as data: a file, the environment, a JSON Schema.
//!
//! # Why
//!
//! What an operator changes at three in the morning is a number, and not a program. All settings of all layers have a
//! key here; whatever is not set is what the [preset](Preset) says. They are checked by the layers' own builders, so the
//! same values are good in a file and in code, and an error says where the value was written, down to line and column
//! or the name of the variable.
//!
//! # A file
//!
//! TOML or JSON. Durations carry their unit, and what can be switched off is switched off with `"off"`.
//!
//! ```toml
//! preset = "didit"                    # or "seed", or "off"
//! base_url = "https://verification.didit.me"
//! api_key_file = "/run/secrets/didit-api-key"
//!
//! [deadline]
//! total = "90s"
//!
//! [retry]
//! max_attempts = 4
//! backoff = { base = "500ms", cap = "20s" }
//!
//! [circuit_breaker]
//! failure_ratio = "off"
//!
//! [pacing]
//! limits = "2026-11"                  # a documented state, or "none"
//!
//! [[pacing.scopes]]                   # a new scope, or a new number for a known one: no release needed
//! name = "session-v2-create"
//! limit = 900
//! endpoints = ["session-create"]
//! replacing = true
//!
//! [[routes]]                          # a route that Didit added, or another timeout for one it has
//! name = "id-verification"
//! timeout = "90s"
//! ```
//!
//! The schema of all keys, with what each means, is [`Config::schema`], and lies beside this crate's manifest as
//! `config.schema.json`.
//!
//! # Example
//!
//! ```
//! use tower_didit::{DiditLayer, config::Config};
//!
//! let config = Config::from_toml("api_key = 'secret'\n[retry]\nmax_attempts = 3")?;
//! let layer = DiditLayer::from_config(&config)?;
//! # let _ = layer;
//!
//! let error = Config::from_toml("[retry]\nmax_attempt = 3").unwrap_err();
//! assert!(error.to_string().starts_with("configuration, line 2, column 1: retry.max_attempt: "), "{error}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod circuit_breaker;
mod error;
mod file;
mod misfit;
mod pacing;
mod retry;
mod routes;
mod schema;
mod sources;
mod value;

use std::{num::NonZeroU32, path::PathBuf, sync::Arc, time::Duration};

use didit_api::Routes;
use http::HeaderName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::error::At;
pub use self::{
    circuit_breaker::CircuitBreakerConfig,
    error::{Invalid, LoadError, Origin},
    file::Format,
    pacing::{ColdStartConfig, PacingConfig, ScopeConfig},
    retry::{BackoffConfig, RetryConfig, ThrottledBackoffConfig},
    routes::{AttemptTimeoutConfig, RouteConfig},
    sources::Sources,
    value::{HiddenText, HumanDuration, OrOff},
};
use crate::{
    attempt_timeout::AttemptTimeoutLayer,
    circuit_breaker::TripPolicy,
    correlation,
    deadline::DeadlineLayer,
    idempotency,
    random::Randomness,
    stack::{DiditBuilder, DiditLayer, header},
};

/// All settings of the stack.
///
/// Written out again, the API key is `"[redacted]"`; one that came from a file is left out, and the file is named.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Config {
    /// Where Didit's API lives: http:// or https:// with a host and no path.
    pub base_url: String,
    /// The key that is sent as `x-api-key`, unless a request brings its own. Without one, requests have to.
    #[serde(skip_serializing_if = "HiddenText::is_elsewhere")]
    pub api_key: Option<HiddenText>,
    /// A file that holds the key and nothing else; read if `api_key` is not given.
    pub api_key_file: Option<PathBuf>,
    /// Makes jitter and identifiers reproducible, for tests.
    pub seed: Option<u64>,
    /// Whether waits are drawn at random; without, each is as long as it may be.
    pub jitter: bool,
    /// The correlation layer.
    pub correlation: CorrelationConfig,
    /// The idempotency layer.
    pub idempotency: IdempotencyConfig,
    /// The total time of a call.
    pub deadline: DeadlineConfig,
    /// The retry layer.
    pub retry: RetryConfig,
    /// The pacing layer, and the limits it keeps to.
    pub pacing: PacingConfig,
    /// The circuit breaker.
    pub circuit_breaker: CircuitBreakerConfig,
    /// The time on the wire of one attempt.
    pub attempt_timeout: AttemptTimeoutConfig,
    /// Routes of the user's own, and changes to Didit's.
    pub routes: Vec<RouteConfig>,
}

/// The values that everything starts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Preset {
    /// What Didit's documentation asks for, and care where it is silent: the defaults of every layer.
    #[default]
    Didit,
    /// The two well-known recipes for Didit: five attempts from 1 s doubling to 32 s with no budget, a circuit that opens
    /// after three failures in a row for 10 s, 600 sessions and 100 decisions a minute.
    Seed,
    /// Nothing waits, repeats, refuses or adds a key; only the correlation id is sent. For telling what the layers do
    /// from what Didit does.
    Off,
}

/// Settings of the [correlation layer](crate::correlation).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct CorrelationConfig {
    /// The header that carries the id: none that HTTP, Didit or another layer uses.
    pub header: String,
}

/// Settings of the [idempotency layer](crate::idempotency).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct IdempotencyConfig {
    /// The header that carries the key: none that HTTP, Didit or another layer uses.
    pub header: String,
    /// Whether the key is written as a quoted string (RFC 8941).
    pub quoted: bool,
    /// Whether a POST or PATCH that its caller has not named gets a random key.
    pub unnamed_calls: bool,
}

/// Settings of the [deadline layer](crate::deadline).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct DeadlineConfig {
    /// The total time of a call, waiting and repeating included: 1 ms to a day.
    pub total: HumanDuration,
}

// ===== impl Config =====

impl Config {
    /// The values of a preset.
    pub fn preset(preset: Preset) -> Self {
        match preset {
            Preset::Didit => Self::default(),
            Preset::Seed => Self::seed(),
            Preset::Off => Self::off(),
        }
    }

    /// Reads settings from TOML, and checks them.
    ///
    /// # Errors
    ///
    /// [`LoadError`], with line and column.
    pub fn from_toml(text: &str) -> Result<Self, LoadError> {
        Sources::new().text(UNNAMED, text, Format::Toml)?.config()
    }

    /// Reads settings from JSON, and checks them.
    ///
    /// # Errors
    ///
    /// [`LoadError`], with line and column.
    pub fn from_json(text: &str) -> Result<Self, LoadError> {
        Sources::new().text(UNNAMED, text, Format::Json)?.config()
    }

    /// Didit's routes with the changes that are configured; all layers read this table.
    ///
    /// # Errors
    ///
    /// [`Invalid`] for a route that cannot be matched, or that has another's name.
    pub fn routes(&self) -> Result<Arc<Routes>, Invalid> {
        routes::build(&self.routes, &self.attempt_timeout)
    }

    /// A builder with these settings, for what cannot be written in a file.
    ///
    /// # Errors
    ///
    /// [`Invalid`] for what the layers' builders refuse.
    pub fn builder(&self) -> Result<DiditBuilder, Invalid> {
        let mut builder = DiditLayer::builder();
        let routes = self.routes()?;
        let random = self.seed.map_or_else(Randomness::new, Randomness::seeded);
        builder.retry = self.retry.apply(builder.retry)?;
        builder.pacing = self.pacing.apply(builder.pacing, &routes)?;
        builder = match &self.api_key {
            Some(key) => builder.api_key(key.expose()),
            None => builder.without_api_key(),
        };
        let correlation = header(header::CORRELATION, &self.correlation.header)?;
        let IdempotencyConfig { header: key, quoted, unnamed_calls } = &self.idempotency;
        let key = header(header::IDEMPOTENCY, key)?;
        Ok(builder
            .base_url(&self.base_url)
            .correlation(|layer| layer.header(correlation))
            .idempotency(|layer| layer.header(key).quoted(*quoted).unnamed_calls(*unnamed_calls))
            .deadline(self.deadline.total.0)
            .trip_policy(self.circuit_breaker.build()?)
            .unknown_timeout(self.attempt_timeout.unknown.0)
            .routes(routes)
            .randomness(if self.jitter { random } else { random.without_jitter() }))
    }
}

/// The presets.
impl Config {
    /// The values of the two recipes, and Didit's where they say nothing.
    fn seed() -> Self {
        let mut config = Self::default();
        // The last of the five waits of a recipe that doubles from 1 s and knows no cap of its own.
        config.retry.backoff.cap = Duration::from_secs(32).into();
        config.retry.budget = OrOff::Off;
        config.circuit_breaker = CircuitBreakerConfig::of(&TripPolicy::SEED);
        config.pacing.limits = PacingConfig::NO_LIMITS.to_owned();
        config.pacing.scopes = vec![
            ScopeConfig::endpoints("session-v2-create", SEED_CREATIONS, &["session-create"]),
            ScopeConfig::endpoints("session-decision", SEED_DECISIONS, &["session-decision"]),
        ];
        config
    }

    /// Every layer at the value with which it does nothing.
    fn off() -> Self {
        let mut config = Self::default();
        config.idempotency.unnamed_calls = false;
        config.deadline.total = DeadlineLayer::MAX.into();
        config.retry.max_attempts = 1;
        config.retry.replay_cap = 0;
        config.pacing.limits = PacingConfig::NO_LIMITS.to_owned();
        config.circuit_breaker = CircuitBreakerConfig::of(&TripPolicy::NEVER);
        config.attempt_timeout.unknown = AttemptTimeoutLayer::MAX.into();
        config.attempt_timeout.at_least = AttemptTimeoutLayer::MAX.into();
        config
    }
}

/// Session creations a minute, by the recipes.
const SEED_CREATIONS: NonZeroU32 = NonZeroU32::new(600).unwrap();

/// Decisions a minute, by the recipes.
const SEED_DECISIONS: NonZeroU32 = NonZeroU32::new(100).unwrap();

/// What a text without a file's name is called in errors.
const UNNAMED: &str = "configuration";

impl Default for Config {
    fn default() -> Self {
        Self {
            base_url: DiditLayer::BASE_URL.to_owned(),
            api_key: None,
            api_key_file: None,
            seed: None,
            jitter: true,
            correlation: CorrelationConfig::default(),
            idempotency: IdempotencyConfig::default(),
            deadline: DeadlineConfig::default(),
            retry: RetryConfig::default(),
            pacing: PacingConfig::default(),
            circuit_breaker: CircuitBreakerConfig::default(),
            attempt_timeout: AttemptTimeoutConfig::default(),
            routes: Vec::new(),
        }
    }
}

impl Default for CorrelationConfig {
    fn default() -> Self {
        Self { header: correlation::HEADER.to_string() }
    }
}

impl Default for IdempotencyConfig {
    fn default() -> Self {
        Self { header: idempotency::HEADER.to_string(), quoted: false, unnamed_calls: true }
    }
}

impl Default for DeadlineConfig {
    fn default() -> Self {
        Self { total: DeadlineLayer::DEFAULT.into() }
    }
}

// ===== impl DiditLayer =====

impl DiditLayer {
    /// All layers with these settings.
    ///
    /// # Errors
    ///
    /// [`Invalid`] for what the layers' builders refuse.
    pub fn from_config(config: &Config) -> Result<Self, Invalid> {
        config.builder()?.build().at("")
    }
}

fn header(setting: &'static str, name: &str) -> Result<HeaderName, Invalid> {
    name.parse().map_err(|_| header::refused(setting, name, "which is no header's name")).at("")
}

#[cfg(test)]
mod tests;
