//! Faults on request: what goes wrong, for which requests, and when.
//!
//! A list of [`Rule`]s is written in code or read from a JSON file. Each rule names a [`Fault`], the requests it
//! applies to, and [`When`] it fires. Every rule has a random sequence of its own, drawn from the sandbox's seed, so
//! that adding a rule does not change what the others do.
//!
//! For each request that no rate limit refused, all rules are looked at in order: delays add up, and of the other
//! faults the first that fires is the one that happens. A faulted request has arrived, so it is counted in the
//! windows.
//!
//! # In code
//!
//! ```
//! use std::time::Duration;
//! use didit_sandbox::{Fault, Faults, Rule, When};
//! use http::{Method, StatusCode};
//!
//! let faults = Faults::none()
//!     .with(Rule::new(Fault::status(StatusCode::SERVICE_UNAVAILABLE).with_retry_after(1)).when(When::Probability(0.1)))
//!     .with(Rule::new(Fault::WorkThenDrop).on_route("session-create").when(When::First(2)))
//!     .with(Rule::new(Fault::Delay(Duration::from_secs(3))).on_method(Method::GET).when(When::Nth(vec![5, 9])));
//! assert_eq!(faults.rules().len(), 3);
//! ```
//!
//! # As a file
//!
//! ```
//! let file = r#"{
//!     "rules": [
//!         { "fault": { "status": { "code": 503, "retry_after": 1 } }, "when": { "probability": 0.1 } },
//!         { "fault": "work-then-drop", "routes": ["session-create"], "when": { "first": 2 } },
//!         { "fault": { "delay": { "ms": 3000 } }, "methods": ["GET"], "when": { "nth": [5, 9] } },
//!         { "fault": "reset-before-work", "routes": ["aml"], "when": "always" }
//!     ]
//! }"#;
//! let faults = didit_sandbox::Faults::from_json(file)?;
//! assert_eq!(faults.rules().len(), 4);
//! # Ok::<(), didit_sandbox::FaultsError>(())
//! ```
//!
//! `routes` are names from the route table and `methods` HTTP methods; without them a rule applies to every request.
//! `when` is `"always"` if left out. Nothing else may stand in the file.

use std::time::Duration;

use http::{Method, StatusCode};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde::Deserialize;

use crate::fault_file;

/// What goes wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The request is answered with this status and no work is done. In a file:
    /// `{ "status": { "code": 503, "retry_after": 1 } }`.
    Status {
        /// The status, 400 to 599.
        code: StatusCode,
        /// The `Retry-After` header in seconds; without it the answer has none.
        retry_after: Option<u64>,
    },
    /// The work is done at once and the answer comes so much later. In a file: `{ "delay": { "ms": 3000 } }`.
    Delay(Duration),
    /// The connection is reset and no work is done. In a file: `"reset-before-work"`.
    ResetBeforeWork,
    /// The work is done and the connection is closed without an answer. In a file: `"work-then-drop"`.
    WorkThenDrop,
}

impl Fault {
    /// The longest [`Delay`](Self::Delay): a day.
    pub const LONGEST_DELAY: Duration = Duration::from_secs(86_400);

    /// An answer with this status and no `Retry-After`.
    pub fn status(code: StatusCode) -> Self {
        Self::Status { code, retry_after: None }
    }

    /// Adds a `Retry-After` of whole seconds. Without effect on anything but a status.
    #[must_use]
    pub fn with_retry_after(mut self, seconds: u64) -> Self {
        if let Self::Status { retry_after, .. } = &mut self {
            *retry_after = Some(seconds);
        }
        self
    }

    /// The kind's name, as in [`Stats::faults`](crate::Stats::faults) and the journal.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Status { .. } => "status",
            Self::Delay(_) => "delay",
            Self::ResetBeforeWork => "reset-before-work",
            Self::WorkThenDrop => "work-then-drop",
        }
    }
}

/// Which of the requests that a rule applies to it fires on. Requests are counted from 1.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum When {
    /// Every one.
    #[default]
    Always,
    /// Each with this probability, from 0 to 1.
    Probability(#[serde(deserialize_with = "fault_file::probability")] f64),
    /// The first so many.
    First(u64),
    /// Those with these numbers.
    Nth(#[serde(deserialize_with = "fault_file::numbers")] Vec<u64>),
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

    fn applies(&self, route: &str, method: &Method) -> bool {
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

    /// Reads a list from a file's text (see [the module's page](self)).
    ///
    /// # Errors
    ///
    /// [`FaultsError::File`] with the line and column of what cannot be used.
    pub fn from_json(text: &str) -> Result<Self, FaultsError> {
        fault_file::read(text).map(|rules| Self { rules })
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
            match &rule.when {
                When::Probability(value) if !(0.0..=1.0).contains(value) => {
                    return Err(FaultsError::Probability { rule: number, value: *value });
                }
                When::Nth(numbers) if numbers.contains(&0) => return Err(FaultsError::Nth { rule: number }),
                _ => {}
            }
            match rule.fault {
                Fault::Status { code, .. } if !(400..=599).contains(&code.as_u16()) => {
                    return Err(FaultsError::Status { rule: number, code: code.as_u16() });
                }
                Fault::Delay(delay) if delay > Fault::LONGEST_DELAY => {
                    return Err(FaultsError::Delay { rule: number, delay });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Why faults cannot be used. Rules are counted from 1.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FaultsError {
    /// A file that cannot be read as a list of rules.
    #[error("faults, line {line}, column {column}: {message}")]
    File {
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
        /// What is wrong.
        message: String,
    },
    /// A route that the table does not have.
    #[error("fault rule {rule}: no route is named {name:?}; allowed are the names in the route table")]
    Route {
        /// The rule's number.
        rule: usize,
        /// The name.
        name: String,
    },
    /// A probability outside 0 to 1.
    #[error("fault rule {rule}: a probability of {value} is not from 0 to 1")]
    Probability {
        /// The rule's number.
        rule: usize,
        /// The offending value.
        value: f64,
    },
    /// A request number of 0.
    #[error("fault rule {rule}: requests are counted from 1, not 0")]
    Nth {
        /// The rule's number.
        rule: usize,
    },
    /// A status that is not an error.
    #[error("fault rule {rule}: status {code} is no error; allowed are 400 to 599")]
    Status {
        /// The rule's number.
        rule: usize,
        /// The offending status.
        code: u16,
    },
    /// A delay beyond [`Fault::LONGEST_DELAY`].
    #[error("fault rule {rule}: a delay of {delay:?} is longer than {:?}", Fault::LONGEST_DELAY)]
    Delay {
        /// The rule's number.
        rule: usize,
        /// The offending delay.
        delay: Duration,
    },
}

// ===== impl Plans =====

/// Decides, request by request, what goes wrong.
#[derive(Debug)]
pub(crate) struct Plans(Vec<Armed>);

#[derive(Debug)]
struct Armed {
    rule: Rule,
    seen: u64,
    rng: StdRng,
}

/// What goes wrong with one request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) delay: Option<Duration>,
    /// Anything but a delay.
    pub(crate) fault: Option<Fault>,
}

impl Plans {
    pub(crate) fn new(faults: &Faults, seed: u64) -> Self {
        let armed = |(rule, stream): (&Rule, u64)| Armed {
            rule: rule.clone(),
            seen: 0,
            rng: StdRng::seed_from_u64(seed.wrapping_add(stream.wrapping_mul(0x9e37_79b9_7f4a_7c15))),
        };
        Self(faults.rules.iter().zip(1..).map(armed).collect())
    }

    pub(crate) fn plan(&mut self, route: &str, method: &Method) -> Plan {
        let mut plan = Plan::default();
        // Every rule draws for every request it applies to, fired or not, so that each keeps its own sequence.
        for armed in self.0.iter_mut().filter(|armed| armed.rule.applies(route, method)) {
            if !armed.fires() {
                continue;
            }
            match &armed.rule.fault {
                Fault::Delay(delay) => plan.delay = Some(plan.delay.unwrap_or_default().saturating_add(*delay)),
                fault => plan.fault = plan.fault.or_else(|| Some(fault.clone())),
            }
        }
        plan
    }
}

impl Armed {
    fn fires(&mut self) -> bool {
        self.seen += 1;
        match &self.rule.when {
            When::Always => true,
            When::Probability(probability) => self.rng.random::<f64>() < *probability,
            When::First(count) => self.seen <= *count,
            When::Nth(numbers) => numbers.contains(&self.seen),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fired(plans: &mut Plans, requests: usize) -> Vec<bool> {
        (0..requests).map(|_| plans.plan("aml", &Method::POST).fault.is_some()).collect()
    }

    #[test]
    fn scripted_rules_fire_on_exactly_their_requests() {
        let rule = |when| Faults::none().with(Rule::new(Fault::WorkThenDrop).on_route("aml").when(when));
        let mut first = Plans::new(&rule(When::First(2)), 0);
        first.plan("session-create", &Method::POST);
        assert_eq!(fired(&mut first, 4), [true, true, false, false]);
        let mut nth = Plans::new(&rule(When::Nth(vec![2, 4])), 0);
        assert_eq!(fired(&mut nth, 5), [false, true, false, true, false]);
    }

    #[test]
    fn probabilities_are_met_and_repeat_with_the_seed() {
        let faults = Faults::none().with(Rule::new(Fault::ResetBeforeWork).when(When::Probability(0.2)));
        let run = |seed| fired(&mut Plans::new(&faults, seed), 10_000);
        let hits = run(1).into_iter().filter(|hit| *hit).count();
        assert!((1_850..=2_150).contains(&hits), "{hits}");
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }

    #[test]
    fn another_rule_does_not_change_what_the_first_one_does() {
        let rule = Rule::new(Fault::ResetBeforeWork).when(When::Probability(0.5));
        let mut alone = Plans::new(&Faults::none().with(rule.clone()), 3);
        let delay = Rule::new(Fault::Delay(Duration::from_secs(1))).when(When::Probability(0.5));
        let mut both = Plans::new(&Faults::none().with(rule).with(delay), 3);
        assert_eq!(fired(&mut alone, 200), fired(&mut both, 200));
    }

    #[test]
    fn delays_add_up_and_the_first_other_fault_wins() {
        let delay = Rule::new(Fault::Delay(Duration::from_secs(1)));
        let faults = Faults::none()
            .with(delay.clone())
            .with(Rule::new(Fault::WorkThenDrop))
            .with(delay)
            .with(Rule::new(Fault::ResetBeforeWork));
        let plan = Plans::new(&faults, 0).plan("aml", &Method::POST);
        assert_eq!(plan, Plan { delay: Some(Duration::from_secs(2)), fault: Some(Fault::WorkThenDrop) });
    }

    #[test]
    fn what_cannot_be_meant_is_named() {
        let check = |rule| Faults::none().with(rule).check(|name| name == "aml").unwrap_err().to_string();
        let reset = || Rule::new(Fault::ResetBeforeWork);
        assert!(check(reset().on_route("aml").on_route("amll")).contains("\"amll\""));
        assert!(check(reset().when(When::Probability(1.5))).contains("1.5"));
        assert!(check(reset().when(When::Probability(f64::NAN))).contains("NaN"));
        assert!(check(reset().when(When::Nth(vec![0]))).contains("from 1"));
        assert!(check(Rule::new(Fault::status(StatusCode::OK))).contains("200"));
        assert!(check(Rule::new(Fault::Delay(Duration::MAX))).contains("longer"));
    }
}
