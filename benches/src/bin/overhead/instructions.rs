//! Instructions per call, exact to half a percent, by running this program once more under valgrind.
//!
//! Callgrind counts only within [`counted`], and writes a file each time that function returns: one for each row.

use std::{hint::black_box, path::Path, process::Command};

use tokio::runtime::Builder;

use crate::{Failure, subjects};

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

/// Makes the calls of every row, watched.
pub(crate) fn watched() -> Result<(), Failure> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    for mut subject in runtime.block_on(async { subjects::all() })? {
        subject.warm_up(&runtime, CALLS)?;
        let mut load = Some(subject.requests(CALLS));
        let mut made = Ok(std::time::Duration::ZERO);
        allocation_counter::opt_out(|| {
            counted(&mut || made = subject.run(&runtime, load.take().unwrap_or_default()));
        });
        made?;
    }
    Ok(())
}

/// Instructions per call of every row; nothing without valgrind.
pub(crate) fn of_all() -> Result<Vec<f64>, Failure> {
    if Command::new("valgrind").arg("--version").output().is_err() {
        return Ok(Vec::new());
    }
    let folder = std::env::temp_dir().join(format!("overhead-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let read = run(&folder);
    std::fs::remove_dir_all(&folder)?;
    read
}

fn run(folder: &Path) -> Result<Vec<f64>, Failure> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no"])
        .args(["--toggle-collect", "--dump-after"].map(|what| format!("{what}={COUNTED}")))
        .arg(format!("--callgrind-out-file={}", folder.join("out").display()))
        .arg(std::env::current_exe()?)
        .arg(format!("--{WATCHED}"))
        .output()?;
    if !output.status.success() {
        return Err(format!("valgrind failed: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let mut counts = Vec::new();
    while let Ok(dump) = std::fs::read_to_string(folder.join(format!("out.{}", counts.len() + 1))) {
        let totals = dump.lines().find_map(|line| line.strip_prefix("totals: "));
        let total: f64 = totals.unwrap_or_default().trim().parse()?;
        counts.push(total / CALLS as f64);
    }
    Ok(counts)
}
