//! Clients that send something now and then, and never a request.

#![allow(clippy::panic, clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::Duration;

use http::{Request, Response};
use support::*;
use tests::Upstream;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

/// Sends pieces, one after the other, until the gateway has enough of it.
async fn drip(to: std::net::SocketAddr, before: &[u8], pieces: &[&[u8]]) {
    let (mut reader, mut writer) = TcpStream::connect(to).await.unwrap().into_split();
    writer.write_all(before).await.unwrap();
    let ended = async {
        let mut piece = [0; 4096];
        while let Ok(1..) = reader.read(&mut piece).await {}
    };
    let sending = async {
        for piece in pieces.iter().cycle() {
            if writer.write_all(piece).await.is_err() {
                break;
            }
            // Slow is what this client is. Its time is the gateway's, which has real sockets.
            sleep(Duration::from_millis(20)).await;
        }
        std::future::pending::<()>().await;
    };
    timeout(LONG, async {
        tokio::select! {
            () = ended => {}
            () = sending => {}
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_client_that_never_ends_its_head_is_let_go_of() {
    let upstream = echo();
    let gateway = gateway(&base(&upstream), "gateway = { header_timeout = '200ms', idle_timeout = '400ms' }").await;
    let preface: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let begun = [preface, b"\0\0\x01\x01\0\0\0\0\x01\x82"].concat();
    let ping: &[u8] = b"\0\0\x08\x06\0\0\0\0\0pingping";
    let half: &[u8] = b"GET / HTTP/1.1\r\nx: ";
    let cases: [(&[u8], &[u8]); 5] =
        [(b"", b"\r\n"), (b"", b"G"), (half, b"x"), (preface, ping), (&begun, b"\0\0\0\x09\0\0\0\0\x01")];
    for (before, piece) in cases {
        drip(gateway.local_addr(), before, &[piece]).await;
    }
    assert_eq!(upstream.accepted(), 0);
    assert_eq!(send(gateway.local_addr(), get("/v3/sessions/")).await.status, http::StatusCode::OK);
}

#[tokio::test]
async fn a_client_that_has_begun_a_head_is_not_idle() {
    let upstream = echo();
    let gateway = gateway(&base(&upstream), "gateway = { header_timeout = '2s', idle_timeout = '200ms' }").await;
    let head = "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let (begin, end) = head.as_bytes().split_at(20);
    let mut stream = TcpStream::connect(gateway.local_addr()).await.unwrap();
    for _ in 0..2 {
        stream.write_all(begin).await.unwrap();
        // Slow is what this client is.
        sleep(Duration::from_millis(500)).await;
        stream.write_all(end).await.unwrap();
        assert!(until(&mut stream, "Ok(0)").await.starts_with("HTTP/1.1 200 "));
    }
    stream.write_all(begin).await.unwrap();
    assert_eq!(document(&rest(&mut stream).await)["status"], 408);
}

#[tokio::test]
async fn a_client_of_http2_is_told_that_an_idle_connection_ends() {
    let upstream = echo();
    let gateway = gateway(&base(&upstream), "gateway.idle_timeout = '300ms'").await;
    let stream = TcpStream::connect(gateway.local_addr()).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::get(format!("http://{}/", gateway.local_addr())).body(()).unwrap();
    let answer = client.clone().send_request(request, true).unwrap().0;
    assert_eq!(timeout(LONG, answer).await.unwrap().unwrap().status(), 200);
    // In good order, so that no request is sent into the void.
    timeout(LONG, connection).await.unwrap().unwrap().unwrap();
    assert!(client.ready().await.is_err());
}

#[tokio::test]
async fn an_answer_that_is_read_slowly_is_handed_out_to_its_end() {
    const LENGTH: usize = 16 << 20;

    let upstream = Upstream::http(|_, _| async { Response::new(body_of(vec![b'x'; LENGTH])) }).unwrap();
    let gateway = gateway(&base(&upstream), "gateway.body_timeout = '200ms'").await;
    let mut stream = TcpStream::connect(gateway.local_addr()).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
    let (mut came, mut piece) = (0, vec![0; 64 << 10]);
    loop {
        // Some 6 MiB a second: what the kernel would keep of it lasts for longer than the gateway waits.
        sleep(Duration::from_millis(10)).await;
        match timeout(LONG, stream.read(&mut piece)).await.unwrap().unwrap() {
            0 => break,
            read => came += read,
        }
    }
    assert!(came > LENGTH, "{came} of {LENGTH} bytes and a head");
}

/// HTTP/2: SETTINGS with a window of nothing, and a request for / at localhost.
const NO_WINDOW: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0\
                           \0\0\x0e\x01\x05\0\0\0\x01\x82\x86\x84\x41\x09localhost";

#[tokio::test]
async fn a_client_of_http2_that_takes_nothing_and_asks_nothing_is_let_go_of() {
    let upstream = echo();
    let config = "gateway = { body_timeout = '300ms', idle_timeout = '300ms' }";
    let gateway = gateway(&base(&upstream), config).await;
    drip(gateway.local_addr(), NO_WINDOW, &[b"\0\0\x08\x06\0\0\0\0\0pingping"]).await;
    assert_eq!(upstream.accepted(), 1);
}

#[tokio::test]
async fn a_client_of_http2_that_takes_nothing_is_not_kept_by_a_frame_that_does_not_end() {
    let upstream = echo();
    let gateway = gateway(&base(&upstream), "gateway.body_timeout = '300ms'").await;
    // Of a kind that means nothing, and so long that it would take hours.
    let endless: &[u8] = b"\0\x10\0\xff\0\0\0\0\0";
    drip(gateway.local_addr(), &[NO_WINDOW, endless].concat(), &[b"x"]).await;
    assert_eq!(upstream.accepted(), 1);
}

#[tokio::test]
async fn silent_connections_do_not_keep_operators_out() {
    let upstream = echo();
    let gateway = gateway(&base(&upstream), "").await;
    let operations = gateway.operations_addr().unwrap();
    let mut silent = Vec::new();
    // More than there are places.
    for _ in 0..80 {
        silent.push(TcpStream::connect(operations).await.unwrap());
    }
    // The helper's own patience is half of what a connection may take in all.
    assert_eq!(send(operations, get("/healthz")).await.status, http::StatusCode::OK);
}
