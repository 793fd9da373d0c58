//! One reference count for all that is below.

use std::{
    sync::{Arc, PoisonError},
    task::{Context, Poll},
};

use tower::Service;

use crate::sync::Mutex;

/// A service whose clones are made when they are used.
///
/// With each call the retry layer keeps a clone of what is below it, and hardly ever needs it. A clone of every layer is a
/// reference count each, up and down, on lines that all threads share. A clone of this is one, and the lock is taken only by
/// those that are used.
#[derive(Debug)]
pub struct Spare<S> {
    own: Option<S>,
    // Cloned, and never called.
    spare: Arc<Mutex<S>>,
}

impl<S: Clone> Spare<S> {
    pub(super) fn new(service: S) -> Self {
        Self { own: Some(service.clone()), spare: Arc::new(Mutex::new(service)) }
    }

    fn own(&mut self) -> &mut S {
        self.own.get_or_insert_with(|| self.spare.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl<S> Clone for Spare<S> {
    fn clone(&self) -> Self {
        Self { own: None, spare: Arc::clone(&self.spare) }
    }
}

impl<S, R> Service<R> for Spare<S>
where
    S: Service<R> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.own().poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        self.own().call(request)
    }
}

#[cfg(test)]
#[cfg(not(interleavings))]
mod tests {
    use std::{
        convert::Infallible,
        future::{Ready, ready},
        sync::atomic::{AtomicUsize, Ordering},
    };

    use tower::ServiceExt;

    use super::*;

    /// Counts its clones.
    #[derive(Default)]
    struct Counted(Arc<AtomicUsize>);

    impl Clone for Counted {
        fn clone(&self) -> Self {
            self.0.fetch_add(1, Ordering::Relaxed);
            Self(Arc::clone(&self.0))
        }
    }

    impl Service<()> for Counted {
        type Response = usize;
        type Error = Infallible;
        type Future = Ready<Result<usize, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, (): ()) -> Self::Future {
            ready(Ok(self.0.load(Ordering::Relaxed)))
        }
    }

    #[tokio::test]
    async fn what_is_cloned_and_not_used_costs_no_clone() {
        let service = Spare::new(Counted::default());
        let made = service.clone().oneshot(()).await.unwrap();
        let unused: Vec<_> = (0..10).map(|_| service.clone()).collect();
        assert_eq!(service.clone().oneshot(()).await, Ok(made + 1));
        assert_eq!(unused.len(), 10);
    }
}
