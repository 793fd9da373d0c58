//! `POST /v3/session/`.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{NO_PERMISSION, any, object, odd::session_quota, optional_text};
use crate::{
    answer::{self, Answer},
    call::Call,
    sessions::{Dates, NewSession, Session},
    world::World,
};

/// The scenarios that Didit's sandbox is known to take.
const SCENARIOS: [&str; 16] = [
    "approve",
    "decline_document_expired",
    "decline_could_not_recognize_document",
    "decline_mrz_validation",
    "decline_minimum_age",
    "decline_face_match_low_similarity",
    "decline_liveness_attack",
    "decline_aml_hit",
    "decline_ip_blocklist",
    "decline_poa_address_mismatch",
    "decline_nfc_chip_not_verified",
    "decline_database_no_match",
    "review_aml_possible_match",
    "review_face_match_borderline",
    "review_poa_partial_match",
    "decline_kyb_registry_mismatch",
];

/// Makes a session, or hands out the unfinished one with the same `vendor_data` again: 201 either way.
pub(super) fn session_create(world: &mut World, now: Duration, call: &Call, name: &str) -> Answer {
    if let Some(refusal) = world.refuse_stranger(call, NO_PERMISSION) {
        return refusal;
    }
    if let Some(refusal) = session_quota(world, now) {
        return refusal;
    }
    match read(world, call) {
        Ok(new) => create(world, now, call, name, new),
        Err(refusal) => refusal,
    }
}

fn read(world: &World, call: &Call) -> Result<NewSession, Answer> {
    let body = object(call)?;
    if let Some(scenario) = optional_text(&body, "sandbox_scenario")?
        && !SCENARIOS.contains(&scenario.as_str())
    {
        let text = format!("Unknown sandbox scenario: '{scenario}'.");
        return Err(answer::invalid("sandbox_scenario", &text));
    }
    let new = NewSession {
        workflow: workflow(&body)?,
        vendor_data: optional_text(&body, "vendor_data")?,
        callback: optional_text(&body, "callback")?,
        metadata: any(&body, "metadata"),
        expected_details: any(&body, "expected_details"),
        contact_details: any(&body, "contact_details"),
        language: optional_text(&body, "language")?,
    };
    if world.knows_workflow(new.workflow) {
        Ok(new)
    } else {
        Err(Answer::bad_request(&json!({ "workflow_id": "Invalid workflow_id." })))
    }
}

fn workflow(body: &Value) -> Result<Uuid, Answer> {
    match body.get("workflow_id") {
        None => Err(answer::required("workflow_id")),
        Some(Value::Null) => Err(answer::invalid("workflow_id", "This field may not be null.")),
        Some(value) => value
            .as_str()
            .and_then(|text| Uuid::try_parse(text).ok())
            .ok_or_else(|| answer::invalid("workflow_id", "Must be a valid UUID.")),
    }
}

fn create(world: &mut World, now: Duration, call: &Call, name: &str, new: NewSession) -> Answer {
    let operation = call.operation(&new.metadata);
    let vendor_data = new.vendor_data.clone();
    let reusable = vendor_data.as_deref().and_then(|vendor| world.sessions.reusable(vendor, new.workflow, now));
    if let Some(session) = reusable {
        // Didit's page on creating sessions: these two are replaced, so the first request's metadata is gone.
        session.callback = new.callback;
        session.metadata = new.metadata;
        world.book.stats.sessions_reused += 1;
        return created(session, now);
    }
    world.book.session_made(vendor_data.as_deref());
    world.book.effect(name, operation);
    let identity = (world.ids.uuid(), world.ids.token());
    if let Some((after, status)) = world.settings.webhooks.finish.clone() {
        world.finish_at(now.saturating_add(after), identity.0, status);
    }
    let dates = Dates {
        created: now,
        listed: now.saturating_add(world.draw_list_delay()),
        expires: now.saturating_add(world.settings.session_lifetime),
    };
    created(world.sessions.make(identity, new, dates), now)
}

fn created(session: &Session, now: Duration) -> Answer {
    let body = json!({
        "session_id": session.id.to_string(),
        "session_number": session.number,
        "session_token": session.token,
        "url": session.url,
        "vendor_data": session.vendor_data,
        "metadata": session.metadata,
        "status": session.status(now).as_str(),
        "workflow_id": session.workflow.to_string(),
        "workflow_version": 1,
        "callback": session.callback,
    });
    Answer::json(StatusCode::CREATED, &body).about(session.id)
}
