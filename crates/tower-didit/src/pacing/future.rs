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
        let turn = Turn::Awaited { place, since: now };
        Self { state: State::Held { call: Some((service, request)), turn }, classifier }
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
        // It was not sent yet; `None` once it was, or cannot be.
        Held { call: Option<(S, Request<B>)>, turn: Turn },
        // It is on its way; without slots if nothing counts it.
        Sent { #[pin] response: S::Future, slots: Option<Slots> },
    }
}

/// What a call that was not sent yet waits for.
enum Turn {
    /// It stands in a queue; the inner service's readiness is not reserved meanwhile.
    Awaited { place: Place, since: Instant },
    /// It has its slots; the inner service's readiness is awaited.
    Come(Slots),
    /// Nothing any more.
    Over,
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
                StateProjection::Held { call, turn } => {
                    if let Turn::Awaited { place, since } = turn {
                        let now = Instant::now();
                        let come = match place.look(cx.waker(), now) {
                            Wait::Over(slots) => Turn::Come(slots),
                            Wait::Refused(error) => {
                                this.state.set(State::Refused { error: Some(error) });
                                continue;
                            }
                            Wait::Pending => {
                                place.keep_time();
                                return Poll::Pending;
                            }
                        };
                        let waited = now.saturating_duration_since(*since);
                        current::with(|call| call.report.queued += waited);
                        *turn = come;
                    }
                    let Some((service, _)) = call else { return Poll::Pending };
                    // On an error the slots go back with the state: nothing was sent.
                    ready!(service.poll_ready(cx)).map_err(LayerError::Inner)?;
                    let (Some((mut service, request)), Turn::Come(mut slots)) =
                        (call.take(), mem::replace(turn, Turn::Over))
                    else {
                        return Poll::Pending;
                    };
                    slots.sent(Instant::now());
                    let response = service.call(request);
                    this.state.set(State::Sent { response, slots: Some(slots) });
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
