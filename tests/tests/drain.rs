//! What becomes of the responses that nobody gets: connections are used again, and nothing waits for it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{
    Request, Response, StatusCode,
    header::{CONTENT_LENGTH, RETRY_AFTER},
};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tests::{AnyBody, Upstream, get};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, Sleep},
};
use tower::{Layer, ServiceExt};
use tower_didit::{
    Randomness,
    outcome::DiditClassifier,
    retry::{RetryLayer, RoutePolicy},
};

const SECOND: Duration = Duration::from_secs(1);

/// The backoff over sockets. Real time, because sockets know no other: long enough for a few kilobytes over loopback
/// on a busy machine.
const PAUSE: Duration = Duration::from_millis(100);

type Constant = fn(u32, &Randomness) -> Duration;

fn after_a_pause() -> RetryLayer<DiditClassifier, RoutePolicy, Constant> {
    let pause: Constant = |_, _| PAUSE;
    RetryLayer::builder().backoff(pause).build().unwrap()
}

fn unavailable(body: AnyBody) -> Response<AnyBody> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response
}

/// Makes one call with a hyper client. Says what came back, all of its body, and how long it took.
async fn call(upstream: &Upstream) -> (StatusCode, Bytes, Duration) {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::get(upstream.uri("/v3/sessions/")).body(Empty::<Bytes>::new()).unwrap();
    let start = Instant::now();
    let response = after_a_pause().layer(client).oneshot(request).await.unwrap();
    let (status, elapsed) = (response.status(), start.elapsed());
    (status, response.into_body().collect().await.unwrap().to_bytes(), elapsed)
}

/// A server that fails four times with this body, announced with a length or not, then answers.
fn failing_four_times(body: impl Fn() -> AnyBody + Clone + Send + 'static, length: Option<u64>) -> Upstream {
    let answer = move |request, _| {
        let mut answer = Response::new(Full::from("done").boxed_unsync());
        if request < 5 {
            answer = unavailable(body());
            answer.headers_mut().extend(length.map(|length| (CONTENT_LENGTH, length.into())));
        }
        std::future::ready(answer)
    };
    Upstream::http(answer).unwrap()
}

/// 4 KiB in four pieces, the first 10 ms after the head, so that a client that does not read has not read them.
struct Late {
    pieces: usize,
    pause: Pin<Box<Sleep>>,
}

impl Late {
    fn new() -> Self {
        Self { pieces: 4, pause: Box::pin(tokio::time::sleep(Duration::from_millis(10))) }
    }
}

impl http_body::Body for Late {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        std::task::ready!(self.pause.as_mut().poll(cx));
        let Some(left) = self.pieces.checked_sub(1) else { return Poll::Ready(None) };
        self.pieces = left;
        Poll::Ready(Some(Ok(Frame::data(vec![b'e'; 1024].into()))))
    }
}

#[tokio::test]
async fn one_connection_serves_five_attempts_with_error_bodies() {
    let upstream = failing_four_times(|| Late::new().boxed_unsync(), Some(4096));
    let (status, body, _) = call(&upstream).await;
    assert_eq!((status, &body[..]), (StatusCode::OK, &b"done"[..]));
    assert_eq!(upstream.accepted(), 1);
}

#[tokio::test]
async fn one_connection_serves_five_attempts_with_chunked_error_bodies() {
    let upstream = failing_four_times(|| Late::new().boxed_unsync(), None);
    assert_eq!(call(&upstream).await.0, StatusCode::OK);
    assert_eq!(upstream.accepted(), 1);
}

#[tokio::test]
async fn an_error_body_beyond_the_bound_costs_a_connection_and_no_time() {
    // With a length the bound is known to be passed, without it is found out.
    let sized: fn() -> AnyBody = || Full::from(vec![b'e'; 1 << 20]).boxed_unsync();
    let chunked: fn() -> AnyBody = || {
        let frames = (0..64).map(|_| Ok::<_, Infallible>(Frame::data(Bytes::from(vec![b'e'; 16 * 1024]))));
        StreamBody::new(tokio_stream::iter(frames.collect::<Vec<_>>())).boxed_unsync()
    };
    for body in [sized, chunked] {
        let upstream = failing_four_times(body, None);
        let (status, _, elapsed) = call(&upstream).await;
        assert_eq!((status, upstream.accepted()), (StatusCode::OK, 5));
        assert!(elapsed < SECOND, "{elapsed:?}");
    }
}

#[tokio::test]
async fn an_error_body_that_never_ends_delays_nothing() {
    // A byte every 10 ms, for ever.
    let upstream = Upstream::raw(|connection, mut stream| async move {
        let _ = stream.read(&mut [0; 4096]).await;
        if connection == 3 {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone").await;
            return;
        }
        let _ = stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\ntransfer-encoding: chunked\r\n\r\n").await;
        while stream.write_all(b"1\r\ne\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let upstream = upstream.unwrap();
    let (status, _, elapsed) = call(&upstream).await;
    assert_eq!((status, upstream.accepted()), (StatusCode::OK, 3));
    // Waiting out the second that draining may take would make it two.
    assert!((2 * PAUSE..SECOND).contains(&elapsed), "{elapsed:?}");
}

#[tokio::test]
async fn the_response_that_is_handed_out_is_whole() {
    let upstream = Upstream::http(|_, _| {
        let mut response = unavailable(Full::from(vec![b'e'; 4096]).boxed_unsync());
        response.headers_mut().insert(RETRY_AFTER, 3600.into());
        std::future::ready(response)
    });
    let (status, body, _) = call(&upstream.unwrap()).await;
    assert_eq!((status, body.len()), (StatusCode::SERVICE_UNAVAILABLE, 4096), "too long a wait to begin");
    let upstream = Upstream::http(|_, _| std::future::ready(unavailable(Full::from("the last").boxed_unsync())));
    let upstream = upstream.unwrap();
    let (status, body, _) = call(&upstream).await;
    assert_eq!((status, &body[..]), (StatusCode::SERVICE_UNAVAILABLE, &b"the last"[..]), "no attempts left");
    assert_eq!(upstream.accepted(), 1);
}

// ===== In virtual time =====

/// A body that ends after a while, or fails then.
struct Slow {
    left: Option<Pin<Box<Sleep>>>,
    fails: bool,
    // When it was looked at last.
    read: Arc<Mutex<Option<Instant>>>,
}

impl http_body::Body for Slow {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        *self.read.lock().unwrap() = Some(Instant::now());
        if let Some(left) = &mut self.left {
            std::task::ready!(left.as_mut().poll(cx));
            self.left = None;
            if self.fails {
                return Poll::Ready(Some(Err(io::ErrorKind::ConnectionReset.into())));
            }
        }
        Poll::Ready(None)
    }
}

/// Fails once, with a body that lasts so long, to be repeated after `wait`. Says when each attempt began, and when the body
/// was last looked at.
async fn timeline(wait: Duration, lasts: Duration, fails: bool) -> (Vec<Duration>, Option<Duration>) {
    let (read, attempts) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(Vec::new())));
    let start = Instant::now();
    let client = tower::service_fn({
        let (read, attempts) = (Arc::clone(&read), Arc::clone(&attempts));
        move |_| {
            let mut attempts = attempts.lock().unwrap();
            attempts.push(start.elapsed());
            let response = if attempts.len() > 1 {
                Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync())
            } else {
                let left = Some(Box::pin(tokio::time::sleep(lasts)));
                let mut response = Response::new(Slow { left, fails, read: Arc::clone(&read) }.boxed_unsync());
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                response
            };
            async move { Ok::<_, io::Error>(response) }
        }
    });
    let layer = RetryLayer::builder().backoff(move |_: u32, _: &Randomness| wait).build().unwrap();
    layer.layer(client).oneshot(get("/v3/sessions/")).await.unwrap();
    let read = read.lock().unwrap().map(|read| read - start);
    (attempts.lock().unwrap().clone(), read)
}

#[tokio::test(start_paused = true)]
async fn draining_takes_place_during_the_backoff_and_makes_it_no_longer() {
    for (lasts, fails) in [(Duration::ZERO, false), (SECOND / 2, false), (SECOND / 2, true)] {
        let (attempts, read) = timeline(10 * SECOND, lasts, fails).await;
        assert_eq!(attempts, [Duration::ZERO, 10 * SECOND], "{lasts:?}");
        assert_eq!(read, Some(lasts));
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_ends_is_given_up_after_a_second() {
    let (attempts, read) = timeline(10 * SECOND, 3600 * SECOND, false).await;
    assert_eq!(attempts, [Duration::ZERO, 10 * SECOND]);
    assert_eq!(read, Some(SECOND));
}

#[tokio::test(start_paused = true)]
async fn draining_never_outlasts_a_short_backoff() {
    let (attempts, read) = timeline(SECOND / 5, 3600 * SECOND, false).await;
    assert_eq!((&attempts[..], read), (&[Duration::ZERO, SECOND / 5][..], Some(SECOND / 5)));
    let (attempts, _) = timeline(Duration::ZERO, 3600 * SECOND, false).await;
    assert_eq!(attempts, [Duration::ZERO; 2]);
}
