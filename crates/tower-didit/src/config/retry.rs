//! Settings of the retry layer.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{HumanDuration, Invalid, OrOff, error::At};
use crate::retry::{Budget, ExponentialBackoff, RetryBuilder};

/// Settings of the [retry layer](crate::retry).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct RetryConfig {
    /// The most attempts that one call may take, its first included. 1 repeats nothing.
    #[schemars(range(min = 1))]
    pub max_attempts: u32,
    /// The longest wait before a repetition, at most a day. If a server asks for more, its response is handed out.
    pub longest_wait: HumanDuration,
    /// How many bytes of a streaming request body are recorded so that it can be sent again: 0 to 1 GiB.
    #[schemars(range(max = 1_073_741_824))]
    pub replay_cap: usize,
    /// The tokens that repetitions are paid from and successes bring in; "off" for no bound but the attempts.
    pub budget: OrOff<u32>,
    /// Hands out at once what an open circuit held back, instead of waiting for it within the deadline.
    pub fail_fast: bool,
    /// How long to wait before a repetition.
    pub backoff: BackoffConfig,
    /// What is waited on top of the server's hint after a 429.
    pub throttled_backoff: ThrottledBackoffConfig,
}

macro_rules! backoff {
    ($(#[$doc:meta])* $name:ident, $default:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        #[non_exhaustive]
        pub struct $name {
            /// The longest first wait, at most a day.
            pub base: HumanDuration,
            /// By what each wait grows, 1 to 10.
            #[schemars(range(min = 1, max = 10))]
            pub factor: f64,
            /// The longest wait, from the base to a day.
            pub cap: HumanDuration,
        }

        impl $name {
            pub(super) fn of(backoff: &ExponentialBackoff) -> Self {
                let ExponentialBackoff { base, factor, cap } = *backoff;
                Self { base: base.into(), factor, cap: cap.into() }
            }

            fn build(&self, key: &'static str) -> Result<ExponentialBackoff, Invalid> {
                let backoff = ExponentialBackoff::new(self.base.0, self.cap.0);
                backoff.and_then(|backoff| backoff.factor(self.factor)).at(key)
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::of(&ExponentialBackoff::$default)
            }
        }
    };
}

backoff! {
    /// Full jitter over capped exponential growth.
    BackoffConfig, DIDIT
}
backoff! {
    /// As [`BackoffConfig`], with the defaults of what is waited after a 429.
    ThrottledBackoffConfig, DIDIT_THROTTLED
}

// ===== impl RetryConfig =====

impl RetryConfig {
    pub(super) fn of(builder: &RetryBuilder) -> Self {
        let (settings, backoff) = (&builder.settings, &builder.backoff);
        Self {
            max_attempts: settings.max_attempts,
            longest_wait: settings.longest_wait.into(),
            replay_cap: settings.replay_cap,
            budget: settings.budget.as_ref().map(Budget::capacity).into(),
            fail_fast: settings.fail_fast,
            backoff: BackoffConfig::of(backoff),
            throttled_backoff: ThrottledBackoffConfig::of(&settings.throttled),
        }
    }

    pub(super) fn apply(&self, builder: RetryBuilder) -> Result<RetryBuilder, Invalid> {
        let builder = builder
            .max_attempts(self.max_attempts)
            .longest_wait(self.longest_wait.0)
            .replay_cap(self.replay_cap)
            .budget(self.budget.on().map(Budget::new))
            .fail_fast(self.fail_fast)
            .backoff(self.backoff.build("retry.backoff")?)
            .throttled_backoff(self.throttled_backoff.build("retry.throttled_backoff")?);
        // Checked here, so that an error is known to be about these settings.
        builder.clone().build().at("retry")?;
        Ok(builder)
    }
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self::of(&RetryBuilder::default())
    }
}
