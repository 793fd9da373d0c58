//! A server that is down for minutes, and a thousand clients of it; in virtual time.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Request, Response};
use tests::{Body, get};
use tokio::time::{Instant, sleep};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
use tower_didit::{Randomness, body::ReplayBody, circuit_breaker::CircuitBreakerLayer, retry::RetryLayer};

const SECOND: Duration = Duration::from_secs(1);
const CLIENTS: usize = 1_000;

/// When attempts arrived and when calls were made and succeeded, since the beginning.
#[derive(Clone, Default)]
struct Tally {
    attempts: Arc<Mutex<Vec<Duration>>>,
    calls: Arc<Mutex<Vec<Duration>>>,
    successes: Arc<Mutex<Vec<Duration>>>,
}

fn within(times: &Mutex<Vec<Duration>>, from: Duration, to: Duration) -> usize {
    times.lock().unwrap().iter().filter(|time| (from..to).contains(*time)).count()
}

/// The most events in any 100 ms that begin on a multiple of 10 ms.
fn peak(times: &[Duration]) -> usize {
    let last = times.iter().max().map_or(0, Duration::as_millis);
    let starts = (0..=last / 10).map(|tenth| Duration::from_millis(u64::try_from(tenth * 10).unwrap()));
    starts
        .map(|from| times.iter().filter(|time| (from..from + Duration::from_millis(100)).contains(*time)).count())
        .max()
        .unwrap_or_default()
}

/// A server that answers 503 until it is back.
fn server(
    tally: &Tally,
    start: Instant,
    down: Duration,
) -> impl Service<Request<ReplayBody<Body>>, Response = Response<Body>, Error = io::Error, Future: Send> + Clone + Send + use<>
{
    let attempts = Arc::clone(&tally.attempts);
    service_fn(move |_: Request<ReplayBody<Body>>| {
        let now = start.elapsed();
        attempts.lock().unwrap().push(now);
        let status = if now < down { 503 } else { 200 };
        async move { Response::builder().status(status).body(Body::default()).map_err(io::Error::other) }
    })
}

/// Clients that each make a call a second, for as long as told.
async fn clients<S>(service: S, tally: &Tally, start: Instant, length: Duration)
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
{
    let tasks = (0..CLIENTS).map(|_| {
        let (service, tally) = (service.clone(), tally.clone());
        tokio::spawn(async move {
            while start.elapsed() < length {
                tally.calls.lock().unwrap().push(start.elapsed());
                let result = service.clone().oneshot(get("/v3/sessions/")).await;
                if result.is_ok_and(|response| response.status() == 200) {
                    tally.successes.lock().unwrap().push(start.elapsed());
                }
                sleep(SECOND).await;
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn in_an_outage_the_budget_ends_amplification_and_goodput_is_back_at_once() {
    let (tally, start, down) = (Tally::default(), Instant::now(), 300 * SECOND);
    let service = ServiceBuilder::new().layer(RetryLayer::didit()).service(server(&tally, start, down));
    clients(service, &tally, start, 360 * SECOND).await;
    let (minute, end) = (60 * SECOND, 299 * SECOND);
    let amplification = within(&tally.attempts, minute, end) as f64 / within(&tally.calls, minute, end) as f64;
    println!("attempts per call while down, after the first minute: {amplification:.4}");
    assert!(amplification <= 1.05, "{amplification}");
    // A call a second each: within a second of the return everybody is served again.
    let served = within(&tally.successes, down + 2 * SECOND, down + 12 * SECOND);
    assert!(served >= CLIENTS * 9, "{served} of {} in ten seconds", CLIENTS * 10);
}

#[tokio::test(start_paused = true)]
async fn with_the_breaker_full_goodput_is_back_within_45_seconds_of_the_return() {
    let (tally, start, down) = (Tally::default(), Instant::now(), 300 * SECOND);
    let service = ServiceBuilder::new()
        .layer(RetryLayer::didit())
        .layer(CircuitBreakerLayer::didit())
        .service(server(&tally, start, down));
    clients(service, &tally, start, 420 * SECOND).await;
    let during = within(&tally.attempts, 60 * SECOND, down);
    println!("attempts that reached the server from its second minute to its fifth: {during}");
    assert!(during <= 20, "one probe per open time, not {during} attempts");
    let first = tally.successes.lock().unwrap().iter().min().copied().unwrap();
    println!("first success after the return: {:?}", first - down);
    let served = within(&tally.successes, down + 45 * SECOND, down + 75 * SECOND);
    println!("calls served per second from 45 s after the return: {:.0}", served as f64 / 30.0);
    assert!(first - down <= 31 * SECOND, "{:?}", first - down);
    assert!(served >= CLIENTS * 30 * 9 / 10, "{served}");
}

#[tokio::test(start_paused = true)]
async fn clients_that_fail_together_come_back_spread_as_full_jitter_allows() {
    let (tally, start) = (Tally::default(), Instant::now());
    let layer = RetryLayer::builder().budget(None).max_attempts(6).randomness(Randomness::seeded(1)).build().unwrap();
    let service = ServiceBuilder::new().layer(layer).service(server(&tally, start, Duration::MAX));
    clients(service, &tally, start, Duration::from_nanos(1)).await;
    let attempts = tally.attempts.lock().unwrap().clone();
    assert_eq!(attempts.len(), CLIENTS * 6);
    // The first attempts are simultaneous by construction; what comes after is the jitter's.
    let repetitions: Vec<_> = attempts.into_iter().filter(|time| !time.is_zero()).collect();
    let peak = peak(&repetitions);
    println!("most repetitions in 100 ms: {peak}");
    // A uniform spread over the first second puts 100 clients into 100 ms; the second wave overlaps it.
    assert!(peak <= 200, "{peak}");
}
