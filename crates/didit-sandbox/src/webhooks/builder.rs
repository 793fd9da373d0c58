//! Setting webhooks up.

use std::time::Duration;

use didit_api::SessionStatus;

use super::{Destination, DestinationError, RetryStamp, WebhookFault};
use crate::{
    SandboxBuilder,
    faults::{FaultsError, When},
};

/// How long Didit waits before its second and its third attempt: about one minute, and about four (Didit's webhooks
/// page).
const WAITS: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(240)];

/// What webhooks run by.
#[derive(Clone, Debug)]
pub(crate) struct Webhooks {
    pub(super) destinations: Vec<Destination>,
    pub(super) faults: Vec<(WebhookFault, When)>,
    pub(super) waits: Vec<Duration>,
    pub(super) retry_stamp: RetryStamp,
    /// When sessions end by themselves, and how.
    pub(crate) finish: Option<(Duration, SessionStatus)>,
}

/// Why webhooks cannot be sent. Destinations and faults are counted from 1.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum WebhookError {
    /// A destination that cannot be used.
    #[error("webhook destination {number}: {source}")]
    Destination {
        /// Which one.
        number: usize,
        /// Why.
        source: DestinationError,
    },
    /// A fault that cannot be met.
    #[error("webhooks: {0}")]
    Fault(#[from] FaultsError),
}

impl Default for Webhooks {
    fn default() -> Self {
        Self {
            destinations: Vec::new(),
            faults: Vec::new(),
            waits: WAITS.to_vec(),
            retry_stamp: RetryStamp::default(),
            finish: None,
        }
    }
}

impl Webhooks {
    pub(crate) fn check(&self) -> Result<(), WebhookError> {
        for (destination, number) in self.destinations.iter().zip(1..) {
            let secret = destination.secrets().map(drop).map_err(DestinationError::from);
            let checked = secret.and_then(|()| destination.sender().map(drop));
            checked.map_err(|source| WebhookError::Destination { number, source })?;
        }
        for ((_, when), number) in self.faults.iter().zip(1..) {
            when.check(number)?;
        }
        Ok(())
    }
}

impl SandboxBuilder {
    /// Sends webhooks to this destination, and to those already given. None by default.
    #[must_use]
    pub fn webhook(mut self, destination: Destination) -> Self {
        self.settings.webhooks.destinations.push(destination);
        self
    }

    /// Lets something go wrong with webhooks. All rules are looked at for each copy of an event, and all that fire
    /// happen. Nothing by default.
    #[must_use]
    pub fn webhook_fault(mut self, fault: WebhookFault, when: When) -> Self {
        self.settings.webhooks.faults.push((fault, when));
        self
    }

    /// Sets how long to wait after each failed attempt; there is one attempt more than there are waits. One minute and
    /// four by default, as at Didit.
    #[must_use]
    pub fn webhook_waits(mut self, waits: impl IntoIterator<Item = Duration>) -> Self {
        self.settings.webhooks.waits = waits.into_iter().collect();
        self
    }

    /// Sets what time a repeated attempt has. [`RetryStamp::Kept`] by default.
    #[must_use]
    pub fn webhook_retry_stamp(mut self, stamp: RetryStamp) -> Self {
        self.settings.webhooks.retry_stamp = stamp;
        self
    }

    /// Gives every session this status so long after it was made, as if its user had gone through it. By default a
    /// session stays as it is until it is told otherwise.
    #[must_use]
    pub fn finish_sessions(mut self, after: Duration, status: SessionStatus) -> Self {
        self.settings.webhooks.finish = Some((after, status));
        self
    }
}
