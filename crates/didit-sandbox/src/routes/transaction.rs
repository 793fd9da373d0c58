//! `POST /v3/transactions/`.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use super::{NO_PERMISSION, any, optional_text};
use crate::{
    answer::{self, Answer},
    call::Call,
    clock,
    ingested::Known,
    world::World,
};

/// The longest `transaction_id`, in characters (Didit's page on creating transactions).
const LONGEST_ID: usize = 128;

/// Takes a transaction whose `transaction_id` is new: 201. Otherwise 400, or 409 while the first one is in flight. One
/// without an id is always new.
pub(super) fn transaction(world: &mut World, now: Duration, call: &Call, name: &str) -> Answer {
    if let Some(refusal) = world.refuse_stranger(call, NO_PERMISSION) {
        return refusal;
    }
    take(world, now, call, name).unwrap_or_else(|refusal| refusal)
}

fn take(world: &mut World, now: Duration, call: &Call, name: &str) -> Result<Answer, Answer> {
    let body =
        if call.body.is_empty() { Value::Null } else { call.json().map_err(|error| answer::not_json(&error))? };
    let id = optional_text(&body, "transaction_id")?;
    if let Some(id) = &id {
        if id.chars().count() > LONGEST_ID {
            let text = format!("Ensure this field has no more than {LONGEST_ID} characters.");
            return Err(answer::invalid("transaction_id", &text));
        }
        let status = match world.ingested.transaction(id, now) {
            Known::No => None,
            Known::InFlight => Some(StatusCode::CONFLICT),
            Known::Yes => Some(StatusCode::BAD_REQUEST),
        };
        if let Some(status) = status {
            world.book.stats.transactions_refused += 1;
            let text = "A transaction with this transaction_id already exists.";
            return Err(Answer::json(status, &json!({ "transaction_id": [text] })));
        }
        world.ingested.keep_transaction(id.clone(), world.answer_leaves);
    }
    let metadata = any(&body, "metadata");
    world.book.effect(name, call.operation(&metadata));
    world.book.stats.transactions_made += 1;
    let body = json!({
        "request_id": world.ids.uuid().to_string(),
        "uuid": world.ids.uuid().to_string(),
        "txn_id": id,
        "metadata": metadata,
        "created_at": clock::with_offset(now),
    });
    Ok(Answer::json(StatusCode::CREATED, &body))
}

/// The id that a request for a transaction is about, as far as it can be read.
pub(crate) fn transaction_id(call: &Call) -> Option<String> {
    optional_text(&call.json().ok()?, "transaction_id").ok()?
}
