//! `POST /v3/events/` and `POST /v3/events/batch/`.

use http::StatusCode;
use serde_json::{Value, json};

use super::{NO_PERMISSION, any, object, optional_text};
use crate::{
    answer::{self, Answer},
    call::Call,
    world::World,
};

/// The most events in a batch (Didit's page on events).
const LARGEST_BATCH: usize = 500;

/// Takes one event: 201 each time, and `replayed` if its `event_id` was seen before.
pub(super) fn event(world: &mut World, call: &Call, name: &str) -> Answer {
    if let Some(refusal) = world.refuse_stranger(call, NO_PERMISSION) {
        return refusal;
    }
    take_one(world, call, name).unwrap_or_else(|refusal| refusal)
}

/// Takes up to 500 events, in an object or a bare array: 201, or 207 if one of them is rejected.
pub(super) fn batch(world: &mut World, call: &Call, name: &str) -> Answer {
    if let Some(refusal) = world.refuse_stranger(call, NO_PERMISSION) {
        return refusal;
    }
    take_all(world, call, name).unwrap_or_else(|refusal| refusal)
}

fn take_one(world: &mut World, call: &Call, name: &str) -> Result<Answer, Answer> {
    let event = object(call)?;
    let Some(id) = optional_text(&event, "event_id")? else { return Err(answer::required("event_id")) };
    let accepted = accept(world, &id);
    if accepted {
        world.book.effect(name, call.operation(&any(&event, "metadata")));
    }
    let body = json!({ "event_id": id, "outcome": outcome(accepted) });
    Ok(Answer::json(StatusCode::CREATED, &body))
}

fn take_all(world: &mut World, call: &Call, name: &str) -> Result<Answer, Answer> {
    let body = call.json().map_err(|error| answer::not_json(&error))?;
    let events = match body.get("events").unwrap_or(&body) {
        Value::Array(events) => events,
        Value::Object(_) => return Err(answer::required("events")),
        _ => return Err(answer::invalid("events", "Expected a list of items.")),
    };
    if events.is_empty() || events.len() > LARGEST_BATCH {
        return Err(answer::invalid("events", &format!("A batch holds 1 to {LARGEST_BATCH} events.")));
    }
    let (mut any_accepted, mut any_rejected) = (false, false);
    let mut results = Vec::with_capacity(events.len());
    for (index, event) in events.iter().enumerate() {
        results.push(match event.get("event_id").and_then(Value::as_str).filter(|id| !id.is_empty()) {
            Some(id) => {
                let accepted = accept(world, id);
                any_accepted |= accepted;
                json!({ "index": index, "outcome": outcome(accepted), "event_id": id })
            }
            None => {
                any_rejected = true;
                world.book.stats.events_rejected += 1;
                let errors = json!({ "event_id": ["This field is required."] });
                json!({ "index": index, "outcome": "rejected", "errors": errors })
            }
        });
    }
    if any_accepted {
        world.book.effect(name, call.operation(&any(&body, "metadata")));
    }
    let status = if any_rejected { StatusCode::MULTI_STATUS } else { StatusCode::CREATED };
    Ok(Answer::json(status, &json!({ "results": results })))
}

fn accept(world: &mut World, id: &str) -> bool {
    let accepted = world.ingested.is_new_event(id);
    let stats = &mut world.book.stats;
    let count = if accepted { &mut stats.events_accepted } else { &mut stats.events_replayed };
    *count += 1;
    accepted
}

fn outcome(accepted: bool) -> &'static str {
    if accepted { "accepted" } else { "replayed" }
}
