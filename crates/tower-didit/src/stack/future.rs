use std::{
    error::Error as StdError,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower::Service;

use super::{Error, ErrorKind, ForeignHost, Layers};
use crate::{
    body::ReplayBody,
    call::current::InCall,
    error::LayerError,
    refusable::{Refusable, RefusableProjection},
};

/// What the layers return.
type Running<S, B> = InCall<<Layers<S> as Service<Request<B>>>::Future>;

pin_project! {
    /// The response of [`DiditService`](super::DiditService).
    pub struct ResponseFuture<S, B>
    where
        Layers<S>: Service<Request<B>>,
    {
        #[pin]
        inner: Refusable<Running<S, B>, ForeignHost>,
    }
}

impl<S, B> ResponseFuture<S, B>
where
    Layers<S>: Service<Request<B>>,
{
    pub(super) fn new(inner: Refusable<Running<S, B>, ForeignHost>) -> Self {
        Self { inner }
    }
}

impl<S, B, RB> Future for ResponseFuture<S, B>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<RB>> + Clone,
    S::Error: StdError + 'static,
    B: Body + Unpin,
    RB: Body + Unpin,
{
    type Output = Result<Response<RB>, Error<S::Error>>;

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
            LayerError::Inner(error) => error.into(),
        };
        Poll::Ready(Err(Error::new(kind, report)))
    }
}
