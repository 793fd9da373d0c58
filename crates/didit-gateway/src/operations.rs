//! What operators ask: is it there, does it take calls, what is it doing.

use std::{
    convert::Infallible,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use didit_api::ServiceGroup;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::Semaphore, time::Instant};
use tower_didit::{DiditLayer, circuit_breaker::CircuitStatus, retry::Budget};

use crate::{
    body::Answer,
    proxy::{Phase, Proxy},
    refuse::TOKEN,
};

/// How many connections operators may have at once: scrapers and probes are few.
const CONNECTIONS: usize = 64;

/// How long a head may take, and how long the next is waited for: who has nothing to ask makes room for who has.
const HEAD: Duration = Duration::from_secs(2);

/// How long one may take, all its requests included.
const PATIENCE: Duration = Duration::from_secs(60);

/// What there is to show.
pub(crate) struct Operations {
    pub(crate) proxy: Arc<Proxy>,
    pub(crate) layer: DiditLayer,
    pub(crate) budget: Option<Budget>,
    pub(crate) metrics: Option<Arc<Render>>,
    pub(crate) began: Instant,
}

/// Writes all metrics in Prometheus's text format.
pub(crate) type Render = dyn Fn() -> String + Send + Sync;

/// Serves until it is dropped.
pub(crate) async fn serve(listener: TcpListener, operations: Arc<Operations>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let operations = Arc::clone(&operations);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let response = operations.answer(&request);
                async move { Ok::<_, Infallible>(response) }
            });
            let mut builder = hyper::server::conn::http1::Builder::new();
            let builder = builder.timer(TokioTimer::new()).header_read_timeout(HEAD);
            let served = builder.serve_connection(TokioIo::new(stream), service);
            let _ = tokio::time::timeout(PATIENCE, served).await;
            drop(place);
        });
    }
}

// ===== impl Operations =====

impl Operations {
    fn answer(&self, request: &Request<Incoming>) -> Response<Answer> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
        }
        // A page in a browser may neither read what is here nor have a name of its own point here.
        if let Err(problem) = self.proxy.doorkeeper.check_operator(request.headers(), request.uri()) {
            return problem.into_response(None, 0);
        }
        let serving = *self.proxy.phase.borrow() == Phase::Serving;
        match request.uri().path() {
            // Probes carry no token, and learn nothing.
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" if serving => text(StatusCode::OK, "ready\n"),
            "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
            _ if !self.may_see(request) => text(StatusCode::UNAUTHORIZED, "the access token is missing or wrong\n"),
            "/metrics" => match &self.metrics {
                Some(render) => {
                    self.layer.gauges().record();
                    typed(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", render())
                }
                None => text(StatusCode::NOT_FOUND, "no metrics are recorded\n"),
            },
            "/status" => typed(StatusCode::OK, "application/json", format!("{:#}\n", self.status())),
            _ => text(StatusCode::NOT_FOUND, "there are /metrics, /healthz, /readyz and /status\n"),
        }
    }

    /// By the gateway's own header, or by the one that scrapers can be told to send.
    fn may_see(&self, request: &Request<Incoming>) -> bool {
        let headers = request.headers();
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        let own = headers.get(TOKEN).map(HeaderValue::as_bytes);
        self.proxy.doorkeeper.opens(own.or(bearer))
    }

    fn status(&self) -> Value {
        let now = Instant::now();
        let scopes = self.layer.pacing().usage().into_iter().map(|usage| {
            let paused = usage.paused_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
            let shown = json!({
                "limit": usage.limit,
                "effective_limit": usage.effective,
                "used": usage.used,
                "waiting": usage.waiting,
                "oldest_wait_seconds": usage.oldest_wait.map(|wait| wait.as_secs_f64()),
                "predicted_wait_seconds": usage.predicted_wait.as_secs_f64(),
                "paused_seconds": paused.as_secs_f64(),
            });
            (usage.scope, shown)
        });
        let circuits = self.layer.circuit_breaker().handle();
        let circuits = circuits.groups().filter_map(|group| Some((group, circuits.status(group)?)));
        let circuits = circuits.map(|(group, status): (ServiceGroup, _)| (group.name().to_owned(), circuit(&status)));
        let budget = self.budget.as_ref();
        let budget = budget.map(|budget| json!({ "tokens": budget.tokens(), "capacity": budget.capacity() }));
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "phase": match *self.proxy.phase.borrow() {
                Phase::Serving => "serving",
                Phase::Stopping | Phase::Over => "stopping",
            },
            "up_seconds": self.began.elapsed().as_secs(),
            "calls_in_flight": self.proxy.in_flight.load(Ordering::Relaxed),
            "scopes": scopes.collect::<serde_json::Map<_, _>>(),
            "circuits": circuits.collect::<serde_json::Map<_, _>>(),
            "retry_budget": budget,
        })
    }
}

fn circuit(status: &CircuitStatus) -> Value {
    json!({
        "state": status.state.name(),
        "calls": status.calls,
        "failures": status.failures,
        "slow": status.slow,
        "consecutive_failures": status.consecutive_failures,
        "next_probe_seconds": status.next_probe.map(|wait| wait.as_secs_f64()),
    })
}

fn text(status: StatusCode, text: &'static str) -> Response<Answer> {
    typed(status, "text/plain; charset=utf-8", text.to_owned())
}

fn typed(status: StatusCode, kind: &'static str, text: String) -> Response<Answer> {
    let mut response = Response::new(Answer::own(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
