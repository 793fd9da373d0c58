//! What passes, and how.

#![allow(clippy::panic, clippy::unwrap_used, reason = "tests")]

mod support;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use didit_sandbox::{DEFAULT_WORKFLOW_ID, Fault, Faults, Rule, Sandbox, When};
use http::{Response, StatusCode};
use serde_json::json;
use support::*;
use tests::Upstream;
use tokio::{io::AsyncWriteExt, net::TcpListener};

#[tokio::test]
async fn didits_answer_comes_back_as_it_is_with_two_headers() {
    let scene = scene(Sandbox::builder().build().unwrap(), "").await;
    let direct = send(scene.server.local_addr(), get("/v3/sessions/?limit=5")).await;
    assert_eq!(direct.status, StatusCode::FORBIDDEN, "without a key");
    let body = json!({ "workflow_id": DEFAULT_WORKFLOW_ID, "vendor_data": "user-7" }).to_string();
    let created = send(scene.gateway.local_addr(), post("/v3/session/", body)).await;
    assert_eq!((created.status, created.json()["vendor_data"].as_str()), (StatusCode::CREATED, Some("user-7")));
    assert_eq!((created.header("x-didit-attempts"), created.layer().as_str()), ("1", ""));
    assert!(!created.header("x-correlation-id").is_empty());

    for path in ["/v3/sessions", "/v3/nothing/", "/v3/session/not-a-uuid/decision/"] {
        let mut keyed = get(path);
        keyed.headers_mut().insert("x-api-key", didit_sandbox::DEFAULT_API_KEY.parse().unwrap());
        let direct = send(scene.server.local_addr(), keyed).await;
        let through = send(scene.gateway.local_addr(), get(path)).await;
        assert_eq!((through.status, &through.bytes), (direct.status, &direct.bytes), "{path}");
        assert_eq!(through.headers.get("location"), direct.headers.get("location"), "{path}");
    }
}

#[tokio::test]
async fn failures_that_may_be_repeated_are_and_the_answer_says_how_often() {
    let faults = Faults::none().with(Rule::new(Fault::status(StatusCode::SERVICE_UNAVAILABLE)).when(When::First(2)));
    let scene = scene(Sandbox::builder().faults(faults).build().unwrap(), FAST).await;
    let reply = send(scene.gateway.local_addr(), get("/v3/sessions/")).await;
    assert_eq!((reply.status, reply.header("x-didit-attempts")), (StatusCode::OK, "3"));
}

/// Repetitions without a wait worth mentioning.
const FAST: &str = "retry.backoff = { base = '1ms', cap = '2ms' }";

#[tokio::test]
async fn a_request_arrives_with_its_own_headers_and_the_gateways() {
    let upstream = echo();
    let gateway = gateway(&base(&upstream), "api_key = 'the-key'").await;
    let request = "POST /v3/aml/?a=b HTTP/1.1\r\nhost: localhost\r\nconnection: close, x-mine\r\nx-mine: 1\r\n\
                   te: trailers\r\nkeep-alive: 5\r\nproxy-authorization: Basic x\r\nupgrade: h2c\r\n\
                   x-gateway-token: whatever-it-is\r\nx-operation-id: order-7\r\nx-didit-priority: low\r\nx-kept: 1\r\n\
                   x-correlation-id: journey-7\r\ncontent-length: 2\r\n\r\n{}";
    let answer = raw(gateway.local_addr(), request).await;
    let seen = answer.split("\r\n\r\n").nth(1).unwrap();
    assert!(seen.starts_with("POST /v3/aml/?a=b\n") && seen.ends_with("\n\nOk(2)"), "{seen}");
    for kept in ["x-kept: 1\n", "x-api-key: the-key\n", "x-correlation-id: journey-7\n", "via: 1.1 didit-gateway-"] {
        assert!(seen.contains(kept), "{kept:?} is not in {seen}");
    }
    let host = base(&upstream).replace("http://", "host: ");
    assert!(seen.contains(&host) && seen.contains("content-length: 2\n"), "{seen}");
    for gone in ["x-mine", "te:", "keep-alive", "proxy-auth", "upgrade", "gateway-token", "operation-id", "priority"] {
        assert!(!seen.contains(gone), "{gone} is in {seen}");
    }
    assert!(answer.contains("x-correlation-id: journey-7\r\n"), "{answer}");
}

#[tokio::test]
async fn a_requests_own_key_goes_before_the_gateways() {
    let upstream = echo();
    let gateway = gateway(&base(&upstream), "api_key = 'the-key'").await;
    let mut own = get("/");
    own.headers_mut().insert("x-api-key", "its-own".parse().unwrap());
    let seen = String::from_utf8(send(gateway.local_addr(), own).await.bytes.to_vec()).unwrap();
    assert!(seen.contains("x-api-key: its-own\n") && !seen.contains("the-key"), "{seen}");
}

#[tokio::test]
async fn an_id_that_could_forge_a_log_line_is_replaced() {
    let upstream = echo();
    let gateway = gateway(&base(&upstream), "").await;
    let long = "x".repeat(10_000);
    for id in ["two words", "\"quoted\"", &long] {
        let mut request = get("/");
        request.headers_mut().insert("x-correlation-id", id.parse().unwrap());
        let reply = send(gateway.local_addr(), request).await;
        let seen = String::from_utf8(reply.bytes.to_vec()).unwrap();
        let new = reply.headers["x-correlation-id"].to_str().unwrap();
        assert_eq!(new.len(), 36, "{new}");
        assert!(seen.contains(&format!("x-correlation-id: {new}\n")), "{seen}");
    }
}

#[tokio::test]
async fn an_operation_has_one_key_however_often_it_is_called() {
    let upstream = echo();
    let key = async |operation: &'static str| {
        let gateway = gateway(&base(&upstream), "").await;
        let mut request = post("/v3/aml/", "{}");
        request.headers_mut().insert("x-operation-id", operation.parse().unwrap());
        let seen = String::from_utf8(send(gateway.local_addr(), request).await.bytes.to_vec()).unwrap();
        seen.lines().find_map(|line| line.strip_prefix("idempotency-key: ").map(str::to_owned)).unwrap()
    };
    let (one, again, other) = (key("order-7").await, key("order-7").await, key("order-8").await);
    assert!(one == again && one != other, "{one} {again} {other}");
}

#[tokio::test]
async fn one_connection_serves_many_calls_on_both_sides() {
    let upstream = echo();
    let gateway = gateway(&base(&upstream), "").await;
    let client = client();
    for _ in 0..20 {
        assert_eq!(send_with(&client, gateway.local_addr(), get("/")).await.status, StatusCode::OK);
    }
    assert_eq!(upstream.accepted(), 1);
}

#[tokio::test]
async fn answers_without_a_body_have_none() {
    let upstream = Upstream::http(|_, request| async move {
        let status = if request.method() == http::Method::HEAD { 200 } else { 204 };
        let response = Response::builder().status(status);
        let response = if status == 200 { response.header("content-length", "4711") } else { response };
        response.body(body_of("")).unwrap()
    })
    .unwrap();
    let gateway = gateway(&base(&upstream), "").await;
    let head = raw(gateway.local_addr(), "HEAD / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("content-length: 4711\r\n"), "{head}");
    assert!(head.ends_with("\r\n\r\n"), "{head}");
    let none = raw(gateway.local_addr(), "GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
    assert!(none.starts_with("HTTP/1.1 204") && none.ends_with("\r\n\r\n"), "{none}");
}

#[tokio::test]
async fn applications_may_speak_http2() {
    let scene = scene(Sandbox::builder().build().unwrap(), "").await;
    let client = h2c_client();
    let many = (0..50).map(|_| send_with(&client, scene.gateway.local_addr(), get("/v3/sessions/")));
    let many: Vec<_> = many.map(Box::pin).collect();
    for reply in many {
        assert_eq!(reply.await.status, StatusCode::OK);
    }
    let mut refused = get("/v3/sessions/");
    refused.headers_mut().insert("origin", "https://evil.example".parse().unwrap());
    assert_eq!(send_with(&client, scene.gateway.local_addr(), refused).await.layer(), "gateway");
}

#[tokio::test]
async fn an_upstream_without_tls_is_spoken_to_in_http2_if_told_so() {
    let scene = scene(Sandbox::builder().build().unwrap(), "gateway.upstream_h2c = true").await;
    let body = json!({ "workflow_id": DEFAULT_WORKFLOW_ID, "vendor_data": "user-7" }).to_string();
    assert_eq!(send(scene.gateway.local_addr(), post("/v3/session/", body)).await.status, StatusCode::CREATED);
}

/// A server with a certificate made on the spot that answers with the protocol that was agreed on.
async fn tls_server(protocols: &[&[u8]]) -> (String, std::path::PathBuf, Arc<AtomicUsize>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let file = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("ca-{}.pem", protocols.len()));
    std::fs::write(&file, made.cert.pem()).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, counted) = (acceptor.clone(), Arc::clone(&counted));
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                counted.fetch_add(1, Ordering::SeqCst);
                let service = hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| async move {
                    Ok::<_, std::convert::Infallible>(Response::new(body_of(format!("{:?}", request.version()))))
                });
                let io = hyper_util::rt::TokioIo::new(stream);
                let builder = hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new());
                let _ = builder.serve_connection(io, service).await;
            });
        }
    });
    (url, file, connections)
}

#[tokio::test]
async fn a_tls_upstream_decides_which_http_is_spoken() {
    for (protocols, version) in [(&[&b"h2"[..], b"http/1.1"][..], "HTTP/2.0"), (&[&b"http/1.1"[..]][..], "HTTP/1.1")] {
        let (url, ca, connections) = tls_server(protocols).await;
        let gateway = gateway(&url, &format!("gateway.ca_file = {ca:?}")).await;
        let client = h2c_client();
        for _ in 0..5 {
            let reply = send_with(&client, gateway.local_addr(), get("/")).await;
            assert_eq!((reply.status, reply.bytes.as_ref()), (StatusCode::OK, version.as_bytes()));
        }
        assert_eq!(connections.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn an_upstream_that_nobody_vouches_for_is_not_spoken_to() {
    let (url, _, connections) = tls_server(&[b"h2", b"http/1.1", b"http/1.0"]).await;
    let gateway = gateway(&url, "retry.max_attempts = 1").await;
    let reply = send(gateway.local_addr(), get("/")).await;
    assert_eq!((reply.status, reply.layer().as_str()), (StatusCode::BAD_GATEWAY, "transport"));
    assert_eq!(connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn requests_one_behind_the_other_are_answered_in_order() {
    let upstream = echo();
    let gateway = gateway(&base(&upstream), "").await;
    let mut stream = tokio::net::TcpStream::connect(gateway.local_addr()).await.unwrap();
    let requests = "GET /1 HTTP/1.1\r\nhost: localhost\r\n\r\nPOST /2 HTTP/1.1\r\nhost: localhost\r\n\
                    transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /3 HTTP/1.1\r\nhost: localhost\r\n\
                    connection: close\r\n\r\n";
    stream.write_all(requests.as_bytes()).await.unwrap();
    let answers = rest(&mut stream).await;
    let seen: Vec<_> = ["GET /1\n", "POST /2\n", "Ok(3)", "GET /3\n"].map(|part| answers.find(part).unwrap()).into();
    assert!(seen.is_sorted(), "{answers}");
}
