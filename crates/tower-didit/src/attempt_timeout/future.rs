use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;

use super::{Elapsed, Error};
use crate::{
    call::{SenderSlow, SenderWait, current},
    expiring::Expiring,
};

pin_project! {
    /// The response of [`AttemptTimeout`](super::AttemptTimeout).
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: Expiring<F, Elapsed>,
        sender: Option<SenderWait>,
    }
}

impl<F> ResponseFuture<F> {
    pub(super) fn new(inner: Expiring<F, Elapsed>, sender: Option<SenderWait>) -> Self {
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
        let mut result = ready!(this.inner.poll(cx));
        if let Err(Error::Layer(elapsed)) = &mut result {
            elapsed.sender = this.sender.as_ref().filter(|sender| sender.is_set()).map(|_| SenderSlow);
            current::cut_off("timeout");
        }
        Poll::Ready(result)
    }
}
