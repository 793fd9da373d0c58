//! What the errors of real clients mean, each provoked over real sockets. Time is real here, because sockets know no
//! other; nothing sleeps.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod peers;

use std::{error::Error as StdError, io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::Frame;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::net::TcpStream;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer};
use tower::{BoxError, Layer, Service, ServiceExt};
use tower_didit::outcome::{NotSent, Outcome, of_error};

use self::peers::{
    Step::{self, Close, Hang, ReadRequest, ReadSome, ReadStream, Reset, Write},
    closed_port, serve, serve_capriciously, serve_tls,
};

const UNSENT: Outcome = Outcome::NotSent(NotSent::Transport);
const HELD_BACK: Outcome = Outcome::NotSent(NotSent::Local { retry_at: None });

type Body = Full<Bytes>;
type Plain<B = Body> = Client<HttpConnector, B>;

/// A request whose end the peers recognise.
fn request(uri: impl ToString) -> Request<Body> {
    Request::post(uri.to_string()).body(Body::from(r#"{"operation":"once"}"#)).unwrap()
}

fn at(address: SocketAddr) -> String {
    format!("http://{address}/v3/session/")
}

fn plain() -> Plain {
    Client::builder(TokioExecutor::new()).build_http()
}

fn plain_http2() -> Plain {
    Client::builder(TokioExecutor::new()).http2_only(true).build_http()
}

/// What a call ends in, if it fails within a time that only a bug exceeds.
async fn failure<S>(service: S, request: Request<Body>) -> Outcome
where
    S: Service<Request<Body>, Error: StdError + 'static>,
{
    match tokio::time::timeout(Duration::from_secs(20), service.oneshot(request)).await.expect("it hangs") {
        Ok(_) => panic!("it was answered"),
        Err(error) => of_error(&error),
    }
}

async fn reqwest_failure(client: &reqwest::Client, uri: impl ToString) -> Outcome {
    let call = client.post(uri.to_string()).body(r#"{"operation":"once"}"#).send();
    let result = tokio::time::timeout(Duration::from_secs(20), call).await.expect("it hangs");
    of_error(&result.expect_err("it was answered"))
}

fn reqwest_client() -> reqwest::Client {
    reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build().unwrap()
}

/// What a server does, what the failure means, and why.
type Case = (&'static [Step], Outcome, &'static str);

/// More header lines than any client takes.
const ENDLESS: &[u8] = &[b'x'; 1 << 20];

const HTTP1: &[Case] = &[
    (&[ReadRequest, Close], Outcome::Ambiguous, "it read the request and may have acted before it went away"),
    (&[ReadRequest, Reset], Outcome::Ambiguous, "the same, by a crash"),
    (&[ReadSome, Reset], Outcome::Ambiguous, "bytes have left, and how many it read cannot be seen"),
    (&[ReadRequest, Write(b"HTTP/1.1 200 OK\r\ncontent-le"), Close], Outcome::Ambiguous, "half an answer is none"),
    (&[ReadRequest, Write(b"HTTP/1.1 100 Continue\r\n\r\n"), Close], Outcome::Ambiguous, "an interim answer is none"),
    (
        &[ReadRequest, Write(b"\x15\x03\x03\x00\x02\x02\x0a"), Close],
        Outcome::Ambiguous,
        "a TLS port's alert: sent to it",
    ),
    (&[ReadRequest, Write(b"no HTTP at all\r\n\r\n"), Close], Outcome::Ambiguous, "whatever answers so has read it"),
    (&[ReadRequest, Write(b"HTTP/1.1 abc OK\r\n\r\n"), Close], Outcome::Ambiguous, "a status that is none"),
    (
        &[ReadRequest, Write(b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n"), Close],
        Outcome::Ambiguous,
        "a length that is none",
    ),
    (&[ReadRequest, Write(b"HTTP/1.1 200 OK\r\nx: "), Write(ENDLESS), Hang], Outcome::Ambiguous, "a head without end"),
];

#[tokio::test]
async fn a_connection_that_breaks_after_bytes_have_left_proves_nothing() {
    for (steps, expected, why) in HTTP1 {
        let address = serve(steps).await;
        assert_eq!(failure(plain(), request(at(address))).await, *expected, "hyper, {why}: {steps:?}");
        assert_eq!(reqwest_failure(&reqwest_client(), at(address)).await, *expected, "reqwest, {why}: {steps:?}");
    }
}

#[tokio::test]
async fn what_never_got_a_connection_was_not_sent() {
    let closed = at(closed_port().await);
    let nowhere = "http://nothing.invalid/v3/session/";
    for uri in [closed.as_str(), nowhere] {
        assert_eq!(failure(plain(), request(uri)).await, UNSENT, "hyper: {uri}");
        assert_eq!(failure(plain_http2(), request(uri)).await, UNSENT, "hyper, HTTP/2: {uri}");
        assert_eq!(reqwest_failure(&reqwest_client(), uri).await, UNSENT, "reqwest: {uri}");
    }
    let mut connector = HttpConnector::new();
    // An address of documentation, RFC 5737: no interface has it.
    connector.set_local_address(Some([192, 0, 2, 1].into()));
    let client = Client::builder(TokioExecutor::new()).build(connector);
    assert_eq!(failure(client, request(closed)).await, UNSENT, "no such local address");
}

#[tokio::test]
async fn a_connection_that_takes_too_long_was_not_sent_over() {
    // RFC 5737 again: packets to it are lost, or there is no way to it at all; neither makes a connection.
    let blackhole = "http://192.0.2.1/v3/session/";
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(Duration::from_millis(20)));
    let client = Client::builder(TokioExecutor::new()).build(connector);
    assert_eq!(failure(client, request(blackhole)).await, UNSENT);
    let client = reqwest::Client::builder().connect_timeout(Duration::from_millis(20)).no_proxy().build().unwrap();
    assert_eq!(reqwest_failure(&client, blackhole).await, UNSENT);
}

#[tokio::test]
async fn a_failed_lookup_by_itself_looks_like_any_other_io_error() {
    let error = tokio::net::lookup_host("nothing.invalid:443").await.map(|_| ()).unwrap_err();
    assert_eq!(of_error(&error), Outcome::Ambiguous);
}

// ===== TLS =====

fn https(trusted: Option<CertificateDer<'static>>) -> Client<hyper_rustls::HttpsConnector<HttpConnector>, Body> {
    let builder = HttpsConnectorBuilder::new();
    let builder = match trusted {
        Some(certificate) => {
            let mut roots = RootCertStore::empty();
            roots.add(certificate).unwrap();
            builder.with_tls_config(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
        }
        None => builder.with_webpki_roots(),
    };
    Client::builder(TokioExecutor::new()).build(builder.https_only().enable_http1().build())
}

fn secure(address: SocketAddr) -> String {
    format!("https://localhost:{}/v3/session/", address.port())
}

#[tokio::test]
async fn a_handshake_that_fails_was_not_sent_over() {
    let peers: &[&[Step]] = &[
        &[Close],
        &[Reset],
        &[ReadSome, Reset],
        &[ReadSome, Write(b"HTTP/1.1 400 Bad Request\r\n\r\n"), Hang],
        &[ReadSome, Write(b"\x15\x03\x03\x00\x02\x02\x28"), Hang],
    ];
    for steps in peers {
        assert_eq!(failure(https(None), request(secure(serve(steps).await))).await, UNSENT, "{steps:?}");
    }
    let (address, _) = serve_tls(false).await;
    assert_eq!(failure(https(None), request(secure(address))).await, UNSENT, "nobody vouches for it");
    let (address, certificate) = serve_tls(false).await;
    let numeric = format!("https://127.0.0.1:{}/v3/session/", address.port());
    assert_eq!(failure(https(Some(certificate)), request(numeric)).await, UNSENT, "it has another name");
}

#[tokio::test]
async fn a_tls_error_after_the_clients_handshake_proves_nothing() {
    let (address, certificate) = serve_tls(false).await;
    assert_eq!(https(Some(certificate)).request(request(secure(address))).await.unwrap().status(), 200);
    // With TLS 1.3 a client has finished, and sends, before the server refuses it for its missing certificate.
    let (address, certificate) = serve_tls(true).await;
    assert_eq!(failure(https(Some(certificate)), request(secure(address))).await, Outcome::Ambiguous);
}

// ===== HTTP/2 =====

/// An empty SETTINGS frame, with which a server begins.
const SETTINGS: Step = Write(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);

/// `RST_STREAM` of the first request, with a reason.
macro_rules! reset {
    ($reason:literal) => {
        Write(&[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, $reason])
    };
}

/// GOAWAY with the last stream id that the server takes, and a reason.
macro_rules! goaway {
    ([$($last:literal),*], $reason:literal) => {
        Write(&[0, 0, 8, 7, 0, 0, 0, 0, 0, $($last),*, 0, 0, 0, $reason])
    };
}

const HTTP2: &[Case] = &[
    (&[SETTINGS, ReadStream, reset!(7), Hang], UNSENT, "REFUSED_STREAM: nothing was processed"),
    (&[SETTINGS, ReadStream, reset!(0), Hang], Outcome::Ambiguous, "NO_ERROR: it may have acted and not said"),
    (&[SETTINGS, ReadStream, reset!(2), Hang], Outcome::Ambiguous, "INTERNAL_ERROR: it failed on the way"),
    (&[SETTINGS, ReadStream, reset!(8), Hang], Outcome::Ambiguous, "CANCEL says nothing about what was done"),
    (&[SETTINGS, ReadStream, reset!(11), Hang], Outcome::Ambiguous, "ENHANCE_YOUR_CALM on a stream: it was looked at"),
    (&[SETTINGS, ReadStream, reset!(13), Hang], Outcome::Ambiguous, "HTTP_1_1_REQUIRED does not promise inaction"),
    (&[SETTINGS, ReadStream, goaway!([0, 0, 0, 0], 0), Hang], UNSENT, "GOAWAY below the stream, graceful"),
    (&[SETTINGS, ReadStream, goaway!([0, 0, 0, 0], 2), Hang], UNSENT, "GOAWAY below the stream, by an error"),
    (&[SETTINGS, ReadStream, goaway!([0, 0, 0, 0], 11), Close], UNSENT, "GOAWAY below the stream, by overload"),
    (
        &[SETTINGS, ReadStream, goaway!([0, 0, 0, 1], 0), Close],
        Outcome::Ambiguous,
        "GOAWAY that takes the stream, and then breaks it",
    ),
    (
        &[SETTINGS, ReadStream, goaway!([0, 0, 0, 1], 2), Reset],
        Outcome::Ambiguous,
        "the same by an error: the stream is one that was taken",
    ),
    (
        &[SETTINGS, ReadStream, goaway!([0x7f, 255, 255, 255], 0), Close],
        Outcome::Ambiguous,
        "GOAWAY as an announcement, then the end",
    ),
    (&[SETTINGS, ReadStream, Close], Outcome::Ambiguous, "the connection ends under the request"),
    (&[SETTINGS, ReadStream, Reset], Outcome::Ambiguous, "the connection breaks under the request"),
    (
        &[SETTINGS, ReadStream, Write(&[255, 255, 255, 4, 0, 0, 0, 0, 0]), Hang],
        Outcome::Ambiguous,
        "a frame that is too long: a GOAWAY, but our own",
    ),
    (&[ReadStream, Write(b"HTTP/1.1 400 Bad Request\r\n\r\n"), Close], Outcome::Ambiguous, "a server of HTTP/1.1 only"),
];

#[tokio::test]
async fn what_http2_says_about_a_request_is_understood() {
    // reqwest would repeat what was refused, over the same connection.
    let reqwest = || reqwest::Client::builder().http2_prior_knowledge().retry(reqwest::retry::never());
    let reqwest = || reqwest().no_proxy().build().unwrap();
    for (steps, expected, why) in HTTP2 {
        let address = serve(steps).await;
        assert_eq!(failure(plain_http2(), request(at(address))).await, *expected, "hyper, {why}: {steps:?}");
        assert_eq!(reqwest_failure(&reqwest(), at(address)).await, *expected, "reqwest, {why}: {steps:?}");
    }
}

// ===== connections that are reused =====

#[tokio::test]
async fn a_reused_connection_that_breaks_under_a_request_proves_nothing() {
    let ok = Write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    let endings: [&'static [Step]; 2] = [
        Box::leak(Box::new([ReadRequest, ok, ReadRequest, Close])),
        Box::leak(Box::new([ReadRequest, ok, ReadSome, Reset])),
    ];
    for steps in endings {
        let (client, address) = (plain(), serve(steps).await);
        assert_eq!(client.request(request(at(address))).await.unwrap().status(), 200);
        assert_eq!(failure(client, request(at(address))).await, Outcome::Ambiguous, "{steps:?}");
    }
}

#[tokio::test]
async fn a_request_that_finds_its_connection_closed_was_not_sent() {
    let address = serve(&[Close]).await;
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Body>(TokioIo::new(stream)).await.unwrap();
    // The connection ends before it is given anything.
    let _ = connection.await;
    assert_eq!(of_error(&sender.ready().await.unwrap_err()), UNSENT, "not ready");
    assert_eq!(of_error(&sender.send_request(request("/v3/session/")).await.unwrap_err()), UNSENT, "not begun");
}

#[tokio::test]
async fn a_connection_given_up_with_its_request_in_the_queue_sent_nothing() {
    let stream = TcpStream::connect(serve(&[Hang]).await).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Body>(TokioIo::new(stream)).await.unwrap();
    let call = sender.send_request(request("/v3/session/"));
    drop(connection);
    assert_eq!(of_error(&call.await.unwrap_err()), UNSENT);
}

/// The one promise behind every `NotSent`, held against a server that closes and resets at random.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_is_called_not_sent_never_reached_the_server() {
    const CALLS: usize = 2_000;
    const TASKS: usize = 16;

    let random = std::sync::Mutex::new(StdRng::seed_from_u64(7));
    let (address, seen) = serve_capriciously(move || random.lock().unwrap().next_u32()).await;
    // Otherwise hyper-util repeats by itself what it has not begun.
    let client: Plain = Client::builder(TokioExecutor::new()).retry_canceled_requests(false).build_http();
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let client = client.clone();
            tokio::spawn(async move {
                let mut outcomes = Vec::new();
                for call in 0..CALLS / TASKS {
                    let id = format!("[{task}/{call}]");
                    let mut request = request(at(address));
                    request.headers_mut().insert("x-id", id.parse().unwrap());
                    let outcome =
                        client.request(request).await.map_or_else(|error| of_error(&error), |_| Outcome::Answered);
                    outcomes.push((id, outcome));
                }
                outcomes
            })
        })
        .collect();
    let mut outcomes = Vec::new();
    for task in tasks {
        outcomes.extend(task.await.unwrap());
    }
    let seen = String::from_utf8_lossy(&seen.lock().unwrap()).into_owned();
    let (mut answered, mut ambiguous, mut unsent) = (0, 0, 0);
    for (id, outcome) in outcomes {
        match outcome {
            Outcome::Answered => answered += 1,
            Outcome::Ambiguous => ambiguous += 1,
            _ => {
                assert!(!seen.contains(&id), "{id} did reach the server: {outcome:?}");
                unsent += 1;
            }
        }
    }
    let counts = format!("{answered} answered, {ambiguous} ambiguous, {unsent} not sent");
    assert!(answered > CALLS / 10 && ambiguous > CALLS / 10 && unsent > 0, "not capricious enough: {counts}");
}

// ===== bodies =====

/// A body that fails while it is sent, because what it reads from refused a connection.
fn failing_body() -> BoxBody<Bytes, io::Error> {
    let frames = [Ok(Frame::data(Bytes::from_static(b"{"))), Err(io::Error::from(io::ErrorKind::ConnectionRefused))];
    BoxBody::new(StreamBody::new(tokio_stream::iter(frames)))
}

#[tokio::test]
async fn what_a_requests_body_failed_of_does_not_count() {
    for http2 in [false, true] {
        let address = serve(&[SETTINGS, Hang]).await;
        let address = if http2 { address } else { serve(&[Hang]).await };
        let client: Plain<BoxBody<Bytes, io::Error>> =
            Client::builder(TokioExecutor::new()).http2_only(http2).build_http();
        let request = Request::post(at(address)).body(failing_body()).unwrap();
        let error = client.request(request).await.unwrap_err();
        assert_eq!(of_error(&error), Outcome::Ambiguous, "HTTP/2: {http2}, {error:?}");
    }
}

#[tokio::test]
async fn an_answer_whose_body_breaks_off_proves_nothing_by_its_error() {
    const STEPS: &[Step] = &[ReadRequest, Write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"), Close];
    let address = serve(STEPS).await;
    let response = plain().request(request(at(address))).await.unwrap();
    assert_eq!(of_error(&response.into_body().collect().await.unwrap_err()), Outcome::Ambiguous);
    let response = reqwest_client().post(at(address)).body("{}").send().await.unwrap();
    assert_eq!(of_error(&response.bytes().await.unwrap_err()), Outcome::Ambiguous);
}

// ===== layers of tower's own =====

#[tokio::test]
async fn towers_layers_are_understood() {
    let boxed = |error: BoxError| of_error(&*error);
    let hanging = at(serve(&[ReadRequest, Hang]).await);

    let timeout = tower::timeout::TimeoutLayer::new(Duration::from_millis(20)).layer(plain());
    assert_eq!(boxed(timeout.oneshot(request(&hanging)).await.unwrap_err()), Outcome::Ambiguous, "it may be at work");

    let busy = tower::limit::ConcurrencyLimitLayer::new(1).layer(plain());
    let mut shedding = tower::load_shed::LoadShed::new(busy);
    let first = shedding.ready().await.unwrap().call(request(&hanging));
    let second = shedding.ready().await.unwrap().call(request(&hanging));
    assert_eq!(boxed(second.await.unwrap_err()), HELD_BACK, "there was no room for it");
    drop(first);

    let never_ready = tower::util::MapErr::new(NeverReady, |error: io::Error| error);
    let buffered = tower::buffer::Buffer::new(never_ready, 1);
    assert_eq!(boxed(buffered.oneshot(request(&hanging)).await.unwrap_err()), UNSENT, "what is inside never got ready");
}

#[derive(Debug)]
struct NeverReady;

impl Service<Request<Body>> for NeverReady {
    type Response = ();
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<()>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        std::future::ready(Ok(()))
    }
}

// ===== reqwest's own errors =====

#[tokio::test]
async fn the_errors_that_only_reqwest_makes_are_understood() {
    assert_eq!(reqwest_failure(&reqwest_client(), "ftp://127.0.0.1/").await, HELD_BACK, "it goes nowhere");

    let hanging = at(serve(&[ReadRequest, Hang]).await);
    let hasty = reqwest::Client::builder().timeout(Duration::from_millis(50)).no_proxy().build().unwrap();
    assert_eq!(reqwest_failure(&hasty, hanging).await, Outcome::Ambiguous, "its own timeout");

    const MOVED: &[Step] =
        &[ReadRequest, Write(b"HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n"), Close];
    let wary = reqwest::redirect::Policy::custom(|attempt| attempt.error("not followed"));
    let wary = reqwest::Client::builder().redirect(wary).no_proxy().build().unwrap();
    assert_eq!(reqwest_failure(&wary, at(serve(MOVED).await)).await, Outcome::Answered, "a redirection is an answer");

    const FAILED: &[Step] = &[ReadRequest, Write(b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n"), Close];
    const REJECTED: &[Step] = &[ReadRequest, Write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"), Close];
    for (steps, expected) in [(FAILED, Outcome::Ambiguous), (REJECTED, Outcome::Answered)] {
        let response = reqwest_client().post(at(serve(steps).await)).body("{}").send().await.unwrap();
        assert_eq!(of_error(&response.error_for_status().unwrap_err()), expected);
    }
}

#[tokio::test]
async fn a_request_that_a_client_cannot_send_is_not_repeated_blindly() {
    // hyper-util does not say that it refused the request before it looked for a connection: the careful reading stands.
    let relative = request(Uri::from_static("/v3/session/"));
    assert_eq!(failure(plain(), relative).await, Outcome::Ambiguous);
}
