//! Requests that are refused before anybody is asked about them: each leaves a line, and of HTTP/1 gets a document.

#![allow(clippy::panic, clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeSet;

use serde_json::Value;
use support::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// The lines about refusals of a gateway's log.
fn refused(log: &str) -> Vec<Value> {
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["message"] == "refused").collect()
}

#[tokio::test]
async fn a_head_that_cannot_be_read_gets_a_document_and_a_line() {
    let upstream = echo();
    // More than a target may have, so that either is too much in turn.
    let process = Process::start(&["--upstream", &base(&upstream)], &[("DIDIT_GATEWAY__MAX_HEAD", "200000")]);
    let head = "GET / HTTP/1.1\r\nhost: localhost\r\n";
    let cases = [
        ("\0\x01\x02\x03 garbage\r\n\r\n".to_owned(), 400, "unreadable"),
        ("GET\r\n\r\n".to_owned(), 400, "unreadable"),
        ("GET / HTTP/9.9\r\n\r\n".to_owned(), 400, "unreadable"),
        ("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_owned(), 400, "unreadable"),
        (format!("{head}content-length: x\r\n\r\n"), 400, "unreadable"),
        (format!("{head}{}\r\n", "x: y\r\n".repeat(100)), 431, "head-too-large"),
        (format!("{head}x: {}\r\n\r\n", "y".repeat(300_000)), 431, "head-too-large"),
        (format!("GET /{} HTTP/1.1\r\n\r\n", "y".repeat(70_000)), 414, "target-too-long"),
    ];
    let mut ids = Vec::new();
    for (request, status, kind) in &cases {
        let answer = raw(process.address, request).await;
        let document = document(&answer);
        assert_eq!(document["status"], *status, "{answer}");
        assert_eq!(document["type"], format!("urn:didit-gateway:problem:{kind}"), "{answer}");
        ids.push((document["correlation_id"].as_str().unwrap().to_owned(), *status));
    }
    assert_eq!(upstream.accepted(), 0);
    let lines = refused(&process.stop());
    let told = lines.iter().map(|line| {
        let id = line["correlation_id"].as_str().unwrap().to_owned();
        (id, line["http.response.status_code"].as_u64().unwrap())
    });
    // A line is written when its connection ends, which may be after the next has begun.
    let (told, ids): (BTreeSet<_>, BTreeSet<_>) = (told.collect(), ids.into_iter().collect());
    assert_eq!(told, ids, "{lines:?}");
    assert!(lines.iter().all(|line| line["layer"] == "gateway" && line["reason"].is_string()), "{lines:?}");
}

#[tokio::test]
async fn behind_a_good_request_it_is_the_same() {
    let upstream = echo();
    let process = Process::start(&["--upstream", &base(&upstream)], &[]);
    let good = "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let answers = raw(process.address, format!("{good}{good}not HTTP\r\n\r\n")).await;
    let last = answers.rfind("HTTP/1.1 ").unwrap();
    assert_eq!(answers[..last].matches("HTTP/1.1 200").count(), 2, "{answers}");
    let document = document(&answers[last..]);
    let lines = refused(&process.stop());
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0]["correlation_id"], document["correlation_id"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_http2_does_not_allow_leaves_a_line() {
    let upstream = echo();
    let process = Process::start(&["--upstream", &base(&upstream)], &[]);
    let preface: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    // DATA on no stream, a head that HPACK cannot read, and one without a method.
    for frames in [&b"\0\0\x01\0\0\0\0\0\0x"[..], b"\0\0\x01\x01\x05\0\0\0\x01\xff", b"\0\0\x01\x01\x05\0\0\0\x01\x84"]
    {
        let mut stream = TcpStream::connect(process.address).await.unwrap();
        stream.write_all(&[preface, frames].concat()).await.unwrap();
        // Until the connection ends, or the stream does: RST_STREAM of the first.
        let (mut came, mut piece) = (Vec::new(), [0; 4096]);
        while !came.windows(9).any(|head| head == b"\0\0\x04\x03\0\0\0\0\x01") {
            match timeout(LONG, stream.read(&mut piece)).await.unwrap() {
                Ok(read @ 1..) => came.extend_from_slice(&piece[..read]),
                _ => break,
            }
        }
    }
    let mut many = get("/");
    for number in 0..=100 {
        let name: http::HeaderName = format!("x-{number}").parse().unwrap();
        many.headers_mut().insert(name, http::HeaderValue::from_static("y"));
    }
    let reply = send_with(&h2c_client(), process.address, many).await;
    assert_eq!((reply.status.as_u16(), reply.layer().as_str()), (431, "gateway"));
    assert_eq!(upstream.accepted(), 0);
    let lines = refused(&process.stop());
    let reasons: Vec<_> =
        lines.iter().map(|line| line["reason"].as_str().unwrap().split(':').next().unwrap()).collect();
    assert_eq!(reasons, ["http2 error", "http2 error", "stream reset"], "{lines:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_was_answered_early_is_not_refused_as_well() {
    /// A frame's head.
    fn head(length: u8, kind: u8, flags: u8, stream: u16) -> [u8; 9] {
        let [high, low] = stream.to_be_bytes();
        [0, 0, length, kind, flags, 0, 0, high, low]
    }

    const STREAM_CLOSED: u8 = 5;

    let upstream = echo();
    let process = Process::start(&["--upstream", &base(&upstream)], &[("DIDIT_GATEWAY__MAX_BODY", "1")]);
    let preface: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let (mut reader, mut writer) = TcpStream::connect(process.address).await.unwrap().into_split();
    writer.write_all(preface).await.unwrap();
    let (mut came, mut piece) = (Vec::new(), [0; 4096]);
    let mut until = async |wanted: &[u8]| {
        while !came.windows(wanted.len()).any(|bytes| bytes == wanted) {
            let read = timeout(LONG, reader.read(&mut piece)).await.unwrap().unwrap();
            assert!(read > 0, "{wanted:?} did not come: {}", came.escape_ascii());
            came.extend_from_slice(&piece[..read]);
        }
        came.clone()
    };
    let data = |stream| [&head(2, 0, 0, stream)[..], b"xx"].concat();
    // More than h2 remembers to have reset, or remembers for longer than a second.
    let streams = || (1..=121).step_by(2);
    for stream in streams() {
        // POST / at localhost, whose body is too large, and goes on behind the answer.
        let request = [&head(14, 1, 4, stream)[..], b"\x83\x86\x84\x41\x09localhost", &data(stream)].concat();
        writer.write_all(&request).await.unwrap();
        until(&head(4, 3, 0, stream)).await;
    }
    let late: Vec<u8> = streams().flat_map(data).collect();
    writer.write_all(&[&late[..], b"\0\0\x08\x06\0\0\0\0\0pingping"].concat()).await.unwrap();
    let came = until(b"pingping").await;
    let is_closed = |stream| {
        let closed = [&head(4, 3, 0, stream)[..], &[0, 0, 0, STREAM_CLOSED]].concat();
        came.windows(closed.len()).any(|bytes| bytes == closed)
    };
    assert!(streams().any(is_closed), "{}", came.escape_ascii());
    drop((reader, writer));
    let log = process.stop();
    assert_eq!(refused(&log), Vec::<Value>::new(), "{log}");
    assert!(log.contains("\"http.response.status_code\":413"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_does_not_end_gets_a_document_and_a_line() {
    let upstream = echo();
    let environment = [("DIDIT_GATEWAY__HEADER_TIMEOUT", "100ms")];
    let process = Process::start(&["--upstream", &base(&upstream)], &environment);
    let good = "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
    // The second is late behind an answer.
    let mut ids = BTreeSet::new();
    for before in ["", good] {
        let mut stream = TcpStream::connect(process.address).await.unwrap();
        stream.write_all(before.as_bytes()).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
        let answers = rest(&mut stream).await;
        let document = document(&answers[answers.rfind("HTTP/1.1 ").unwrap()..]);
        assert_eq!(
            (&document["status"], &document["type"]),
            (&408.into(), &"urn:didit-gateway:problem:head-slow".into())
        );
        ids.insert(document["correlation_id"].as_str().unwrap().to_owned());
    }
    let lines = refused(&process.stop());
    let told: BTreeSet<_> = lines.iter().map(|line| line["correlation_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!((told, lines.len()), (ids, 2), "{lines:?}");
    assert!(lines.iter().all(|line| line["http.response.status_code"] == 408), "{lines:?}");
}
