//! What the gateway answers when Didit does not.

#![allow(clippy::panic, clippy::unwrap_used, reason = "tests")]

mod support;

use http::StatusCode;
use support::*;
use tests::Upstream;
use tokio::io::AsyncWriteExt;

/// One attempt, so that what it came to is what is seen.
const ONCE: &str = "retry.max_attempts = 1\n";

async fn once(upstream: &Upstream, config: &str) -> Reply {
    let gateway = gateway(&base(upstream), &format!("{ONCE}{config}")).await;
    send(gateway.local_addr(), get("/v3/sessions/")).await
}

fn retry_after(reply: &Reply) -> Option<u64> {
    let seconds = reply.headers.get("retry-after").map(|value| value.to_str().unwrap().parse().unwrap());
    assert_eq!(reply.json()["retry_after"].as_u64(), seconds);
    seconds
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_a_502() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gateway =
        gateway(&format!("http://{port}"), "retry.max_attempts = 3\nretry.backoff = { base = '1ms', cap = '1ms' }")
            .await;
    let reply = send(gateway.local_addr(), get("/v3/sessions/")).await;
    assert_eq!((reply.status, reply.layer().as_str()), (StatusCode::BAD_GATEWAY, "transport"));
    assert_eq!((reply.header("x-didit-attempts"), retry_after(&reply)), ("3", None));
    assert!(reply.json()["detail"].as_str().unwrap().contains("refused"));
}

#[tokio::test]
async fn an_upstream_that_makes_no_sense_is_a_502() {
    for answer in [
        "\0\x01garbage\r\n\r\n",
        "HTTP/1.1 2",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx",
        "",
    ] {
        for reset in [false, true] {
            let upstream = Upstream::raw(move |_, mut stream| async move {
                until(&mut stream, "\r\n\r\n").await;
                stream.write_all(answer.as_bytes()).await.unwrap();
                if reset {
                    let _ = stream.set_zero_linger();
                }
            })
            .unwrap();
            let reply = once(&upstream, "").await;
            assert_eq!(
                (reply.status, reply.layer().as_str()),
                (StatusCode::BAD_GATEWAY, "transport"),
                "{answer:?} {reset}"
            );
        }
    }
}

#[tokio::test]
async fn an_upstream_that_says_nothing_is_a_504() {
    let silent = || Upstream::raw(|_, mut stream| async move { drop(rest(&mut stream).await) }).unwrap();
    let reply = once(&silent(), "routes = [{ name = 'session-list', timeout = '100ms' }]").await;
    assert_eq!((reply.status, reply.layer().as_str()), (StatusCode::GATEWAY_TIMEOUT, "attempt-timeout"));
    assert_eq!(reply.header("x-didit-attempts"), "1");
    let reply = once(&silent(), "deadline.total = '100ms'").await;
    assert_eq!((reply.status, reply.layer().as_str()), (StatusCode::GATEWAY_TIMEOUT, "deadline"));
}

#[tokio::test]
async fn an_open_circuit_is_a_503_that_says_when_to_come_back() {
    let upstream = Upstream::raw(|_, stream| async move { drop(stream) }).unwrap();
    let config = "retry.max_attempts = 1\n[circuit_breaker]\nconsecutive_failures = 1\nopen = '20s'\nopen_cap = '20s'";
    let gateway = gateway(&base(&upstream), config).await;
    assert_eq!(send(gateway.local_addr(), get("/v3/sessions/")).await.layer(), "transport");
    let reply = send(gateway.local_addr(), get("/v3/sessions/")).await;
    assert_eq!((reply.status, reply.layer().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "circuit-breaker"));
    assert!((15..=20).contains(&retry_after(&reply).unwrap()), "20 s, of which jitter takes off up to a quarter");
    assert_eq!(reply.header("x-didit-attempts"), "0");
    // What fails apart is left alone apart.
    assert_eq!(send(gateway.local_addr(), post("/v3/aml/", "{}")).await.layer(), "transport");
}

#[tokio::test]
async fn a_quota_without_room_is_a_429_that_says_when_to_come_back() {
    let upstream = echo();
    let config =
        "deadline.total = '5s'\n[pacing]\nlimits = 'none'\nscopes = [{ name = 'g', limit = 1, methods = ['GET'] }]";
    let gateway = gateway(&base(&upstream), config).await;
    assert_eq!(send(gateway.local_addr(), get("/v3/sessions/")).await.status, StatusCode::OK);
    let reply = send(gateway.local_addr(), get("/v3/sessions/")).await;
    assert_eq!((reply.status, reply.layer().as_str()), (StatusCode::TOO_MANY_REQUESTS, "pacing"));
    assert!((55..=61).contains(&retry_after(&reply).unwrap()));
    assert_eq!(reply.header("x-didit-attempts"), "0");
}

#[tokio::test]
async fn didits_own_errors_are_not_problems_of_the_gateways() {
    for status in [400, 401, 403, 404, 429, 500, 503] {
        let upstream = Upstream::http(move |_, _| async move {
            http::Response::builder().status(status).body(body_of(r#"{"detail":"its own"}"#)).unwrap()
        })
        .unwrap();
        let reply = once(&upstream, "").await;
        assert_eq!((reply.status.as_u16(), reply.layer().as_str()), (status, ""));
        assert_eq!(reply.bytes, r#"{"detail":"its own"}"#);
    }
}
