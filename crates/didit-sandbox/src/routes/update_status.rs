//! `PATCH /v3/session/{id}/update-status/`, and the same without its rules for `/_sandbox/`.

use std::time::Duration;

use didit_api::SessionStatus;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{NO_CREDENTIALS, object};
use crate::{
    answer::{self, Answer},
    call::Call,
    resolve::Params,
    world::World,
};

/// What it may set.
const SETTABLE: [SessionStatus; 3] = [SessionStatus::Approved, SessionStatus::Declined, SessionStatus::Resubmitted];

/// Overrides the outcome of a session, from and to the statuses that Didit allows.
pub(super) fn update_status(world: &mut World, now: Duration, call: &Call, params: Params) -> Answer {
    if let Some(refusal) = world.refuse_stranger(call, NO_CREDENTIALS) {
        return refusal;
    }
    let Some(session) = params.session.and_then(|id| world.sessions.get_mut(id)) else {
        return answer::not_found();
    };
    let new = match new_status(call) {
        Ok(new) => new,
        Err(refusal) => return refusal,
    };
    let current = session.status(now);
    if new == current {
        return Answer::bad_request(&json!(["The new status is the same as the current status."]));
    }
    if !current.is_overridable() {
        let text = format!("The status of a session that is {} cannot be updated.", current.as_str());
        return Answer::bad_request(&json!({ "detail": text }));
    }
    let id = session.id;
    set_status(world, now, id, new);
    Answer::ok(&json!({ "session_id": id.to_string() }))
}

fn new_status(call: &Call) -> Result<SessionStatus, Answer> {
    let body = object(call)?;
    match body.get("new_status") {
        None => Err(answer::required("new_status")),
        Some(value) => {
            let named = value.as_str().map(SessionStatus::from);
            let known = named.filter(|status| SETTABLE.contains(status));
            let shown = value.as_str().map_or_else(|| Value::to_string(value), str::to_owned);
            known.ok_or_else(|| answer::invalid("new_status", &format!("\"{shown}\" is not a valid choice.")))
        }
    }
}

/// Sets any status, as a user or a reviewer would bring it about. `false` if there is no such session.
pub(crate) fn set_status(world: &mut World, now: Duration, id: Uuid, status: SessionStatus) -> bool {
    let Some(session) = world.sessions.get_mut(id) else { return false };
    let changes = session.status(now) != status;
    session.set_status(status);
    if changes {
        world.status_changed(now, id);
    }
    true
}
