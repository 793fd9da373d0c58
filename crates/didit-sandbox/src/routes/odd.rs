//! The three limits that are no rate window, on the routes that have them.

use std::time::Duration;

use didit_api::error::OddThrottle;

use super::{generic::generic, object, optional_text};
use crate::{
    answer::{self, Answer},
    call::Call,
    faults::whole_seconds_up,
    world::{Caller, World},
};

/// Refuses a session beyond the sandbox's quota; counts it otherwise, valid or not.
pub(super) fn session_quota(world: &mut World, now: Duration) -> Option<Answer> {
    let limit = world.settings.sandbox_quota;
    let full = world.odd_limits.creation(now);
    refuse(world, OddThrottle::SandboxQuota, full, limit)
}

/// `POST /v3/phone/send/`: an attempt too many with one number is refused, anything else is as on other routes.
pub(super) fn phone_send(world: &mut World, now: Duration, call: &Call, name: &str) -> Answer {
    if world.caller(call) == Caller::Known
        && let Some(phone) = object(call).and_then(|body| optional_text(&body, "phone_number")).ok().flatten()
    {
        let full = world.odd_limits.attempt(&phone, now);
        if let Some(refusal) = refuse(world, OddThrottle::PhoneAttempts, full, 0) {
            return refusal;
        }
    }
    generic(world, now, call, name)
}

/// `POST /v3/session/imports/`: refused while an import is active, else as on other routes.
pub(super) fn import(world: &mut World, now: Duration, call: &Call, name: &str) -> Answer {
    if world.caller(call) == Caller::Known {
        let full = world.odd_limits.import(now);
        if let Some(refusal) = refuse(world, OddThrottle::ImportJob, full, 0) {
            return refusal;
        }
    }
    generic(world, now, call, name)
}

fn refuse(world: &mut World, kind: OddThrottle, full: Result<(), Duration>, limit: u32) -> Option<Answer> {
    let wait = full.err()?;
    world.book.stats.odd_throttled += 1;
    Some(answer::odd_throttled(kind, limit, whole_seconds_up(wait).max(1)))
}
