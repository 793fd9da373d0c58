//! Streams that are sent again: over real sockets, where bodies outlive their attempts, and in virtual time.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::{
    convert::Infallible,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use didit_sandbox::faults::{Fault, Faults, Rule, When};
use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING},
};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tests::{AnyBody, Body, Digest, Upload, Upstream, sandbox};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::{Layer, ServiceExt};
use tower_didit::{
    Randomness,
    body::{ReplayBody, ReplayError},
    call::{CallOptions, RetryOverride},
    outcome::DiditClassifier,
    retry::{RetryLayer, RoutePolicy},
};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

type Constant = fn(u32, &Randomness) -> Duration;

/// The layer as it is, but for the backoff: 20 ms, because sockets know no virtual time.
fn quickly() -> RetryLayer<DiditClassifier, RoutePolicy, Constant> {
    let pause: Constant = |_, _| Duration::from_millis(20);
    RetryLayer::builder().backoff(pause).build().unwrap()
}

/// An upload that may be repeated whatever happens.
fn upload<B>(uri: impl AsRef<str>, body: B) -> Request<B> {
    Request::post(uri.as_ref())
        .header(CONTENT_TYPE, Upload::CONTENT_TYPE)
        .extension(CallOptions::new().retry(RetryOverride::Harmless))
        .body(body)
        .unwrap()
}

fn answer(status: StatusCode) -> Response<AnyBody> {
    let mut response = Response::new(Empty::new().boxed_unsync());
    *response.status_mut() = status;
    response
}

/// What arrived at a server, attempt by attempt.
type Arrived<T> = Arc<Mutex<Vec<T>>>;

/// A server that reads every request to its end, refuses the first two, and answers the third.
fn refusing_twice<T: Send + 'static>(
    arrived: &Arrived<T>,
    look: fn(&HeaderMap, Digest, Option<HeaderMap>) -> T,
) -> Upstream {
    let arrived = Arc::clone(arrived);
    let upstream = Upstream::http(move |number, request| {
        let arrived = Arc::clone(&arrived);
        async move {
            let (parts, mut body) = request.into_parts();
            let (mut digest, mut trailers) = (Digest::default(), None);
            while let Some(Ok(frame)) = body.frame().await {
                match frame.into_data() {
                    Ok(data) => digest.add(&data),
                    Err(frame) => trailers = frame.into_trailers().ok(),
                }
            }
            arrived.lock().unwrap().push(look(&parts.headers, digest, trailers));
            if number > 2 { answer(StatusCode::OK) } else { answer(StatusCode::SERVICE_UNAVAILABLE) }
        }
    });
    upstream.unwrap()
}

/// Reads a request to its end and notes what its body was, or that it broke.
async fn note(arrived: &Arrived<Option<Digest>>, request: Request<hyper::body::Incoming>) {
    let digest = Digest::of(request.into_body()).await.ok();
    arrived.lock().unwrap().push(digest);
}

/// How the body of a message is delimited.
fn framing(headers: &HeaderMap) -> (Option<HeaderValue>, Option<HeaderValue>) {
    (headers.get(CONTENT_LENGTH).cloned(), headers.get(TRANSFER_ENCODING).cloned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_attempt_is_framed_as_the_first_and_byte_identical() {
    for body in [Upload::new(MIB), Upload::new(MIB).chunked()] {
        let arrived = Arrived::default();
        let upstream = refusing_twice(&arrived, |headers, digest, _| (framing(headers), digest));
        let service = quickly().layer(Client::builder(TokioExecutor::new()).build_http());
        let expected = body.digest();
        let sized = http_body::Body::size_hint(&body).exact().is_some();
        let response = service.oneshot(upload(upstream.uri("/v3/id-verification/"), body)).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let framing = match sized {
            true => (Some(MIB.into()), None),
            false => (None, Some(HeaderValue::from_static("chunked"))),
        };
        assert_eq!(*arrived.lock().unwrap(), vec![(framing, expected); 3]);
    }
}

#[tokio::test]
async fn trailers_arrive_with_every_attempt() {
    let trailers = HeaderMap::from_iter([("checksum".parse().unwrap(), HeaderValue::from_static("7"))]);
    let frames = [Frame::data(Bytes::from_static(b"data")), Frame::trailers(trailers.clone())];
    let body = StreamBody::new(tokio_stream::iter(frames.map(Ok::<_, Infallible>)));
    let arrived = Arrived::default();
    let upstream = refusing_twice(&arrived, |_, digest, trailers| (digest.length(), trailers));
    let mut request = upload(upstream.uri("/v3/id-verification/"), body);
    request.headers_mut().insert("trailer", HeaderValue::from_static("checksum"));
    let service = quickly().layer(Client::builder(TokioExecutor::new()).build_http());
    assert_eq!(service.oneshot(request).await.unwrap().status(), StatusCode::OK);
    assert_eq!(*arrived.lock().unwrap(), vec![(4, Some(trailers)); 3]);
}

#[tokio::test]
async fn the_sandbox_reads_a_form_of_16_mib_after_refusing_it_twice() {
    let unavailable = Fault::status(StatusCode::SERVICE_UNAVAILABLE).with_retry_after(0);
    let faults = Faults::none().with(Rule::new(unavailable).when(When::First(2)));
    let sandbox = sandbox(1).faults(faults).build().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = didit_sandbox::serve(listener, sandbox.clone()).unwrap();
    let uri = format!("http://{}/v3/id-verification/", server.local_addr());
    // A billed check that nobody vouches for: a refusal is safe to repeat, because nothing was done.
    let request = Request::post(uri)
        .header(CONTENT_TYPE, Upload::CONTENT_TYPE)
        .header("x-api-key", "key")
        .body(Upload::new(16 * MIB))
        .unwrap();
    let service = quickly().layer(Client::builder(TokioExecutor::new()).build_http());
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!((sandbox.journal().len(), sandbox.stats().billed_checks), (3, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_answers_before_it_has_read_the_body_gets_all_of_it_the_next_time() {
    for body in [Upload::new(8 * MIB), Upload::new(8 * MIB).chunked()] {
        let arrived = Arrived::default();
        let upstream = Upstream::http({
            let arrived = Arc::clone(&arrived);
            move |number, request| {
                let arrived = Arc::clone(&arrived);
                async move {
                    // Refuses on the head alone, twice.
                    if number <= 2 {
                        return answer(StatusCode::SERVICE_UNAVAILABLE);
                    }
                    note(&arrived, request).await;
                    answer(StatusCode::OK)
                }
            }
        });
        let upstream = upstream.unwrap();
        let digest = body.digest();
        let service = quickly().layer(Client::builder(TokioExecutor::new()).build_http());
        let response = service.oneshot(upload(upstream.uri("/v3/id-verification/"), body)).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(*arrived.lock().unwrap(), [Some(digest)]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_that_is_stuck_in_the_client_holds_up_nobody() {
    // The first connection gets an answer at once and is never read again, so the client keeps the body and waits for room
    // in the socket. The second is served.
    let digests = Arrived::default();
    let (served, stuck) = (Arc::clone(&digests), Arc::new(tokio::sync::Notify::new()));
    let upstream = Upstream::raw({
        let stuck = Arc::clone(&stuck);
        move |connection, mut stream| {
            let (served, stuck) = (Arc::clone(&served), Arc::clone(&stuck));
            async move {
                if connection == 1 {
                    let _ = stream.read(&mut [0; 256]).await;
                    let refusal = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
                    let _ = stream.write_all(refusal).await;
                    stuck.notified().await;
                    return;
                }
                let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                    let served = Arc::clone(&served);
                    async move {
                        note(&served, request).await;
                        Ok::<_, Infallible>(answer(StatusCode::OK))
                    }
                });
                let connection = hyper::server::conn::http1::Builder::new();
                let _ = connection.serve_connection(hyper_util::rt::TokioIo::new(stream), service).await;
            }
        }
    });
    let upstream = upstream.unwrap();
    let body = Upload::new(16 * MIB);
    let digest = body.digest();
    let service = quickly().layer(Client::builder(TokioExecutor::new()).build_http());
    let response = service.oneshot(upload(upstream.uri("/v3/id-verification/"), body)).await.unwrap();
    assert_eq!((response.status(), upstream.accepted()), (StatusCode::OK, 2));
    assert_eq!(*digests.lock().unwrap(), [Some(digest)]);
    stuck.notify_one();
}

#[tokio::test]
async fn an_error_inside_the_body_reaches_the_caller_and_the_server_sees_no_whole_message() {
    let arrived = Arrived::default();
    let upstream = Upstream::http({
        let arrived = Arc::clone(&arrived);
        move |_, request| {
            let arrived = Arc::clone(&arrived);
            async move {
                note(&arrived, request).await;
                answer(StatusCode::SERVICE_UNAVAILABLE)
            }
        }
    });
    let upstream = upstream.unwrap();
    let frames = [Ok(Frame::data(Bytes::from_static(b"half"))), Err(io::Error::other("torn"))];
    let body = StreamBody::new(tokio_stream::iter(frames));
    let service = quickly().layer(Client::builder(TokioExecutor::new()).build_http());
    let error = service.oneshot(upload(upstream.uri("/v3/id-verification/"), body)).await.unwrap_err();
    let mut sources = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
    assert!(sources.any(|error| error.downcast_ref::<io::Error>().is_some_and(|error| error.to_string() == "torn")));
    let arrived = arrived.lock().unwrap();
    assert!(matches!(arrived[..], [] | [None]), "{arrived:?}");
}

// ===== In virtual time =====

/// What a client does with an attempt.
#[derive(Clone, Copy)]
enum Treatment {
    /// Fails to connect, the body unread.
    Unread,
    /// Reads so many frames, then answers 503 and drops the rest.
    RefuseAfter(usize),
    /// Answers 503 at once, while a task of its own reads on.
    RefuseAndReadOn,
    /// Reads all of it, then breaks off.
    Break,
    /// Reads all of it and answers.
    Answer,
}

/// Reads so many frames at most.
async fn read<B>(body: &mut ReplayBody<B>, frames: usize, text: &mut String) -> io::Result<()>
where
    B: http_body::Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin,
{
    for _ in 0..frames {
        let Some(frame) = body.frame().await else { break };
        let frame = frame.map_err(io::Error::other)?;
        text.push_str(std::str::from_utf8(frame.data_ref().unwrap_or(&Bytes::new())).unwrap());
    }
    Ok(())
}

/// Makes one call with a client that treats its attempts like this. Says what came of it, and what each attempt read.
async fn treated<B>(
    treatments: &'static [Treatment],
    request: Request<B>,
    cap: usize,
) -> (io::Result<StatusCode>, Vec<String>)
where
    B: http_body::Body<Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send> + Send + Unpin + 'static,
{
    let seen = Arrived::default();
    let treatments = Arc::new(Mutex::new(treatments.iter()));
    let client = tower::service_fn({
        let seen = Arc::clone(&seen);
        move |request: Request<ReplayBody<B>>| {
            let treatment = *treatments.lock().unwrap().next().unwrap_or(&Treatment::Answer);
            let (seen, mut body) = (Arc::clone(&seen), request.into_body());
            let place = seen.lock().unwrap().len();
            seen.lock().unwrap().push(String::new());
            async move {
                let (frames, result) = match treatment {
                    Treatment::Unread => return Err(io::ErrorKind::ConnectionRefused.into()),
                    Treatment::RefuseAfter(frames) => (frames, Ok(StatusCode::SERVICE_UNAVAILABLE)),
                    Treatment::RefuseAndReadOn => (usize::MAX, Ok(StatusCode::SERVICE_UNAVAILABLE)),
                    Treatment::Break => (usize::MAX, Err(io::ErrorKind::ConnectionReset)),
                    Treatment::Answer => (usize::MAX, Ok(StatusCode::OK)),
                };
                let reading = async move {
                    let mut text = String::new();
                    let read = read(&mut body, frames, &mut text).await;
                    let superseded = |error: &io::Error| {
                        error.get_ref().and_then(|error| error.downcast_ref()) == Some(&ReplayError::Superseded)
                    };
                    if read.as_ref().is_err_and(superseded) {
                        text.push_str("(superseded)");
                    }
                    seen.lock().unwrap()[place] = text;
                    read
                };
                if matches!(treatment, Treatment::RefuseAndReadOn) {
                    tokio::spawn(reading);
                } else {
                    reading.await?;
                }
                let mut response = Response::new(Body::default());
                *response.status_mut() = result?;
                Ok(response)
            }
        }
    });
    let layer = RetryLayer::builder().replay_cap(cap).build().unwrap();
    let result = layer.layer(client).oneshot(request).await.map(|response| response.status());
    let seen = seen.lock().unwrap().clone();
    (result, seen)
}

/// Three frames, each after a tenth of a second.
fn slowly() -> impl http_body::Body<Data = Bytes, Error = io::Error> + Send + Unpin {
    let frames =
        tokio_stream::iter(["one ", "two ", "three"].map(|text| Ok(Frame::data(Bytes::from_static(text.as_bytes())))));
    let frames = tokio_stream::StreamExt::then(frames, |frame| async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        frame
    });
    StreamBody::new(Box::pin(frames))
}

const WHOLE: &str = "one two three";

#[tokio::test(start_paused = true)]
async fn a_body_that_the_first_attempt_never_read_is_read_by_the_second() {
    let (result, seen) = treated(&[Treatment::Unread], upload("/", slowly()), MIB).await;
    assert_eq!((result.unwrap(), seen), (StatusCode::OK, vec![String::new(), WHOLE.to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn every_attempt_begins_at_the_beginning_and_goes_on_where_nobody_was() {
    const REFUSALS: [Treatment; 3] = [Treatment::RefuseAfter(1), Treatment::RefuseAfter(2), Treatment::RefuseAfter(0)];
    let (result, seen) = treated(&REFUSALS, upload("/", slowly()), MIB).await;
    assert_eq!(result.unwrap(), StatusCode::OK);
    assert_eq!(seen, ["one ", "one two ", "", WHOLE]);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_reads_on_after_its_answer_is_cut_off_by_the_next() {
    let (result, seen) = treated(&[Treatment::RefuseAndReadOn; 2], upload("/", slowly()), MIB).await;
    assert_eq!(result.unwrap(), StatusCode::OK);
    assert_eq!(seen, ["(superseded)", "(superseded)", WHOLE]);
}

#[tokio::test(start_paused = true)]
async fn the_last_attempt_sends_the_whole_body_like_the_first() {
    let (result, seen) = treated(&[Treatment::Break; 5], upload("/", slowly()), MIB).await;
    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(seen, [WHOLE; 5]);
}

#[tokio::test(start_paused = true)]
async fn a_body_over_the_cap_goes_out_whole_and_its_result_is_handed_out() {
    let (result, seen) = treated(&[Treatment::Break], upload("/", slowly()), WHOLE.len() - 1).await;
    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(seen, [WHOLE]);
    let (result, seen) = treated(&[Treatment::RefuseAfter(3)], upload("/", slowly()), WHOLE.len() - 1).await;
    assert_eq!((result.unwrap(), seen), (StatusCode::SERVICE_UNAVAILABLE, vec![WHOLE.to_owned()]));
    // Exactly the cap is recorded.
    let (result, seen) = treated(&[Treatment::Break], upload("/", slowly()), WHOLE.len()).await;
    assert_eq!((result.unwrap(), seen.len()), (StatusCode::OK, 2));
    // What nobody has read yet does not count.
    let (result, seen) = treated(&[Treatment::Unread, Treatment::RefuseAndReadOn], upload("/", slowly()), 1).await;
    assert_eq!((result.unwrap(), seen.len()), (StatusCode::OK, 3));
}

#[tokio::test(start_paused = true)]
async fn an_error_inside_the_body_goes_to_the_attempt_that_meets_it_and_ends_the_call() {
    let torn = || {
        let frames = [Ok(Frame::data(Bytes::from_static(b"half"))), Err(io::Error::other("torn"))];
        upload("/", StreamBody::new(tokio_stream::iter(frames)))
    };
    let (result, seen) = treated(&[], torn(), MIB).await;
    assert_eq!((result.unwrap_err().to_string(), seen), ("torn".to_owned(), vec!["half".to_owned()]));
    let (result, seen) = treated(&[Treatment::RefuseAfter(1)], torn(), MIB).await;
    assert_eq!((result.unwrap_err().to_string(), seen), ("torn".to_owned(), vec!["half".to_owned(); 2]));
}

#[tokio::test(start_paused = true)]
async fn a_streamed_creation_is_repeated_only_under_its_vendor_data() {
    let creation = |body: &'static str| {
        let frames: Vec<_> =
            body.as_bytes().chunks(7).map(|piece| Ok::<_, Infallible>(Frame::data(Bytes::from(piece)))).collect();
        Request::post("/v3/session/").body(StreamBody::new(tokio_stream::iter(frames))).unwrap()
    };
    let named = r#"{"workflow_id":"w","vendor_data":"user-7"}"#;
    for (body, attempts) in [(named, 2), (r#"{"workflow_id":"w"}"#, 1)] {
        let (_, seen) = treated(&[Treatment::Break], creation(body), MIB).await;
        assert_eq!(seen, vec![body; attempts]);
    }
}
