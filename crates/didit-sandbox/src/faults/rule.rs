//! Which requests a fault happens to.

use std::time::Duration;

use http::Method;
use rand::{RngExt, rngs::StdRng};
use serde::Deserialize;

use super::{Fault, FaultsError, Truncation, file, truncation::At};

/// Which of the requests that a rule applies to it fires on. Requests are counted from 1.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum When {
    /// Every one.
    #[default]
    Always,
    /// Each with this probability, from 0 to 1.
    Probability(#[serde(deserialize_with = "file::probability")] f64),
    /// The first so many.
    First(u64),
    /// Those with these numbers.
    Nth(#[serde(deserialize_with = "file::numbers")] Vec<u64>),
    /// Those that arrive in this time, counted from the start of the sandbox: from the first instant on, and before the
    /// second.
    #[serde(rename = "between_ms", deserialize_with = "file::between")]
    Between(Duration, Duration),
}

impl When {
    /// Whether it fires on the request with this number, that arrives so long after the start. Draws even for a request
    /// that it does not fire on.
    pub(crate) fn fires(&self, number: u64, since_start: Duration, rng: &mut StdRng) -> bool {
        match self {
            Self::Always => true,
            Self::Probability(probability) => rng.random::<f64>() < *probability,
            Self::First(count) => number <= *count,
            Self::Nth(numbers) => numbers.contains(&number),
            Self::Between(from, until) => (*from..*until).contains(&since_start),
        }
    }

    /// Checks what code can get wrong and a file cannot.
    pub(crate) fn check(&self, rule: usize) -> Result<(), FaultsError> {
        match self {
            Self::Probability(value) if !(0.0..=1.0).contains(value) => {
                Err(FaultsError::Probability { rule, value: *value })
            }
            Self::Between(from, until) if from >= until => {
                Err(FaultsError::Between { rule, from: *from, until: *until })
            }
            Self::Nth(numbers) if numbers.contains(&0) => Err(FaultsError::Nth { rule }),
            _ => Ok(()),
        }
    }
}

/// One fault, the requests it applies to, and when it fires.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    pub(crate) fault: Fault,
    pub(crate) routes: Vec<String>,
    pub(crate) methods: Vec<Method>,
    pub(crate) when: When,
}

impl Rule {
    /// A fault on every request.
    pub fn new(fault: Fault) -> Self {
        Self { fault, routes: Vec::new(), methods: Vec::new(), when: When::Always }
    }

    /// Applies to this route, by name, and to those already given.
    #[must_use]
    pub fn on_route(mut self, name: impl Into<String>) -> Self {
        self.routes.push(name.into());
        self
    }

    /// Applies to this method and to those already given.
    #[must_use]
    pub fn on_method(mut self, method: Method) -> Self {
        self.methods.push(method);
        self
    }

    /// Sets when it fires; [`When::Always`] by default.
    #[must_use]
    pub fn when(mut self, when: When) -> Self {
        self.when = when;
        self
    }

    pub(super) fn applies(&self, route: &str, method: &Method) -> bool {
        (self.routes.is_empty() || self.routes.iter().any(|name| name == route))
            && (self.methods.is_empty() || self.methods.contains(method))
    }
}

/// A list of rules.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    rules: Vec<Rule>,
}

impl Faults {
    /// No fault at all.
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds a rule at the end.
    #[must_use]
    pub fn with(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    /// Reads a list from a file's text (see [the module's page](super)).
    ///
    /// # Errors
    ///
    /// [`FaultsError::File`] with the line and column of what cannot be used.
    pub fn from_json(text: &str) -> Result<Self, FaultsError> {
        file::read(text).map(|rules| Self { rules })
    }

    /// The rules, in order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Checks what code can get wrong and a file cannot.
    pub(crate) fn check(&self, knows_route: impl Fn(&str) -> bool) -> Result<(), FaultsError> {
        for (rule, number) in self.rules.iter().zip(1..) {
            if let Some(name) = rule.routes.iter().find(|name| !knows_route(name)) {
                return Err(FaultsError::Route { rule: number, name: name.clone() });
            }
            rule.when.check(number)?;
            if let Some(code) = rule.fault.code().filter(|code| !(400..=599).contains(&code.as_u16())) {
                return Err(FaultsError::Status { rule: number, code: code.as_u16() });
            }
            if rule.fault.time() > Fault::LONGEST_DELAY {
                return Err(FaultsError::Delay { rule: number, delay: rule.fault.time() });
            }
            match rule.fault {
                Fault::SlowBody { bytes: 0, .. } => return Err(FaultsError::Piece { rule: number }),
                Fault::TruncatedBody(Truncation { at: At::Percent(percent), .. }) if percent > 100 => {
                    return Err(FaultsError::Percent { rule: number, percent });
                }
                _ => {}
            }
        }
        Ok(())
    }
}
