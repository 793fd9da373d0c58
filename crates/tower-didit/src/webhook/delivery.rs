//! What a handler gets, and how it fails.

use std::{error::Error as StdError, fmt, time::SystemTime};

use didit_api::webhook::{Event, EventKey};

use super::inbox::Origin;
use crate::call::CorrelationId;

/// An event on its way to the handler. `Debug` shows ids and statuses only.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Delivery {
    /// What it says; for one that a [sweep](super::sweep) found, what Didit's decision endpoint says.
    pub event: Event,
    /// Which attempt to handle it this is, from 1. From the second on, an earlier one may have had effects.
    pub attempt: u32,
    /// When it was taken in.
    pub received: SystemTime,
    /// Where it comes from.
    pub origin: Origin,
    /// Whether it says to be a test of the console's. That is **not signed**.
    pub test: bool,
    /// The journey it belongs to, under which the handler runs.
    pub correlation_id: CorrelationId,
}

// ===== impl Delivery =====

impl Delivery {
    /// What names the event, whichever attempt this is: written down together with its effect, that happens once.
    pub fn key(&self) -> EventKey {
        self.event.key()
    }
}

/// Why a handler did not handle an event. Any error becomes one that may pass.
///
/// What the error says (its `Display`, not its sources) is logged. Of an error of reqwest's the URL is left out.
pub struct Failure {
    error: Box<dyn StdError + Send + Sync>,
    for_good: bool,
}

// ===== impl Failure =====

impl Failure {
    /// Trying again would not help: the event is [parked](super::inbox) at once.
    pub fn for_good(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { error: without_url(error.into()), for_good: true }
    }

    /// It may pass: the event is tried again, later.
    pub fn for_now(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { error: without_url(error.into()), for_good: false }
    }

    /// Whether trying again would not help.
    pub fn is_for_good(&self) -> bool {
        self.for_good
    }
}

impl<E: StdError + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::for_now(error)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failure").field("for_good", &self.for_good).field("error", &self.error).finish()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

/// Takes out the URL, which may have a person's name in it.
fn without_url(error: Box<dyn StdError + Send + Sync>) -> Box<dyn StdError + Send + Sync> {
    #[cfg(feature = "reqwest")]
    let error = match error.downcast::<reqwest::Error>() {
        Ok(error) => Box::new(error.without_url()),
        Err(error) => error,
    };
    error
}
