//! `POST /v3/aml/`.

use std::time::Duration;

use serde_json::{Value, json};

use super::{NO_PERMISSION, any, object, optional_text};
use crate::{
    answer::{self, Answer},
    call::Call,
    clock,
    world::World,
};

/// Screens a name, and finds nothing.
pub(super) fn aml(world: &mut World, now: Duration, call: &Call, name: &str) -> Answer {
    match world.refuse_stranger(call, NO_PERMISSION) {
        Some(refusal) => refusal,
        None => screen(world, now, call, name).unwrap_or_else(|refusal| refusal),
    }
}

fn screen(world: &mut World, now: Duration, call: &Call, name: &str) -> Result<Answer, Answer> {
    let body = object(call)?;
    let Some(full_name) = optional_text(&body, "full_name")? else {
        return Err(match body.get("full_name") {
            Some(Value::String(_)) => answer::invalid("full_name", "This field may not be blank."),
            Some(_) => answer::invalid("full_name", "This field may not be null."),
            None => answer::required("full_name"),
        });
    };
    let metadata = any(&body, "metadata");
    let vendor_data = optional_text(&body, "vendor_data")?;
    world.book.effect(name, call.operation(&metadata));
    world.book.stats.billed_checks += 1;
    Ok(Answer::ok(&json!({
        "request_id": world.ids.uuid().to_string(),
        "aml": {
            "status": "Approved",
            "total_hits": 0,
            "hits": [],
            "score": 0,
            "screened_data": {
                "full_name": full_name,
                "date_of_birth": any(&body, "date_of_birth"),
                "nationality": any(&body, "nationality"),
                "document_number": any(&body, "document_number"),
            },
            "warnings": [],
        },
        "vendor_data": vendor_data,
        "metadata": metadata,
        "created_at": clock::with_offset(now),
    })))
}
