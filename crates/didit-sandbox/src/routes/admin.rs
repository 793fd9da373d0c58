//! `/_sandbox/…`: what a test asks and does, with no key, not counted and at once.

use std::time::Duration;

use didit_api::SessionStatus;
use http::{Method, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{object, set_status};
use crate::{
    answer::{self, Answer},
    call::Call,
    resolve::canonical,
    world::World,
};

const PREFIX: &str = "/_sandbox/";

/// Whether a path belongs here.
pub(crate) fn is_admin(path: &str) -> bool {
    path.starts_with(PREFIX)
}

pub(crate) fn admin(world: &mut World, now: Duration, call: &Call) -> Answer {
    let path = call.path().strip_prefix(PREFIX).unwrap_or_default().trim_end_matches('/');
    let segments: Vec<_> = path.split('/').collect();
    match (&call.method, segments.as_slice()) {
        (&Method::GET, ["stats"]) => page(&world.stats()),
        (&Method::GET, ["journal"]) => page(&world.journal()),
        (&Method::GET, ["effects"]) => page(&world.book.effects()),
        (&Method::GET, ["webhooks"]) => page(&world.outbox.records()),
        (&Method::POST, ["webhooks", event, "resend"]) if world.outbox.resend(now, event) => {
            Answer::empty(StatusCode::ACCEPTED)
        }
        (&Method::POST, ["reset"]) => {
            world.reset(now);
            Answer::empty(StatusCode::NO_CONTENT)
        }
        (&Method::POST, ["session", id, "status"]) => status(world, now, call, id),
        (_, ["stats" | "journal" | "effects" | "webhooks"]) => answer::method_not_allowed(&call.method, "GET"),
        (_, ["reset"] | ["session", _, "status"]) => answer::method_not_allowed(&call.method, "POST"),
        _ => answer::not_found(),
    }
}

fn status(world: &mut World, now: Duration, call: &Call, id: &str) -> Answer {
    let body = match object(call) {
        Err(refusal) => return refusal,
        Ok(body) => body,
    };
    let status = body.get("status").and_then(|name| name.as_str().map(SessionStatus::from));
    let Some(status) = status.filter(|status| SessionStatus::DOCUMENTED.contains(status)) else {
        let names: Vec<_> = SessionStatus::DOCUMENTED.iter().map(SessionStatus::as_str).collect();
        return answer::invalid("status", &format!("Must be one of: {}.", names.join(", ")));
    };
    let after = body.get("after_ms").and_then(Value::as_u64).map(Duration::from_millis);
    match canonical(id).filter(|id| finish(world, now, *id, &status, after)) {
        Some(id) => Answer::ok(&json!({ "session_id": id.to_string(), "status": status.as_str() })),
        None => answer::not_found(),
    }
}

/// Sets a status, now or later. `false` if there is no such session.
pub(crate) fn finish(
    world: &mut World,
    now: Duration,
    session: Uuid,
    status: &SessionStatus,
    after: Option<Duration>,
) -> bool {
    match after {
        None => set_status(world, now, session, status.clone()),
        Some(_) if world.sessions.get(session).is_none() => false,
        Some(after) => {
            world.finish_at(now.saturating_add(after), session, status.clone());
            true
        }
    }
}

fn page<T: Serialize>(value: &T) -> Answer {
    match serde_json::to_vec(value) {
        Ok(body) => Answer::of_type(StatusCode::OK, "application/json", body.into()),
        Err(error) => Answer::detail(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}
