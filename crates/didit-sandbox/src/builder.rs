//! Setting a sandbox up.

use std::{fmt, sync::Arc, time::Duration, time::SystemTime};

use didit_api::{Limits, Routes, limits::UnknownEndpoint};
use http::HeaderValue;
use uuid::Uuid;

use crate::{
    Sandbox,
    clock::Skew,
    faults::{Faults, FaultsError},
    hints::{Hints, ResetForm, RetryAfterForm},
    latency::{Distribution, Latency},
    neighbour::Neighbour,
    webhooks::{WebhookError, Webhooks},
};

/// The API key of a sandbox that was given none.
pub const DEFAULT_API_KEY: &str = "sandbox-key";

/// The workflow that every sandbox knows.
pub const DEFAULT_WORKFLOW_ID: &str = "99999999-2222-4333-8444-555555555555";

/// How long a session waits for its user by default: seven days, within the hour to four weeks that Didit allows.
pub const DEFAULT_SESSION_LIFETIME: Duration = Duration::from_secs(7 * 86_400);

/// How many entries the journal keeps by default.
pub const DEFAULT_JOURNAL_CAPACITY: usize = 10_000;

/// How many sessions an application of Didit's own sandbox may create in 24 hours (Didit's OpenAPI file).
pub const DOCUMENTED_SANDBOX_QUOTA: u32 = 500;

/// How many attempts a phone number has in an hour (Didit's OpenAPI file).
pub const DOCUMENTED_PHONE_ATTEMPTS: u32 = 4;

/// Everything that can be set; made by [`Sandbox::builder`].
#[derive(Clone)]
pub struct SandboxBuilder {
    pub(crate) keys: Vec<String>,
    pub(crate) workflows: Vec<String>,
    pub(crate) settings: Settings,
}

/// What a sandbox runs by.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) workflows: Vec<Uuid>,
    pub(crate) any_workflow: bool,
    pub(crate) seed: u64,
    pub(crate) limits: Limits,
    pub(crate) routes: Arc<Routes>,
    pub(crate) faults: Faults,
    pub(crate) latency: Latency,
    pub(crate) count_rejected: bool,
    pub(crate) whole_second_stamps: bool,
    pub(crate) wrong_key_is_401: bool,
    pub(crate) epoch: Option<SystemTime>,
    pub(crate) journal_capacity: usize,
    pub(crate) session_lifetime: Duration,
    pub(crate) list_delay: Distribution,
    pub(crate) neighbours: Vec<Neighbour>,
    pub(crate) abandoned_arrive: bool,
    pub(crate) skew: Skew,
    pub(crate) date_header: bool,
    pub(crate) sandbox_quota: u32,
    pub(crate) phone_attempts: u32,
    pub(crate) import_time: Duration,
    pub(crate) hints: Hints,
    pub(crate) webhooks: Webhooks,
}

impl Default for SandboxBuilder {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            workflows: vec![DEFAULT_WORKFLOW_ID.to_owned()],
            settings: Settings {
                workflows: Vec::new(),
                any_workflow: false,
                seed: 0,
                limits: Limits::didit(),
                routes: Routes::didit(),
                faults: Faults::none(),
                latency: Latency::NONE,
                count_rejected: false,
                whole_second_stamps: false,
                wrong_key_is_401: false,
                epoch: None,
                journal_capacity: DEFAULT_JOURNAL_CAPACITY,
                session_lifetime: DEFAULT_SESSION_LIFETIME,
                list_delay: Distribution::Fixed(Duration::ZERO),
                neighbours: Vec::new(),
                abandoned_arrive: false,
                skew: Skew::default(),
                date_header: false,
                sandbox_quota: 0,
                phone_attempts: 0,
                import_time: Duration::ZERO,
                hints: Hints::default(),
                webhooks: Webhooks::default(),
            },
        }
    }
}

impl SandboxBuilder {
    /// Adds an API key. All keys belong to one application: each has rate-limit windows of its own, and all else is
    /// shared, sessions and what `Idempotency-Key` replays included. Without any, [`DEFAULT_API_KEY`] is the key.
    #[must_use]
    pub fn api_key(mut self, key: impl Into<String>) -> Self {
        self.keys.push(key.into());
        self
    }

    /// Adds a workflow that sessions may be created for, beside [`DEFAULT_WORKFLOW_ID`].
    #[must_use]
    pub fn workflow(mut self, id: impl Into<String>) -> Self {
        self.workflows.push(id.into());
        self
    }

    /// Takes every UUID for a known workflow. Off by default.
    #[must_use]
    pub fn any_workflow(mut self, any: bool) -> Self {
        self.settings.any_workflow = any;
        self
    }

    /// Sets the seed of everything random: ids, tokens, latency, faults. 0 by default.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.settings.seed = seed;
        self
    }

    /// Sets the rate limits. [`Limits::didit`] by default, which counts session creation against `generic-write` too;
    /// with its scope `session-v2-create` made [`replacing`](didit_api::Scope::replacing) it does not.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.settings.limits = limits;
        self
    }

    /// Sets the route table. [`Routes::didit`] by default.
    #[must_use]
    pub fn routes(mut self, routes: impl Into<Arc<Routes>>) -> Self {
        self.settings.routes = routes.into();
        self
    }

    /// Sets what goes wrong. Nothing by default.
    #[must_use]
    pub fn faults(mut self, faults: Faults) -> Self {
        self.settings.faults = faults;
        self
    }

    /// Sets the simulated latency, from bounds such as
    /// `Duration::from_millis(20)..=Duration::from_millis(120)`, or leg by leg ([`Latency::legs`]). None by default.
    #[must_use]
    pub fn latency(mut self, latency: impl Into<Latency>) -> Self {
        self.settings.latency = latency.into();
        self
    }

    /// Lets a request refused with 429 count in its windows like any other. Off by default; Didit's documentation
    /// does not say.
    #[must_use]
    pub fn count_rejected(mut self, count: bool) -> Self {
        self.settings.count_rejected = count;
        self
    }

    /// Keeps arrivals as whole seconds, so that one may be held for up to 0.999… s longer than the window. Off by
    /// default: windows are exact.
    #[must_use]
    pub fn whole_second_stamps(mut self, whole: bool) -> Self {
        self.settings.whole_second_stamps = whole;
        self
    }

    /// Answers a wrong key with 401, as Didit's newest error table says, instead of the 403 of its OpenAPI file. A
    /// missing key is 403 either way. Off by default.
    #[must_use]
    pub fn wrong_key_is_401(mut self, is_401: bool) -> Self {
        self.settings.wrong_key_is_401 = is_401;
        self
    }

    /// Sets the date that the sandbox starts at, so that dates and `X-RateLimit-Reset` repeat too. The system's time
    /// by default.
    #[must_use]
    pub fn epoch(mut self, epoch: SystemTime) -> Self {
        self.settings.epoch = Some(epoch);
        self
    }

    /// Sets how many entries the journal keeps; the oldest go first. [`DEFAULT_JOURNAL_CAPACITY`] by default.
    #[must_use]
    pub fn journal_capacity(mut self, entries: usize) -> Self {
        self.settings.journal_capacity = entries;
        self
    }

    /// Sets how long a session that nobody opens lives. [`DEFAULT_SESSION_LIFETIME`] by default.
    #[must_use]
    pub fn session_lifetime(mut self, lifetime: Duration) -> Self {
        self.settings.session_lifetime = lifetime;
        self
    }

    /// Lets a new session appear in `GET /v3/sessions/` only so long after it was made. Everything else knows it at
    /// once: its decision, and the reuse by `vendor_data`. A time, bounds, or any other [`Distribution`], drawn for each
    /// session. None by default.
    #[must_use]
    pub fn list_delay(mut self, delay: impl Into<Distribution>) -> Self {
        self.settings.list_delay = delay.into();
        self
    }

    /// Adds somebody else who uses the first API key. Nobody by default.
    #[must_use]
    pub fn neighbour(mut self, neighbour: Neighbour) -> Self {
        self.settings.neighbours.push(neighbour);
        self
    }

    /// Lets a request whose client went away before it arrived arrive all the same, at the time that was drawn for it:
    /// sent bytes cannot be called back. It is counted, meets limits and faults, and its work is done. Off by default:
    /// dropped before it arrives, a request leaves no trace. Without [`latency`](Self::latency) a request arrives as
    /// soon as its body is read, and nothing can happen before.
    #[must_use]
    pub fn abandoned_requests_arrive(mut self, arrive: bool) -> Self {
        self.settings.abandoned_arrive = arrive;
        self
    }

    /// Sets the sandbox's clock so far ahead of [`epoch`](Self::epoch), or of the system's time. Instead of
    /// [`clock_behind`](Self::clock_behind), if that was given.
    #[must_use]
    pub fn clock_ahead(mut self, by: Duration) -> Self {
        self.settings.skew = Skew::Ahead(by);
        self
    }

    /// Sets the sandbox's clock so far behind [`epoch`](Self::epoch), or the system's time. Instead of
    /// [`clock_ahead`](Self::clock_ahead), if that was given.
    #[must_use]
    pub fn clock_behind(mut self, by: Duration) -> Self {
        self.settings.skew = Skew::Behind(by);
        self
    }

    /// Puts a `Date` from the sandbox's clock on every answer. Off by default in process; over a socket every answer
    /// has it either way.
    #[must_use]
    pub fn date_header(mut self, date: bool) -> Self {
        self.settings.date_header = date;
        self
    }

    /// Refuses session creations beyond so many in 24 hours with the 429 that is no rate window, as Didit's own sandbox
    /// does beyond [`DOCUMENTED_SANDBOX_QUOTA`]. All keys share it, and every creation with a known key counts. 0, the
    /// default, is none.
    #[must_use]
    pub fn sandbox_quota(mut self, creations: u32) -> Self {
        self.settings.sandbox_quota = creations;
        self
    }

    /// Refuses `POST /v3/phone/send/` beyond so many per `phone_number` in an hour with the 429 that is no rate window;
    /// at Didit that is [`DOCUMENTED_PHONE_ATTEMPTS`]. 0, the default, is none.
    #[must_use]
    pub fn phone_attempts(mut self, attempts: u32) -> Self {
        self.settings.phone_attempts = attempts;
        self
    }

    /// Lets an import take so long, and refuses another one (`POST /v3/session/imports/`) until it is over with the 429
    /// that is no rate window. No time by default: every import is over at once.
    #[must_use]
    pub fn import_time(mut self, time: Duration) -> Self {
        self.settings.import_time = time;
        self
    }

    /// Sets the `Retry-After` of the 429s that the rate limits make. Whole seconds by default, as documented.
    #[must_use]
    pub fn throttle_retry_after(mut self, form: RetryAfterForm) -> Self {
        self.settings.hints.retry_after = form;
        self
    }

    /// Sets the `X-RateLimit-Reset` of the 429s that the rate limits make. Seconds since the Unix epoch by default, as
    /// documented.
    #[must_use]
    pub fn throttle_reset(mut self, form: ResetForm) -> Self {
        self.settings.hints.reset = form;
        self
    }

    /// Builds the sandbox. Its time starts now.
    ///
    /// # Errors
    ///
    /// [`BuildError`] if a key cannot be sent in a header or is given twice, a workflow is not a UUID, the latency or the
    /// list delay cannot be drawn, the session lifetime is zero, a scope of the limits counts an endpoint, or a neighbour
    /// sends to a route, that the route table does not have, a fault rule cannot be met, or a webhook destination cannot be
    /// sent to.
    pub fn build(mut self) -> Result<Sandbox, BuildError> {
        if self.keys.is_empty() {
            self.keys.push(DEFAULT_API_KEY.to_owned());
        }
        for (index, key) in self.keys.iter().enumerate() {
            if key.is_empty() || !HeaderValue::from_str(key).is_ok_and(|value| value.to_str().is_ok()) {
                return Err(BuildError::ApiKey { number: index + 1 });
            }
            if self.keys[..index].contains(key) {
                return Err(BuildError::DuplicateApiKey { number: index + 1 });
            }
        }
        self.settings.workflows = self
            .workflows
            .iter()
            .map(|id| Uuid::try_parse(id).map_err(|_| BuildError::Workflow { value: id.clone() }))
            .collect::<Result<_, _>>()?;
        let (least, most) = self.settings.latency.bounds();
        if least > most {
            return Err(BuildError::Latency { least, most });
        }
        let list_delay = Some(self.settings.list_delay).filter(|delay| !delay.is_usable());
        if let Some(distribution) = self.settings.latency.unusable().or(list_delay) {
            return Err(BuildError::Distribution { distribution });
        }
        if self.settings.session_lifetime.is_zero() {
            return Err(BuildError::SessionLifetime);
        }
        let routes = &self.settings.routes;
        for neighbour in &self.settings.neighbours {
            if routes.named(&neighbour.route).is_none() {
                return Err(BuildError::Neighbour { route: neighbour.route.clone() });
            }
        }
        if let Some(unknown) = self.settings.limits.unknown_endpoints(routes).into_iter().next() {
            return Err(unknown.into());
        }
        self.settings.faults.check(|name| routes.named(name).is_some())?;
        self.settings.webhooks.check()?;
        Ok(Sandbox::start(self.keys, self.settings))
    }
}

impl fmt::Debug for SandboxBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Keys are secrets, those of a sandbox too.
        f.debug_struct("SandboxBuilder")
            .field("keys", &self.keys.len())
            .field("workflows", &self.workflows)
            .field("settings", &self.settings)
            .finish()
    }
}

/// Why a sandbox cannot be built.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A key that no client could send. The key itself is not shown.
    #[error("API key number {number} cannot be used; allowed is visible ASCII text, at least one character")]
    ApiKey {
        /// Which of the keys, from 1.
        number: usize,
    },
    /// A key that is given twice. The key itself is not shown.
    #[error("API key number {number} was given before; keys must differ")]
    DuplicateApiKey {
        /// Which of the keys, from 1.
        number: usize,
    },
    /// A workflow id that is not a UUID.
    #[error("workflow {value:?} is not a UUID such as {DEFAULT_WORKFLOW_ID}")]
    Workflow {
        /// The offending value.
        value: String,
    },
    /// Latency bounds the wrong way round.
    #[error("a latency from {least:?} to {most:?} is empty; the least must not exceed the most")]
    Latency {
        /// The lower bound.
        least: Duration,
        /// The upper bound.
        most: Duration,
    },
    /// A time that cannot be drawn: bounds the wrong way round, or a sigma out of range.
    #[error(
        "a time cannot be drawn from {distribution:?}; allowed is a sigma of 0 to 10, and no bound below another time"
    )]
    Distribution {
        /// The offending value.
        distribution: Distribution,
    },
    /// A neighbour that sends to a route which the route table does not have.
    #[error("a neighbour sends to {route:?}, which no route is named; allowed are the names in the route table")]
    Neighbour {
        /// The offending name.
        route: String,
    },
    /// A session lifetime of zero: every session would be expired at once.
    #[error("a session lifetime of 0 would expire every session at once; the least is 1 ns")]
    SessionLifetime,
    /// A scope of the limits that counts an endpoint without a route: it would limit nothing.
    #[error(transparent)]
    UnknownEndpoint(#[from] UnknownEndpoint),
    /// A fault rule that cannot be met.
    #[error(transparent)]
    Faults(#[from] FaultsError),
    /// A webhook destination that cannot be sent to, or a fault of webhooks that cannot be met.
    #[error(transparent)]
    Webhooks(#[from] WebhookError),
}
