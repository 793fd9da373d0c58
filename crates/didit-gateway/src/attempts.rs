//! How often a call was sent, whether it is being sent, and what may have come of it.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use tower::Service;
use tower_didit::outcome::{Classify, DiditClassifier, Outcome};

/// What is known of the attempts of a call; in the extensions of its request, so that all of them share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sent(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// How often the call was handed to the client.
    attempts: AtomicU32,
    under_way: AtomicU32,
    /// How many attempts ended without an answer, and may have been carried out.
    doubts: AtomicU32,
}

/// Counts what the client is given, and what comes of it.
#[derive(Clone, Debug)]
pub(crate) struct CountAttempts<S> {
    client: S,
}

/// The response of [`CountAttempts`].
#[derive(Debug)]
pub(crate) struct Attempt<F> {
    inner: F,
    under_way: Option<UnderWay>,
}

/// An attempt that is under way. If it is given up, nobody knows what comes of it.
#[derive(Debug)]
struct UnderWay {
    sent: Sent,
    is_in_doubt: bool,
}

// ===== impl Sent =====

impl Sent {
    pub(crate) fn count(&self) -> u32 {
        self.0.attempts.load(Ordering::Relaxed)
    }

    /// Whether the client has the call now; else it waits in this process.
    pub(crate) fn is_under_way(&self) -> bool {
        self.0.under_way.load(Ordering::Relaxed) > 0
    }

    /// Whether the call may have been carried out, as far as it was sent until now.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.is_under_way() || self.0.doubts.load(Ordering::Relaxed) > 0
    }

    fn begin(&self) -> UnderWay {
        self.0.attempts.fetch_add(1, Ordering::Relaxed);
        self.0.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay { sent: self.clone(), is_in_doubt: true }
    }
}

// ===== impl UnderWay =====

impl UnderWay {
    fn end(mut self, outcome: Outcome) {
        self.is_in_doubt = outcome == Outcome::Ambiguous;
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.sent.0.doubts.fetch_add(self.is_in_doubt.into(), Ordering::Relaxed);
        self.sent.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

// ===== impl CountAttempts =====

impl<S> CountAttempts<S> {
    pub(crate) fn new(client: S) -> Self {
        Self { client }
    }
}

impl<S, B, RB> Service<Request<B>> for CountAttempts<S>
where
    S: Service<Request<B>, Response = Response<RB>>,
    S::Error: std::error::Error + 'static,
    // As the futures of hyper's clients are.
    S::Future: Unpin,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Attempt<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.client.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let under_way = request.extensions().get().map(Sent::begin);
        Attempt { inner: self.client.call(request), under_way }
    }
}

// ===== impl Attempt =====

impl<F, RB, E> Future for Attempt<F>
where
    F: Future<Output = Result<Response<RB>, E>> + Unpin,
    E: std::error::Error + 'static,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = ready!(Pin::new(&mut self.inner).poll(cx));
        if let Some(under_way) = self.under_way.take() {
            under_way.end(DiditClassifier.of(&result));
        }
        Poll::Ready(result)
    }
}
