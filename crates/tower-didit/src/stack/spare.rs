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
