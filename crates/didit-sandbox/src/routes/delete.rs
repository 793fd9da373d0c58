//! `DELETE /v3/session/{id}/delete/`.

use http::StatusCode;

use super::NO_CREDENTIALS;
use crate::{
    answer::{self, Answer},
    call::Call,
    resolve::Params,
    world::World,
};

/// Deletes a session: 204, and 404 from then on. An unknown session is 404 before the key is looked at.
pub(super) fn delete(world: &mut World, call: &Call, params: Params) -> Answer {
    let Some(id) = params.session.filter(|id| world.sessions.get(*id).is_some()) else {
        return answer::not_found();
    };
    if let Some(refusal) = world.refuse_stranger(call, NO_CREDENTIALS) {
        return refusal;
    }
    world.sessions.delete(id);
    Answer::empty(StatusCode::NO_CONTENT)
}
