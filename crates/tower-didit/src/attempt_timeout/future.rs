use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;

use super::{Elapsed, Error};
use crate::{
    call::{SenderSlow, SenderWait, current},
    error::LayerError,
    expiring::Expiring,
};

pin_project! {
    /// The response of [`AttemptTimeout`](super::AttemptTimeout).
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        // With the time that the attempt has.
        #[pin]
        inner: Expiring<F, Duration>,
        sender: Option<SenderWait>,
    }
}

impl<F> ResponseFuture<F> {
    pub(super) fn new(inner: Expiring<F, Duration>, sender: Option<SenderWait>) -> Self {
        Self { inner, sender }
    }
}

impl<F, T, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<T, E>>,
{
    type Output = Result<T, Error<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        Poll::Ready(match ready!(this.inner.poll(cx)) {
            Ok(response) => Ok(response),
            Err(LayerError::Inner(error)) => Err(LayerError::Inner(error)),
            Err(LayerError::Layer(after)) => {
                current::cut_off("timeout");
                let sender = this.sender.as_ref().filter(|sender| sender.is_set()).map(|_| SenderSlow);
                Err(LayerError::Layer(Elapsed { after, sender }))
            }
        })
    }
}
