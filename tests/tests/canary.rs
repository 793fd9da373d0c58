//! Marked secrets go through everything, and come out nowhere.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::{
    error::Error as StdError,
    fmt::{Debug, Write},
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::json;
use tests::{Answer, Body, JsonLog, ReadinessProbe, Upstream, sandbox};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_didit::{
    DiditLayer,
    body::ReplayBody,
    call::{CallOptions, CallReport},
    circuit_breaker::CircuitBreakerLayer,
    correlation::InboundCorrelationLayer,
    idempotency::{
        HashSecret,
        store::{Begun, Claim, Epoch, Key, MemoryStore, RedbStore, Settlement, Store, StoreFuture, Timestamp},
    },
    retry::RetryLayer,
    telemetry::SessionIdLayer,
    webhook::{Failure, inbox::MemoryInbox, sweep::Sweep},
};
use tracing_subscriber::{Registry, layer::SubscriberExt};

const API_KEY: &str = "canary-api-key";
const TOKEN: &str = "canary-session-token";
const URL: &str = "https://verify.didit.me/session/canary-hosted-url";
const DOCUMENT: &str = "CANARY-DOC-NUMBER-X0000000T";
const USER: &str = "canary-user-ada";
/// The first bytes of a JPEG, as base64.
const IMAGE: &str = "/9j/4AAQSkZJRgABAQCANARY";

/// All that must not come out, whatever is around it.
const SECRETS: [&str; 7] = [API_KEY, TOKEN, "canary-hosted-url", DOCUMENT, USER, IMAGE, "canary-query"];

/// What was told, and where.
#[derive(Default)]
struct Told(Vec<(&'static str, String)>);

impl Told {
    fn add(&mut self, place: &'static str, text: impl Into<String>) {
        self.0.push((place, text.into()));
    }

    /// An error as anybody may log it: with all that it is made of.
    fn add_error(&mut self, error: &(dyn StdError + 'static)) {
        let mut text = format!("{error:?} {error:#?}");
        let mut source = Some(error);
        while let Some(error) = source {
            let _ = write!(text, " {error}");
            source = error.source();
        }
        self.add("errors", text);
    }

    fn add_report(&mut self, report: Option<&CallReport>) {
        self.add("reports", format!("{report:?}"));
    }

    fn assert_clean(&self) {
        for (place, text) in &self.0 {
            assert!(!text.is_empty(), "nothing was told: {place}");
            for secret in SECRETS {
                assert!(!text.contains(secret), "{place} tell {secret}: {text}");
                // Debug output of bytes.
                let escaped = format!("{:?}", secret.as_bytes());
                assert!(!text.contains(escaped.trim_matches(['[', ']'])), "{place} tell {secret} as numbers");
            }
        }
    }
}

/// A request full of secrets.
fn request(path: &'static str, operation: &str) -> Request<Body> {
    let body = json!({
        "workflow_id": didit_sandbox::DEFAULT_WORKFLOW_ID,
        "vendor_data": USER,
        "document_number": DOCUMENT,
        "front_image": IMAGE,
        "callback": URL,
    });
    let mut request = Request::post(path).body(Full::from(body.to_string())).unwrap();
    let options = CallOptions::new().report().operation_id(operation.parse().unwrap());
    request.extensions_mut().insert(options);
    request.headers_mut().insert("authorization", HeaderValue::from_static(TOKEN));
    request.headers_mut().insert("baggage", HeaderValue::from_static(USER));
    request.headers_mut().insert("x-correlation-id", HeaderValue::from_static("canary-query <hostile>"));
    request
}

/// An answer full of secrets, as session creation gives it.
fn answer(status: StatusCode) -> Response<tests::AnyBody> {
    let body = json!({
        "session_id": "11111111-2222-4333-8444-555555555555",
        "session_token": TOKEN,
        "url": URL,
        "vendor_data": USER,
        "id_verification": { "document_number": DOCUMENT, "front_image": IMAGE },
    });
    let mut response = Response::new(Full::from(body.to_string()).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert("x-link", HeaderValue::from_static(URL));
    response
}

/// Everything that `tracing` was told, spans with all their fields, as text and as JSON, at every level and from every
/// crate: the client's, the server's and tokio's too.
#[derive(Clone, Default)]
struct Everything(Arc<Mutex<String>>);

struct Fields<'a>(&'a mut String);

impl tracing::field::Visit for Fields<'_> {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn Debug) {
        let _ = write!(self.0, "{field}={value:?} ");
    }
}

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Everything {
    fn on_new_span(&self, attributes: &tracing::span::Attributes<'_>, _: &tracing::span::Id, _: Context<'_, S>) {
        let mut text = self.0.lock().unwrap();
        let _ = writeln!(text, "{:?}", attributes.metadata());
        attributes.record(&mut Fields(&mut text));
    }

    fn on_record(&self, _: &tracing::span::Id, values: &tracing::span::Record<'_>, _: Context<'_, S>) {
        values.record(&mut Fields(&mut self.0.lock().unwrap()));
    }

    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut text = self.0.lock().unwrap();
        let _ = writeln!(text, "{:?}", event.metadata());
        event.record(&mut Fields(&mut text));
    }
}

type Context<'a, S> = tracing_subscriber::layer::Context<'a, S>;

/// Makes calls that succeed, fail, repeat, wait, are refused and are cancelled, and collects what is told of them.
async fn calls<S, RB, E>(told: &mut Told, didit: S, paths: &[&'static str])
where
    S: Service<Request<Body>, Response = Response<RB>, Error = tower_didit::stack::Error<E>> + Clone,
    RB: http_body::Body,
    E: StdError + 'static,
    RB::Error: Debug,
{
    let mut server = InboundCorrelationLayer::new().layer(SessionIdLayer::didit().layer(didit));
    for (number, path) in paths.iter().enumerate() {
        let request = request(path, &format!("operation-{number}"));
        let call = async { server.ready().await.ok()?.call(request).await.map_err(Box::new).into() };
        match tokio::time::timeout(Duration::from_secs(300), call).await {
            Ok(Some(Ok(response))) => {
                told.add_report(response.extensions().get());
                let _body = response.into_body().collect().await.map(http_body_util::Collected::to_bytes);
            }
            Ok(Some(Err(error))) => {
                told.add_report(error.report());
                told.add_error(&*error);
            }
            _ => {}
        }
    }
}

const PATHS: [&str; 4] = [
    "/v3/session/",
    "/v3/session/?token=canary-query",
    "/v3/id-verification/",
    "/v3/users/canary-user-ada/unknown/?q=canary-query",
];

#[test]
fn nothing_that_is_told_has_a_secret() {
    let everything = Everything::default();
    let log = JsonLog::default();
    let json = tracing_subscriber::fmt::layer().json().with_writer(log.clone());
    let subscriber = Registry::default().with(everything.clone()).with(json);
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let mut told = Told::default();
    let folder = std::env::temp_dir().join(format!("canary-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("store.redb");

    tracing::subscriber::with_default(subscriber, || {
        metrics::with_local_recorder(&recorder, || {
            over_sockets(&mut told);
            over_reqwest(&mut told);
            in_virtual_time(&mut told);
            with_a_file(&mut told, &file);
        });
    });
    told.add("spans and events", everything.0.lock().unwrap().clone());
    told.add("lines", log.text());
    told.add("metrics", metrics.render());
    told.add("the store's file", String::from_utf8_lossy(&std::fs::read(&file).unwrap()).into_owned());
    std::fs::remove_dir_all(&folder).unwrap();

    told.assert_clean();
    let spans = &told.0.iter().find(|(place, _)| *place == "spans and events").unwrap().1;
    for heard in ["hyper_util", "tower_didit::telemetry", "attempt ended", "call ended", "session known"] {
        assert!(spans.contains(heard), "{heard} was not heard");
    }
    let errors = told.0.iter().filter(|(place, _)| *place == "errors").count();
    assert!(errors >= 12, "{errors} errors");
    let lines = log.text();
    assert!(lines.contains("a sweep for missed webhooks"), "the sweep was not heard");
}

/// Through hyper's client and over a socket, so that what they tell is heard as well.
fn over_sockets(told: &mut Told) {
    let upstream = Upstream::http(|number, _| async move {
        answer(if number == 1 { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::CREATED })
    });
    let upstream = upstream.unwrap();
    let base = upstream.uri("");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let builder = DiditLayer::builder().api_key(API_KEY).base_url(base);
        told.add("Debug", format!("{builder:?}"));
        let layer = builder.build().unwrap();
        told.add("Debug", format!("{layer:?}"));
        let didit = layer.layer(client);
        told.add("Debug", format!("{didit:?}"));
        calls(told, didit, &PATHS).await;
        // Nobody listens there.
        let client = Client::builder(TokioExecutor::new()).build_http();
        let builder = DiditLayer::builder().api_key(API_KEY).base_url("http://127.0.0.1:9");
        let didit = builder.retry(|retry| retry.max_attempts(1)).build().unwrap().layer(client);
        calls(told, didit, &PATHS).await;
    });
}

/// Through reqwest, whose errors have the URL, to where nobody listens.
fn over_reqwest(told: &mut Told) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let ask = service_fn(move |request: Request<ReplayBody<Body>>| {
            let request = reqwest::Request::try_from(request.map(|_| reqwest::Body::from("")));
            let client = client.clone();
            async move { client.execute(request?).await.map(Response::<reqwest::Body>::from) }
        });
        let stack = || {
            let stack = DiditLayer::builder().api_key(API_KEY).base_url("http://127.0.0.1:9");
            stack.retry(|retry| retry.max_attempts(1)).build().unwrap()
        };
        // As the documentation of `stack::Error` has it: nothing is left anywhere, all sources included.
        calls(told, stack().layer(ask.clone().map_err(reqwest::Error::without_url)), &PATHS).await;
        // Left as they are, the sources have it, and nothing else.
        let mut server = stack().layer(ask.clone());
        for path in PATHS {
            let call = server.ready().await.unwrap().call(request(path, "operation-as-it-is"));
            let error = call.await.unwrap_err();
            assert!(error.source().unwrap().to_string().contains(path), "reqwest's errors name the URL");
            told.add("errors", format!("{error} {error:?} {error:#?} {:?}", error.kind()));
        }
        let alone = RetryLayer::didit().layer(CircuitBreakerLayer::didit().layer(ask.clone()));
        let error =
            alone.oneshot(request("http://127.0.0.1:9/v3/sessions/?q=canary-query", "alone")).await.unwrap_err();
        told.add("errors", format!("{error} {error:?}"));

        of_webhooks(told, ask).await;
    });
}

/// A sweep whose client fails with errors that have the URL, and a handler that fails so.
async fn of_webhooks<S>(told: &mut Told, ask: S)
where
    S: Service<Request<ReplayBody<Body>>, Response = Response<reqwest::Body>, Error = reqwest::Error> + Clone,
{
    let secretive = |mut request: Request<Body>| {
        *request.uri_mut() = "http://127.0.0.1:9/?q=canary-query".parse().unwrap();
        request.map(ReplayBody::new)
    };
    let sweep = || Sweep::builder(MemoryInbox::new()).build(ask.clone().map_request(secretive)).unwrap();
    let error = sweep().pass().await.unwrap_err();
    told.add("errors", format!("{error} {error:?}"));
    // Its first pass is over as soon as the system refuses the connection.
    assert!(tokio::time::timeout(Duration::from_secs(1), sweep().run()).await.is_err());

    let failure = Failure::from(ask.map_request(secretive).oneshot(Request::default()).await.unwrap_err());
    told.add("errors", format!("{failure} {failure:?}"));
}

/// With every kind of failure, and a store that remembers the calls.
fn in_virtual_time(told: &mut Told) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let probe = ReadinessProbe::new([
            Answer::Reset,
            Answer::ConnectionRefused,
            Answer::Status(429, Some(2)),
            Answer::After(Duration::from_secs(500)),
            Answer::Status(502, None),
            Answer::Status(400, None),
        ]);
        let store = Handed { inner: MemoryStore::new(), told: Arc::default() };
        let handed = Arc::clone(&store.told);
        let layer = DiditLayer::builder().api_key(API_KEY).idempotency_store(store).build().unwrap();
        calls(told, layer.layer(probe), &PATHS).await;
        // The same operations again: answered from the store, refused by it, or looked up.
        calls(told, layer.layer(sandbox(3).api_key(API_KEY).build().unwrap()), &PATHS).await;
        layer.gauges().record();
        // For another host, with secrets in its place.
        let foreign =
            Request::get("https://canary-query:canary-query@didit.example/v3/sessions/").body(Body::default());
        let error = layer.layer(ReadinessProbe::new([])).oneshot(foreign.unwrap()).await.unwrap_err();
        told.add_error(&error);
        told.add("what a store is handed", handed.lock().unwrap().clone());
    });
}

/// With a store in a file.
fn with_a_file(told: &mut Told, file: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = RedbStore::open(file).await.unwrap();
        let layer = DiditLayer::builder().api_key(API_KEY).idempotency_store(store).build().unwrap();
        let didit = layer.layer(sandbox(3).api_key(API_KEY).build().unwrap());
        calls(told, didit.clone(), &PATHS).await;
        calls(told, didit, &PATHS).await;
    });
}

/// A store that notes all it is handed.
#[derive(Debug)]
struct Handed {
    inner: MemoryStore,
    told: Arc<Mutex<String>>,
}

impl Store for Handed {
    fn secret(&self) -> &HashSecret {
        self.inner.secret()
    }

    fn begin(&self, key: Key, claim: Claim, now: Timestamp) -> StoreFuture<Begun> {
        let _ = writeln!(self.told.lock().unwrap(), "{key:?} {claim:?}");
        self.inner.begin(key, claim, now)
    }

    fn settle(&self, key: Key, epoch: Epoch, settlement: Settlement, now: Timestamp) -> StoreFuture<()> {
        let _ = writeln!(self.told.lock().unwrap(), "{settlement:?}");
        self.inner.settle(key, epoch, settlement, now)
    }

    fn renew(&self, key: Key, epoch: Epoch, until: Timestamp) -> StoreFuture<bool> {
        self.inner.renew(key, epoch, until)
    }

    fn holder(&self, session: uuid::Uuid) -> StoreFuture<Option<Key>> {
        self.inner.holder(session)
    }
}
