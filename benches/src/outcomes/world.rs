//! A simulated world: a local Didit, the wire to it, and a clock that jumps from event to event.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, SystemTime},
};

use didit_api::{Limits, Scope, limits::LimitsError};
use didit_sandbox::{ConnectionLost, Distribution, Latency, ResponseFuture, Sandbox, SandboxBody, SandboxBuilder};
use http::{HeaderValue, Method, Request, Response, Uri};
use http_body_util::Full;
use tokio::{
    runtime::Builder,
    sync::Notify,
    time::{Instant, sleep, sleep_until},
};
use tower::Service;

use super::strategies::{Strategy, failsafe};
use crate::Body;

/// A second.
pub const SECOND: Duration = Duration::from_secs(1);

/// A minute, which is also the window of every limit here.
pub const MINUTE: Duration = Duration::from_secs(60);

/// The limit of most scenarios: Didit's for writes and for session creations, per minute.
pub const LIMIT: u32 = 300;

/// The key that everybody uses.
const KEY: &str = "one-key";

/// Runs a simulation on a paused clock: whenever nothing can go on, the clock jumps to the next timer.
///
/// # Errors
///
/// If there is no runtime to be had, or the simulation fails.
pub fn simulate<T>(work: impl AsyncFnOnce() -> Result<T, super::Problem>) -> Result<T, super::Problem> {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build()?;
    runtime.block_on(work())
}

/// The same for a strategy that may have a clock of its own: failsafe's goes with tokio's, a tenth of a second at a time.
///
/// # Errors
///
/// As of [`simulate`].
pub fn simulate_with<T>(
    strategy: &dyn Strategy,
    work: impl AsyncFnOnce() -> Result<T, super::Problem>,
) -> Result<T, super::Problem> {
    const STEP: Duration = Duration::from_millis(100);
    if !strategy.has_own_clock() {
        return simulate(work);
    }
    failsafe::keep_time(|advance| {
        simulate(async || {
            let keep_time = async {
                loop {
                    sleep(STEP).await;
                    advance(STEP);
                }
            };
            tokio::select! {
                biased;
                () = keep_time => Err("a clock stopped".into()),
                result = work() => result,
            }
        })
    })
}

/// How the server counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// Exact stamps; a refused request counts nowhere.
    Lenient,
    /// Whole-second stamps, kept for up to a second longer than the window; a refused request counts like any other.
    Strict,
}

impl Server {
    /// The ε that a client of it needs: a timer's millisecond and some, or the whole second.
    pub fn epsilon(self) -> Duration {
        match self {
            Self::Lenient => Duration::from_millis(5),
            Self::Strict => SECOND,
        }
    }

    /// What it is called in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lenient => "exact, refusals free",
            Self::Strict => "whole seconds, refusals count",
        }
    }

    /// A sandbox that counts so. It keeps no journal: nobody reads a million entries.
    pub fn sandbox(self, seed: u64) -> SandboxBuilder {
        let strict = self == Self::Strict;
        Sandbox::builder()
            .seed(seed)
            // A fixed date, so that whole seconds begin at the same instants in every run.
            .epoch(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000))
            .api_key(KEY)
            .any_workflow(true)
            .journal_capacity(0)
            .count_rejected(strict)
            .whole_second_stamps(strict)
    }
}

/// How long one leg takes; both are drawn from it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Leg {
    /// 50 ms.
    Fixed,
    /// 20 to 120 ms.
    Near,
    /// Up to a second.
    Far,
    /// Log-normal around 30 ms with sigma 1, cut at 5 s.
    LongTail,
}

impl Leg {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Fixed, Self::Near, Self::Far, Self::LongTail];

    /// What it is called in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fixed => "50 ms fixed",
            Self::Near => "20–120 ms",
            Self::Far => "0–1 s",
            Self::LongTail => "log-normal, cut at 5 s",
        }
    }

    /// The difference between the longest and the shortest: what a client that knows it would allow for.
    pub fn spread(self) -> Duration {
        let (least, most) = self.distribution().bounds();
        most - least
    }

    /// The longest.
    pub fn longest(self) -> Duration {
        self.distribution().bounds().1
    }

    /// The latency of both legs.
    pub fn latency(self) -> Latency {
        Latency::one_way(self.distribution())
    }

    fn distribution(self) -> Distribution {
        let ms = Duration::from_millis;
        match self {
            Self::Fixed => Distribution::Fixed(ms(50)),
            Self::Near => Distribution::Uniform { least: ms(20), most: ms(120) },
            Self::Far => Distribution::Uniform { least: ms(0), most: ms(1_000) },
            Self::LongTail => Distribution::LogNormal { median: ms(30), sigma: 1.0, most: ms(5_000) },
        }
    }
}

/// The most that can be had of a limit per minute: `L·W / (W + RTT + ε)`, since an arrival is known of only when its
/// answer is there.
pub fn best(limit: u32, rtt: f64, epsilon: Duration) -> f64 {
    let window = MINUTE.as_secs_f64();
    f64::from(limit) * window / (window + rtt + epsilon.as_secs_f64())
}

/// One scope over all reads.
///
/// # Errors
///
/// If the limit is zero.
pub fn reads(limit: u32) -> Result<Limits, LimitsError> {
    Limits::none().with(Scope::methods("wide", limit, ["GET"])?)
}

/// A request with the key, to a route that only counts and answers.
pub fn read() -> Request<Body> {
    to(Method::GET, "/v3/workflows/")
}

/// A request with the key and without a body.
pub fn to(method: Method, path: &'static str) -> Request<Body> {
    let mut request = Request::new(Full::default());
    *request.method_mut() = method;
    *request.uri_mut() = Uri::from_static(path);
    request.headers_mut().insert("x-api-key", HeaderValue::from_static(KEY));
    request
}

/// A request with the key and a JSON body.
pub fn post(path: &'static str, body: &serde_json::Value) -> Request<Body> {
    let mut request = to(Method::POST, path);
    request.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    *request.body_mut() = Full::from(body.to_string());
    request
}

/// What becomes known of one call below all layers, carried in its request's extensions.
#[derive(Clone, Debug, Default)]
pub struct Trace(Arc<Traced>);

#[derive(Debug, Default)]
struct Traced {
    attempts: AtomicU32,
    last: Mutex<Option<Instant>>,
    sent: Notify,
}

impl Trace {
    /// How often the call was sent.
    pub fn attempts(&self) -> u32 {
        self.0.attempts.load(Ordering::Relaxed)
    }

    /// When it was sent the last time.
    pub fn last_sent(&self) -> Option<Instant> {
        *locked(&self.0.last)
    }

    /// Waits until it is sent.
    pub async fn sent(&self) {
        self.0.sent.notified().await;
    }

    pub(super) fn note(&self, now: Instant) {
        self.0.attempts.fetch_add(1, Ordering::Relaxed);
        *locked(&self.0.last) = Some(now);
        self.0.sent.notify_one();
    }
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere ends the simulation anyway.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The way to the server: what every strategy sends to. Notes when what was sent, and how long answers took.
#[derive(Clone, Debug)]
pub struct Wire {
    sandbox: Sandbox,
    trips: Arc<Mutex<Trips>>,
}

#[derive(Debug, Default)]
struct Trips {
    number: u32,
    total: Duration,
    sent: u64,
}

impl Wire {
    /// A way to this server.
    pub fn new(sandbox: Sandbox) -> Self {
        Self { sandbox, trips: Arc::default() }
    }

    /// The server.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// The mean time from sending to the answer, in seconds.
    pub fn mean_rtt(&self) -> f64 {
        let trips = locked(&self.trips);
        trips.total.as_secs_f64() / f64::from(trips.number.max(1))
    }

    /// How many attempts were sent.
    pub fn sent(&self) -> u64 {
        locked(&self.trips).sent
    }
}

impl<B> Service<Request<B>> for Wire
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
{
    type Response = Response<SandboxBody>;
    type Error = ConnectionLost;
    type Future = Trip;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectionLost>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Trip {
        let sent = Instant::now();
        if let Some(trace) = request.extensions().get::<Trace>() {
            trace.note(sent);
        }
        locked(&self.trips).sent += 1;
        Trip { answer: self.sandbox.call(request), sent, trips: Arc::clone(&self.trips) }
    }
}

/// A request on its way and its answer on the way back.
#[derive(Debug)]
pub struct Trip {
    answer: ResponseFuture,
    sent: Instant,
    trips: Arc<Mutex<Trips>>,
}

impl Future for Trip {
    type Output = Result<Response<SandboxBody>, ConnectionLost>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.answer).poll(cx));
        let took = self.sent.elapsed();
        let mut trips = locked(&self.trips);
        trips.number += 1;
        trips.total += took;
        drop(trips);
        Poll::Ready(answer)
    }
}

/// Waits for an instant since the beginning of a simulation.
pub async fn at(start: Instant, since: Duration) {
    sleep_until(start + since).await;
}
