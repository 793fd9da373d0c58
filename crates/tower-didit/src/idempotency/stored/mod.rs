//! Named calls that happen once, however often they are made.
//!
//! # Why
//!
//! A key in a header protects a call where the server honours it, which is almost nowhere at Didit. This layer
//! remembers on this side which calls were made: under the caller's own key, or under its [operation
//! id](crate::call::CallOptions::operation_id) with method and path. Calls that have neither pass through, because no
//! second call can have their name.
//!
//! | a call whose name is | what happens |
//! |---|---|
//! | new | it is written down, sent, and settled with what comes of it |
//! | that of a call under way in this process | it waits, and gets the same answer; if the other is dropped, it takes over |
//! | that of a call under way in another process | it waits and asks the store again |
//! | that of a call that succeeded | the answer is given again if [replay](StoredIdempotencyLayer::replay) is on, else [`Refused::AlreadyDone`] with its status and id |
//! | that of a call with another method, path or body | [`Refused::Conflict`]; another body is noticed if its type shows that it [lies in memory](super#keys-that-survive-a-restart) |
//! | that of a call that was cancelled, died with its process, or was silent for longer than its lease | it is [looked up](super::reconcile) before anything is sent |
//!
//! # What counts as done
//!
//! A success, with its whole body read: its id is what a later call needs. A rejection (3xx, 4xx) did nothing, and the
//! next call may find its reason gone (no credits, a wrong key), so it goes to those who waited for it and is then
//! forgotten, like an attempt that was never sent. A 429 or 503 of a server that did nothing keeps the key, and is
//! never given to another call. Everything else (5xx, a timeout, a broken connection, a success whose body breaks off
//! or stalls) is in doubt, and so is any call of which the [retry layer](crate::retry) made an attempt that was: it is
//! looked up at once. Unless the server says that it [has it already](crate::outcome::repeated): then an earlier
//! attempt did it, and it is done.
//!
//! # Why an error and not an empty answer
//!
//! Without replay the answer to a call that is done would be a status and an id, and whoever reads a session's link out
//! of it would find none. [`Refused::AlreadyDone`] cannot be mistaken for the real thing, and it has the id to ask
//! with. What a look-up finds is handed out as a [marked](Provenance::Adopted) response instead, because it is the
//! answer to this call, and the list shows most of it.
//!
//! # One leader
//!
//! A call leads for a [lease](StoredIdempotencyLayer::lease), which it renews when half of it is over. Everything that
//! it does below, it does while it holds one: at each step the time is looked at, and a leader that was stopped or
//! blocked for longer than its lease asks the store before it does anything more. The store is asked as well before
//! whatever is sent after a look-up. Who finds that somebody else leads drops what is under way below, sends nothing
//! more, and waits for what the other comes to: its answer, the last real result of its own, or [`Refused::LeadLost`].
//! Two processes over one store, and two layers with different look-ups, are held apart like this;
//! [`Epoch`](super::store::Epoch)s keep what a late leader writes out of the store.
//!
//! A lease is measured by each process's own clock. What was on its way to the server when a leader was lost is found
//! by the look-up of the next, as far as [absent](super::reconcile#how-far-absent-goes) goes.
//!
//! # Time
//!
//! The layer stands above the [deadline](crate::deadline), so that a leader's time does not run out for those who wait
//! behind it: each waits as long as its own deadline, or [`wait`](StoredIdempotencyLayer::wait). What it has waited
//! when its turn comes is taken from the time that it has for sending, unless `wait` was set and the call has no
//! deadline of its own. The inner service's readiness is awaited and the store asked within the call's time, and so is
//! the body of an answer read, for 30 s at most: a success whose body stalls is in doubt like one whose body breaks
//! off.
//!
//! Look-ups have time of their own, on top of the call's: 30 s each, and all together as long again as the call, beside
//! what a reconciliation [waits](super::reconcile::Reconcile::waits) on purpose. What is sent again once it was found
//! absent has the call's time once more. So a call that finds its operation in doubt and goes wrong at every step is
//! looked up twice and sent twice, and ends then.
//!
//! # Bounds
//!
//! Look-ups, and what is sent again, are made here, so the request's body type has to have a default, and nothing is
//! sent again by this layer unless the body lies in memory (see the [module above](super)). The layers below have to
//! run in the task of the call, which all of this crate's do: what attempts came to is not seen through a service that
//! hands requests to another task.
//!
//! # Example
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use tower::{ServiceBuilder, ServiceExt};
//! use tower_didit::{
//!     call::CallOptions,
//!     idempotency::{IdempotencyLayer, Provenance, store::MemoryStore},
//! };
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let service = ServiceBuilder::new()
//!     .layer(IdempotencyLayer::new().store(MemoryStore::new()).replay(true))
//!     .service_fn(async |_: Request<Full<Bytes>>| Ok::<_, std::io::Error>(Response::new(Full::<Bytes>::from("made"))));
//!
//! let order = |body: &'static str| {
//!     let options = CallOptions::new().operation_id("order-7".parse()?);
//!     Ok::<_, Box<dyn std::error::Error>>(Request::post("/v3/session/").extension(options).body(Full::from(body))?)
//! };
//! let first = service.clone().oneshot(order("{}")?).await?;
//! assert!(first.extensions().get::<Provenance>().is_none());
//! let second = service.clone().oneshot(order("{}")?).await?;
//! assert_eq!(second.extensions().get(), Some(&Provenance::Replayed));
//! assert_eq!(second.headers()["idempotency-replayed"], "true");
//!
//! // The same operation cannot mean something else.
//! assert!(service.oneshot(order("[]")?).await.is_err());
//! # Ok(())
//! # }
//! ```

mod body;
mod claim;
mod error;
mod flight;
mod future;
mod layer;
mod lead;
mod look;
mod lookup;
mod named;
mod provenance;
mod run;
mod send;
mod settle;
mod unread;

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use http_body::Body;
use tower::Service;

pub use self::{
    body::AnswerBody,
    error::{Error, Refused},
    future::ResponseFuture,
    layer::StoredIdempotencyLayer,
    provenance::{ADOPTED_HEADER, Provenance, REPLAYED_HEADER},
};
use self::{future::Running, layer::Shared, named::Named, run::Run};
use crate::{
    call::{
        CallOptions,
        current::{self, Scope},
    },
    outcome::{Classify, DiditClassifier},
};

/// Lets every named call happen once; see the [module](self).
#[derive(Clone, Debug)]
pub struct StoredIdempotency<S, C = DiditClassifier> {
    inner: S,
    shared: Arc<Shared>,
    classifier: C,
}

// ===== impl StoredIdempotency =====

impl<S, C> StoredIdempotency<S, C> {
    inner_accessors!();
}

impl<S, C, B, RB> Service<Request<B>> for StoredIdempotency<S, C>
where
    S: Service<Request<B>, Response = Response<RB>, Future: Send, Error: Send + 'static> + Clone + Send + 'static,
    C: Classify<S::Error> + Clone + Send + 'static,
    B: Default + Send + 'static,
    RB: Body<Data: Send, Error: Send> + Send + Unpin + 'static,
{
    type Response = Response<AnswerBody<RB>>;
    type Error = Error<S::Error>;
    type Future = ResponseFuture<RB, S::Error>;

    // NOTE: nothing is reserved: a call may wait for another one for minutes, or need no inner service at all. A clone
    // is readied when it is about to be called.
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let (key, named) = Named::stamp(&self.shared, &mut request);
        let mut inner = self.inner.clone();
        let scope = Scope::enter(&request);
        current::with(|call| call.report.idempotency_key = key);
        let options = request.extensions().get::<CallOptions>();
        let running: Running<RB, S::Error> = match named {
            None => {
                let total = run::total(&self.shared, options);
                Box::pin(async move {
                    send::ready(&mut inner, total).await?;
                    let result = inner.call(request).await;
                    result.map(|response| response.map(AnswerBody::streaming)).map_err(Error::Inner)
                })
            }
            Some(named) => {
                let run = Run::new(Arc::clone(&self.shared), inner, self.classifier.clone(), named, options);
                Box::pin(run.run(request))
            }
        };
        ResponseFuture::new(scope.around(running))
    }
}
