//! A gateway on a port, and ways to talk to it.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::panic, clippy::unwrap_used, reason = "a helper of tests")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use didit_gateway::{Gateway, RunningGateway, Settings};
use didit_sandbox::{DEFAULT_API_KEY, Sandbox, Server};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;
use tests::{AnyBody, Upstream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tower_didit::config::{Format, Sources};

/// Far more than anything here takes; a test that waits this long has failed.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// A gateway in front of an upstream, with settings.
pub(crate) async fn gateway(upstream: &str, config: &str) -> RunningGateway {
    try_gateway(upstream, config).unwrap().start().await.unwrap()
}

pub(crate) fn try_gateway(upstream: &str, config: &str) -> Result<Gateway, tower_didit::config::LoadError> {
    let sources = Sources::new().with_section::<Settings>(Settings::SECTION);
    let sources = sources.text("test.toml", config, Format::Toml)?;
    let sources = sources.given("--listen", "gateway.listen", "127.0.0.1:0").given("--upstream", "base_url", upstream);
    Gateway::new(&sources.given("--metrics", "gateway.metrics", "127.0.0.1:0"))
}

/// A sandbox on a port, and a gateway in front of it that holds its key.
pub(crate) struct Scene {
    pub(crate) sandbox: Sandbox,
    pub(crate) server: Server,
    pub(crate) gateway: RunningGateway,
}

pub(crate) async fn scene(sandbox: Sandbox, config: &str) -> Scene {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let server = didit_sandbox::serve(listener, sandbox.clone()).unwrap();
    let config = format!("api_key = '{DEFAULT_API_KEY}'\n{config}");
    let gateway = gateway(&format!("http://{}", server.local_addr()), &config).await;
    Scene { sandbox, server, gateway }
}

/// A client of HTTP/1.1.
pub(crate) fn client() -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).build_http()
}

/// A client that speaks HTTP/2 without asking.
pub(crate) fn h2c_client() -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).http2_only(true).build_http()
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Bytes,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Who decided, by the problem document; empty if the upstream answered.
    pub(crate) fn layer(&self) -> String {
        if self.header("content-type") != "application/problem+json" {
            return String::new();
        }
        let problem = self.json();
        assert_eq!(problem["status"], self.status.as_u16());
        assert_eq!(problem["correlation_id"], self.header("x-correlation-id"));
        assert!(problem["type"].as_str().unwrap().starts_with("urn:didit-gateway:problem:"), "{problem}");
        problem["layer"].as_str().unwrap().to_owned()
    }
}

pub(crate) async fn send(to: SocketAddr, request: Request<Full<Bytes>>) -> Reply {
    send_with(&client(), to, request).await
}

pub(crate) async fn send_with(
    client: &Client<HttpConnector, Full<Bytes>>,
    to: SocketAddr,
    mut request: Request<Full<Bytes>>,
) -> Reply {
    let path = request.uri().path_and_query().unwrap().clone();
    *request.uri_mut() = format!("http://{to}{path}").parse().unwrap();
    let response = timeout(LONG, client.request(request)).await.unwrap().unwrap();
    let (parts, body) = response.into_parts();
    let bytes = timeout(LONG, body.collect()).await.unwrap().unwrap().to_bytes();
    Reply { status: parts.status, headers: parts.headers, bytes }
}

pub(crate) fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).body(Full::default()).unwrap()
}

pub(crate) fn post(path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post(path).header("content-type", "application/json").body(Full::new(body.into())).unwrap()
}

/// Writes bytes to a connection, and reads until its end.
pub(crate) async fn raw(to: SocketAddr, bytes: impl AsRef<[u8]>) -> String {
    let mut stream = TcpStream::connect(to).await.unwrap();
    // The other side may close before it has read everything.
    let _ = stream.write_all(bytes.as_ref()).await;
    rest(&mut stream).await
}

/// The problem document of the only answer on a connection, which is whole.
pub(crate) fn document(answer: &str) -> Value {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let field = |name: &str| {
        let mut found = head.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let value = found.next().unwrap_or_else(|| panic!("no {name}: {answer}"));
        assert_eq!(found.next(), None, "two of {name}: {answer}");
        value
    };
    assert_eq!(field("content-type"), "application/problem+json");
    assert_eq!(field("content-length").parse(), Ok(body.len()), "{answer}");
    assert_eq!((field("connection"), field("x-didit-attempts")), ("close", "0"));
    let document: Value = serde_json::from_str(body).unwrap();
    assert_eq!(document["correlation_id"], field("x-correlation-id"));
    assert_eq!(document["layer"], "gateway");
    assert!(head.starts_with(&format!("HTTP/1.1 {} ", document["status"])), "{answer}");
    document
}

/// What comes until the connection's end.
pub(crate) async fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(read @ 1..) = timeout(LONG, stream.read(&mut piece)).await.unwrap() {
        answer.extend_from_slice(&piece[..read]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// Reads until a text has come.
pub(crate) async fn until(stream: &mut TcpStream, text: &str) -> String {
    let mut answer = String::new();
    let mut piece = [0; 4096];
    while !answer.contains(text) {
        let read = timeout(LONG, stream.read(&mut piece)).await.unwrap().unwrap();
        assert!(read > 0, "the connection ended with {answer:?} before {text:?}");
        answer.push_str(&String::from_utf8_lossy(&piece[..read]));
    }
    answer
}

/// An upstream that answers each request with its head, as it came.
pub(crate) fn echo() -> Upstream {
    Upstream::http(|_, request| async move {
        let mut text = format!("{} {}\n", request.method(), request.uri());
        for (name, value) in request.headers() {
            text.push_str(&format!("{name}: {}\n", value.to_str().unwrap()));
        }
        let body = request.into_body().collect().await.map(|body| body.to_bytes().len());
        text.push_str(&format!("\n{body:?}"));
        http::Response::new(body_of(text))
    })
    .unwrap()
}

pub(crate) fn body_of(text: impl Into<Bytes>) -> AnyBody {
    AnyBody::new(Full::new(text.into()))
}

pub(crate) fn base(upstream: &Upstream) -> String {
    upstream.uri("")
}

/// The binary, running.
pub(crate) struct Process {
    pub(crate) child: std::process::Child,
    pub(crate) address: SocketAddr,
    pub(crate) operations: SocketAddr,
    log: std::thread::JoinHandle<String>,
}

/// The binary with arguments, and with nothing of this process's environment that it would read.
pub(crate) fn binary(arguments: &[&str]) -> std::process::Command {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_didit-gateway"));
    command.args(arguments);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("DIDIT_") || name == "RUST_LOG") {
        command.env_remove(name);
    }
    command
}

impl Process {
    /// Starts it on free ports.
    pub(crate) fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        use std::io::{BufRead, Read};

        let mut command = binary(arguments);
        command.args(["--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]).envs(environment.iter().copied());
        let piped = std::process::Stdio::piped;
        let mut child = command.stdout(piped()).stderr(piped()).spawn().unwrap();
        let mut first = String::new();
        std::io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let log = std::thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).unwrap();
            text
        });
        let mut addresses = first.split_whitespace().filter_map(|word| word.strip_prefix("http://"));
        let mut next = || addresses.next().and_then(|word| word.trim_end_matches("/status").parse().ok());
        // The upstream's, if it is an address, stands between the two.
        let found: Vec<SocketAddr> = std::iter::from_fn(&mut next).collect();
        let (Some(address), Some(operations)) = (found.first(), found.last()) else { panic!("{first:?}") };
        Self { address: *address, operations: *operations, child, log }
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = std::process::Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Open descriptors.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Tells it to stop; its log, if it did so in good order.
    pub(crate) fn stop(mut self) -> String {
        self.signal("-TERM");
        assert!(self.child.wait().unwrap().success());
        std::mem::replace(&mut self.log, std::thread::spawn(String::new)).join().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
