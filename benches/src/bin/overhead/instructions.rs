//! Instructions per call, exact to half a percent, by running this program once more under valgrind; and how many of them
//! lock memory.
//!
//! Callgrind counts only within [`counted`], and writes a file each time that function returns: one for each row.

use std::{
    collections::HashSet,
    hint::black_box,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use tokio::runtime::Builder;

use crate::{Failure, measure::Subject, subjects};

/// The argument that makes this program the one that is watched.
pub(crate) const WATCHED: &str = "watched";

const CALLS: usize = 200;

/// What valgrind looks for by name.
const COUNTED: &str = "overhead::instructions::counted";

#[inline(never)]
fn counted(work: &mut dyn FnMut()) {
    work();
    black_box(());
}

/// What valgrind counted of one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted {
    pub(crate) instructions: f64,
    /// Those among them that read and write memory in one step, which is what threads get into each other's way with.
    pub(crate) locked: Option<f64>,
}

/// Makes the calls of every row, watched.
pub(crate) fn watched() -> Result<(), Failure> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let make_calls = |mut subject: Subject| -> Result<(), Failure> {
        subject.warm_up(&runtime, CALLS)?;
        let mut load = Some(subject.requests(CALLS));
        let mut made = Ok(std::time::Duration::ZERO);
        allocation_counter::opt_out(|| {
            counted(&mut || made = subject.run(&runtime, load.take().unwrap_or_default()));
        });
        made.map(drop)
    };
    runtime.block_on(async { subjects::all() })?.into_iter().try_for_each(make_calls)?;
    subjects::listened()?.into_iter().try_for_each(make_calls)
}

/// What a call of every row takes; nothing without valgrind.
pub(crate) fn of_all() -> Result<Vec<Counted>, Failure> {
    if Command::new("valgrind").arg("--version").output().is_err() {
        return Ok(Vec::new());
    }
    let folder = std::env::temp_dir().join(format!("overhead-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let read = run(&folder);
    std::fs::remove_dir_all(&folder)?;
    read
}

fn run(folder: &Path) -> Result<Vec<Counted>, Failure> {
    let program = std::env::current_exe()?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no", "--dump-instr=yes"])
        .args(["--compress-pos=no", "--compress-strings=no"])
        .args(["--toggle-collect", "--dump-after"].map(|what| format!("{what}={COUNTED}")))
        .arg(format!("--callgrind-out-file={}", folder.join("out").display()))
        .arg(&program)
        .arg(format!("--{WATCHED}"))
        .output()?;
    if !output.status.success() {
        return Err(format!("valgrind failed: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let locked = locked_instructions(&program);
    let mut counts = Vec::new();
    while let Ok(dump) = std::fs::read_to_string(folder.join(format!("out.{}", counts.len() + 1))) {
        let totals = dump.lines().find_map(|line| line.strip_prefix("totals: "));
        let total: f64 = totals.unwrap_or_default().trim().parse()?;
        let locked = locked.as_ref().map(|locked| executed(&dump, &program, locked) as f64 / CALLS as f64);
        counts.push(Counted { instructions: total / CALLS as f64, locked });
    }
    Ok(counts)
}

/// Where the program has instructions that lock memory, by its own disassembly; `None` where that cannot be had.
fn locked_instructions(program: &Path) -> Option<HashSet<u64>> {
    if !cfg!(target_arch = "x86_64") {
        return None;
    }
    let objdump =
        Command::new("objdump").args(["-d", "--no-show-raw-insn"]).arg(program).stdout(Stdio::piped()).spawn().ok()?;
    let address = |line: String| {
        let (address, instruction) = line.split_once(":\t")?;
        // An exchange with memory locks it without being told.
        let locks = instruction.starts_with("lock ") || (instruction.starts_with("xchg ") && instruction.contains('('));
        locks.then(|| u64::from_str_radix(address.trim(), 16).ok()).flatten()
    };
    Some(BufReader::new(objdump.stdout?).lines().map_while(Result::ok).filter_map(address).collect())
}

/// How often these instructions of the program were executed.
fn executed(dump: &str, program: &Path, instructions: &HashSet<u64>) -> u64 {
    let (mut is_ours, mut is_of_callee, mut count) = (false, false, 0);
    for line in dump.lines() {
        if let Some(object) = line.strip_prefix("ob=") {
            is_ours = Path::new(object) == program;
        } else if line.starts_with("calls=") {
            // The next line is what all callees took.
            is_of_callee = true;
        } else if let Some(cost) = line.strip_prefix("0x") {
            let mut fields = cost.split(' ');
            let address = fields.next().and_then(|address| u64::from_str_radix(address, 16).ok());
            if !std::mem::take(&mut is_of_callee) && is_ours && address.is_some_and(|at| instructions.contains(&at)) {
                count += fields.nth(1).and_then(|times| times.parse().ok()).unwrap_or(0);
            }
        }
    }
    count
}
