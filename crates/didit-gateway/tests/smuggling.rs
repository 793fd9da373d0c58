//! Requests that can be read in two ways, over raw sockets.

#![allow(clippy::panic, clippy::unwrap_used, reason = "tests")]

mod support;

use support::*;
use tokio::{io::AsyncWriteExt, net::TcpStream};

const HEAD: &str = "POST /v3/aml/ HTTP/1.1\r\nhost: localhost\r\n";

/// Sends bytes with a second request behind them, and expects one refusal and the connection's end.
async fn refused(bytes: &str) -> String {
    let upstream = echo();
    let gateway = gateway(&base(&upstream), "").await;
    let answer = raw(gateway.local_addr(), format!("{bytes}GET /smuggled HTTP/1.1\r\nhost: localhost\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{bytes:?}: {answer:?}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{bytes:?}: {answer:?}");
    assert_eq!(upstream.accepted(), 0, "{bytes:?} reached the upstream");
    document(&answer);
    answer
}

#[tokio::test]
async fn a_length_that_is_said_twice_is_refused() {
    for fields in [
        "content-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        "content-length: 5\r\ncontent-length: 5\r\n\r\nhello",
        "content-length: 5, 5\r\n\r\nhello",
        "content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 0\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let answer = refused(&format!("{HEAD}{fields}")).await;
        assert!(answer.contains("connection: close\r\n"), "{fields:?}: {answer}");
    }
}

#[tokio::test]
async fn a_length_that_is_no_number_is_refused() {
    for length in ["+5", "-5", "0x5", "5 5", "5;", "", "99999999999999999999999", "\u{b2}"] {
        refused(&format!("{HEAD}content-length: {length}\r\n\r\nhello")).await;
    }
}

#[tokio::test]
async fn an_encoding_that_is_not_plainly_chunked_is_refused() {
    for encoding in
        ["gzip, chunked", "chunked, identity", "xchunked", "identity", "chunked;a=b", "\u{b}chunked", "gzip", ""]
    {
        refused(&format!("{HEAD}transfer-encoding: {encoding}\r\n\r\n0\r\n\r\n")).await;
    }
    refused(&format!("{HEAD}transfer-encoding: chunked\r\ntransfer-encoding: gzip\r\n\r\n0\r\n\r\n")).await;
    refused("POST / HTTP/1.0\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n").await;
}

#[tokio::test]
async fn a_head_that_is_not_written_as_it_should_be_is_refused() {
    for head in [
        "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length : 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nhost: localhost\r\n content-length: 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nhost: localhost\r\nx: a\r\n content-length: 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nhost: localhost\r\nx: y\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\nhost: localhost\ncontent-length: 5\n\nhello",
        "POST / HTTP/1.1\r\nhost: localhost\r\nx: a\rcontent-length: 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length\0: 5\r\n\r\nhello",
        "POST /a b HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "POST / HTTP/9.9\r\nhost: localhost\r\n\r\n",
        "\0\x01\x02\x03 garbage\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n",
    ] {
        refused(head).await;
    }
}

#[tokio::test]
async fn a_body_in_chunks_that_make_no_sense_ends_the_connection() {
    let upstream = echo();
    let gateway = gateway(&base(&upstream), "retry.max_attempts = 1").await;
    for chunks in
        ["zz\r\nhello", "-5\r\nhello", "5\nhello\r\n0\r\n\r\n", "ffffffffffffffffff\r\n", "5\r\nhelloX\r\n0\r\n\r\n"]
    {
        let request = format!(
            "{HEAD}transfer-encoding: chunked\r\n\r\n{chunks}GET /smuggled HTTP/1.1\r\nhost: localhost\r\n\r\n"
        );
        let answer = raw(gateway.local_addr(), request).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{chunks:?}: {answer:?}");
        assert!(!answer.contains("smuggled"), "{chunks:?}: {answer:?}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{chunks:?}: {answer:?}");
    }
}

#[tokio::test]
async fn what_stands_in_a_body_is_no_request() {
    let upstream = echo();
    let gateway = gateway(&base(&upstream), "").await;
    let inner = "GET /inner HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n";
    let mut stream = TcpStream::connect(gateway.local_addr()).await.unwrap();
    let (length, last) = (inner.len(), "GET /last HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    let requests = format!(
        "{HEAD}content-length: {length}\r\n\r\n{inner}{HEAD}transfer-encoding: chunked\r\n\r\n{length:x}\r\n{inner}\r\n0\r\n\r\n{last}"
    );
    // One byte at a time, so that every boundary falls between two reads.
    for byte in requests.as_bytes() {
        stream.write_all(&[*byte]).await.unwrap();
    }
    let answers = rest(&mut stream).await;
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 3, "{answers}");
    assert!(answers.contains("GET /last\n") && !answers.contains("GET /inner\n"), "{answers}");
}

/// An upstream that gives every connection the same bytes for an answer.
fn answering(answer: &'static str) -> tests::Upstream {
    tests::Upstream::raw(move |_, mut stream| async move {
        until(&mut stream, "\r\n\r\n").await;
        stream.write_all(answer.as_bytes()).await.unwrap();
        rest(&mut stream).await;
    })
    .unwrap()
}

#[tokio::test]
async fn an_answer_with_two_lengths_goes_on_with_one() {
    let upstream =
        answering("HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    let gateway = gateway(&base(&upstream), "").await;
    let request = "GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let answer = raw(gateway.local_addr(), request).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("transfer-encoding: chunked\r\n"), "{answer}");
    assert!(!answer.contains("content-length") && answer.contains("\r\nhello\r\n"), "{answer}");
}

#[tokio::test]
async fn a_change_of_protocol_that_nobody_asked_for_is_no_answer() {
    let upstream = answering("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
    let gateway = gateway(&base(&upstream), "retry.max_attempts = 1").await;
    let request = "GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let answer = raw(gateway.local_addr(), request).await;
    assert!(answer.starts_with("HTTP/1.1 502") && answer.contains("transport"), "{answer}");
}
