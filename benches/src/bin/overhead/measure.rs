//! How a row is measured: time in interleaved rounds, allocations, instructions, two threads.

use std::{
    hint::black_box,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use allocation_counter::{measure, opt_out};
use benches::Body;
use http::{Request, Response};
use tokio::{
    runtime::{Builder, Runtime},
    task::unconstrained,
    time::Instant,
};
use tower::{Service, ServiceExt};
use tracing::{Dispatch, dispatcher::with_default};

use crate::{Failure, calls::requests, instructions::Counted, subjects};

/// Calls of one turn, before the next row has its own.
const TURN: usize = 200;

/// Rounds over all rows; the median counts.
const ROUNDS: usize = 201;

/// Calls of each thread in one round of the scaling.
const THREAD_CALLS: usize = 5_000;

/// Rounds of the scaling; the fastest counts, because all that disturbs a pair of threads makes it slower.
const THREAD_ROUNDS: usize = 9;

/// A row: a service, under a name.
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) future_bytes: usize,
    service: Box<dyn Run>,
    is_named: bool,
    // Who hears of its spans and events.
    listener: Option<Dispatch>,
}

/// What was measured of a row.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) subject: &'static str,
    /// Of one call, the bare service's included.
    pub(crate) ns: f64,
    /// To the bare service in the same rounds.
    pub(crate) ratio: f64,
    pub(crate) allocations: f64,
    pub(crate) bytes: f64,
    pub(crate) counted: Option<Counted>,
    /// How many times as much two threads do as one.
    pub(crate) scaling: Option<f64>,
    pub(crate) future_bytes: usize,
}

impl Subject {
    pub(crate) fn new<S, RB>(name: &'static str, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<RB>> + Clone + Send + Sync + 'static,
    {
        Self { name, future_bytes: size_of::<S::Future>(), service: Box::new(service), is_named: false, listener: None }
    }

    /// Every call names its operation.
    pub(crate) fn named(mut self) -> Self {
        self.is_named = true;
        self
    }

    /// Tells everything to a subscriber.
    pub(crate) fn told_to(self, listener: impl Into<Dispatch>) -> Self {
        Self { listener: Some(listener.into()), ..self }
    }

    pub(crate) fn requests(&self, count: usize) -> Vec<Request<Body>> {
        let mut requests = requests(count);
        if self.is_named {
            requests.iter_mut().for_each(subjects::name);
        }
        requests
    }

    /// Makes calls one after the other; how long that took.
    pub(crate) fn run(&mut self, runtime: &Runtime, requests: Vec<Request<Body>>) -> Result<Duration, Failure> {
        let run = || self.service.run(runtime, requests);
        let taken = match &self.listener {
            None => run(),
            Some(listener) => with_default(listener, run),
        };
        taken.ok_or_else(|| format!("a call of {:?} failed", self.name).into())
    }

    pub(crate) fn warm_up(&mut self, runtime: &Runtime, calls: usize) -> Result<(), Failure> {
        let requests = self.requests(calls);
        self.run(runtime, requests).map(drop)
    }

    fn threads(&self, runtime: &Runtime, count: usize) -> Result<Duration, Failure> {
        let loads = (0..count).map(|_| self.requests(THREAD_CALLS)).collect();
        self.service.threads(runtime, loads).ok_or_else(|| format!("a call of {:?} failed", self.name).into())
    }
}

/// A service of any type.
trait Run {
    fn run(&mut self, runtime: &Runtime, requests: Vec<Request<Body>>) -> Option<Duration>;

    /// One thread for each load, on clones of the service.
    fn threads(&self, runtime: &Runtime, loads: Vec<Vec<Request<Body>>>) -> Option<Duration>;
}

impl<S, RB> Run for S
where
    S: Service<Request<Body>, Response = Response<RB>> + Clone + Send + Sync,
{
    fn run(&mut self, runtime: &Runtime, requests: Vec<Request<Body>>) -> Option<Duration> {
        // Without tokio's budget: it would have a queue say that it is full after so many calls in a row.
        runtime.block_on(unconstrained(async {
            let began = Instant::now();
            for request in requests {
                drop(black_box(self.ready().await.ok()?.call(request).await.ok()?));
            }
            Some(began.elapsed())
        }))
    }

    fn threads(&self, runtime: &Runtime, loads: Vec<Vec<Request<Body>>>) -> Option<Duration> {
        // Turned in circles on, because to be woken takes as long as many calls.
        let missing = AtomicUsize::new(loads.len());
        std::thread::scope(|scope| {
            let threads: Vec<_> = loads
                .into_iter()
                .map(|load| {
                    let (mut service, missing) = (self.clone(), &missing);
                    scope.spawn(move || {
                        missing.fetch_sub(1, Ordering::SeqCst);
                        while missing.load(Ordering::SeqCst) > 0 {
                            std::hint::spin_loop();
                        }
                        let began = Instant::now();
                        service.run(runtime, load)?;
                        Some((began, Instant::now()))
                    })
                })
                .collect();
            let spans: Option<Vec<_>> = threads.into_iter().map(|thread| thread.join().ok().flatten()).collect();
            let spans = spans?;
            let (first, last) = (spans.iter().map(|span| span.0).min()?, spans.iter().map(|span| span.1).max()?);
            Some(last - first)
        })
    }
}

/// Measures all rows; `counted` is what valgrind said of them, in the same order.
pub(crate) fn rows(counted: &[Counted]) -> Result<Vec<Row>, Failure> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let subjects = runtime.block_on(async { subjects::all() })?;
    measured(subjects, &runtime, counted, &scaling()?)
}

/// Measures the rows that somebody listens to, with a bare service of their own to be compared with; `counted` is what
/// valgrind said of them.
///
/// NOTE: on their own and last, because what was listened to once costs more in all rows that come after.
pub(crate) fn listened(counted: &[Counted]) -> Result<Vec<Row>, Failure> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let rows = measured(subjects::listened()?, &runtime, counted, &[])?;
    Ok(rows.into_iter().skip(1).collect())
}

/// Measures rows, the first of which is the bare service, in turns.
fn measured(
    mut subjects: Vec<Subject>,
    runtime: &Runtime,
    of_valgrind: &[Counted],
    scaling: &[f64],
) -> Result<Vec<Row>, Failure> {
    let mut times = vec![Vec::with_capacity(ROUNDS); subjects.len()];
    for round in 0..=ROUNDS {
        for (subject, times) in subjects.iter_mut().zip(&mut times) {
            let requests = subject.requests(TURN);
            let mut taken = Ok(Duration::ZERO);
            // The counter would cost most where most is allocated.
            opt_out(|| taken = subject.run(runtime, requests));
            let taken = taken?.as_nanos() as f64 / TURN as f64;
            // The first round only warms up.
            if round > 0 {
                times.push(taken);
            }
        }
    }
    let bare = times.first().cloned().unwrap_or_default();
    let rows = subjects.iter_mut().enumerate().map(|(index, subject)| {
        let requests = subject.requests(TURN);
        let mut made = Ok(Duration::ZERO);
        let counted = measure(|| made = subject.run(runtime, requests));
        made?;
        let ratios = times[index].iter().zip(&bare).map(|(time, bare)| time / bare);
        Ok(Row {
            subject: subject.name,
            ns: median(times[index].iter().copied()),
            ratio: median(ratios),
            allocations: counted.count_total as f64 / TURN as f64,
            bytes: counted.bytes_total as f64 / TURN as f64,
            counted: of_valgrind.get(index).copied(),
            scaling: scaling.get(index).copied(),
            future_bytes: subject.future_bytes,
        })
    });
    rows.collect()
}

/// How many times as much two threads do as one.
fn scaling() -> Result<Vec<f64>, Failure> {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let subjects = runtime.block_on(async { subjects::all() })?;
    let mut fastest = vec![(Duration::MAX, Duration::MAX); subjects.len()];
    for _ in 0..THREAD_ROUNDS {
        for (subject, (one, two)) in subjects.iter().zip(&mut fastest) {
            *one = subject.threads(&runtime, 1)?.min(*one);
            *two = subject.threads(&runtime, 2)?.min(*two);
        }
    }
    Ok(fastest.into_iter().map(|(one, two)| 2.0 * one.as_secs_f64() / two.as_secs_f64()).collect())
}

/// The one in the middle.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
