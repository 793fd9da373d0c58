//! Who calls, and when.

use std::{future::Future, sync::Arc, time::Duration};

use http::Request;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout_at},
};

use super::{
    strategies::Client,
    tally::Tally,
    world::{Trace, at},
};
use crate::Body;

/// Workers that each call again as soon as they are answered, for so long.
pub async fn saturate(
    client: &Client,
    tally: &Tally,
    workers: usize,
    length: Duration,
    request: impl Fn(usize) -> Request<Body> + Send + Sync + 'static,
) {
    let request = Arc::new(request);
    let tasks = (0..workers).map(|worker| {
        let (client, tally, request) = (client.clone(), tally.clone(), Arc::clone(&request));
        async move {
            loop {
                tally.call(&client, request(worker)).await;
                // A layer that refuses at once would be asked for ever in the same instant.
                tokio::task::yield_now().await;
            }
        }
    });
    until(tally, length, tasks).await;
}

/// Runs tasks until a time, and drops them then.
pub async fn until<F>(tally: &Tally, length: Duration, tasks: impl Iterator<Item = F>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let end = tally.began() + length;
    let mut running = JoinSet::new();
    for task in tasks {
        running.spawn(timeout_at(end, task));
    }
    while running.join_next().await.is_some() {}
}

/// Workers as in [`saturate`], who give a share of their calls up at a random time within `longest` of sending.
pub async fn saturate_and_cancel(
    client: &Client,
    tally: &Tally,
    workers: u64,
    length: Duration,
    (share, longest, seed): (f64, Duration, u64),
    request: impl Fn() -> Request<Body> + Send + Sync + 'static,
) {
    let request = Arc::new(request);
    let tasks = (0..workers).map(|worker| {
        let (client, tally, request) = (client.clone(), tally.clone(), Arc::clone(&request));
        let mut rng = StdRng::seed_from_u64(seed.wrapping_add(worker));
        async move {
            loop {
                let trace = Trace::default();
                let call = tally.traced(&client, request(), &trace);
                if rng.random::<f64>() < share {
                    let patience = longest.mul_f64(rng.random::<f64>());
                    let give_up = async {
                        trace.sent().await;
                        sleep(patience).await;
                    };
                    tokio::select! {
                        biased;
                        _ = call => {}
                        () = give_up => {}
                    }
                } else {
                    call.await;
                }
            }
        }
    });
    until(tally, length, tasks).await;
}

/// The times of a Poisson process, from the beginning to `length`.
pub fn poisson(per_minute: f64, length: Duration, seed: u64) -> Vec<Duration> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut times = Vec::new();
    let mut time = 0.0;
    loop {
        // 1 − u lies in (0, 1].
        time -= (1.0 - rng.random::<f64>()).ln() * 60.0 / per_minute;
        let Some(at) = Duration::try_from_secs_f64(time).ok().filter(|at| *at < length) else { return times };
        times.push(at);
    }
}

/// Makes a call at each of the times, whether others are still under way or not. Waits for `grace` after the last one.
pub async fn open(
    client: &Client,
    tally: &Tally,
    times: Vec<Duration>,
    grace: Duration,
    request: impl Fn(usize) -> Request<Body> + Send + 'static,
) {
    let end = times.last().copied().unwrap_or_default() + grace;
    let mut running = JoinSet::new();
    for (number, time) in times.into_iter().enumerate() {
        at(tally.began(), time).await;
        let (client, tally, request) = (client.clone(), tally.clone(), request(number));
        running.spawn(async move { tally.call(&client, request).await });
        // What has ended is forgotten, so that a day of calls does not fill the memory.
        while running.try_join_next().is_some() {}
    }
    let _gone = timeout_at(tally.began() + end, async { while running.join_next().await.is_some() {} }).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poisson_process_keeps_its_rate_and_repeats_with_its_seed() {
        let hour = Duration::from_secs(3_600);
        let times = poisson(180.0, hour, 5);
        assert!((10_300..11_300).contains(&times.len()), "{}", times.len());
        assert!(times.is_sorted() && times == poisson(180.0, hour, 5) && times != poisson(180.0, hour, 6));
    }
}
