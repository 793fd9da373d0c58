//! What is written down of what came.

use bytes::Bytes;
use didit_api::RetryClass;
use http::{Response, header};
use http_body::Body;
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    AnswerBody, Provenance,
    flight::Left,
    layer::Shared,
    lead::Lead,
    run::{ASKING_TIME, Run},
    send::Came,
    unread::Mark,
};
use crate::idempotency::store::{Answer, Claim, Settlement};

impl<S, C> Run<S, C> {
    /// Writes down what came, and hands it out.
    pub(super) async fn settle<RB: Body, E>(
        &mut self,
        lead: &mut Lead,
        came: Came<RB, E>,
    ) -> Result<Response<AnswerBody<RB>>, E> {
        let settlement = match (&came.result, Settlement::of(came.outcome, lead.in_doubt)) {
            (_, Some(settlement)) => settlement,
            // NOTE: without the answer's body: given again, it would pass for a failure.
            (Ok(response), None) if came.done_before => Settlement::Done(Answer::new(response.status())),
            (Ok(response), None) if response.status().is_success() => {
                Settlement::Done(self.kept(response, came.whole.as_ref()))
            }
            // A rejection is an answer too, but nothing was done: the next call may find its reason gone.
            (_, None) if lead.in_doubt => Settlement::Unknown,
            (_, None) => Settlement::Forget,
        };
        if let Settlement::Done(Answer { status, session_id, .. }) = &settlement
            && status.is_success()
        {
            self.mark(lead, came.route.1, *session_id).await;
        }
        let turn = lead.settle(settlement).await;
        // Whoever waited asked for the same at the same time, so a rejection is theirs too.
        if let (Some(turn), Ok(response), Some(data)) = (turn, &came.result, came.whole) {
            let (status, headers) = (response.status(), response.headers().clone());
            turn.leave(Left { status, headers, data, provenance: Provenance::Coalesced });
        }
        came.result
    }

    /// Remembers that a session was made whose id could not be read, if that is so.
    async fn mark(&mut self, lead: &mut Lead, class: RetryClass, id: Option<Uuid>) {
        let Shared { store, lease, clock, .. } = &*self.shared;
        let Some(mark) = Mark::of(store.secret(), &self.named.key, self.named.body.as_ref(), class, id) else { return };
        // If the caller goes away meanwhile, what was done must not be taken for undone.
        lead.in_doubt = true;
        let claim = Claim { fingerprint: self.named.fingerprint, lease: *lease };
        let written = timeout(ASKING_TIME, mark.write(&**store, claim, clock.now())).await;
        if !matches!(written, Ok(Ok(()))) {
            tracing::warn!("a session whose id could not be read was not marked in the idempotency store");
        }
    }

    /// What the store keeps of a success.
    fn kept<RB: Body>(&self, response: &Response<AnswerBody<RB>>, whole: Option<&Bytes>) -> Answer {
        let answer = Answer::new(response.status());
        let Some(whole) = whole else { return answer };
        let answer = answer.with_id_of(whole);
        // One that is encoded all the same would be given again to somebody who may not be able to read it.
        if !self.shared.replay || response.headers().contains_key(header::CONTENT_ENCODING) {
            return answer;
        }
        answer.with_body(response.headers().get(header::CONTENT_TYPE).cloned(), whole.clone())
    }
}
