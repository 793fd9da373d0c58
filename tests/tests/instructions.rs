//! How many instructions a call through the stack takes. Unlike time, that is the same on a busy machine.
//!
//! Needs valgrind, and says so if there is none.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::process::Command;

/// What a call takes without optimisation, as tests are compiled, and with it: measured with Rust 1.95 on x86-64.
const EXPECTED: f64 = if cfg!(debug_assertions) { 104_400.0 } else { 13_500.0 };

/// How far a compiler or an allocator may move it. Two layers more, or a call that copies itself about, are beyond it.
const BAND: f64 = 0.25;

/// Instructions of so many calls and of what is around them.
fn instructions(calls: u32) -> f64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env!("CARGO_BIN_EXE_stack_calls"))
        .arg(calls.to_string())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    said.lines().find_map(|line| line.split_once("Collected : ")).unwrap().1.trim().parse().unwrap()
}

#[test]
fn a_call_takes_as_many_instructions_as_ever() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("skipped: valgrind is not installed");
        return;
    }
    if !cfg!(target_arch = "x86_64") {
        println!("skipped: the count is that of x86-64");
        return;
    }
    let (few, many) = (500, 1_500);
    let each = (instructions(many) - instructions(few)) / f64::from(many - few);
    println!("{each:.0} instructions a call, {EXPECTED:.0} expected");
    assert!((each / EXPECTED - 1.0).abs() < BAND, "{each:.0} instructions a call, {EXPECTED:.0} expected");
}
