//! What the layers promise, in simulated worlds; the same worlds as those of the binary, for shorter.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::{num::NonZeroU32, process::Command, time::Duration};

use benches::outcomes::{
    scenarios::{ambiguous, bursts, cancelled, flood, outage, provider_down, saturated, second_consumer, two_scopes},
    strategies::{Governor, Pacing, Stack, TowerRetry, boxed},
    tables::{silence, waiters},
    tally::Tally,
    world::{LIMIT, Leg, SECOND, Server, Trace, Wire, read, reads, simulate},
};
use didit_api::Limits;
use tower::ServiceBuilder;
use tower_didit::{deadline::DeadlineLayer, pacing::PacingLayer};

const HOUR: Duration = Duration::from_secs(3_600);

fn ours() -> Pacing {
    Pacing::new(reads(LIMIT).unwrap())
}

#[test]
fn a_saturated_limit_brings_no_429_and_99_percent_whatever_the_latency_and_the_server() {
    for server in [Server::Lenient, Server::Strict] {
        for leg in Leg::ALL {
            let result = saturated::world(&ours(), leg, server, HOUR / 4, 1).unwrap();
            println!("{}, {}: {result:?}", server.name(), leg.name());
            assert_eq!((result.throttled, result.lost), (0, 0), "{result:?}");
            assert!(result.largest <= u64::from(LIMIT) && result.goodput >= 0.99 * result.best, "{result:?}");
        }
    }
}

#[test]
fn the_epsilon_of_the_default_suits_a_server_of_either_kind() {
    let ours = Pacing { epsilon: Some(SECOND), ..ours() };
    for server in [Server::Lenient, Server::Strict] {
        let result = saturated::world(&ours, Leg::LongTail, server, HOUR / 4, 2).unwrap();
        assert_eq!(result.throttled, 0, "{result:?}");
    }
}

#[test]
fn a_bucket_of_rate_and_burst_of_the_limit_lets_nearly_two_limits_into_one_window() {
    let governor = Governor { burst: None, spread: None };
    let result = saturated::world(&governor, Leg::Near, Server::Lenient, HOUR / 6, 1).unwrap();
    assert_eq!(result.largest, u64::from(2 * LIMIT - 1));
}

#[test]
fn a_narrow_scope_holds_nobody_up_who_does_not_need_it() {
    let result = two_scopes::world(two_scopes::Approach::Ours, HOUR / 2, 1).unwrap();
    println!("{result:?}");
    assert_eq!(result.throttled, 0);
    assert!(result.wide >= 285.0 && result.narrow >= 9.5, "{result:?}");
}

#[test]
fn at_two_thirds_of_the_limit_hardly_a_call_waits_in_spite_of_bursts() {
    for burst in [None, NonZeroU32::new(100)] {
        let (counts, throttled) = bursts::world(&Pacing { burst, ..ours() }, HOUR, 1).unwrap();
        let p99 = counts.wait(0.99).unwrap();
        println!("burst {burst:?}: p99 {p99} ms");
        assert_eq!((throttled, counts.lost), (0, 0));
        assert!(p99 <= 1_500.0, "{p99}");
    }
}

#[test]
fn calls_cancelled_in_flight_bring_no_429() {
    let result = cancelled::world(&ours(), HOUR / 2, 1).unwrap();
    println!("{result:?}");
    assert_eq!((result.throttled, result.lost), (0, 0));
    assert!(result.given_up > 1_000 && result.accepted >= 0.98 * result.best, "{result:?}");
}

#[test]
fn a_neighbour_is_made_room_for_and_its_leaving_is_noticed() {
    let result = second_consumer::world(&ours(), Server::Strict, 1).unwrap();
    println!("{} per minute beside it, recovery in {:?} s", result.goodput, result.recovery);
    assert!(result.goodput >= 225.0, "{result:?}");
    assert!(result.recovery.is_some_and(|seconds| seconds <= 600.0), "{result:?}");
}

#[test]
fn a_batch_that_floods_the_key_holds_nobody_up_who_is_waited_for() {
    let result = flood::world(&ours(), HOUR / 2, 1).unwrap();
    let p99 = result.interactive.wait(0.99).unwrap();
    println!("p99 {p99} ms, {} of {} per minute", result.goodput, result.best);
    assert_eq!((result.throttled, result.interactive.lost), (0, 0));
    // A fifth of the limit is kept from the batch, and half of that is not needed.
    assert!(p99 < 1_000.0 && result.goodput >= 0.88 * result.best, "{p99}, {}", result.goodput);
}

#[test]
fn no_admitted_call_misses_its_deadline_in_the_queue() {
    let deadline = 30 * SECOND;
    let (refused, served) = simulate(async || {
        let server = Server::Lenient;
        let wire = Wire::new(server.sandbox(3).limits(reads(LIMIT)?).latency(Leg::Near.latency()).build()?);
        let pacing = PacingLayer::builder().limits(reads(LIMIT)?).epsilon(server.epsilon()).build()?;
        let client = boxed(ServiceBuilder::new().layer(DeadlineLayer::new(deadline)).layer(pacing).service(wire));
        let tally = Tally::start();
        // Half as many again as are allowed.
        let arrivals = benches::outcomes::demand::poisson(450.0, HOUR / 4, 3);
        let mut calls = tokio::task::JoinSet::new();
        for time in arrivals {
            benches::outcomes::world::at(tally.began(), time).await;
            let (client, tally, trace) = (client.clone(), tally.clone(), Trace::default());
            calls.spawn(async move {
                let made = tokio::time::Instant::now();
                tally.traced(&client, read(), &trace).await;
                (trace.attempts(), made.elapsed())
            });
        }
        let mut refused = 0;
        while let Some(call) = calls.join_next().await {
            let (attempts, took) = call?;
            if attempts == 0 {
                assert_eq!(took, Duration::ZERO, "a call that was never sent was refused at the door");
                refused += 1;
            }
        }
        Ok((refused, tally.counts().served.len()))
    })
    .unwrap();
    println!("refused at the door: {refused}, served: {served}");
    assert!(refused > 1_000 && served > 4_000, "{refused} and {served}");
}

#[test]
fn calls_that_wait_start_in_the_order_in_which_they_came() {
    let result = waiters::ledger(1_000).unwrap();
    assert_eq!(result.overtaken, 0.0);
    assert!(result.rate >= 0.99, "{result:?}");
}

#[test]
fn a_burst_limit_bounds_the_silence_after_a_burst() {
    let longest = |burst| silence::longest(NonZeroU32::new(burst), 1).unwrap();
    assert!(longest(30) <= 7 * SECOND && longest(100) <= 21 * SECOND, "{:?}, {:?}", longest(30), longest(100));
}

#[test]
fn nothing_is_lost_and_nothing_is_done_twice_where_a_plain_retry_pays_again() {
    let (counts, stats) = ambiguous::world(&Stack::new(Limits::none()), 2_000, 1).unwrap();
    println!("attempts per call: {:.3}", counts.attempts_per_call());
    assert_eq!((counts.lost, stats.duplicates_by_operation_id, stats.operations), (0, 0, 2_000));
    let (_, stats) = ambiguous::world(&TowerRetry, 2_000, 1).unwrap();
    assert!(stats.duplicates_by_operation_id > 40, "{stats:?}");
}

#[test]
fn an_outage_is_not_amplified_and_is_over_soon_after_its_end() {
    let result = outage::world(&Stack::new(Limits::none()), 50, 1).unwrap();
    println!("attempts for each call while down: {:.3}, recovery: {:?}", result.attempts_while_down, result.recovery);
    assert!(result.attempts_while_down <= 1.05, "{result:?}");
    assert!(result.recovery.is_some_and(|seconds| seconds <= 45.0), "{:?}", result.recovery);
}

#[test]
fn a_provider_that_hangs_takes_nothing_from_calls_that_do_not_need_it() {
    let ours = Stack { fail_fast: true, ..Stack::new(Limits::none()) };
    let result = provider_down::world(&ours, 1).unwrap();
    let goodput = result.others.per_minute(provider_down::DOWN.0, provider_down::DOWN.1);
    println!("others per minute: {goodput:.0} of {:.0}", result.best);
    assert_eq!(result.others.lost, 0);
    assert!(goodput >= 0.85 * result.best, "{goodput} of {}", result.best);
}

#[test]
fn a_simulation_repeats_with_its_seed() {
    let run = |seed| cancelled::world(&ours(), HOUR / 6, seed).unwrap();
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}

#[test]
fn the_binary_prints_the_agreed_keys() {
    let binary = || Command::new(env!("CARGO_BIN_EXE_outcomes"));
    let output = binary().args(["--json", "--hours", "1", "--seed", "3", "two-scopes"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<serde_json::Map<String, serde_json::Value>> = serde_json::from_str(&text).unwrap();
    for row in &rows {
        let mut keys: Vec<_> = row.keys().map(String::as_str).collect();
        keys.sort_unstable();
        let mut agreed = [
            "scenario",
            "strategy",
            "goodput",
            "best",
            "throttled",
            "duplicates",
            "lost",
            "attempts_per_call",
            "p50_wait_ms",
            "p99_wait_ms",
            "recovery_s",
        ];
        agreed.sort_unstable();
        assert_eq!(keys, agreed);
    }
    assert_eq!((rows[0]["strategy"].as_str(), rows[0]["throttled"].as_u64()), (Some("tower-didit"), Some(0)));
    assert!(rows.len() > 4 && rows[0]["duplicates"].is_null());

    let unknown = binary().arg("saturate").output().unwrap();
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8(unknown.stderr).unwrap().contains("second-consumer"));
}
