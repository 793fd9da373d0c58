//! A service that insists on tower's contract.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tower::Service;

/// A service that panics when it is called without having been ready, as tower allows.
///
/// A clone has to become ready by itself: readiness is not inherited. Each becomes ready on its second poll only, so that
/// a layer which ignores `Pending` is noticed too. Counts how many hold a readiness that they have not used.
#[derive(Debug)]
pub struct ReadinessProbe {
    ready: bool,
    polled: bool,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    calls: AtomicUsize,
    // How many clones hold a readiness they have not used.
    reserved: AtomicUsize,
    answers: Mutex<VecDeque<Answer>>,
}

/// What the probe answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A response with this status and, if given, this `Retry-After`.
    Status(u16, Option<u64>),
    /// A connection that breaks.
    Reset,
    /// A connection that is refused.
    ConnectionRefused,
    /// No answer for this long, then 200.
    After(Duration),
}

impl ReadinessProbe {
    /// Gives these answers in order, then 200.
    pub fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
        let answers = Mutex::new(answers.into_iter().collect());
        Self { ready: false, polled: false, shared: Arc::new(Shared { answers, ..Shared::default() }) }
    }

    /// How often it was called.
    pub fn calls(&self) -> usize {
        self.shared.calls.load(Ordering::SeqCst)
    }

    /// How many clones hold a readiness that they have not used.
    pub fn reserved(&self) -> usize {
        self.shared.reserved.load(Ordering::SeqCst)
    }

    fn use_readiness(&mut self) -> bool {
        self.polled = false;
        let ready = std::mem::take(&mut self.ready);
        if ready {
            self.shared.reserved.fetch_sub(1, Ordering::SeqCst);
        }
        ready
    }
}

/// Drops the readiness: a clone has to become ready by itself.
impl Clone for ReadinessProbe {
    fn clone(&self) -> Self {
        Self { ready: false, polled: false, shared: Arc::clone(&self.shared) }
    }
}

impl Drop for ReadinessProbe {
    fn drop(&mut self) {
        self.use_readiness();
    }
}

impl<B> Service<Request<B>> for ReadinessProbe {
    type Response = Response<Full<Bytes>>;
    type Error = io::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ready {
            return Poll::Ready(Ok(()));
        }
        if !std::mem::replace(&mut self.polled, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.ready = true;
        self.shared.reserved.fetch_add(1, Ordering::SeqCst);
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _request: Request<B>) -> Self::Future {
        assert!(self.use_readiness(), "called without readiness");
        self.shared.calls.fetch_add(1, Ordering::SeqCst);
        let answer = self.shared.answers.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        Box::pin(async move {
            let mut response = Response::new(Full::default());
            match answer.unwrap_or(Answer::Status(200, None)) {
                Answer::Status(status, retry_after) => {
                    *response.status_mut() = StatusCode::from_u16(status).map_err(io::Error::other)?;
                    if let Some(seconds) = retry_after {
                        response.headers_mut().insert(http::header::RETRY_AFTER, seconds.into());
                    }
                }
                Answer::Reset => return Err(io::ErrorKind::ConnectionReset.into()),
                Answer::ConnectionRefused => return Err(io::ErrorKind::ConnectionRefused.into()),
                Answer::After(wait) => tokio::time::sleep(wait).await,
            }
            Ok(response)
        })
    }
}
