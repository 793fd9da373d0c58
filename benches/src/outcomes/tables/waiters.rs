//! What it costs that many calls wait: time of the processor for each permit that is released, the order, and refusals
//! at the door.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use didit_api::{Limits, Scope};
use http::Method;
use rustix::time::{ClockId, clock_gettime};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    task::JoinSet,
    time::{interval, sleep},
};
use tower::{Layer as _, ServiceBuilder, ServiceExt, service_fn};
use tower_didit::{
    call::{CallOptions, Priority},
    deadline::DeadlineLayer,
    pacing::PacingLayer,
};

use crate::{
    Instant as Immediate,
    outcomes::{
        Problem, Table,
        world::{SECOND, locked, read, simulate, to},
    },
};

/// How many calls a second may start.
const RATE: u32 = 100;

/// How many refusals are timed.
const REFUSALS: u32 = 1_000;

/// How often each is measured.
const RUNS: u32 = 7;

/// How many tasks a runtime polls at the least before it looks at the main one again.
const TASKS_BETWEEN_LOOKS: usize = 31;

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Waiting {
    /// Time of the processor for each call that starts, in nanoseconds, once all are queued.
    pub released_ns: f64,
    /// The same for each call that joins the queue.
    pub queued_ns: f64,
    /// The share of calls that started before one which came earlier.
    pub overtaken: f64,
    /// Calls that start in each second, of those that may.
    pub rate: f64,
    /// Time of the processor for a call that is refused at the door because its deadline is before its turn, in
    /// nanoseconds.
    pub refused_ns: Option<f64>,
}

/// How long the processor has worked for this thread, whatever else runs on the machine.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

fn each(since: Duration, number: usize) -> f64 {
    processor_time().saturating_sub(since).as_nanos() as f64 / number.max(1) as f64
}

/// `waiters` calls that all wait on the ledger.
///
/// # Errors
///
/// If the layer cannot be set up.
pub fn ledger(waiters: usize) -> Result<Waiting, Problem> {
    simulate(async || {
        let scope = Scope::methods("wide", RATE, ["GET"])?.with_window(SECOND)?;
        let layer = PacingLayer::builder().limits(Limits::none().with(scope)?).epsilon(Duration::ZERO).build()?;
        let layers = ServiceBuilder::new().layer(DeadlineLayer::new(DeadlineLayer::MAX)).layer(layer);
        let service = layers.service(Immediate);
        // One window is used up, so that everybody waits.
        for _ in 0..RATE {
            service.clone().oneshot(read()).await.map_err(|error| error.to_string())?;
        }
        let doomed = service.clone();
        let (waiting, order) = wait(waiters, || {
            let call = service.clone().oneshot(read());
            async move { call.await.is_ok() }
        })
        .await?;
        let refused_ns = refusals(|| {
            let mut request = read();
            request.extensions_mut().insert(CallOptions::new().deadline(Duration::from_millis(500)));
            let call = doomed.clone().oneshot(request);
            async move { call.await.is_err() }
        })
        .await?;
        Ok(finish(waiting, order, waiters, Some(refused_ns)).await)
    })
}

/// Time of the processor for a call that is refused at the door because its deadline is before its turn, in nanoseconds,
/// behind nine queues: calls of three kinds, of which two need a scope of their own too, in three priorities.
///
/// # Errors
///
/// If the layer cannot be set up.
pub fn refused_behind_nine_queues(waiters: usize) -> Result<f64, Problem> {
    const KINDS: [&str; 3] = ["/v3/workflows/", "/v3/session/", "/v3/aml/"];
    const PRIORITIES: [Priority; 3] = [Priority::High, Priority::Normal, Priority::Low];

    let request = |number: usize, deadline: Duration| {
        let mut request = to(Method::POST, KINDS[number % KINDS.len()]);
        let priority = PRIORITIES[number / KINDS.len() % PRIORITIES.len()];
        request.extensions_mut().insert(CallOptions::new().priority(priority).deadline(deadline));
        request
    };
    simulate(async || {
        let scopes = [
            Scope::methods("wide", 10 * RATE, ["POST"])?,
            Scope::endpoints("sessions", RATE, ["session-create"])?,
            Scope::endpoints("screenings", 2 * RATE, ["aml"])?,
        ];
        let limits = scopes.into_iter().try_fold(Limits::none(), Limits::with)?;
        let layers = ServiceBuilder::new().layer(DeadlineLayer::new(DeadlineLayer::MAX));
        let service = layers.layer(PacingLayer::builder().limits(limits).build()?).service(Immediate);
        let (next, patient) = (AtomicUsize::new(0), DeadlineLayer::MAX);
        // One window is used up.
        for _ in 0..10 * RATE {
            service.clone().oneshot(request(0, patient)).await.map_err(|error| error.to_string())?;
        }
        let call = |deadline| {
            let call = service.clone().oneshot(request(next.fetch_add(1, Ordering::Relaxed), deadline));
            async move { call.await.is_ok() }
        };
        let (waiting, _) = wait(waiters, || call(patient)).await?;
        let refused = refusals(|| {
            let refused = call(SECOND);
            async move { !refused.await }
        })
        .await?;
        drop(waiting);
        Ok(refused)
    })
}

/// The same on a fair semaphore that a ticker refills: the least that keeps an order.
///
/// # Errors
///
/// If the world cannot be set up.
pub fn semaphore(waiters: usize) -> Result<Waiting, Problem> {
    simulate(async || {
        refilled(waiters, |permits| async move { permits.acquire().await.map(SemaphorePermit::forget).is_ok() }).await
    })
}

/// The semaphore in the ledger's place: each who waits has a request, a service and a deadline. What this costs beyond the
/// bare semaphore is no limiter's doing.
///
/// # Errors
///
/// If the world cannot be set up.
pub fn semaphore_within_a_call(waiters: usize) -> Result<Waiting, Problem> {
    simulate(async || {
        refilled(waiters, |permits| {
            let paced = service_fn(move |request| {
                let permits = Arc::clone(&permits);
                async move {
                    // It is never closed.
                    permits.acquire().await.map(SemaphorePermit::forget).ok();
                    Immediate.oneshot(request).await
                }
            });
            let call = DeadlineLayer::new(DeadlineLayer::MAX).layer(paced).oneshot(read());
            async move { call.await.is_ok() }
        })
        .await
    })
}

/// Calls that wait for a semaphore with [`RATE`] permits more each second.
async fn refilled<F>(waiters: usize, call: impl Fn(Arc<Semaphore>) -> F) -> Result<Waiting, Problem>
where
    F: Future<Output = bool> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(0));
    let refilled = Arc::clone(&permits);
    let ticker = tokio::spawn(async move {
        let mut ticks = interval(SECOND);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            refilled.add_permits(RATE as usize);
        }
    });
    let (waiting, order) = wait(waiters, || call(Arc::clone(&permits))).await?;
    let waiting = finish(waiting, order, waiters, None).await;
    ticker.abort();
    Ok(waiting)
}

type Order = Arc<Mutex<Vec<usize>>>;

struct Queued {
    calls: JoinSet<()>,
    queued_ns: f64,
}

async fn wait<F>(waiters: usize, call: impl Fn() -> F) -> Result<(Queued, Order), Problem>
where
    F: Future<Output = bool> + Send + 'static,
{
    let order = Order::default();
    let began = processor_time();
    let mut calls = JoinSet::new();
    for number in 0..waiters {
        let (call, order) = (call(), Arc::clone(&order));
        calls.spawn(async move {
            if call.await {
                locked(&order).push(number);
            }
        });
    }
    // The runtime polls some tasks between two looks at this one; all of them are to stand in the queue.
    for _ in 0..waiters.div_ceil(TASKS_BETWEEN_LOOKS) + 1 {
        tokio::task::yield_now().await;
    }
    let queued_ns = each(began, waiters);
    if !locked(&order).is_empty() {
        return Err("a call did not wait".into());
    }
    Ok((Queued { calls, queued_ns }, order))
}

async fn refusals<F: Future<Output = bool>>(call: impl Fn() -> F) -> Result<f64, Problem> {
    let began = processor_time();
    for _ in 0..REFUSALS {
        if !call().await {
            return Err("a call that cannot start in time was not refused".into());
        }
    }
    Ok(each(began, REFUSALS as usize))
}

async fn finish(mut queued: Queued, order: Order, waiters: usize, refused_ns: Option<f64>) -> Waiting {
    let start = tokio::time::Instant::now();
    let began = processor_time();
    while queued.calls.join_next().await.is_some() {}
    let released_ns = each(began, waiters);
    let took = start.elapsed().as_secs_f64();
    let order = locked(&order).clone();
    let mut latest = 0;
    let overtaken = order.iter().filter(|number| {
        let behind = **number < latest;
        latest = latest.max(**number);
        behind
    });
    // What is dropped afterwards is none of the measurement's.
    sleep(SECOND).await;
    Waiting {
        released_ns,
        queued_ns: queued.queued_ns,
        overtaken: overtaken.count() as f64 / waiters.max(1) as f64,
        rate: waiters as f64 / took / f64::from(RATE),
        refused_ns,
    }
}

/// The least that a number of runs took: what they took beyond it went to whatever else the machine does.
fn quietest(run: impl Fn() -> Result<Waiting, Problem>) -> Result<Waiting, Problem> {
    (1..RUNS).try_fold(run()?, |least, _| {
        let Waiting { released_ns, queued_ns, refused_ns, .. } = run()?;
        Ok(Waiting {
            released_ns: least.released_ns.min(released_ns),
            queued_ns: least.queued_ns.min(queued_ns),
            refused_ns: least.refused_ns.zip(refused_ns).map(|(one, other)| one.min(other)),
            ..least
        })
    })
}

/// By number of waiters.
pub(super) fn table() -> Result<Table, Problem> {
    let title = format!("Calls that wait for {RATE} a second: time of the processor, and order");
    let columns = [
        "waiters",
        "to queue, ns",
        "the same, to release, ns",
        "refused at the door, ns",
        "behind nine queues, ns",
        "overtaken",
        "of the rate",
        "semaphore within a call, to queue, ns",
        "the same, to release, ns",
        "bare semaphore, to queue, ns",
        "the same, to release, ns",
    ];
    let mut table = Table::new(title, columns);
    for waiters in [1_000, 10_000, 100_000] {
        let ours = quietest(|| ledger(waiters))?;
        let behind = (0..RUNS)
            .try_fold(f64::MAX, |least, _| Ok::<_, Problem>(least.min(refused_behind_nine_queues(waiters)?)))?;
        let within = quietest(|| semaphore_within_a_call(waiters))?;
        let least = quietest(|| semaphore(waiters))?;
        table.rows.push(vec![
            waiters.to_string(),
            format!("{:.0}", ours.queued_ns),
            format!("{:.0}", ours.released_ns),
            ours.refused_ns.map_or_else(|| "–".to_owned(), |ns| format!("{ns:.0}")),
            format!("{behind:.0}"),
            format!("{:.2} %", 100.0 * ours.overtaken),
            format!("{:.1} %", 100.0 * ours.rate),
            format!("{:.0}", within.queued_ns),
            format!("{:.0}", within.released_ns),
            format!("{:.0}", least.queued_ns),
            format!("{:.0}", least.released_ns),
        ]);
    }
    Ok(table)
}
