//! Every route without a file of its own: authenticated, counted, and answered in the shape that Didit's have.
//!
//! Nothing is stored, and the objects that paths name are taken to exist.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::NO_PERMISSION;
use crate::{
    answer::{self, Answer},
    call::Call,
    clock,
    world::{Caller, World},
};

/// The standalone checks without a file of their own: 200, and billed each time.
const CHECKS: [&str; 13] = [
    "/v3/face-match/",
    "/v3/passive-liveness/",
    "/v3/age-estimation/",
    "/v3/face-search/",
    "/v3/poa/",
    "/v3/database-validation/",
    "/v3/kyb/search/",
    "/v3/kyb/select/",
    "/v3/phone/send/",
    "/v3/phone/check/",
    "/v3/email/send/",
    "/v3/email/check/",
    "/v3/wallet-screening/",
];

/// What the users' routes say to a stranger, with 401 (Didit's OpenAPI file).
const NO_TOKEN: &str = "You must be authenticated with a valid access token to access this endpoint.";

pub(super) fn generic(world: &mut World, now: Duration, call: &Call, name: &str) -> Answer {
    let path = call.path();
    if path.starts_with("/v3/users/") && world.caller(call) != Caller::Known {
        return Answer::detail(StatusCode::UNAUTHORIZED, NO_TOKEN);
    }
    if let Some(refusal) = world.refuse_stranger(call, NO_PERMISSION) {
        return refusal;
    }
    let metadata = match metadata(call) {
        Ok(metadata) => metadata,
        Err(refusal) => return refusal,
    };
    if call.method == Method::POST {
        world.book.effect(name, call.operation(&metadata));
    }
    let is_check = CHECKS.contains(&path);
    world.book.stats.billed_checks += u64::from(is_check);
    let status = match call.method {
        Method::DELETE => return Answer::empty(StatusCode::NO_CONTENT),
        Method::POST if path == "/v3/sessions/delete/" => return Answer::empty(StatusCode::NO_CONTENT),
        Method::POST if !is_check => StatusCode::CREATED,
        _ => StatusCode::OK,
    };
    let body = json!({
        "request_id": world.ids.uuid().to_string(),
        "metadata": metadata,
        "created_at": clock::with_offset(now),
    });
    Answer::json(status, &body)
}

/// The request's `metadata`, on the way refusing a body that the route cannot take.
fn metadata(call: &Call) -> Result<Value, Answer> {
    // Didit documents 415 on these two alone.
    let json_only = ["/v3/workflows/", "/v3/questionnaires/"].iter().any(|prefix| call.path().starts_with(prefix));
    if json_only && !call.body.is_empty() && !call.is_json() {
        return Err(answer::unsupported_media_type(call.content_type()));
    }
    if call.is_json() && !call.body.is_empty() {
        let body = call.json().map_err(|error| answer::not_json(&error))?;
        return Ok(super::any(&body, "metadata"));
    }
    let text = call.field_text("metadata");
    Ok(text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default())
}
