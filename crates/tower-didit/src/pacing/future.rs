use std::{
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tower::Service;

use super::{
    Error, Refused,
    pacer::{Place, Slots, Wait},
};
use crate::{call::current, outcome::Classify, refusable::Refusable};

pin_project! {
    /// The response of [`Pacing`](super::Pacing).
    pub struct ResponseFuture<S, C, B>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        inner: Refusable<Paced<S, C, B>, Refused>,
    }
}

impl<S, C, B> ResponseFuture<S, C, B>
where
    S: Service<Request<B>>,
{
    /// Nothing counts the call.
    pub(super) fn free(response: S::Future, classifier: C) -> Self {
        Self::paced(State::Sent { response, slots: None }, classifier)
    }

    /// The call has its slots and is on its way.
    pub(super) fn sent(response: S::Future, slots: Slots, classifier: C) -> Self {
        Self::paced(State::Sent { response, slots: Some(slots) }, classifier)
    }

    /// The call has to wait.
    pub(super) fn queued(service: S, request: Request<B>, place: Place, now: Instant, classifier: C) -> Self {
        let held = Held { service, request };
        Self::paced(State::Queued { held: Some(held), place, timer: None, since: now }, classifier)
    }

    /// The call cannot start in time.
    pub(super) fn refused(error: Refused) -> Self {
        Self { inner: Refusable::refused(error) }
    }

    fn paced(state: State<S, B>, classifier: C) -> Self {
        Self { inner: Refusable::passed(Paced { state, classifier }) }
    }
}

impl<S, C, B, RB> Future for ResponseFuture<S, C, B>
where
    S: Service<Request<B>, Response = Response<RB>>,
    C: Classify<S::Error>,
{
    type Output = Result<S::Response, Error<S::Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().inner.poll(cx)
    }
}

pin_project! {
    struct Paced<S, C, B>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S, B>,
        classifier: C,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, B>
    where
        S: Service<Request<B>>,
    {
        // It stands in a queue; the inner service's readiness is not reserved meanwhile.
        Queued { held: Option<Held<S, B>>, place: Place, #[pin] timer: Option<Sleep>, since: Instant },
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

impl<S, C, B, RB> Future for Paced<S, C, B>
where
    S: Service<Request<B>, Response = Response<RB>>,
    C: Classify<S::Error>,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProjection::Queued { held, place, mut timer, since } => {
                    let now = Instant::now();
                    let slots = match place.look(cx.waker(), now) {
                        Wait::Over(slots) => slots,
                        Wait::Until(look_again) => {
                            match timer.as_mut().as_pin_mut() {
                                Some(timer) if timer.deadline() == look_again => {}
                                Some(timer) => timer.reset(look_again),
                                None => timer.set(Some(sleep_until(look_again))),
                            }
                            // The timer is polled so that it wakes this task; if it is over already, look once more.
                            match timer.as_pin_mut().map(|timer| timer.poll(cx)) {
                                Some(Poll::Ready(())) => continue,
                                _ => return Poll::Pending,
                            }
                        }
                    };
                    let waited = now.saturating_duration_since(*since);
                    current::with(|call| call.report.queued += waited);
                    let held = mem::take(held);
                    this.state.set(State::Ready { held, slots: Some(slots) });
                }
                StateProjection::Ready { held, slots } => {
                    let Some(call) = held.as_mut() else { return Poll::Pending };
                    // On an error the slots go back with the state: nothing was sent.
                    ready!(call.service.poll_ready(cx))?;
                    let Some(Held { mut service, request }) = held.take() else { return Poll::Pending };
                    let mut slots = slots.take();
                    if let Some(slots) = &mut slots {
                        slots.sent();
                    }
                    let response = service.call(request);
                    this.state.set(State::Sent { response, slots });
                }
                StateProjection::Sent { response, slots } => {
                    let result = ready!(response.poll(cx));
                    if let Some(mut slots) = slots.take() {
                        slots.settle(this.classifier.of(&result));
                    }
                    return Poll::Ready(result);
                }
            }
        }
    }
}
