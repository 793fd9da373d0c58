//! What calls achieve in simulated worlds: ours and its peers, side by side.
//!
//! A [scenario](Scenario) is a world (a local Didit with limits, latency, neighbours, faults), a demand on it, and the
//! [strategies] that meet it, each with its own copy of the world. Time is tokio's and paused, so that a day takes
//! seconds, and all randomness that can be seeded is. `cargo run --release -p benches --bin outcomes` runs them;
//! `benches/README.md` says how to read the columns.

pub mod demand;
pub mod plot;
pub mod report;
pub mod scenarios;
pub mod strategies;
pub mod tables;
pub mod tally;
pub mod world;

use std::{
    error::Error,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

pub use self::{
    report::{Curve, Report, Row, Table},
    scenarios::Scenario,
};

/// Why a run cannot go on.
pub type Problem = Box<dyn Error + Send + Sync>;

/// One simulation.
pub type Job<T> = Box<dyn FnOnce() -> Result<T, Problem> + Send>;

/// Runs simulations on all processors; the results come in the order of the jobs.
///
/// # Errors
///
/// The first problem.
pub fn in_parallel<T: Send>(jobs: Vec<Job<T>>) -> Result<Vec<T>, Problem> {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(jobs.len());
    let jobs: Vec<_> = jobs.into_iter().map(|job| Mutex::new(Some(job))).collect();
    let results: Vec<_> = jobs.iter().map(|_| Mutex::new(None)).collect();
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((job, result)) = {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    jobs.get(number).zip(results.get(number))
                } {
                    let job = world::locked(job).take();
                    *world::locked(result) = job.map(|job| job());
                }
            });
        }
    });
    let result = |result: Mutex<Option<Result<T, Problem>>>| {
        result.into_inner().ok().flatten().unwrap_or_else(|| Err("a simulation did not end".into()))
    };
    results.into_iter().map(result).collect()
}
