//! What happened, as it happens and afterwards.

use std::{
    collections::HashSet,
    error::Error,
    fmt::Write as _,
    io::{IsTerminal as _, stderr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use didit_api::ServiceGroup;
use didit_sandbox::{JournalEntry, Stats};
use serde::Serialize;
use tokio::time::{Instant, Interval, interval};
use tower_didit::{DiditLayer, call::CorrelationId, circuit_breaker::CircuitState};

use crate::{Call, Journey, local::Local};

// ===== while it runs =====

/// Says on standard error how far the run is: on a terminal in one line that changes, elsewhere in a line a second.
pub(crate) struct Progress {
    calls: usize,
    done: Arc<AtomicU64>,
    layer: DiditLayer,
    started: Instant,
    ticks: Interval,
    terminal: bool,
}

impl Progress {
    pub(crate) fn start(calls: usize, layer: DiditLayer) -> Self {
        let terminal = stderr().is_terminal();
        let ticks = interval(Duration::from_millis(if terminal { 100 } else { 1_000 }));
        Self { calls, done: Arc::default(), layer, started: Instant::now(), ticks, terminal }
    }

    /// Where tasks count the calls that ended.
    pub(crate) fn counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.done)
    }

    /// Waits until it is time to say something, and says it.
    pub(crate) async fn tick(&mut self) {
        self.ticks.tick().await;
        self.say();
    }

    /// Says the last word.
    pub(crate) fn finish(self) {
        self.say();
        if self.terminal {
            eprintln!();
        }
    }

    fn say(&self) {
        let (done, seconds) = (self.done.load(Ordering::Relaxed), self.started.elapsed().as_secs_f64());
        let mut line = format!("{seconds:5.1} s  {done:3} of {} calls done", self.calls);
        // The stack knows how full each scope is: slots taken, and calls that wait for one.
        for usage in self.layer.pacing().usage().iter().filter(|usage| usage.used > 0) {
            let _ = write!(line, "  {} {}/{}", usage.scope, usage.used, usage.limit);
            if usage.waiting > 0 {
                let _ = write!(line, " ({} waiting)", usage.waiting);
            }
        }
        // So does it know of a circuit that is not closed: after five failures in a row nothing is sent for a while.
        match self.layer.circuit_breaker().state(ServiceGroup::Core) {
            Some(CircuitState::Open { until }) => {
                let wait = until.saturating_duration_since(Instant::now());
                let _ = write!(line, "  circuit open for {:.1} s", wait.as_secs_f64());
            }
            Some(CircuitState::HalfOpen) => line.push_str("  circuit half-open"),
            _ => {}
        }
        if self.terminal {
            // Back to the start of the line, and whatever was longer before is erased.
            eprint!("\r{line}\x1b[K");
        } else {
            eprintln!("{line}");
        }
    }
}

// ===== afterwards =====

/// The object that `--json` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Counts {
    /// What the application asked for.
    calls: u64,
    /// What it got.
    succeeded: u64,
    /// What was sent for it.
    attempts: u64,
    /// What was sent beyond the first attempt of each call.
    retries: u64,
    /// 429s seen.
    throttled: u64,
    /// Sessions that exist now and did not before; with `--live`, sessions that the calls returned.
    sessions_made: u64,
    /// Sessions made beyond the first for one user.
    pub(crate) duplicates: u64,
    /// Users without a session, and calls without an answer.
    lost: u64,
}

impl Counts {
    /// Whether nothing was lost, nothing done twice, and no limit overrun.
    pub(crate) fn is_clean(&self) -> bool {
        self.succeeded == self.calls && self.duplicates == 0 && self.lost == 0 && self.throttled == 0
    }
}

/// What the run came to.
pub(crate) struct Summary {
    pub(crate) counts: Counts,
    /// Attempts that an open circuit kept from being sent.
    held_back: u64,
    queued: Duration,
    backed_off: Duration,
    stats: Option<Stats>,
}

impl Summary {
    pub(crate) fn of(journeys: &[Journey], throttled: u64, local: Option<&Local>) -> Self {
        let calls = || journeys.iter().flat_map(|journey| &journey.calls);
        let sessions: HashSet<&str> = journeys.iter().filter_map(|journey| journey.session_id.as_deref()).collect();
        // Each user wants two calls; a decision that could not even be asked for is lost as well.
        let wanted = count(journeys.len() * 2);
        let succeeded = count(calls().filter(|call| call.failure.is_none()).count());
        // Reports count an attempt that an open circuit held back as well; the server only what arrived.
        let begun: u64 = calls().map(|call| u64::from(call.report.attempts())).sum();
        let stats = local.map(Local::stats);
        let attempts = stats.as_ref().map_or(begun, |stats| stats.arrivals.values().sum());
        let mut counts = Counts {
            calls: wanted,
            succeeded,
            attempts,
            retries: attempts.saturating_sub(count(calls().count())),
            throttled,
            sessions_made: count(sessions.len()),
            // What was done twice, only the server can tell; it is asked later.
            duplicates: 0,
            lost: wanted - succeeded,
        };
        if let (Some(stats), Some(local)) = (&stats, local) {
            // The server knows better than its clients what it has done.
            let journal = local.journal();
            let made: HashSet<_> = journal
                .iter()
                .filter(|entry| entry.route == "session-create")
                .filter_map(|entry| entry.session_id.as_deref())
                .collect();
            counts.throttled = stats.throttled;
            counts.sessions_made = stats.sessions_made;
            // A session made twice is found by either; the larger number is the count.
            counts.duplicates = stats.duplicates_by_vendor_data.max(stats.duplicates_by_operation_id);
            counts.lost += count(sessions.difference(&made).count());
        }
        Self {
            held_back: begun.saturating_sub(attempts),
            counts,
            queued: calls().map(|call| call.report.queued()).sum(),
            backed_off: calls().map(|call| call.report.backed_off()).sum(),
            stats,
        }
    }
}

fn count(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Prints the table, the calls that failed, and one journey.
pub(crate) fn print(summary: &Summary, journeys: &[Journey], local: Option<&Local>) {
    let Summary { counts, held_back, queued, backed_off, stats } = summary;
    println!("\nseen by the application");
    row("calls", counts.calls);
    row("succeeded", counts.succeeded);
    row("attempts", counts.attempts);
    row("retries", counts.retries);
    if *held_back > 0 {
        row("held back by open circuit", *held_back);
    }
    println!("  {:28}{:>9.1} s, all calls together", "waited for quota", queued.as_secs_f64());
    println!("  {:28}{:>9.1} s, all calls together", "backed off", backed_off.as_secs_f64());
    if let Some(stats) = stats {
        println!("\nseen by the server");
        row("answered 503", fault(stats, "status"));
        row("carried out, then dropped", fault(stats, "work-then-drop"));
        row("sessions handed out again", stats.sessions_reused);
        if let Some(peak) = stats.peak.get("session-v2-create") {
            println!("  {:28}{:>9} of {} allowed", "creations in one window", peak.arrived, peak.limit);
        }
    } else {
        println!("\nresult");
    }
    row("429s", counts.throttled);
    row("sessions made", counts.sessions_made);
    row("duplicates", counts.duplicates);
    row("lost", counts.lost);
    for journey in journeys {
        for call in &journey.calls {
            if let Some(failure) = &call.failure {
                println!("\nfailed: {} of {}: {}", call.name, journey.id, with_sources(failure));
            }
        }
    }
    follow(journeys, local);
}

fn row(label: &str, number: u64) {
    println!("  {label:28}{number:>9}");
}

fn fault(stats: &Stats, kind: &str) -> u64 {
    stats.faults.get(kind).copied().unwrap_or_default()
}

/// Follows the journey with the most attempts.
fn follow(journeys: &[Journey], local: Option<&Local>) {
    let attempts = |journey: &Journey| journey.calls.iter().map(|call| call.report.attempts()).sum::<u32>();
    let Some(journey) = journeys.iter().max_by_key(|journey| attempts(journey)) else { return };
    println!("\nfollowed: {}, {} calls, {} attempts", journey.id, journey.calls.len(), attempts(journey));
    match local {
        Some(local) => follow_through_journal(&local.journal(), &journey.id),
        None => journey.calls.iter().for_each(follow_through_report),
    }
}

/// The server's journal has every attempt, since each carries the id in its `X-Correlation-ID`.
fn follow_through_journal(journal: &[JournalEntry], id: &CorrelationId) {
    for entry in journal.iter().filter(|entry| entry.correlation_id.as_deref() == Some(id.as_str())) {
        let seconds = Duration::from_millis(entry.at_ms).as_secs_f64();
        let result = match (entry.status, entry.fault.as_deref()) {
            (Some(status), Some(fault)) => format!("{status} (fault: {fault})"),
            (Some(status), None) => status.to_string(),
            (None, fault) => format!("no answer (fault: {})", fault.unwrap_or("none")),
        };
        println!("  {seconds:7.3} s  {:18}{result}", entry.route);
    }
}

/// Didit shows no journal; what the stack knows about a call stands in its report.
fn follow_through_report(call: &Call) {
    println!(
        "  {:10}{} attempts, {:.1} s waited for quota, {:.1} s backed off, outcome: {}",
        call.name,
        call.report.attempts(),
        call.report.queued().as_secs_f64(),
        call.report.backed_off().as_secs_f64(),
        call.report.outcome().map_or("unknown", |outcome| outcome.name()),
    );
}

/// An error and everything that led to it, in one line.
pub(crate) fn with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}
