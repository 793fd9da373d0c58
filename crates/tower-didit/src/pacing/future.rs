use std::{
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::Service;

use super::{
    Error, Refused,
    pacer::{Place, Slots, Wait},
};
use crate::{call::current, error::LayerError, outcome::Classify};

pin_project! {
    /// The response of [`Pacing`](super::Pacing).
    pub struct ResponseFuture<S, C, B>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S, B>,
        classifier: C,
    }
}

impl<S, C, B> ResponseFuture<S, C, B>
where
    S: Service<Request<B>>,
{
    /// Nothing counts the call.
    pub(super) fn free(response: S::Future, classifier: C) -> Self {
        Self { state: State::Sent { response, slots: None }, classifier }
    }

    /// The call has its slots and is on its way.
    pub(super) fn sent(response: S::Future, slots: Slots, classifier: C) -> Self {
        Self { state: State::Sent { response, slots: Some(slots) }, classifier }
    }

    /// The call has to wait.
    pub(super) fn queued(service: S, request: Request<B>, place: Place, now: Instant, classifier: C) -> Self {
        let held = Held { service, request };
        Self { state: State::Queued { held: Some(held), place, since: now }, classifier }
    }

    /// The call cannot start in time.
    pub(super) fn refused(error: Refused, classifier: C) -> Self {
        Self { state: State::Refused { error: Some(error) }, classifier }
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, B>
    where
        S: Service<Request<B>>,
    {
        // It cannot start in time; `None` once that was said.
        Refused { error: Option<Refused> },
        // It stands in a queue; the inner service's readiness is not reserved meanwhile.
        Queued { held: Option<Held<S, B>>, place: Place, since: Instant },
        // It has its slots; the inner service's readiness is awaited.
        Ready { held: Option<Held<S, B>>, slots: Option<Slots> },
        // It is on its way; without slots if nothing counts it.
        Sent { #[pin] response: S::Future, slots: Option<Slots> },
    }
}

/// A call that was not sent yet.
struct Held<S, B> {
    service: S,
    request: Request<B>,
}

impl<S, C, B, RB> Future for ResponseFuture<S, C, B>
where
    S: Service<Request<B>, Response = Response<RB>>,
    C: Classify<S::Error>,
{
    type Output = Result<S::Response, Error<S::Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProjection::Refused { error } => match error.take() {
                    Some(error) => return Poll::Ready(Err(LayerError::Layer(error))),
                    None => return Poll::Pending,
                },
                StateProjection::Queued { held, place, since } => {
                    let now = Instant::now();
                    let next = match place.look(cx.waker(), now) {
                        Wait::Over(slots) => State::Ready { held: mem::take(held), slots: Some(slots) },
                        Wait::Refused(error) => State::Refused { error: Some(error) },
                        Wait::Pending => {
                            place.keep_time();
                            return Poll::Pending;
                        }
                    };
                    let waited = now.saturating_duration_since(*since);
                    current::with(|call| call.report.queued += waited);
                    this.state.set(next);
                }
                StateProjection::Ready { held, slots } => {
                    let Some(call) = held.as_mut() else { return Poll::Pending };
                    // On an error the slots go back with the state: nothing was sent.
                    ready!(call.service.poll_ready(cx)).map_err(LayerError::Inner)?;
                    let Some(Held { mut service, request }) = held.take() else { return Poll::Pending };
                    let mut slots = slots.take();
                    if let Some(slots) = &mut slots {
                        slots.sent(Instant::now());
                    }
                    let response = service.call(request);
                    this.state.set(State::Sent { response, slots });
                }
                StateProjection::Sent { response, slots } => {
                    let result = ready!(response.poll(cx));
                    if let Some(mut slots) = slots.take() {
                        let headers = result.as_ref().ok().map(Response::headers);
                        slots.settle(this.classifier.of(&result), headers);
                    }
                    return Poll::Ready(result.map_err(LayerError::Inner));
                }
            }
        }
    }
}
