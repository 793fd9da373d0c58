//! A future with an end: the timer of deadline and attempt timeout.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::error::LayerError;

pin_project! {
    /// Runs a future until an instant, then yields the layer's error. A ready answer wins a tie against the timer, and
    /// no timer is registered unless the future has to wait.
    #[derive(Debug)]
    pub(crate) struct Expiring<F, L> {
        #[pin]
        inner: F,
        at: Instant,
        // Boxed, because a call that has not begun to wait is copied from layer to layer and has none.
        timer: Option<Pin<Box<Sleep>>>,
        expired: Option<L>,
    }
}

impl<F, L> Expiring<F, L> {
    pub(crate) fn new(inner: F, at: Instant, expired: L) -> Self {
        Self { inner, at, timer: None, expired: Some(expired) }
    }

    /// When it ends at the latest.
    #[cfg(feature = "deadline")]
    pub(crate) fn at(&self) -> Instant {
        self.at
    }
}

impl<F, L, T, E> Future for Expiring<F, L>
where
    F: Future<Output = Result<T, E>>,
{
    type Output = Result<T, LayerError<L, E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(result) = this.inner.poll(cx) {
            return Poll::Ready(result.map_err(LayerError::Inner));
        }
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(*this.at)));
        let expired = timer.as_mut().poll(cx).is_ready();
        match this.expired.take_if(|_| expired) {
            Some(error) => Poll::Ready(Err(LayerError::Layer(error))),
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn answer_at(at: Instant) -> Result<(), ()> {
        sleep_until(at).await;
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_ready_answer_wins_a_tie_against_the_timer() {
        let end = Instant::now() + Duration::from_secs(1);
        assert_eq!(Expiring::new(answer_at(end), end, "late").await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_answer_is_cut_off_on_time() {
        let start = Instant::now();
        let answer = answer_at(start + Duration::from_secs(5));
        let result = Expiring::new(answer, start + Duration::from_secs(1), "late").await;
        assert_eq!(result, Err(LayerError::Layer("late")));
        assert_eq!(start.elapsed(), Duration::from_secs(1));
    }
}
