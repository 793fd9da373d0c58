//! A future with an end: the timer of deadline and attempt timeout.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::{call::current, error::LayerError};

pin_project! {
    /// Runs a future until an instant, then yields the layer's error. A ready answer wins a tie against the timer, and
    /// no timer is registered unless the future has to wait and no other one further in ends before it.
    #[derive(Debug)]
    pub(crate) struct Expiring<F, L> {
        #[pin]
        inner: F,
        at: Instant,
        // Boxed, because a call that has not begun to wait is copied from layer to layer and has none.
        timer: Option<Pin<Box<Sleep>>>,
        expired: Option<L>,
    }

    impl<F, L> PinnedDrop for Expiring<F, L> {
        fn drop(this: Pin<&mut Self>) {
            if this.timer.is_some() {
                current::timer_is_gone();
            }
        }
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
        // The task will be woken in time, and then this is polled again.
        if this.timer.is_none() && current::is_timed_by(*this.at, cx.waker()) {
            return Poll::Pending;
        }
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(*this.at)));
        let expired = timer.as_mut().poll(cx).is_ready();
        match this.expired.take_if(|_| expired) {
            Some(error) => Poll::Ready(Err(LayerError::Layer(error))),
            None => {
                current::timer_ends(*this.at, cx.waker());
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{any::Any, cell::RefCell, mem, task::Waker, time::Duration};

    use http::{Request, Response};

    use super::*;
    use crate::call::current::Scope;

    async fn answer_at(at: Instant) -> Result<(), ()> {
        sleep_until(at).await;
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_ready_answer_wins_a_tie_against_the_timer() {
        let end = Instant::now() + Duration::from_secs(1);
        assert_eq!(Expiring::new(answer_at(end), end, "late").await, Ok(()));
    }

    /// Two ends around something that never does, within a call; when it ended, and by which of the two.
    async fn nested(inner: Duration, outer: Duration) -> (Duration, &'static str) {
        let start = Instant::now();
        // What is cut off further in is repeated without an end, as a retry layer would wait.
        let inner = Expiring::new(std::future::pending::<Result<(), ()>>(), start + inner, "inner");
        let both = async {
            assert!(inner.await.is_err());
            std::future::pending::<Result<Response<()>, ()>>().await
        };
        let call = Scope::enter(&Request::new(())).around(Expiring::new(both, start + outer, "outer"));
        let Err(LayerError::Layer(by)) = call.await else { return (Duration::ZERO, "neither") };
        (start.elapsed(), by)
    }

    #[tokio::test(start_paused = true)]
    async fn the_outer_end_is_kept_whichever_timer_is_the_first() {
        let [short, long] = [1, 5].map(Duration::from_secs);
        assert_eq!(nested(short, long).await, (long, "outer"));
        assert_eq!(nested(long, short).await, (short, "outer"));
        assert_eq!(nested(long, long).await, (long, "outer"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_outer_end_is_kept_if_what_the_inner_timer_belongs_to_is_dropped() {
        let start = Instant::now();
        let end = |seconds| start + Duration::from_secs(seconds);
        let mut inner = Some(Box::pin(Expiring::new(std::future::pending::<Result<(), ()>>(), end(1), "inner")));
        let dropping = std::future::poll_fn(move |cx| {
            if let Some(mut inner) = inner.take() {
                assert!(inner.as_mut().poll(cx).is_pending());
            }
            Poll::<Result<Response<()>, ()>>::Pending
        });
        let call = Scope::enter(&Request::new(())).around(Expiring::new(dropping, end(5), "outer"));
        assert!(matches!(call.await, Err(LayerError::Layer("outer"))));
        assert_eq!(start.elapsed(), Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn the_outer_end_is_kept_if_the_inner_timer_wakes_somebody_else() {
        let start = Instant::now();
        let end = |seconds| start + Duration::from_secs(seconds);
        let mut inner = Box::pin(Expiring::new(std::future::pending::<Result<(), ()>>(), end(1), "inner"));
        // Looks once whether the answer is there, as `now_or_never` does, and keeps the future.
        let mut looked = false;
        let peeking = std::future::poll_fn(move |_| {
            if !mem::replace(&mut looked, true) {
                assert!(inner.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            }
            Poll::<Result<Response<()>, ()>>::Pending
        });
        let call = Scope::enter(&Request::new(())).around(Expiring::new(peeking, end(5), "outer"));
        assert!(matches!(call.await, Err(LayerError::Layer("outer"))));
        assert_eq!(start.elapsed(), Duration::from_secs(5));
    }

    #[test]
    fn a_future_that_is_dropped_as_its_thread_ends_costs_nothing_else() {
        thread_local! {
            static HELD: RefCell<Option<Box<dyn Any>>> = const { RefCell::new(None) };
        }
        let thread = std::thread::spawn(|| {
            // Destroyed after whatever is used for the first time after it.
            HELD.with_borrow_mut(|_| ());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let _entered = runtime.enter();
            let end = Instant::now() + Duration::from_secs(60);
            let mut held = Box::pin(Expiring::new(std::future::pending::<Result<(), ()>>(), end, ()));
            let call = Scope::enter(&Request::new(()));
            assert!(held.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            drop(call);
            HELD.with_borrow_mut(|place| *place = Some(Box::new(held)));
        });
        thread.join().unwrap();
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
