//! The sandbox on a port, over real connections.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic as the test may")]

mod support;

use std::{io::ErrorKind, net::SocketAddr, time::Duration};

use bytes::Bytes;
use didit_sandbox::{Fault, Faults, Rule, Sandbox, ServeError, Server, When, serve, serve_anywhere};
use http::{Request, Version};
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
async fn by_hand(address: SocketAddr) -> std::io::Result<Vec<u8>> {
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
