//! What the benchmarks of the gateway stand between: an upstream, a bare reverse proxy, a client that asks again and
//! again.

use std::{
    convert::Infallible,
    error::Error,
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{net::TcpListener, time::Instant};

/// What an upstream answers every session creation with, as long as Didit's.
const ANSWER: &[u8] = &[b'x'; 300];

/// Serves each connection of a new listener with `answer`, until the runtime ends.
async fn serve<F, A, B, E>(answer: F) -> io::Result<SocketAddr>
where
    F: Fn(Request<Incoming>) -> A + Clone + Send + 'static,
    A: Future<Output = Result<Response<B>, E>> + Send + 'static,
    B: http_body::Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
    E: Into<Box<dyn Error + Send + Sync>> + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let _ = stream.set_nodelay(true);
                let builder = auto::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
            });
        }
    });
    Ok(address)
}

/// An upstream that reads each request to its end and answers it.
///
/// # Errors
///
/// If it cannot listen.
pub async fn upstream() -> io::Result<SocketAddr> {
    serve(|request: Request<Incoming>| async move {
        let mut body = request.into_body();
        while let Some(Ok(_)) = body.frame().await {}
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(ANSWER))))
    })
    .await
}

/// The least that a reverse proxy can do with hyper: another host, and on it goes.
///
/// # Errors
///
/// If it cannot listen.
pub async fn bare_proxy(upstream: SocketAddr) -> io::Result<SocketAddr> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<HttpConnector, Incoming> = Client::builder(TokioExecutor::new()).build(connector);
    serve(move |mut request: Request<Incoming>| {
        let client = client.clone();
        async move {
            let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
            *request.uri_mut() = Uri::try_from(format!("http://{upstream}{path}"))?;
            Ok::<_, Box<dyn Error + Send + Sync>>(client.request(request).await?)
        }
    })
    .await
}

/// What asking came to.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Requests a second.
    pub rate: f64,
    /// The median time of a request.
    pub median: Duration,
    /// The time that all but a hundredth stay below.
    pub p99: Duration,
    /// CPU time of this process for one request: client, proxy and upstream together.
    pub cpu: Duration,
}

/// Sends session creations over `connections` connections, one behind the other on each.
///
/// # Errors
///
/// If one is not answered with 200.
pub async fn ask(to: SocketAddr, requests: usize, connections: usize) -> Result<Asked, Box<dyn Error + Send + Sync>> {
    let uri: Uri = format!("http://{to}/v3/session/").parse()?;
    let left = Arc::new(AtomicUsize::new(requests));
    let (began, cpu) = (Instant::now(), cpu_time()?);
    let askers = (0..connections).map(|_| {
        let (uri, left) = (uri.clone(), Arc::clone(&left));
        tokio::spawn(async move {
            let mut connector = HttpConnector::new();
            connector.set_nodelay(true);
            let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
            let mut took = Vec::new();
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                let request = Request::post(uri.clone()).header("content-type", "application/json");
                let began = Instant::now();
                let response = client.request(request.body(Full::from(crate::CREATION))?).await?;
                if response.status() != http::StatusCode::OK {
                    return Err(format!("answered with {}", response.status()).into());
                }
                response.into_body().collect().await?;
                took.push(began.elapsed());
            }
            Ok::<_, Box<dyn Error + Send + Sync>>(took)
        })
    });
    let mut took = Vec::with_capacity(requests);
    for asker in askers.collect::<Vec<_>>() {
        took.extend(asker.await??);
    }
    let (elapsed, count) = (began.elapsed(), u32::try_from(took.len())?);
    took.sort_unstable();
    let at = |share: usize| took.get(took.len() * share / 100).copied().unwrap_or_default();
    let cpu = (cpu_time()? - cpu) / count.max(1);
    Ok(Asked { rate: f64::from(count) / elapsed.as_secs_f64(), median: at(50), p99: at(99), cpu })
}

/// CPU time that this process has used, in user and system.
fn cpu_time() -> io::Result<Duration> {
    /// Linux counts in hundredths of a second, whatever the kernel's own tick is (`USER_HZ`).
    const TICK: Duration = Duration::from_millis(10);

    let stat = fs::read_to_string("/proc/self/stat")?;
    // Behind the name in brackets; the fields are proc(5)'s 14th and 15th.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u32 = fields.skip(11).take(2).filter_map(|field| field.parse::<u32>().ok()).sum();
    Ok(TICK * ticks)
}
