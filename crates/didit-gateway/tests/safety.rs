//! Who may use the gateway, and for what.

#![allow(clippy::panic, clippy::unwrap_used, reason = "tests")]

mod support;

use http::StatusCode;
use support::*;

const TOKEN: &str = "0123456789abcdef-token";

#[tokio::test]
async fn it_is_no_proxy_for_anything_else() {
    let upstream = echo();
    let gateway = gateway(&base(&upstream), "").await;
    for (request, status) in [
        ("CONNECT example.com:443 HTTP/1.1\r\nhost: example.com:443\r\n\r\n", "405"),
        ("GET http://example.com/ HTTP/1.1\r\nhost: example.com\r\n\r\n", "400"),
        ("GET http://localhost/ HTTP/1.1\r\nhost: localhost\r\n\r\n", "400"),
        ("OPTIONS * HTTP/1.1\r\nhost: localhost\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nhost: evil.example\r\n\r\n", "421"),
        ("GET / HTTP/1.1\r\nhost: localhost.evil.example:8080\r\n\r\n", "421"),
        ("GET / HTTP/1.1\r\nhost: localhost@evil.example\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nhost: user@localhost\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nhost: \r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nhost: localhost\r\norigin: https://evil.example\r\n\r\n", "403"),
        ("GET / HTTP/1.1\r\nhost: localhost\r\nsec-fetch-site: cross-site\r\n\r\n", "403"),
        ("GET / HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n", "501"),
        ("GET / HTTP/1.1\r\nhost: localhost\r\nexpect: tea\r\n\r\n", "417"),
        ("GET / HTTP/1.1\r\nhost: localhost\r\nx-didit-priority: highest\r\n\r\n", "400"),
        ("POST / HTTP/1.1\r\nhost: localhost\r\nx-operation-id: \x7f\r\ncontent-length: 0\r\n\r\n", "400"),
    ] {
        let answer = raw(gateway.local_addr(), request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request:?}: {answer:?}");
    }
    assert_eq!(upstream.accepted(), 0);
    for good in ["localhost", "127.0.0.1:8080", "[::1]:8080", "LocalHost:1"] {
        let request = format!("GET / HTTP/1.1\r\nhost: {good}\r\nconnection: close\r\n\r\n");
        let answer = raw(gateway.local_addr(), request).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{good}: {answer:?}");
    }
}

#[tokio::test]
async fn http2_is_held_to_the_same() {
    let upstream = echo();
    let gateway = gateway(&base(&upstream), "").await;
    let stream = tokio::net::TcpStream::connect(gateway.local_addr()).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    for (uri, host, status) in [
        ("http://evil.example/", None, 421),
        ("http://localhost/", Some("evil.example"), 400),
        ("http://localhost/", Some("localhost"), 200),
        ("http://localhost/", None, 200),
    ] {
        let mut request = http::Request::get(uri).version(http::Version::HTTP_2).body(()).unwrap();
        if let Some(host) = host {
            request.headers_mut().insert("host", host.parse().unwrap());
        }
        let (response, _) = sender.send_request(request, true).unwrap();
        assert_eq!(response.await.unwrap().status(), status, "{uri} {host:?}");
    }
    let connect = http::Request::connect("localhost:443").version(http::Version::HTTP_2).body(()).unwrap();
    let (response, _) = sender.send_request(connect, true).unwrap();
    assert_eq!(response.await.unwrap().status(), 405);
}

#[tokio::test]
async fn with_a_token_only_those_who_have_it_are_served() {
    let upstream = echo();
    let gateway = gateway(&base(&upstream), &format!("gateway.access_token = '{TOKEN}'")).await;
    let with = async |values: &[&str]| {
        let mut request = get("/");
        for value in values {
            request.headers_mut().append("x-gateway-token", value.parse().unwrap());
        }
        send(gateway.local_addr(), request).await.status
    };
    assert_eq!(with(&[TOKEN]).await, StatusCode::OK);
    let longer = format!("{TOKEN}x");
    for wrong in [&[][..], &[""], &["wrong"], &[&TOKEN[1..]], &[&longer], &[TOKEN, TOKEN], &["wrong", TOKEN]] {
        assert_eq!(with(wrong).await, StatusCode::UNAUTHORIZED, "{wrong:?}");
    }
}

#[tokio::test]
async fn an_address_for_everybody_takes_permission_and_a_token() {
    let refused = |config: &str| {
        let sources = tower_didit::config::Sources::new().with_section::<didit_gateway::Settings>("gateway");
        let sources = sources.text("test.toml", config, tower_didit::config::Format::Toml).unwrap();
        didit_gateway::Gateway::new(&sources).err().map(|error| error.to_string())
    };
    let listen = "[gateway]\nlisten = '0.0.0.0:0'\n";
    let error = refused(listen).unwrap();
    assert!(
        error.starts_with("test.toml, line 2, column 10: gateway.listen: 0.0.0.0:0")
            && error.contains("--allow-remote")
    );
    let error = refused(&format!("{listen}allow_remote = true")).unwrap();
    assert!(error.contains("gateway.listen") && error.contains("access token"), "{error}");
    let error = refused(&format!("{listen}allow_remote = true\naccess_token = 'short'")).unwrap();
    assert!(error.contains("line 4, column 16: gateway.access_token: a token of 5 bytes") && !error.contains("short"));
    assert_eq!(refused(&format!("{listen}allow_remote = true\naccess_token = '{TOKEN}'")), None);
    let error = refused("[gateway]\nmetrics = '[::]:0'").unwrap();
    assert!(error.contains("line 2, column 11: gateway.metrics") && error.contains("--allow-remote"), "{error}");
    // An IPv4 address of the loopback, written as IPv6.
    assert_eq!(refused("gateway.listen = '[::ffff:127.0.0.1]:0'"), None);
}

#[tokio::test]
async fn an_upstream_that_leads_back_is_noticed() {
    // A port that is free a moment later.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let sources = tower_didit::config::Sources::new()
        .with_section::<didit_gateway::Settings>("gateway")
        .given("--listen", "gateway.listen", address.to_string())
        .given("--metrics", "gateway.metrics", "off")
        .given("", "retry.max_attempts", "1")
        .given("--upstream", "base_url", format!("http://{address}"));
    let gateway = didit_gateway::Gateway::new(&sources).unwrap().start().await.unwrap();
    let reply = send(gateway.local_addr(), get("/v3/sessions/")).await;
    assert_eq!((reply.status, reply.header("x-didit-attempts")), (StatusCode::LOOP_DETECTED, "1"));
}

#[tokio::test]
async fn heads_and_bodies_are_bounded() {
    let upstream = echo();
    let config = "[gateway]\nmax_body = 1000\nmax_head = 8192\nmax_headers = 20";
    let gateway = gateway(&base(&upstream), config).await;
    let head = |fields: String| format!("GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{fields}\r\n");
    let long = raw(gateway.local_addr(), head(format!("x: {}\r\n", "y".repeat(20_000)))).await;
    assert!(long.starts_with("HTTP/1.1 431"), "{long}");
    let many = raw(gateway.local_addr(), head((0..50).map(|n| format!("x{n}: y\r\n")).collect())).await;
    assert!(many.starts_with("HTTP/1.1 431"), "{many}");
    let uri =
        raw(gateway.local_addr(), format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "y".repeat(70_000))).await;
    assert!(uri.starts_with("HTTP/1.1 414") || uri.starts_with("HTTP/1.1 431"), "{uri}");
    let announced = send(gateway.local_addr(), post("/", vec![b'x'; 1_001])).await;
    assert_eq!((announced.status, announced.layer().as_str()), (StatusCode::PAYLOAD_TOO_LARGE, "gateway"));
    assert_eq!(upstream.accepted(), 0);
    assert_eq!(send(gateway.local_addr(), post("/", vec![b'x'; 1_000])).await.status, StatusCode::OK);
    let chunk = format!("3e8\r\n{}\r\n", "x".repeat(1_000));
    let request =
        format!("POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n");
    let unannounced = raw(gateway.local_addr(), request).await;
    assert!(unannounced.starts_with("HTTP/1.1 413"), "{unannounced}");
}

#[tokio::test]
async fn pages_in_browsers_are_no_operators() {
    let upstream = echo();
    let gateway = gateway(&base(&upstream), "").await;
    let operations = gateway.operations_addr().unwrap();
    for (fields, status) in [
        ("host: evil.example", "421"),
        ("host: localhost\r\norigin: https://evil.example", "403"),
        ("host: localhost", "200"),
    ] {
        for path in ["/status", "/healthz"] {
            let request = format!("GET {path} HTTP/1.1\r\n{fields}\r\nconnection: close\r\n\r\n");
            let answer = raw(operations, request).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path} {fields}: {answer}");
        }
    }
}

#[tokio::test]
async fn a_scraper_elsewhere_asks_by_the_name_of_the_machine() {
    let upstream = echo();
    let config = format!("[gateway]\nallow_remote = true\naccess_token = '{TOKEN}'\nmetrics = '0.0.0.0:0'");
    let sources = tower_didit::config::Sources::new().with_section::<didit_gateway::Settings>("gateway");
    let sources = sources.text("test.toml", &config, tower_didit::config::Format::Toml).unwrap();
    let sources = sources.given("--listen", "gateway.listen", "127.0.0.1:0").given("", "base_url", base(&upstream));
    let gateway = didit_gateway::Gateway::new(&sources).unwrap().start().await.unwrap();
    let request = "GET /healthz HTTP/1.1\r\nhost: machine-7\r\nconnection: close\r\n\r\n";
    let port = gateway.operations_addr().unwrap().port();
    let answer = raw(std::net::SocketAddr::from(([127, 0, 0, 1], port)), request).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // The other port is on the loopback, and goes by its names alone.
    let request = format!("GET / HTTP/1.1\r\nhost: machine-7\r\nx-gateway-token: {TOKEN}\r\n\r\n");
    let answer = raw(gateway.local_addr(), request).await;
    assert!(answer.starts_with("HTTP/1.1 421"), "{answer}");
}
