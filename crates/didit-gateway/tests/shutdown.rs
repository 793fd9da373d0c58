//! The end: what is under way finishes, what is not is told to come back.

#![allow(clippy::panic, clippy::unwrap_used, reason = "tests")]

mod support;

use std::{sync::Arc, time::Duration};

use didit_gateway::RunningGateway;
use didit_sandbox::{DEFAULT_WORKFLOW_ID, Sandbox};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::json;
use support::*;
use tests::{AnyBody, Upstream};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, copy, duplex},
    net::{TcpSocket, TcpStream},
    sync::Notify,
    time::{sleep, timeout},
};

/// An upstream that says when it has a request, and answers when it is told to.
fn gated() -> (Upstream, Arc<Notify>, Arc<Notify>) {
    gated_with(|| Response::new(body_of("finished")))
}

fn gated_with(answer: fn() -> Response<AnyBody>) -> (Upstream, Arc<Notify>, Arc<Notify>) {
    let (arrived, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (said, told) = (Arc::clone(&arrived), Arc::clone(&go_on));
    let upstream = Upstream::http(move |_, _| {
        let (said, told) = (Arc::clone(&said), Arc::clone(&told));
        async move {
            said.notify_one();
            told.notified().await;
            answer()
        }
    });
    (upstream.unwrap(), arrived, go_on)
}

#[tokio::test]
async fn a_call_under_way_finishes_and_new_ones_are_told_to_come_back() {
    let (upstream, arrived, go_on) = gated();
    let gateway = gateway(&base(&upstream), "").await;
    let (address, operations) = (gateway.local_addr(), gateway.operations_addr().unwrap());
    // A connection from before the end.
    let kept = client();
    assert_eq!(send(operations, get("/readyz")).await.status, StatusCode::OK);
    let call = tokio::spawn(send(address, get("/v3/sessions/")));
    timeout(LONG, arrived.notified()).await.unwrap();
    let down = tokio::spawn(gateway.shutdown());
    while send(operations, get("/readyz")).await.status == StatusCode::OK {}
    assert_eq!(send(operations, get("/healthz")).await.status, StatusCode::OK);
    let refused = send_with(&kept, address, get("/v3/sessions/")).await;
    assert_eq!((refused.status, refused.layer().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "gateway"));
    assert_eq!((refused.header("retry-after"), refused.header("connection")), ("1", "close"));
    go_on.notify_one();
    let finished = call.await.unwrap();
    assert_eq!((finished.status, finished.bytes.as_ref()), (StatusCode::OK, &b"finished"[..]));
    timeout(LONG, down).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_connection_of_http2_ends_when_its_calls_from_before_are_answered() {
    let (upstream, arrived, go_on) = gated();
    let gateway = gateway(&base(&upstream), "gateway.grace = '600s'").await;
    let address = gateway.local_addr();
    let stream = TcpStream::connect(address).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = || Request::get(format!("http://{address}/v3/sessions/")).body(()).unwrap();
    let (call, _) = client.clone().send_request(request(), true).unwrap();
    timeout(LONG, arrived.notified()).await.unwrap();
    let down = tokio::spawn(gateway.shutdown());
    // Others are told by now.
    sleep(Duration::from_millis(600)).await;
    let mut ready = client.ready().await.unwrap();
    let told = ready.send_request(request(), true).unwrap().0.await.unwrap();
    assert_eq!(
        (told.status(), &told.headers()["retry-after"]),
        (StatusCode::SERVICE_UNAVAILABLE, &"1".parse().unwrap())
    );
    go_on.notify_one();
    let mut answer = timeout(LONG, call).await.unwrap().unwrap().into_body();
    assert_eq!(answer.data().await.unwrap().unwrap(), "finished");
    drop((answer, told, ready));
    let _ = timeout(LONG, connection).await.unwrap().unwrap();
    timeout(LONG, down).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_call_in_a_queue_is_told_to_come_back() {
    let upstream = echo();
    let config = "[pacing]\nlimits = 'none'\nscopes = [{ name = 'g', limit = 1, methods = ['GET'] }]";
    let gateway = gateway(&base(&upstream), config).await;
    let (address, operations) = (gateway.local_addr(), gateway.operations_addr().unwrap());
    send(address, get("/v3/sessions/")).await;
    let queued = tokio::spawn(send(address, get("/v3/sessions/")));
    while send(operations, get("/status")).await.json()["scopes"]["g"]["waiting"] != 1 {}
    timeout(LONG, gateway.shutdown()).await.unwrap();
    let queued = queued.await.unwrap();
    assert_eq!((queued.status, queued.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "1"));
    assert_eq!((queued.layer().as_str(), queued.header("x-didit-attempts")), ("gateway", "0"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_taken_while_the_gateway_stops_has_an_answer() {
    let upstream = echo();
    let gateway = gateway(&base(&upstream), "").await;
    let address = gateway.local_addr();
    let down = tokio::spawn(gateway.shutdown());
    let mut calls = tokio::task::JoinSet::new();
    // Until nobody listens any more.
    while let Ok(mut stream) = TcpStream::connect(address).await {
        calls.spawn(async move {
            // Some take their time, but not so long that it would be theirs to wait.
            sleep(Duration::from_millis(20)).await;
            stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.ok()?;
            Some(rest(&mut stream).await)
        });
        // They come one after the other, as long as the gateway listens: its time is that of real sockets.
        sleep(Duration::from_millis(2)).await;
    }
    let answers = calls.join_all().await;
    let told = answers.iter().flatten().filter(|answer| answer.starts_with("HTTP/1.1 503")).count();
    // One may have come between the last look at who waits and the end of listening.
    assert!(told + 1 >= answers.len() && told > 10, "{told} of {}: {answers:?}", answers.len());
    timeout(LONG, down).await.unwrap().unwrap();
}

/// What becomes of a call that failed once, and waits longer for its next attempt than a gateway that stops has time.
async fn stopped_between_attempts(upstream: &str, config: &str) -> Reply {
    let gateway = gateway(upstream, config).await;
    let (address, operations) = (gateway.local_addr(), gateway.operations_addr().unwrap());
    let call = tokio::spawn(send(address, get("/v3/sessions/")));
    let in_budget = async || {
        let budget = send(operations, get("/status")).await.json()["retry_budget"].clone();
        budget["tokens"] == budget["capacity"]
    };
    while timeout(LONG, in_budget()).await.unwrap() {}
    timeout(LONG, gateway.shutdown()).await.unwrap();
    call.await.unwrap()
}

#[tokio::test]
async fn a_call_between_attempts_is_told_to_come_back_and_what_may_have_come_of_it() {
    let answers = |status: u16| {
        Upstream::http(move |_, _| async move {
            let response = Response::builder().status(status).header("retry-after", "60");
            response.body(body_of("")).unwrap()
        })
    };
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let (refuses, fails) = (answers(503).unwrap(), answers(502).unwrap());
    for (upstream, kind, detail) in [
        (closed, "stopping", "no attempt of the call was carried out"),
        (base(&refuses), "stopping", "no attempt of the call was carried out"),
        (base(&fails), "cut-off", "may have been carried out"),
    ] {
        let told = stopped_between_attempts(&upstream, "retry.backoff = { base = '60s', cap = '60s' }").await;
        let document = told.json();
        assert_eq!((told.status, told.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "1"), "{document}");
        assert_eq!((told.layer().as_str(), told.header("x-didit-attempts")), ("gateway", "1"));
        assert_eq!(document["type"], format!("urn:didit-gateway:problem:{kind}"));
        assert!(document["detail"].as_str().unwrap().contains(detail), "{document}");
    }
}

#[tokio::test]
async fn a_call_that_is_refused_while_the_gateway_stops_is_not_repeated() {
    let (upstream, arrived, go_on) =
        gated_with(|| Response::builder().status(503).header("retry-after", "20").body(body_of("")).unwrap());
    let gateway = gateway(&base(&upstream), "").await;
    let operations = gateway.operations_addr().unwrap();
    let call = tokio::spawn(send(gateway.local_addr(), get("/v3/sessions/")));
    timeout(LONG, arrived.notified()).await.unwrap();
    let down = tokio::spawn(gateway.shutdown());
    while send(operations, get("/readyz")).await.status == StatusCode::OK {}
    go_on.notify_one();
    timeout(LONG, down).await.unwrap().unwrap();
    let told = call.await.unwrap();
    assert_eq!((told.header("retry-after"), told.header("x-didit-attempts")), ("1", "1"));
    assert_eq!(told.json()["type"], "urn:didit-gateway:problem:stopping");
}

#[tokio::test]
async fn a_call_that_waits_for_a_circuit_is_told_to_come_back() {
    let upstream = Upstream::http(|_, _| async { Response::builder().status(502).body(body_of("")).unwrap() }).unwrap();
    let config = "circuit_breaker = { consecutive_failures = 1, open = '60s', open_cap = '60s' }\n\
                  retry.backoff = { base = '1ms', cap = '1ms' }";
    let told = stopped_between_attempts(&base(&upstream), config).await;
    assert_eq!((told.header("retry-after"), told.header("x-didit-attempts")), ("1", "1"));
    assert!(told.json()["detail"].as_str().unwrap().contains("may have been carried out"));
}

#[tokio::test]
async fn beyond_the_grace_period_a_call_is_told_that_it_may_have_been_carried_out() {
    let (upstream, arrived, _never) = gated();
    let gateway = gateway(&base(&upstream), "gateway.grace = '50ms'").await;
    let call = tokio::spawn(send(gateway.local_addr(), get("/v3/sessions/")));
    timeout(LONG, arrived.notified()).await.unwrap();
    timeout(LONG, gateway.shutdown()).await.unwrap();
    let cut_off = call.await.unwrap();
    assert_eq!((cut_off.status, cut_off.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, ""));
    assert!(cut_off.json()["detail"].as_str().unwrap().contains("may have been carried out"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_no_call_that_was_taken_is_lost() {
    let sandbox = Sandbox::builder()
        .limits(didit_api::Limits::none())
        .latency(didit_sandbox::Latency::uniform(Duration::from_millis(1), Duration::from_millis(20)));
    let config = "pacing.limits = 'none'";
    let Scene { sandbox, server: _server, gateway } = scene(sandbox.build().unwrap(), config).await;
    let address = gateway.local_addr();
    let workers = (0..32).map(|worker| {
        tokio::spawn(async move {
            let (client, mut made, mut come_back) = (client(), 0, 0);
            for call in 0.. {
                let body = json!({ "workflow_id": DEFAULT_WORKFLOW_ID, "vendor_data": format!("{worker}-{call}") });
                let request = Request::post(format!("http://{address}/v3/session/"));
                let request = request.header("content-type", "application/json").body(Full::from(body.to_string()));
                // Nobody listens any more, or the connection had ended before the request came.
                let Ok(response) = client.request(request.unwrap()).await else { break };
                let status = response.status();
                response.into_body().collect().await.unwrap();
                match status {
                    StatusCode::CREATED => made += 1,
                    StatusCode::SERVICE_UNAVAILABLE => come_back += 1,
                    other => panic!("{other}"),
                }
            }
            (made, come_back)
        })
    });
    let workers: Vec<_> = workers.collect();
    // In the middle of it: there is no other way to say so.
    while sandbox.stats().sessions_made < 500 {
        sleep(Duration::from_millis(1)).await;
    }
    timeout(LONG, gateway.shutdown()).await.unwrap();
    let (mut made, mut come_back) = (0, 0);
    for worker in workers {
        let (its_own, told) = worker.await.unwrap();
        made += its_own;
        come_back += told;
    }
    assert!(made >= 500 && come_back > 0, "{made} made, {come_back} told to come back");
    assert_eq!(sandbox.stats().sessions_made, made, "every session that was made was told of");
}

#[tokio::test]
async fn whoever_waits_for_a_place_is_told_to_come_back() {
    let upstream = echo();
    let gateway = gateway(&base(&upstream), "gateway.max_connections = 1").await;
    let address = gateway.local_addr();
    // The only place.
    let kept = client();
    assert_eq!(send_with(&kept, address, get("/v3/sessions/")).await.status, StatusCode::OK);
    let request = "GET /v3/sessions/ HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut waiting = TcpStream::connect(address).await.unwrap();
    waiting.write_all(request.as_bytes()).await.unwrap();
    timeout(LONG, gateway.shutdown()).await.unwrap();
    let answer = rest(&mut waiting).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("problem:stopping"), "{answer:?}");
    assert_eq!(upstream.accepted(), 1);
}

/// More than all that lies between the gateway and whoever reads can keep.
const LONG_ANSWER: usize = 16 << 20;

fn answers_of(length: usize) -> Upstream {
    Upstream::http(move |_, _| async move { Response::new(body_of(vec![b'x'; length])) }).unwrap()
}

#[tokio::test]
async fn an_answer_that_is_read_slowly_over_http1_is_whole() {
    let upstream = answers_of(LONG_ANSWER);
    let config = "gateway = { grace = '600s', idle_timeout = '200ms', body_timeout = '2s' }";
    let gateway = gateway(&base(&upstream), config).await;
    let mut stream = TcpStream::connect(gateway.local_addr()).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut came = stream.read(&mut [0; 15]).await.unwrap();
    let down = tokio::spawn(gateway.shutdown());
    let mut piece = vec![0; 64 << 10];
    loop {
        // Slow is what this client is: it has not read it all when the gateway is done with whoever is idle.
        sleep(Duration::from_millis(10)).await;
        match timeout(LONG, stream.read(&mut piece)).await.unwrap().unwrap() {
            0 => break,
            read => came += read,
        }
    }
    assert!(came > LONG_ANSWER, "{came} of {LONG_ANSWER} bytes and a head");
    timeout(LONG, down).await.unwrap().unwrap();
}

/// A connection over which no more than a piece comes every `pause`, and anything goes at once.
fn slowly(stream: TcpStream, piece: usize, pause: Duration) -> DuplexStream {
    let (ours, theirs) = duplex(piece);
    let (mut from, mut to) = stream.into_split();
    let (mut sent, mut came) = tokio::io::split(theirs);
    tokio::spawn(async move { copy(&mut sent, &mut to).await });
    tokio::spawn(async move {
        let mut piece = vec![0; piece];
        while let Ok(read @ 1..) = from.read(&mut piece).await {
            sleep(pause).await;
            came.write_all(&piece[..read]).await.unwrap();
        }
    });
    ours
}

/// Reads an answer over HTTP/2 while the gateway stops: `window` bytes may come at once, and are taken every `pause`.
async fn read_over_http2(length: usize, window: u32, pause: Duration, config: &str) {
    let upstream = answers_of(length);
    let gateway = gateway(&base(&upstream), config).await;
    let stream = TcpStream::connect(gateway.local_addr()).await.unwrap();
    read_from(gateway, stream, length, window, pause).await;
}

async fn read_from(
    gateway: RunningGateway,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    length: usize,
    window: u32,
    pause: Duration,
) {
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(window).initial_connection_window_size(window.max(1 << 16));
    let (mut client, connection) = builder.handshake::<_, bytes::Bytes>(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::get(format!("http://{}/", gateway.local_addr())).body(()).unwrap();
    let answer = client.send_request(request, true).unwrap().0;
    let mut body = timeout(LONG, answer).await.unwrap().unwrap().into_body();
    let down = tokio::spawn(gateway.shutdown());
    let mut came = 0;
    while let Some(piece) = timeout(LONG, body.data()).await.unwrap() {
        // Slow is what this client is.
        sleep(pause).await;
        let read = piece.unwrap().len();
        body.flow_control().release_capacity(read).unwrap();
        came += read;
    }
    assert_eq!(came, length);
    drop((body, client));
    timeout(LONG, down).await.unwrap().unwrap();
    let _ = timeout(LONG, connection).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_answer_that_is_read_slowly_over_http2_is_whole() {
    read_over_http2(2 << 20, 1 << 16, Duration::from_millis(1), "gateway.grace = '600s'").await;
}

#[tokio::test]
async fn an_answer_of_which_only_the_end_is_left_is_read_to_its_end() {
    // It has been handed out when the gateway stops. Who takes it is slower than one who is idle may be, and in all than
    // one may be with whom nothing moves.
    let config = "gateway = { grace = '600s', idle_timeout = '200ms', body_timeout = '2s' }";
    read_over_http2(6, 1, Duration::from_millis(500), config).await;
}

#[tokio::test]
async fn an_answer_that_was_written_long_before_it_is_read_is_whole() {
    let length = 1_200_000;
    let upstream = answers_of(length);
    let gateway = gateway(&base(&upstream), "gateway.grace = '600s'").await;
    // The kernel has the second half while the first is read. hyper's PING comes behind it, and what the client says it can
    // take meanwhile must find somebody.
    let stream = TcpStream::connect(gateway.local_addr()).await.unwrap();
    let stream = slowly(stream, 32 << 10, Duration::from_millis(150));
    read_from(gateway, stream, length, 600_000, Duration::ZERO).await;
}

#[tokio::test]
async fn an_answer_for_which_a_peer_has_no_room_yet_is_whole() {
    // It is too short for the gateway to give its reader any time, and goes into the kernel at once, which cannot send it.
    let length = 60_000;
    let upstream = answers_of(length);
    let gateway = gateway(&base(&upstream), "gateway.grace = '600s'").await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(2 << 10).unwrap();
    let stream = socket.connect(gateway.local_addr()).await.unwrap();
    let stream = slowly(stream, 1 << 10, Duration::from_millis(100));
    read_from(gateway, stream, length, 1 << 16, Duration::ZERO).await;
}

#[tokio::test]
async fn a_peer_of_http2_that_answers_no_ping_does_not_hold_the_gateway_up() {
    let upstream = echo();
    let config = "gateway = { grace = '600s', idle_timeout = '600s', body_timeout = '600s' }";
    let gateway = gateway(&base(&upstream), config).await;
    let mut stream = TcpStream::connect(gateway.local_addr()).await.unwrap();
    let request = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\
                    \0\0\x0e\x01\x05\0\0\0\x01\x82\x86\x84\x41\x09localhost";
    stream.write_all(request).await.unwrap();
    until(&mut stream, "GET /").await;
    timeout(LONG, gateway.shutdown()).await.unwrap();
    assert_eq!(upstream.accepted(), 1);
}

#[tokio::test]
async fn a_head_that_has_begun_is_answered_while_the_gateway_stops() {
    let upstream = echo();
    let gateway = gateway(&base(&upstream), "gateway = { grace = '600s', header_timeout = '5s' }").await;
    let good = "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut streams = Vec::new();
    for before in ["", good] {
        let mut stream = TcpStream::connect(gateway.local_addr()).await.unwrap();
        stream.write_all(before.as_bytes()).await.unwrap();
        if !before.is_empty() {
            until(&mut stream, "Ok(0)").await;
        }
        streams.push(stream);
    }
    for stream in &mut streams {
        stream.write_all(&good.as_bytes()[..20]).await.unwrap();
    }
    let mut late = TcpStream::connect(gateway.local_addr()).await.unwrap();
    late.write_all(&good.as_bytes()[..20]).await.unwrap();
    let down = tokio::spawn(gateway.shutdown());
    // By now all connections have been told that were going to be, and what they were told is over.
    sleep(Duration::from_millis(1_600)).await;
    for stream in &mut streams {
        stream.write_all(&good.as_bytes()[20..]).await.unwrap();
        let answer = rest(stream).await;
        let document = document(&answer);
        assert_eq!(
            (&document["status"], &document["type"]),
            (&503.into(), &"urn:didit-gateway:problem:stopping".into())
        );
    }
    assert_eq!(document(&rest(&mut late).await)["status"], 408);
    timeout(LONG, down).await.unwrap().unwrap();
}
