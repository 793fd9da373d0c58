//! A call's turn: whether it leads, or there is an answer already.

use std::{sync::Arc, time::Duration};

use http::{Response, header};
use http_body::Body;
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    AnswerBody, Provenance, Refused,
    flight::{Left, Turn},
    lead::{Lead, Lease},
    run::{ASKING_TIME, Run},
};
use crate::idempotency::store::{Answer, Begun, Claim, StoreError, Timestamp};

/// The first wait for a leader in another process; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest wait for a leader in another process, before the store is asked again.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What a call finds when its turn has come.
pub(super) enum Place<RB: Body> {
    /// It leads.
    Lead { lead: Lead, since: Timestamp },
    /// There is an answer already.
    Answered(Response<AnswerBody<RB>>),
}

impl<S, C> Run<S, C> {
    /// Claims the call, or waits for whoever has claimed it.
    pub(super) async fn claim<RB: Body>(&mut self, turn: Turn) -> Result<Place<RB>, Refused> {
        let Self { shared, named, start, total, wait, .. } = &*self;
        let give_up = *start + *wait;
        // NOTE: not `give_up` alone: whoever does not want to wait for other calls still has time to ask the store.
        let ask_until = give_up.max(*start + *total).max(Instant::now() + ASKING_TIME.min(*total));
        let claim = Claim { fingerprint: named.fingerprint, lease: shared.lease };
        let lead =
            |epoch, lease, turn| Lead::new(Arc::clone(&shared.store), shared.clock, (named.key, epoch), lease, turn);
        let mut pause = FIRST_PAUSE;
        loop {
            let (now, lease) = (shared.clock.now(), Lease::from_now(shared.lease));
            let begun = timeout_at(ask_until, shared.store.begin(named.key, claim, now)).await;
            let begun = begun.map_err(|elapsed| StoreError::Database(Arc::new(elapsed))).flatten();
            match begun.map_err(Refused::store)? {
                Begun::Lead { epoch } => return Ok(Place::Lead { lead: lead(epoch, lease, turn), since: now }),
                Begun::Reconcile { epoch, since } => {
                    let mut lead = lead(epoch, lease, turn);
                    lead.in_doubt = true;
                    return Ok(Place::Lead { lead, since });
                }
                Begun::Done(answer) => return replayed(answer).map(Place::Answered),
                Begun::Conflict => return Err(Refused::conflict()),
                Begun::Busy { .. } if Instant::now() + pause > give_up => return Err(Refused::still_running(*wait)),
                Begun::Busy { .. } => sleep(pause).await,
            }
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }
}

/// An answer that was left by a call with the same key.
pub(super) fn given_again<RB: Body>(left: &Left) -> Response<AnswerBody<RB>> {
    let mut response = Response::new(AnswerBody::whole(left.data.clone()));
    *response.status_mut() = left.status;
    response.headers_mut().clone_from(&left.headers);
    left.provenance.mark(response)
}

/// An answer out of the store.
fn replayed<RB: Body>(answer: Answer) -> Result<Response<AnswerBody<RB>>, Refused> {
    let Some(kept) = answer.body else {
        return Err(Refused::already_done(answer.status, answer.session_id));
    };
    let mut response = Response::new(AnswerBody::whole(kept.data));
    *response.status_mut() = answer.status;
    if let Some(content_type) = kept.content_type {
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    }
    Ok(Provenance::Replayed.mark(response))
}
