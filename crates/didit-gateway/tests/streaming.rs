//! Bodies pass as they come, within bounds.

#![allow(clippy::panic, clippy::unwrap_used, reason = "tests")]

mod support;

use std::sync::Arc;

use http::{Request, Response};
use http_body_util::BodyExt;
use support::*;
use tests::Upstream;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
    time::timeout,
};

#[tokio::test]
async fn an_answer_passes_before_it_has_ended() {
    let go_on = Arc::new(Notify::new());
    let upstream = {
        let go_on = Arc::clone(&go_on);
        Upstream::raw(move |_, mut stream| {
            let go_on = Arc::clone(&go_on);
            async move {
                until(&mut stream, "\r\n\r\n").await;
                let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n";
                stream.write_all(head.as_bytes()).await.unwrap();
                go_on.notified().await;
                stream.write_all(b"4\r\nlast\r\n0\r\n\r\n").await.unwrap();
                rest(&mut stream).await;
            }
        })
        .unwrap()
    };
    let gateway = gateway(&base(&upstream), "").await;
    let mut stream = TcpStream::connect(gateway.local_addr()).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
    // Only once this has come is the upstream told to go on.
    until(&mut stream, "first").await;
    go_on.notify_one();
    assert!(rest(&mut stream).await.contains("last"));
}

#[tokio::test]
async fn a_request_passes_before_it_has_ended() {
    let seen = Arc::new(Notify::new());
    let upstream = {
        let seen = Arc::clone(&seen);
        Upstream::http(move |_, request: Request<hyper::body::Incoming>| {
            let seen = Arc::clone(&seen);
            async move {
                let mut body = request.into_body();
                let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
                seen.notify_one();
                let rest = body.collect().await.unwrap().to_bytes();
                Response::new(body_of([first, rest].concat()))
            }
        })
        .unwrap()
    };
    let gateway = gateway(&base(&upstream), "").await;
    let mut stream = TcpStream::connect(gateway.local_addr()).await.unwrap();
    let head = "POST / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nexpect: 100-continue\r\n\
                transfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    until(&mut stream, "100 Continue\r\n\r\n").await;
    stream.write_all(b"5\r\nfirst\r\n").await.unwrap();
    timeout(LONG, seen.notified()).await.unwrap();
    stream.write_all(b"4\r\nlast\r\n0\r\n\r\n").await.unwrap();
    assert!(rest(&mut stream).await.contains("firstlast"));
}

#[tokio::test]
async fn a_large_body_survives_refusals_byte_for_byte() {
    let upstream = Upstream::http(|number, request: Request<hyper::body::Incoming>| async move {
        // Read first: an upstream that closes on what it has not read may reset its own answer away.
        let body = request.into_body().collect().await.unwrap().to_bytes();
        if number < 3 {
            return Response::builder().status(503).header("retry-after", "0").body(body_of("")).unwrap();
        }
        Response::new(body_of(body))
    })
    .unwrap();
    let gateway = gateway(
        &base(&upstream),
        "retry.throttled_backoff = { base = '1ms', cap = '1ms' }\n\
                                             retry.backoff = { base = '1ms', cap = '1ms' }",
    )
    .await;
    let body: Vec<u8> = (0..10_000_000u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    let reply = send(gateway.local_addr(), post("/v3/id-verification/", body.clone())).await;
    assert_eq!((reply.header("x-didit-attempts"), reply.bytes.len()), ("3", body.len()));
    assert!(reply.bytes == body, "the bytes are others");
}

#[tokio::test]
async fn a_body_that_stops_coming_is_not_waited_for() {
    let upstream = echo();
    let gateway = gateway(&base(&upstream), "gateway.body_timeout = '100ms'").await;
    let mut stream = TcpStream::connect(gateway.local_addr()).await.unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\nhello").await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("body-slow"), "{answer}");
}

#[tokio::test]
async fn an_application_that_leaves_in_the_middle_leaves_nothing_behind() {
    let upstream = echo();
    let gateway = gateway(&base(&upstream), "").await;
    let mut stream = TcpStream::connect(gateway.local_addr()).await.unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\nhello").await.unwrap();
    drop(stream);
    let in_flight = async || {
        let status = send(gateway.operations_addr().unwrap(), get("/status")).await;
        status.json()["calls_in_flight"].as_u64().unwrap()
    };
    while timeout(LONG, in_flight()).await.unwrap() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_made_to_look_whole() {
    for framing in ["content-length: 100\r\n\r\nhello", "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"] {
        let upstream = Upstream::raw(move |_, mut stream| async move {
            until(&mut stream, "\r\n\r\n").await;
            stream.write_all(format!("HTTP/1.1 200 OK\r\n{framing}").as_bytes()).await.unwrap();
            // With RST in place of FIN.
            let _ = stream.set_zero_linger();
        })
        .unwrap();
        let gateway = gateway(&base(&upstream), "").await;
        let answer = raw(gateway.local_addr(), "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 200") || answer.starts_with("HTTP/1.1 502"),
            "{answer:?}"
        );
        assert!(!answer.ends_with("0\r\n\r\n"), "{answer:?}");
    }
}

#[tokio::test]
async fn an_answer_that_stalls_is_cut_off() {
    let upstream = Upstream::raw(|_, mut stream| async move {
        until(&mut stream, "\r\n\r\n").await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhello").await.unwrap();
        rest(&mut stream).await;
    })
    .unwrap();
    let gateway = gateway(&base(&upstream), "gateway.body_timeout = '100ms'").await;
    let answer = raw(gateway.local_addr(), "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer:?}");
}

#[tokio::test]
async fn an_application_that_does_not_read_is_let_go() {
    let upstream = Upstream::http(|_, _| async { Response::new(body_of(vec![b'x'; 64 * 1024 * 1024])) }).unwrap();
    let gateway = gateway(&base(&upstream), "gateway.body_timeout = '200ms'").await;
    let mut stream = TcpStream::connect(gateway.local_addr()).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let in_flight = async || {
        let status = send(gateway.operations_addr().unwrap(), get("/status")).await;
        status.json()["calls_in_flight"].as_u64().unwrap()
    };
    let mut head = [0; 15];
    stream.read_exact(&mut head).await.unwrap();
    while timeout(LONG, in_flight()).await.unwrap() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn bad_uploads_of_one_application_do_not_shut_out_the_others() {
    for upstream_h2c in [false, true] {
        let config = format!(
            "circuit_breaker.consecutive_failures = 2\nretry.max_attempts = 1\n\
             gateway = {{ max_body = 10, body_timeout = '100ms', upstream_h2c = {upstream_h2c} }}"
        );
        let scene = scene(didit_sandbox::Sandbox::builder().build().unwrap(), &config).await;
        let gateway = &scene.gateway;
        let head = "POST /v3/session/ HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
        // Too large, too slow, and no chunk.
        for (rest, status) in [("ff\r\nmore than that", "413"), ("", "408"), ("zz\r\n", "400")] {
            for _ in 0..3 {
                let answer = raw(gateway.local_addr(), format!("{head}{rest}")).await;
                // Over HTTP/2 the client does not say what the body failed of.
                assert!(answer.starts_with(&format!("HTTP/1.1 {status}")) || upstream_h2c, "{answer}");
                assert!(!answer.contains("circuit-open"), "{answer}");
            }
        }
        let status = send(gateway.operations_addr().unwrap(), get("/status")).await.json();
        for (group, circuit) in status["circuits"].as_object().unwrap() {
            assert_eq!((&circuit["state"], &circuit["failures"]), (&"closed".into(), &0.into()), "{group}");
        }
        assert_eq!(send(gateway.local_addr(), get("/v3/sessions/")).await.status, 200);
    }
}

#[tokio::test]
async fn every_answer_that_leaves_a_body_unread_arrives_and_ends_the_connection() {
    let upstream = Upstream::http(|_, _| async {
        let mut response = Response::new(body_of(""));
        *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
        response
    })
    .unwrap();
    let config = "circuit_breaker.consecutive_failures = 1\nretry.max_attempts = 1";
    let gateway = gateway(&base(&upstream), config).await;
    assert_eq!(send(gateway.local_addr(), get("/v3/sessions/")).await.status, 500);
    let mut stream = TcpStream::connect(gateway.local_addr()).await.unwrap();
    let open = "\"layer\":\"circuit-breaker\"";
    // Without a body there is nothing unread.
    for _ in 0..2 {
        stream.write_all(b"GET /v3/sessions/ HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let answer = until(&mut stream, "}").await;
        assert!(answer.contains(open) && !answer.contains("connection: close"), "{answer}");
    }
    let length = 4 << 20;
    let head = format!("POST /v3/session/ HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    // All of it goes out before anything is read, as with clients that cannot do both at once.
    stream.write_all(&vec![b'x'; length]).await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains(open), "{answer}");
    assert!(answer.contains("connection: close\r\n"), "{answer}");
}

#[tokio::test]
async fn slow_uploads_of_one_application_do_not_shut_out_the_others() {
    // The time for an attempt, or for the whole call, ends before the body does. Neither path is a route of Didit's.
    for end in ["attempt_timeout.unknown = '200ms'", "deadline.total = '200ms'"] {
        let config = format!("circuit_breaker.consecutive_failures = 2\nretry.max_attempts = 1\n{end}");
        let scene = scene(didit_sandbox::Sandbox::builder().build().unwrap(), &config).await;
        let gateway = &scene.gateway;
        let head = "POST /v3/else/ HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\n";
        for _ in 0..3 {
            let mut stream = TcpStream::connect(gateway.local_addr()).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            let (mut reader, mut writer) = stream.split();
            let mut answer = Vec::new();
            let drip = async {
                // Slow is what this client is; it never stands still for as long as a body may.
                while writer.write_all(b"x").await.is_ok() {
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = drip => {}
                read = timeout(LONG, reader.read_to_end(&mut answer)) => { read.unwrap().unwrap(); }
            }
            let answer = String::from_utf8(answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("problem:body-slow"), "{end}: {answer}");
        }
        let status = send(gateway.operations_addr().unwrap(), get("/status")).await.json();
        for (group, circuit) in status["circuits"].as_object().unwrap() {
            assert_eq!((&circuit["state"], &circuit["failures"]), (&"closed".into(), &0.into()), "{end}: {group}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_that_wait_for_their_turn_keep_no_others_on_the_connection_from_being_sent() {
    let upstream = echo();
    let config = "gateway.body_timeout = '800ms'\n\
                  [pacing]\nlimits = 'none'\nscopes = [{ name = 'u', limit = 30, window = '2500ms', methods = ['POST'] }]";
    let gateway = gateway(&base(&upstream), config).await;
    let (client, address) = (h2c_client(), gateway.local_addr());
    // From here on there is one connection.
    assert_eq!(send_with(&client, address, get("/")).await.status, 200);
    let mut uploads = tokio::task::JoinSet::new();
    for _ in 0..60 {
        let client = client.clone();
        uploads.spawn(async move { send_with(&client, address, post("/v3/else/", vec![b'x'; 100_000])).await });
    }
    for reply in uploads.join_all().await {
        assert_eq!(reply.status, 200, "{reply:?}");
        assert!(String::from_utf8_lossy(&reply.bytes).ends_with("Ok(100000)"), "{reply:?}");
    }
}
