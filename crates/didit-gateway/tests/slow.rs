//! Clients that send something now and then, and never a request.

#![allow(clippy::panic, clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::Duration;

use support::*;
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
async fn a_client_of_http2_that_takes_no_answer_is_let_go_of() {
    let upstream = echo();
    let gateway = gateway(&base(&upstream), "gateway.body_timeout = '300ms'").await;
    let preface: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    // SETTINGS with a window of nothing, and a request for / at localhost.
    let settings: &[u8] = b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0";
    let request: &[u8] = b"\0\0\x0e\x01\x05\0\0\0\x01\x82\x86\x84\x41\x09localhost";
    let ping: &[u8] = b"\0\0\x08\x06\0\0\0\0\0pingping";
    drip(gateway.local_addr(), &[preface, settings, request].concat(), &[ping]).await;
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
