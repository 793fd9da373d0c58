//! The same call over loopback TCP, 64 at once: what the client's thread spends on each.
//!
//! The client's runtime has one thread and the server another, so that the CPU time of the client's is the client's alone.

use std::time::Duration;

use allocation_counter::{measure, opt_out};
use benches::{Body, create_session};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use reqwest_middleware::ClientWithMiddleware;
use reqwest_retry::{RetryTransientMiddleware, policies::ExponentialBackoff};
use rustix::time::{ClockId, clock_gettime};
use tests::Upstream;
use tokio::{
    runtime::{Builder, Runtime},
    task::JoinSet,
};
use tower::{Layer, Service, ServiceExt};
use tower_didit::body::ReplayBody;

use crate::{
    Failure,
    floor::Floor,
    measure::median,
    peers::{
        CORRELATION, KEY, failsafe_consecutive, failsafe_default, governed, leanest, request_ids, resilience,
        resilient, set_header, tower_retry, usual,
    },
    subjects,
};

/// Calls under way at any time.
const AT_ONCE: usize = 64;

/// Calls of one turn.
const CALLS: usize = 50 * AT_ONCE;

/// Rounds over all clients; the median counts.
const ROUNDS: usize = 7;

/// What one call of a client costs.
#[derive(Clone, Debug)]
pub(crate) struct WireRow {
    pub(crate) subject: &'static str,
    /// CPU time of the client's thread.
    pub(crate) ns: f64,
    /// To the bare client in the same rounds.
    pub(crate) ratio: f64,
    pub(crate) allocations: f64,
    pub(crate) bytes: f64,
    /// `None` where the client's future has no name.
    pub(crate) future_bytes: Option<usize>,
}

/// A client under a name.
struct Caller {
    name: &'static str,
    future_bytes: Option<usize>,
    calls: Box<dyn Calls>,
}

/// Makes calls, many at once; false if one failed.
trait Calls {
    fn make(&self, runtime: &Runtime, uri: &Uri) -> bool;
}

/// A tower service.
struct Stacked<S>(S);

impl<S, RB> Calls for Stacked<S>
where
    S: Service<Request<Body>, Response = Response<RB>, Future: Send, Error: Send> + Clone + Send + 'static,
    RB: http_body::Body<Data: Send> + Send + 'static,
{
    fn make(&self, runtime: &Runtime, uri: &Uri) -> bool {
        at_once(runtime, || {
            let (mut service, uri) = (self.0.clone(), uri.clone());
            async move {
                for _ in 0..CALLS / AT_ONCE {
                    let response = service.ready().await.ok()?.call(request(&uri)).await.ok()?;
                    response.into_body().collect().await.ok()?;
                }
                Some(())
            }
        })
    }
}

impl Calls for reqwest::Client {
    fn make(&self, runtime: &Runtime, uri: &Uri) -> bool {
        at_once(runtime, || {
            let (client, uri) = (self.clone(), uri.clone());
            async move {
                for _ in 0..CALLS / AT_ONCE {
                    client.execute(reqwests(&uri).await?).await.ok()?.bytes().await.ok()?;
                }
                Some(())
            }
        })
    }
}

impl Calls for ClientWithMiddleware {
    fn make(&self, runtime: &Runtime, uri: &Uri) -> bool {
        at_once(runtime, || {
            let (client, uri) = (self.clone(), uri.clone());
            async move {
                for _ in 0..CALLS / AT_ONCE {
                    client.execute(reqwests(&uri).await?).await.ok()?.bytes().await.ok()?;
                }
                Some(())
            }
        })
    }
}

fn at_once<F: Future<Output = Option<()>> + Send + 'static>(runtime: &Runtime, task: impl Fn() -> F) -> bool {
    runtime.block_on(async {
        let tasks: JoinSet<Option<()>> = (0..AT_ONCE).map(|_| task()).collect();
        tasks.join_all().await.into_iter().all(|done| done.is_some())
    })
}

fn request(uri: &Uri) -> Request<Body> {
    let mut request = create_session();
    *request.uri_mut() = uri.clone();
    request
}

async fn reqwests(uri: &Uri) -> Option<reqwest::Request> {
    let (parts, body) = request(uri).into_parts();
    let body = body.collect().await.ok()?.to_bytes();
    reqwest::Request::try_from(Request::from_parts(parts, body)).ok()
}

fn client<B>() -> Client<HttpConnector, B>
where
    B: http_body::Body<Data: Send> + Send,
{
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new()).build(connector)
}

fn stacked<S, RB>(name: &'static str, service: S) -> Caller
where
    S: Service<Request<Body>, Response = Response<RB>, Future: Send, Error: Send> + Clone + Send + 'static,
    RB: http_body::Body<Data: Send> + Send + 'static,
{
    Caller { name, future_bytes: Some(size_of::<S::Future>()), calls: Box::new(Stacked(service)) }
}

fn callers(base: &str) -> Result<Vec<Caller>, Failure> {
    let ours = |builder: tower_didit::stack::DiditBuilder| builder.base_url(base).build();
    let once = subjects::builder().retry(|retry| retry.max_attempts(1));
    let reqwest = reqwest::Client::builder().no_proxy().build()?;
    let policy = ExponentialBackoff::builder().build_with_max_retries(3);
    let middleware = reqwest_middleware::ClientBuilder::new(reqwest.clone())
        .with(RetryTransientMiddleware::new_with_policy(policy))
        .build();
    Ok(vec![
        stacked("over TCP: bare hyper-util", client::<Body>()),
        stacked("over TCP: floor, request kept", Floor::new(client::<Body>(), true)),
        stacked("over TCP: tower-didit stack", ours(subjects::builder())?.layer(client::<ReplayBody<Body>>())),
        stacked("over TCP: tower-didit stack, nothing kept", ours(once)?.layer(client::<ReplayBody<Body>>())),
        stacked("over TCP: leanest glue", leanest!(client::<Body>())),
        stacked("over TCP: what people write", usual!(client::<Body>())),
        stacked("over TCP: tower-resilience, full", resilient!(client::<Body>())),
        Caller { name: "over TCP: reqwest", future_bytes: None, calls: Box::new(reqwest) },
        Caller { name: "over TCP: reqwest-middleware, retry", future_bytes: None, calls: Box::new(middleware) },
    ])
}

/// Measures all clients.
pub(crate) fn rows() -> Result<Vec<WireRow>, Failure> {
    let server = Upstream::http(|_, request| async move {
        // Read, so that the connection can be used again.
        let _ = request.into_body().collect().await;
        let mut response = Response::new(Empty::<Bytes>::new().boxed_unsync());
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    })?;
    let uri: Uri = server.uri("/v3/session/").parse()?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let entered = runtime.enter();
    let callers = callers(server.uri("").trim_end_matches('/'))?;
    drop(entered);
    let mut times = vec![Vec::with_capacity(ROUNDS); callers.len()];
    for round in 0..=ROUNDS {
        for (caller, times) in callers.iter().zip(&mut times) {
            let before = thread_time();
            opt_out(|| times.push(caller.calls.make(&runtime, &uri).then(|| thread_time() - before)));
            // The first round opens the connections.
            if round == 0 {
                times.clear();
            }
        }
    }
    let rows = callers.iter().zip(&times).map(|(caller, taken)| {
        let failed = || format!("a call of {:?} failed", caller.name);
        let each = |times: &[Option<Duration>]| -> Option<Vec<f64>> {
            times.iter().map(|time| Some(time.as_ref()?.as_nanos() as f64 / CALLS as f64)).collect()
        };
        let (taken, bare) = (each(taken).ok_or_else(failed)?, each(&times[0]).ok_or_else(failed)?);
        let counted = measure(|| {
            caller.calls.make(&runtime, &uri);
        });
        Ok(WireRow {
            subject: caller.name,
            ns: median(taken.iter().copied()),
            ratio: median(taken.iter().zip(&bare).map(|(time, bare)| time / bare)),
            allocations: counted.count_total as f64 / CALLS as f64,
            bytes: counted.bytes_total as f64 / CALLS as f64,
            future_bytes: caller.future_bytes,
        })
    });
    rows.collect()
}

/// CPU time that this thread has had.
pub(crate) fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}
