//! How many instructions a call takes. Unlike time, that is the same on a busy machine.
//!
//! Needs valgrind, and says so if there is none.

#![allow(clippy::print_stdout, reason = "a test that was skipped says so")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::process::Command;

/// What a call through the stack takes without optimisation, as tests are compiled, and with it: measured with Rust 1.95 on
/// x86-64.
const EXPECTED: f64 = if cfg!(debug_assertions) { 104_400.0 } else { 13_500.0 };

/// How far a compiler or an allocator may move it. Two layers more, or a call that copies itself about, are beyond it.
const BAND: f64 = 0.25;

/// How many calls wait at once: as many as can be watched in some seconds.
const WAITERS: [u32; 2] = if cfg!(debug_assertions) { [1_000, 10_000] } else { [1_000, 100_000] };

/// How far what each of them takes may grow from the few to the many. One that was compared with each of the others would
/// take a hundred times as much.
const GROWTH: f64 = 0.05;

fn is_missing() -> bool {
    let missing = Command::new("valgrind").arg("--version").output().is_err();
    if missing {
        println!("skipped: valgrind is not installed");
    }
    missing
}

/// Instructions of so many calls and of what is around them.
fn instructions(program: &str, calls: u32) -> f64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .arg(calls.to_string())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    said.lines().find_map(|line| line.split_once("Collected : ")).unwrap().1.trim().parse().unwrap()
}

#[test]
fn a_call_takes_as_many_instructions_as_ever() {
    if is_missing() {
        return;
    }
    if !cfg!(target_arch = "x86_64") {
        println!("skipped: the count is that of x86-64");
        return;
    }
    let calls = |calls| instructions(env!("CARGO_BIN_EXE_stack_calls"), calls);
    let (few, many) = (500, 1_500);
    let each = (calls(many) - calls(few)) / f64::from(many - few);
    println!("{each:.0} instructions a call, {EXPECTED:.0} expected");
    assert!((each / EXPECTED - 1.0).abs() < BAND, "{each:.0} instructions a call, {EXPECTED:.0} expected");
}

/// Joining the queue, being let through, and the task around it: time would tell how much memory the tasks take, too.
#[test]
fn a_call_takes_as_many_instructions_however_many_wait() {
    if is_missing() {
        return;
    }
    let calls = |calls| instructions(env!("CARGO_BIN_EXE_queued_calls"), calls);
    // The first hundred do not wait.
    let none = calls(100);
    let [few, many] = WAITERS.map(|waiters| (calls(100 + waiters) - none) / f64::from(waiters));
    let [least, most] = WAITERS;
    println!("{few:.0} instructions a call where {least} wait, {many:.0} where {most} do");
    assert!(many / few - 1.0 < GROWTH, "{few:.0} instructions a call where {least} wait, {many:.0} where {most} do");
}
