//! Tower layers that make calls to Didit dependable.

#[macro_use]
mod macros;

pub mod call;
mod clock;
pub mod error;
#[cfg(any(feature = "attempt-timeout", feature = "deadline"))]
mod expiring;
#[cfg(any(feature = "correlation", feature = "idempotency"))]
mod ids;
pub mod outcome;
pub mod quota;
mod random;
#[cfg(any(feature = "circuit-breaker", feature = "pacing"))]
mod refusable;

#[cfg(feature = "attempt-timeout")]
pub mod attempt_timeout;
#[cfg(feature = "retry")]
pub mod body;
#[cfg(feature = "circuit-breaker")]
pub mod circuit_breaker;
#[cfg(feature = "correlation")]
pub mod correlation;
#[cfg(feature = "deadline")]
pub mod deadline;
#[cfg(feature = "idempotency")]
pub mod idempotency;
#[cfg(feature = "pacing")]
pub mod pacing;
#[cfg(feature = "retry")]
pub mod retry;
#[cfg(feature = "stack")]
pub mod stack;

#[cfg(feature = "stack")]
pub use self::stack::{DiditLayer, DiditService};
pub use self::{error::ConfigError, random::Randomness};
