//! That a call which is answered at once asks nothing of the kernel, and passes no lock that tasks wait for.
//!
//! Needs strace and valgrind, and says so where there is none.

#![allow(clippy::print_stdout, reason = "a test that was skipped says so")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::process::Command;

fn is_missing(program: &str) -> bool {
    let missing = Command::new(program).arg("--version").output().is_err();
    if missing {
        println!("skipped: {program} is not installed");
    }
    missing
}

/// What a program says that watches so many calls through the stack.
fn watched(watcher: &str, arguments: &[&str], calls: u32) -> String {
    let mut command = Command::new(watcher);
    let output =
        command.args(arguments).arg(env!("CARGO_BIN_EXE_stack_calls")).arg(calls.to_string()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    said
}

/// System calls of so many calls and of what is around them, one in each line.
fn system_calls(calls: u32) -> Vec<String> {
    watched("strace", &["-f"], calls).lines().map(str::to_owned).collect()
}

#[test]
fn a_call_makes_no_system_call_of_its_own() {
    if is_missing("strace") {
        return;
    }
    let (few, many) = (system_calls(1_000), system_calls(5_000));
    println!("{} system calls around 1000 calls, {} around 5000", few.len(), many.len());
    // Now and then the ledger's memory grows, and the generator takes a new seed after 64 KiB of random numbers.
    assert!(many.len() < few.len() + 4_000 / 200, "{few:#?} {many:#?}");
}

#[test]
fn a_call_passes_no_lock_that_tasks_wait_for() {
    if is_missing("valgrind") {
        return;
    }
    let profile = std::env::temp_dir().join(format!("stack_calls-{}.callgrind", std::process::id()));
    let out = format!("--callgrind-out-file={}", profile.display());
    watched("valgrind", &["--tool=callgrind", "--compress-strings=no", &out], 100);
    let ran = std::fs::read_to_string(&profile).unwrap();
    std::fs::remove_file(&profile).unwrap();
    let functions = || ran.lines().filter_map(|line| line.strip_prefix("fn="));
    assert!(functions().any(|function| function.contains("pacing::pacer")), "the stack was not seen");
    let waited: Vec<_> = functions().filter(|function| function.contains("tokio::sync::")).collect();
    assert!(waited.is_empty(), "{waited:#?}");
}
