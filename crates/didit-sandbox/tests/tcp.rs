//! The sandbox on a port, over real connections.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic as the test may")]

mod support;

use std::{
    error::Error,
    io::{self, ErrorKind},
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use didit_api::{
    SessionStatus,
    webhook::{Event, Secrets, verify},
};
use didit_sandbox::{
    Destination, Fault, Faults, Rule, Sandbox, ServeError, Server, Truncation, When, serve, serve_anywhere,
};
use http::{HeaderMap, HeaderName, Request, Version};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

async fn serving(faults: Faults) -> (Server, Sandbox) {
    let sandbox = Sandbox::builder().faults(faults).build().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (serve(listener, sandbox.clone()).unwrap(), sandbox)
}

fn first(fault: Fault) -> Faults {
    Faults::none().with(Rule::new(fault).on_route("session-list").when(When::First(1)))
}

/// Sends a request by hand and reads until the connection ends.
async fn by_hand(address: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    let request =
        "GET /v3/sessions/ HTTP/1.1\r\nhost: localhost\r\nx-api-key: sandbox-key\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.map(|_| answer)
}

#[tokio::test]
async fn a_reset_before_the_work_is_a_reset_on_the_wire() {
    let (server, sandbox) = serving(first(Fault::ResetBeforeWork)).await;
    assert_eq!(by_hand(server.local_addr()).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(by_hand(server.local_addr()).await.unwrap().starts_with(b"HTTP/1.1 200 OK"));
    assert_eq!(sandbox.stats().faults["reset-before-work"], 1);
    server.shutdown().await;
}

#[tokio::test]
async fn work_followed_by_a_drop_ends_the_connection_without_an_answer() {
    let (server, sandbox) = serving(first(Fault::WorkThenDrop)).await;
    assert_eq!(by_hand(server.local_addr()).await.unwrap(), b"");
    assert!(by_hand(server.local_addr()).await.unwrap().starts_with(b"HTTP/1.1 200 OK"));
    assert_eq!(sandbox.stats().faults["work-then-drop"], 1);
    server.shutdown().await;
}

fn client(http2: bool) -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).http2_only(http2).retry_canceled_requests(false).build_http()
}

#[tokio::test]
async fn a_hyper_client_is_answered_and_cut_off_on_both_versions() {
    for (http2, version) in [(false, Version::HTTP_11), (true, Version::HTTP_2)] {
        for fault in [Fault::ResetBeforeWork, Fault::WorkThenDrop] {
            let (server, _sandbox) = serving(first(fault)).await;
            let client = client(http2);
            let ask = || {
                let uri = format!("http://{}/v3/sessions/", server.local_addr());
                client.request(Request::get(uri).header("x-api-key", "sandbox-key").body(Full::default()).unwrap())
            };
            let lost = ask().await.unwrap_err();
            assert!(!lost.is_connect(), "{lost:?}");
            let response = ask().await.unwrap();
            assert_eq!((response.status().as_u16(), response.version()), (200, version));
            assert!(response.into_body().collect().await.unwrap().to_bytes().starts_with(b"{\"count\":0"));
            server.shutdown().await;
        }
    }
}

#[tokio::test]
async fn drops_look_alike_on_the_wire_whatever_became_of_the_work() {
    let soon = Duration::from_millis(20);
    for fault in [Fault::WorkThenDrop, Fault::late_commit(soon), Fault::never_commit(soon)] {
        let (server, sandbox) = serving(first(fault.clone())).await;
        assert_eq!(by_hand(server.local_addr()).await.unwrap(), b"", "{fault:?}");
        assert_eq!(sandbox.stats().faults[fault.kind()], 1);
        server.shutdown().await;
    }
}

#[tokio::test]
async fn a_hyper_client_sees_that_a_truncated_body_is_incomplete() {
    for (http2, chunked) in [(false, false), (false, true), (true, false), (true, true)] {
        let cut = if chunked { Truncation::at_byte(10).chunked() } else { Truncation::at_byte(10) };
        let (server, _sandbox) = serving(first(Fault::TruncatedBody(cut))).await;
        let client = client(http2);
        let ask = || {
            let uri = format!("http://{}/v3/sessions/", server.local_addr());
            client.request(Request::get(uri).header("x-api-key", "sandbox-key").body(Full::default()).unwrap())
        };
        let response = ask().await.unwrap();
        assert_eq!((response.status().as_u16(), response.headers().contains_key("content-length")), (200, !chunked));
        let mut body = response.into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), &b"{\"count\":0"[..10]);
        let error = body.frame().await.unwrap().unwrap_err();
        let source = error.source().unwrap();
        match source.downcast_ref::<io::Error>() {
            Some(io) => assert_eq!((io.kind(), http2), (ErrorKind::UnexpectedEof, false)),
            None => assert!(http2 && format!("{source:?}").contains("Reset"), "{source:?}"),
        }
        // The connection is not used again, or only its stream was reset: the next request is answered.
        assert!(ask().await.unwrap().into_body().collect().await.is_ok());
        server.shutdown().await;
    }
}

#[tokio::test]
async fn bytes_stop_where_a_body_was_cut_off() {
    let (server, _sandbox) = serving(first(Fault::TruncatedBody(Truncation::at_percent(50)))).await;
    let answer = String::from_utf8(by_hand(server.local_addr()).await.unwrap()).unwrap();
    assert!(
        answer.contains("content-length: 52\r\n") && answer.ends_with("\r\n\r\n{\"count\":0,\"next\":null,\"pr"),
        "{answer}"
    );
    server.shutdown().await;
}

#[tokio::test]
async fn a_slow_body_comes_in_pieces() {
    let every = Duration::from_millis(5);
    let (server, _sandbox) = serving(first(Fault::SlowBody { bytes: 10, every })).await;
    // Real time, because sockets know no other.
    let began = tokio::time::Instant::now();
    let answer = by_hand(server.local_addr()).await.unwrap();
    assert!(answer.ends_with(b"\"results\":[]}") && began.elapsed() >= every * 6);
    server.shutdown().await;
}

#[tokio::test]
async fn every_answer_has_the_date_of_the_sandbox_and_one_alone() {
    let sandbox = Sandbox::builder().epoch(support::epoch()).clock_ahead(Duration::from_secs(86_400)).build().unwrap();
    let server = serve(TcpListener::bind("127.0.0.1:0").await.unwrap(), sandbox).unwrap();
    let answer = String::from_utf8(by_hand(server.local_addr()).await.unwrap()).unwrap();
    assert!(answer.contains("date: Tue, 22 Sep 2026 14:14:0"), "{answer}");
    assert_eq!(answer.matches("date: ").count(), 1);
    server.shutdown().await;
}

#[tokio::test]
async fn a_request_whose_client_hung_up_arrives_where_the_switch_says_so() {
    for arrives in [false, true] {
        let total = Duration::from_millis(1_500);
        let sandbox =
            Sandbox::builder().latency(total..=total).seed(1).abandoned_requests_arrive(arrives).build().unwrap();
        let server = serve(TcpListener::bind("127.0.0.1:0").await.unwrap(), sandbox.clone()).unwrap();
        let mut stream = TcpStream::connect(server.local_addr()).await.unwrap();
        let request = "GET /v3/sessions/ HTTP/1.1\r\nhost: localhost\r\nx-api-key: sandbox-key\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        // Real time, because sockets know no other: long enough to be read, too short to arrive.
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert_eq!(sandbox.stats().accepted, 0, "the seed draws an earlier arrival");
        drop(stream);
        while sandbox.stats().abandoned_before_arrival == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(total).await;
        assert_eq!(sandbox.stats().accepted, u64::from(arrives));
        server.shutdown().await;
    }
}

#[tokio::test]
async fn a_shutdown_lets_a_request_under_way_finish() {
    let (server, sandbox) = serving(first(Fault::Delay(Duration::from_millis(300)))).await;
    let address = server.local_addr();
    let asking = tokio::spawn(by_hand(address));
    // Real time, because sockets know no other: until the request has arrived.
    while sandbox.stats().accepted == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.shutdown().await;
    assert!(asking.await.unwrap().unwrap().starts_with(b"HTTP/1.1 200 OK"));
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn an_address_that_others_reach_is_refused_unless_allowed() {
    let bind = || TcpListener::bind("0.0.0.0:0");
    let sandbox = support::sandbox();
    let refused = serve(bind().await.unwrap(), sandbox.clone()).unwrap_err();
    assert!(matches!(refused, ServeError::NotLoopback { .. }), "{refused}");
    let server = serve_anywhere(bind().await.unwrap(), sandbox).unwrap();
    server.shutdown().await;
}

/// Whether a request has come with all of its body.
fn is_whole(request: &[u8]) -> bool {
    let text = str::from_utf8(request).unwrap();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    length.is_some_and(|length| body.len() == length.parse::<usize>().unwrap())
}

/// Takes one connection, reads a request from it, and answers.
async fn receive(listener: &TcpListener, answer: &str) -> String {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut request = Vec::new();
    while !is_whole(&request) {
        let mut piece = [0; 4_096];
        let read = stream.read(&mut piece).await.unwrap();
        assert_ne!(read, 0, "the request ends early");
        request.extend_from_slice(&piece[..read]);
    }
    stream.write_all(answer.as_bytes()).await.unwrap();
    String::from_utf8(request).unwrap()
}

#[tokio::test]
async fn webhooks_go_over_tcp_and_a_broken_connection_is_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hooks/didit?a=b", listener.local_addr().unwrap());
    let secret = "not-a-real-secret";
    let sandbox = Sandbox::builder()
        .webhook(Destination::url(&url, secret))
        .webhook_waits([Duration::ZERO, Duration::ZERO])
        .build()
        .unwrap();
    let id = support::made(&sandbox, Some("user-7")).await;
    sandbox.set_session_status(&id, SessionStatus::Approved).unwrap();

    receive(&listener, "").await;
    receive(&listener, "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n").await;
    let request = receive(&listener, "HTTP/1.1 204 Thanks\r\n\r\n").await;
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let mut lines = head.split("\r\n");
    assert_eq!(lines.next(), Some("POST /hooks/didit?a=b HTTP/1.1"));
    let headers: HeaderMap = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (HeaderName::try_from(name).unwrap(), value.parse().unwrap()))
        .collect();
    assert_eq!(headers["host"], listener.local_addr().unwrap().to_string());
    let signed = Secrets::new([secret]).unwrap();
    // The sandbox keeps the system's time here, and an event's own is as good.
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(Event::read(body.as_bytes()).unwrap().timestamp);
    assert_eq!(verify(body.as_bytes(), &headers, &signed, now).unwrap().event.session_id, Some(id));

    let delivered = async {
        while sandbox.stats().webhooks_delivered == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), delivered).await.unwrap();
    let statuses: Vec<_> = sandbox.webhooks()[0].attempts.iter().map(|attempt| attempt.status).collect();
    assert_eq!(statuses, [None, Some(503), Some(204)]);
}
