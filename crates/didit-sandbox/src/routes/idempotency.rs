//! `Idempotency-Key`, on the routes that honour it: which these are, the route table says.

use http::StatusCode;

use crate::{
    answer::{self, Answer},
    call::Call,
    replays::{LONGEST_KEY, Replay},
    world::World,
};

/// Gives a request that was answered before the same answer again, else lets `work` answer it and keeps that.
///
/// Only a success is kept: what failed may be tried again under the same key.
pub(super) fn once(world: &mut World, call: &Call, name: &str, work: impl FnOnce(&mut World) -> Answer) -> Answer {
    let key = match key(call) {
        Ok(Some(key)) => key,
        Ok(None) => return work(world),
        Err(refusal) => return refusal,
    };
    match world.replays.look_up(key, name, &call.body) {
        Replay::Same(answer) => answer,
        Replay::Conflict => {
            let text = "This Idempotency-Key was used before with a different request.";
            Answer::detail(StatusCode::CONFLICT, text)
        }
        Replay::New => {
            let answer = work(world);
            if answer.status.is_success() {
                world.replays.keep(key, name, call.body.clone(), answer.clone());
            }
            answer
        }
    }
}

fn key(call: &Call) -> Result<Option<&str>, Answer> {
    let Some(value) = call.headers.get("idempotency-key") else { return Ok(None) };
    match value.to_str() {
        Ok("") => Ok(None),
        Ok(key) if key.len() <= LONGEST_KEY => Ok(Some(key)),
        _ => {
            let text = format!("Ensure this value is ASCII and has at most {LONGEST_KEY} characters.");
            Err(answer::invalid("Idempotency-Key", &text))
        }
    }
}
