//! What became of a call in doubt.

use std::sync::Arc;

use http::{Request, Response, header, request::Parts};
use http_body::Body;
use tokio::time::timeout;
use tower::Service;

use super::{
    AnswerBody, Provenance, StoredIdempotencyLayer,
    claim::given_again,
    flight::Left,
    lead::{Lead, Taken},
    lookup::Lookups,
    run::Run,
};
use crate::idempotency::{
    reconcile::{Doubt, Found, Undecided, Verdict},
    store::{Answer, Settlement, StoreError, Timestamp},
};

/// What a leader comes to who asked the server what became of the call.
pub(super) enum Looked<RB: Body> {
    /// It was done; the lead is settled.
    Adopted(Box<Response<AnswerBody<RB>>>),
    Absent,
    Harmless,
    Undecided(Undecided),
}

impl<S, C> Run<S, C> {
    /// Asks the server what became of the call, and adopts what is found.
    pub(super) async fn look<B, RB>(
        &mut self,
        lead: &mut Lead,
        parts: &Parts,
        since: Timestamp,
    ) -> Result<Looked<RB>, StoreError>
    where
        S: Service<Request<B>, Response = Response<RB>, Future: Send, Error: Send> + Clone + Send,
        B: Default + Send,
        RB: Body<Data: Send, Error: Send> + Send,
    {
        let doubt = Doubt {
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            headers: parts.headers.clone(),
            body: self.named.body.clone(),
            operation_id: self.named.operation_id.clone(),
            since,
            now: self.shared.clock.now(),
        };
        let (uri, headers) = (parts.uri.clone(), parts.headers.clone());
        let known = (Arc::clone(&self.shared.store), self.named.key);
        let header = &self.shared.keys.header;
        let mut lookups = Lookups::<S, B>::new(self.inner.clone(), (uri, headers), header, known);
        let reconcile = self.shared.reconcile();
        let within = self.total.saturating_add(reconcile.waits()).min(StoredIdempotencyLayer::MAX);
        let verdict = lead.hold(timeout(within, reconcile.reconcile(&doubt, &mut lookups))).await?;
        let verdict = verdict.unwrap_or(Verdict::Undecided(Undecided::LookupFailed));
        tracing::info!(?verdict, "looked up what became of a call");
        Ok(match verdict {
            Verdict::Found(found) => match self.adopt(lead, found).await {
                Ok(response) => Looked::Adopted(Box::new(response)),
                Err(Taken) => Looked::Undecided(Undecided::Taken),
            },
            Verdict::Absent => Looked::Absent,
            Verdict::Harmless => Looked::Harmless,
            Verdict::Undecided(why) => Looked::Undecided(why),
        })
    }

    /// Answers with what a look-up found, unless it belongs to another operation by now.
    async fn adopt<RB: Body>(&mut self, lead: &mut Lead, found: Found) -> Result<Response<AnswerBody<RB>>, Taken> {
        // NOTE: its body is not kept even if replay is on: given again, it would pass for the server's own.
        let answer = Answer { session_id: found.session_id, ..Answer::new(found.status) };
        let settlement = if found.inferred { Settlement::Adopted(answer) } else { Settlement::Done(answer) };
        let turn = lead.adopt(settlement).await?;
        let json = header::HeaderValue::from_static("application/json");
        let headers = header::HeaderMap::from_iter([(header::CONTENT_TYPE, json)]);
        let left = Left { status: found.status, headers, data: found.body, provenance: Provenance::Adopted };
        let response = given_again(&left);
        if let Some(turn) = turn {
            turn.leave(left);
        }
        Ok(response)
    }
}
