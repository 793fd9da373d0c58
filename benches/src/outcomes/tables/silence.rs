//! The longest time in which nothing is sent, after a queue of three windows came at once.

use std::{num::NonZeroU32, time::Duration};

use http::Request;

use crate::{
    Body,
    outcomes::{
        Problem, Table,
        scenarios::Settings,
        strategies::{Pacing, Quota, Strategy},
        tally::Tally,
        world::{LIMIT, Leg, Server, Trace, Wire, read, reads, simulate},
    },
};

/// How many calls come at once.
const QUEUED: usize = 900;

/// The longest silence between two sendings.
///
/// # Errors
///
/// If the world cannot be set up.
pub fn longest(burst: Option<NonZeroU32>, seed: u64) -> Result<Duration, Problem> {
    simulate(async || {
        let server = Server::Lenient;
        let wire = Wire::new(server.sandbox(seed).limits(reads(LIMIT)?).latency(Leg::Near.latency()).build()?);
        let quota = Quota::of(server, Leg::Near, seed);
        let client = Pacing { burst, ..Pacing::new(reads(LIMIT)?) }.client(wire, &quota)?;
        let tally = Tally::start();
        let traces: Vec<_> = (0..QUEUED).map(|_| Trace::default()).collect();
        let mut calls = tokio::task::JoinSet::new();
        for trace in traces.clone() {
            let (client, tally, request): (_, _, Request<Body>) = (client.clone(), tally.clone(), read());
            calls.spawn(async move { tally.traced(&client, request, &trace).await });
        }
        while calls.join_next().await.is_some() {}
        let mut sent: Vec<_> = traces.iter().filter_map(Trace::last_sent).collect();
        sent.sort_unstable();
        let silences = sent.windows(2).map(|two| two[1] - two[0]);
        Ok(silences.max().unwrap_or_default())
    })
}

/// By burst.
pub(super) fn table(settings: Settings) -> Result<Table, Problem> {
    let title =
        format!("{QUEUED} calls at once, {LIMIT} a minute allowed: the longest time in which nothing is sent, in s");
    let mut table = Table::new(title, ["ledger alone", "burst 100", "burst 30", "burst 1"]);
    let cells = [None, NonZeroU32::new(100), NonZeroU32::new(30), NonZeroU32::new(1)]
        .map(|burst| longest(burst, settings.seed).map(|silence| format!("{:.1}", silence.as_secs_f64())));
    table.rows.push(cells.into_iter().collect::<Result<_, _>>()?);
    Ok(table)
}
