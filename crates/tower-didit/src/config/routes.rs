//! Routes of the user's own, changes to Didit's, and the time an attempt gets on each.

use std::{sync::Arc, time::Duration};

use didit_api::{
    Endpoint, RetryClass, Routes, ServiceGroup,
    routes::{RoutesBuilder, RoutesError},
};
use http::Method;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{HumanDuration, Invalid, error::At};
use crate::{attempt_timeout::AttemptTimeoutLayer, error::check_duration};

/// A route of the user's own, or a change to one of Didit's.
///
/// A name of Didit's route table changes that route, and needs nothing else; any other needs `method` and `path`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct RouteConfig {
    /// A short, stable name, used for limits, spans and metrics.
    pub name: String,
    /// The HTTP method, in capital letters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The path template: `{name}` stands for one segment. A final slash is part of the route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What makes repeating it safe after a failure that leaves it open whether it was carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<RetryClassName>")]
    pub retry: Option<RetryClass>,
    /// How long one attempt may be on the wire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<HumanDuration>,
    /// The circuit it shares: one of Didit's service groups, or a group of the user's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Whether no rate limit counts it.
    #[serde(default)]
    pub unlimited: bool,
}

/// The names of [`RetryClass`], for the schema.
#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[allow(dead_code, reason = "read by nobody but the derived schema")]
enum RetryClassName {
    Safe,
    Idempotent,
    IdempotencyKey,
    BodyId,
    VendorData,
    Unsafe,
}

/// Settings of the [attempt timeout](crate::attempt_timeout); each route has its own in `routes`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct AttemptTimeoutConfig {
    /// The time for paths that no route knows, 1 ms to a day.
    pub unknown: HumanDuration,
    /// The least that any route gets, at most a day.
    pub at_least: HumanDuration,
}

impl Default for AttemptTimeoutConfig {
    fn default() -> Self {
        Self { unknown: Endpoint::DEFAULT_TIMEOUT.into(), at_least: Duration::ZERO.into() }
    }
}

/// Didit's routes with these changes.
pub(super) fn build(changes: &[RouteConfig], timeouts: &AttemptTimeoutConfig) -> Result<Arc<Routes>, Invalid> {
    let didit = Routes::didit();
    let least = check_duration("at_least", timeouts.at_least.0, Duration::ZERO, AttemptTimeoutLayer::MAX);
    let least = least.at("attempt_timeout")?;
    if changes.is_empty() && least.is_zero() {
        return Ok(didit);
    }
    let mut builder = Routes::builder();
    for (index, change) in changes.iter().enumerate() {
        builder = builder.endpoint(change.endpoint(&didit).map_err(|(place, problem)| {
            let RouteConfig { name, .. } = change;
            Invalid::text(format!("routes.{index}{place}"), format!("route {name:?}: {problem}"))
        })?);
    }
    let refused = |error| Invalid::new(&place(changes, &error), error);
    let routes = builder.build().map_err(refused)?;
    // A template that cannot be matched was refused just now, so what is built again is the same but for its time.
    let patient = routes.iter().map(|(_, endpoint)| endpoint.clone().timeout(endpoint.attempt_timeout().max(least)));
    Ok(Arc::new(patient.fold(Routes::blank(), RoutesBuilder::endpoint).build().map_err(refused)?))
}

/// The key that an error is about.
fn place(changes: &[RouteConfig], error: &RoutesError) -> String {
    let (name, setting) = match error {
        RoutesError::Template { name, .. } => (name, "path"),
        RoutesError::DuplicateName { name } => (name, "name"),
        RoutesError::Timeout { name } => (name, "timeout"),
        _ => return "routes".to_owned(),
    };
    // Of two with one name, the second is one too many.
    let index = changes.iter().rposition(|change| change.name == *name);
    index.map_or_else(|| "routes".to_owned(), |index| format!("routes.{index}.{setting}"))
}

// ===== impl RouteConfig =====

impl RouteConfig {
    /// The error says where in it the problem lies, as the end of a key, and which.
    fn endpoint(&self, didit: &Routes) -> Result<Endpoint, (&'static str, String)> {
        let mut endpoint = match didit.named(&self.name).map(|id| didit.get(id)) {
            Some(known) => {
                let (method, path) = (known.method().as_str(), known.path());
                let same = |given: &Option<String>, known: &str| given.as_ref().is_none_or(|given| given == known);
                if !same(&self.method, method) || !same(&self.path, path) {
                    let problem = format!("that is Didit's name for {method} {path}; another route needs another name");
                    return Err(("", problem));
                }
                known.clone()
            }
            None => {
                let (Some(method), Some(path)) = (&self.method, &self.path) else {
                    return Err(("", "it is none of Didit's, so `method` and `path` are needed".to_owned()));
                };
                let method = Method::from_bytes(method.as_bytes())
                    .map_err(|_| (".method", format!("{method:?} is no method; allowed is a word such as GET")))?;
                Endpoint::new(self.name.clone(), method, path.clone())
            }
        };
        if let Some(class) = self.retry {
            endpoint = endpoint.retry(class);
        }
        if let Some(timeout) = self.timeout {
            endpoint = endpoint.timeout(timeout.0);
        }
        if let Some(group) = &self.group {
            endpoint = endpoint.group(ServiceGroup::named(group));
        }
        Ok(if self.unlimited { endpoint.unlimited() } else { endpoint })
    }
}
