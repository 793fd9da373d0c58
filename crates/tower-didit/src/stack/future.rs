use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower::Service;

use super::{Error, ErrorKind, Flatten, ForeignHost};
use crate::{
    call::current::InCall,
    error::LayerError,
    refusable::{Refusable, RefusableProjection},
};

/// What the layers return.
type Running<T, B> = InCall<<T as Service<Request<B>>>::Future>;

pin_project! {
    /// The response of [`Stack`](super::Stack).
    pub struct ResponseFuture<T, B>
    where
        T: Service<Request<B>>,
    {
        #[pin]
        inner: Refusable<Running<T, B>, ForeignHost>,
    }
}

impl<T, B> ResponseFuture<T, B>
where
    T: Service<Request<B>>,
{
    pub(super) fn new(inner: Refusable<Running<T, B>, ForeignHost>) -> Self {
        Self { inner }
    }
}

impl<T, B, RB> Future for ResponseFuture<T, B>
where
    T: Service<Request<B>, Response = Response<RB>, Error: Flatten>,
{
    type Output = Result<T::Response, Error<<T::Error as Flatten>::Client>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut inner = self.project().inner;
        let error = match ready!(inner.as_mut().poll(cx)) {
            Ok(response) => return Poll::Ready(Ok(response)),
            Err(error) => error,
        };
        let report = match inner.project() {
            RefusableProjection::Passed { inner } => inner.take_report(),
            RefusableProjection::Refused { .. } => None,
        };
        let kind = match error {
            LayerError::Layer(foreign) => ErrorKind::ForeignHost(foreign),
            LayerError::Inner(error) => error.flatten(),
        };
        Poll::Ready(Err(Error::new(kind, report)))
    }
}
