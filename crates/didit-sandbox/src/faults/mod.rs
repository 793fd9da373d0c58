//! Faults on request: what goes wrong, for which requests, and when.
//!
//! A list of [`Rule`]s is written in code or read from a JSON file. Each rule names a [`Fault`], the requests it
//! applies to, and [`When`] it fires. Every rule has a random sequence of its own, drawn from the sandbox's seed, so
//! that adding a rule does not change what the others do.
//!
//! For each request that no rate limit refused, all rules are looked at in order: delays add up, the body of the
//! answer may be slow and cut off whatever the answer is, and of the other faults the first that fires is the one that
//! happens. A faulted request has arrived, so it is counted in the windows.
//!
//! # When the work is done
//!
//! | Fault | Work | What the client gets |
//! |---|---|---|
//! | [`Status`](Fault::Status), [`Refusal`](Fault::Refusal), [`AbsurdThrottle`](Fault::AbsurdThrottle), [`OddThrottle`](Fault::OddThrottle) | never | that answer |
//! | [`ResetBeforeWork`](Fault::ResetBeforeWork) | never | a reset |
//! | [`NeverCommit`](Fault::NeverCommit) | never | after a time an [`Ending`] |
//! | [`LateCommit`](Fault::LateCommit) | after a time, on the sandbox's clock | an [`Ending`] |
//! | [`WorkThenDrop`](Fault::WorkThenDrop) | on arrival | a closed connection |
//! | [`Delay`](Fault::Delay), [`SlowBody`](Fault::SlowBody) | on arrival | the answer, late |
//! | [`TruncatedBody`](Fault::TruncatedBody) | on arrival | a part of the answer |
//!
//! With [`Ending::Drop`] a client cannot tell work done, work done later and work never done apart.
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
//!         { "fault": "reset-before-work", "routes": ["aml"], "when": "always" },
//!         { "fault": { "late-commit": { "ms": 5000 } }, "routes": ["session-create"], "when": { "probability": 0.05 } },
//!         { "fault": { "never-commit": { "ms": 2000, "ending": { "status": 504 } } }, "when": { "nth": [3] } },
//!         { "fault": { "late-commit": { "ms": 90000, "ending": "silence" } }, "when": { "nth": [4] } },
//!         { "fault": { "truncated-body": { "at_percent": 50, "chunked": true } }, "when": { "nth": [5] } },
//!         { "fault": { "slow-body": { "bytes": 16, "every_ms": 100 } }, "when": { "nth": [6] } },
//!         { "fault": { "status": { "code": 429, "retry_after": { "date_in_s": 30 } } }, "when": { "nth": [7] } },
//!         { "fault": { "status": { "code": 429, "retry_after": "soon", "headers": [["x-ratelimit-reset", "-1"]] } } },
//!         { "fault": "absurd-429", "when": { "probability": 0.01 } },
//!         { "fault": { "odd-429": "sandbox-quota" }, "routes": ["session-create"], "when": { "first": 1 } },
//!         { "fault": { "status": { "code": 503 } }, "when": { "between_ms": [60000, 360000] } }
//!     ]
//! }"#;
//! let faults = didit_sandbox::Faults::from_json(file)?;
//! assert_eq!(faults.rules().len(), 14);
//! # Ok::<(), didit_sandbox::FaultsError>(())
//! ```
//!
//! `routes` are names from the route table and `methods` HTTP methods; without them a rule applies to every request.
//! `when` is `"always"` if left out. What each fault takes is told where it is described in [`Fault`]. Nothing else may
//! stand in the file.

mod error;
mod fault;
mod file;
mod plan;
mod refusal;
mod rule;
mod truncation;

pub use error::FaultsError;
pub use fault::{Ending, Fault};
pub(crate) use plan::{Manner, Plans};
pub use refusal::{Refusal, RetryAfter};
pub(crate) use refusal::{http_date, whole_seconds_up};
pub use rule::{Faults, Rule, When};
pub use truncation::Truncation;
