//! A future that may have been refused before it began.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;

use crate::error::LayerError;

pin_project! {
    /// The inner service's future, or the layer's refusal.
    #[derive(Debug)]
    #[project = RefusableProjection]
    pub(crate) enum Refusable<F, L> {
        // Let through.
        Passed { #[pin] inner: F },
        // Refused; `None` once that was said.
        Refused { error: Option<L> },
    }
}

impl<F, L> Refusable<F, L> {
    pub(crate) fn passed(inner: F) -> Self {
        Self::Passed { inner }
    }

    pub(crate) fn refused(error: L) -> Self {
        Self::Refused { error: Some(error) }
    }
}

impl<F, L, T, E> Future for Refusable<F, L>
where
    F: Future<Output = Result<T, E>>,
{
    type Output = Result<T, LayerError<L, E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            RefusableProjection::Passed { inner } => inner.poll(cx).map_err(LayerError::Inner),
            RefusableProjection::Refused { error } => match error.take() {
                Some(error) => Poll::Ready(Err(LayerError::Layer(error))),
                None => Poll::Pending,
            },
        }
    }
}
