//! One limit, and `X-RateLimit-Limit`, `-Remaining` and `-Reset` as Didit and many others send them.

use std::{
    cmp::Reverse,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::HeaderMap;

use super::{
    LONGEST,
    fields::{count, digits, members},
    ietf,
};

/// What a response says about one limit. Each part may be missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateLimit {
    /// The limit of the scope that the response speaks of.
    pub limit: Option<u32>,
    /// Requests left in its window; 0 on a 429.
    pub remaining: Option<u32>,
    /// How long until the window frees up.
    pub reset: Option<Duration>,
    /// How long the window is, which only the IETF's fields say.
    pub window: Option<Duration>,
}

/// Below this, a reset is a number of seconds from now; from this on it is a date, in September 2001 or later.
const FIRST_EPOCH_SECONDS: u64 = 1_000_000_000;

/// Below this, a date is in seconds (up to the year 5138); from this on in milliseconds (from 1973).
const FIRST_EPOCH_MILLIS: u64 = 100_000_000_000;

/// From this on, a date is absurd even in milliseconds: the year 5138 again.
const FIRST_ABSURD: u64 = 100_000_000_000_000;

// ===== impl RateLimit =====

impl RateLimit {
    /// Reads `X-RateLimit-*` and the IETF's fields, measuring reset times against `now`, and gives the tightest of what
    /// they say.
    ///
    /// `X-RateLimit-Reset` is UTC epoch seconds at Didit, seconds from now or epoch milliseconds elsewhere. Which it is
    /// shows in its size:
    ///
    /// | value | read as |
    /// |---|---|
    /// | below 10⁹ | seconds from now |
    /// | below 10¹¹ | epoch seconds |
    /// | below 10¹⁴ | epoch milliseconds |
    /// | anything else | [`LONGEST`] |
    pub fn read(headers: &HeaderMap, now: SystemTime) -> Self {
        Self::read_x(headers, now).tighter(ietf::read(headers))
    }

    fn read_x(headers: &HeaderMap, now: SystemTime) -> Self {
        // The older drafts of the IETF's fields have the same three under names without the "X-".
        let both = |name: &'static str, plain: &'static str| members(headers, name).chain(members(headers, plain));
        let least = |name, plain| both(name, plain).filter_map(|member| count(member.item())).min();
        let resets = both("x-ratelimit-reset", "ratelimit-reset").filter_map(|member| digits(member.item()));
        Self {
            limit: least("x-ratelimit-limit", "ratelimit-limit"),
            remaining: least("x-ratelimit-remaining", "ratelimit-remaining"),
            reset: resets.map(|reset| until(reset, now)).max(),
            window: None,
        }
    }

    /// The tighter of two, by what is left, then by how long it lasts, then by the limit; what it does not say is
    /// taken from the other.
    pub(super) fn tighter(self, other: Self) -> Self {
        let tightness =
            |limit: &Self| (limit.remaining.unwrap_or(u32::MAX), Reverse(limit.reset), limit.limit.unwrap_or(u32::MAX));
        let (tighter, looser) = if tightness(&other) < tightness(&self) { (other, self) } else { (self, other) };
        Self {
            limit: tighter.limit.or(looser.limit),
            remaining: tighter.remaining.or(looser.remaining),
            reset: tighter.reset.or(looser.reset),
            window: tighter.window.or(looser.window),
        }
    }

    /// Whether anything is known.
    pub(crate) fn is_some(&self) -> bool {
        *self != Self::default()
    }
}

/// How long it is from `now` to a reset.
fn until(reset: u64, now: SystemTime) -> Duration {
    let elapsed = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let wait = if reset < FIRST_EPOCH_SECONDS {
        Duration::from_secs(reset)
    } else if reset < FIRST_EPOCH_MILLIS {
        Duration::from_secs(reset).saturating_sub(elapsed)
    } else if reset < FIRST_ABSURD {
        Duration::from_millis(reset).saturating_sub(elapsed)
    } else {
        LONGEST
    };
    wait.min(LONGEST)
}
