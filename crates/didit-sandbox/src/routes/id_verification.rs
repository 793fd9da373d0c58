//! `POST /v3/id-verification/`.

use std::time::Duration;

use serde_json::{Value, json};

use super::NO_PERMISSION;
use crate::{
    answer::{self, Answer},
    call::Call,
    clock,
    world::World,
};

/// The largest image: 10 MiB (Didit's page on the ID verification API).
const LARGEST_IMAGE: usize = 10 * 1024 * 1024;

/// Reads a document from a multipart form: approved whatever it shows, as with a key of Didit's own sandbox.
pub(super) fn id_verification(world: &mut World, now: Duration, call: &Call, name: &str) -> Answer {
    if let Some(refusal) = world.refuse_stranger(call, NO_PERMISSION) {
        return refusal;
    }
    match call.field("front_image") {
        None => return answer::invalid("front_image", "No file was submitted."),
        Some(image) if image.is_empty() => return answer::invalid("front_image", "The submitted file is empty."),
        Some(_) => {}
    }
    for side in ["front_image", "back_image"] {
        if call.field(side).is_some_and(|image| image.len() > LARGEST_IMAGE) {
            return answer::invalid(side, "The submitted file is larger than 10 MB.");
        }
    }
    let metadata = match call.field_text("metadata").map(serde_json::from_str::<Value>).transpose() {
        Ok(metadata) => metadata.unwrap_or_default(),
        Err(_) => return answer::invalid("metadata", "Value must be valid JSON."),
    };
    world.book.effect(name, call.operation(&metadata));
    world.book.stats.billed_checks += 1;
    Answer::ok(&json!({
        "request_id": world.ids.uuid().to_string(),
        "id_verification": { "node_id": null, "status": "Approved", "warnings": [] },
        "vendor_data": call.field_text("vendor_data"),
        "metadata": metadata,
        "created_at": clock::with_offset(now),
    }))
}
