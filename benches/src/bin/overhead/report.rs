//! What was measured, as Markdown or JSON.

use std::{process::Command, time::SystemTime};

use serde_json::{Value, json};

use crate::{
    growth::{Curve, Series},
    measure::Row,
    subjects::{
        BARE, BREAKER, CLOCK, CLONE, FLOOR, FLOOR_ONCE, HEADER, HEADERS, IDS, NAMES, PACING, RETRY, RETRY_ONCE, STACK,
        STACK_ONCE, STEP,
    },
    wire::WireRow,
};

/// Everything of one run.
pub(crate) struct Report {
    pub(crate) rows: Vec<Row>,
    pub(crate) wire: Vec<WireRow>,
    pub(crate) curves: Vec<Curve>,
}

/// What a row of the targets demands: at most this many times its reference, and at most these allocations.
const TARGETS: [(&str, &str, f64, f64); 7] = [
    (STACK, FLOOR, 1.15, 5.0),
    (STACK_ONCE, FLOOR_ONCE, 1.15, 3.0),
    (IDS, HEADER, 230.0 / 242.0, 3.0),
    (NAMES, HEADERS, 340.0 / 352.0, 4.0),
    (BREAKER, CLOCK, 35.0 / 30.0, 0.0),
    (PACING, STEP, 75.0 / 66.0, 0.0),
    (RETRY, CLONE, 215.0 / 184.0, 2.0),
];

/// The crates whose versions say what was measured.
const CRATES: [&str; 13] = [
    "tower",
    "tower-http",
    "tower-resilience-retry",
    "tower-resilience-circuitbreaker",
    "tower-resilience-ratelimiter",
    "tower-resilience-timelimiter",
    "failsafe",
    "governor",
    "hyper",
    "hyper-util",
    "reqwest",
    "reqwest-middleware",
    "reqwest-retry",
];

// ===== impl Report =====

impl Report {
    /// One object for each subject.
    pub(crate) fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            json!({
                "subject": row.subject, "ns": row.ns, "ratio": row.ratio, "allocations": row.allocations,
                "bytes": row.bytes, "instructions": row.counted.map(|counted| counted.instructions),
                "locked": row.counted.and_then(|counted| counted.locked), "future_bytes": row.future_bytes,
            })
        });
        let wire = self.wire.iter().map(|row| {
            json!({
                "subject": row.subject, "ns": row.ns, "ratio": row.ratio, "allocations": row.allocations,
                "bytes": row.bytes, "instructions": null, "locked": null, "future_bytes": row.future_bytes,
            })
        });
        rows.chain(wire).collect()
    }

    pub(crate) fn print(&self) {
        println!("{}\n", surroundings());
        self.print_rows();
        self.print_targets();
        self.print_wire();
        self.curves.iter().for_each(print_curve);
    }

    fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.subject == name)
    }

    fn print_rows(&self) {
        let (Some(bare), Some(ours)) = (self.row(BARE), self.row(STACK)) else { return };
        println!(
            "| subject | ns | over bare | × bare | × ours | allocations | bytes | instructions | locked | two threads | future |"
        );
        println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
        for row in &self.rows {
            println!(
                "| {} | {:.0} | {:.0} | {:.2} | {:.2} | {:.1} | {:.0} | {} | {} | {} | {} |",
                row.subject,
                row.ns,
                over(row, bare),
                row.ratio,
                over(row, bare) / over(ours, bare),
                row.allocations - bare.allocations,
                row.bytes - bare.bytes,
                shown(worked(row, bare), 0),
                shown(row.counted.and_then(|counted| counted.locked), 0),
                shown(row.scaling, 2),
                row.future_bytes,
            );
        }
        println!();
    }

    fn print_targets(&self) {
        let Some(bare) = self.row(BARE) else { return };
        println!(
            "| target | reference | time × reference | at most | instructions × reference | allocations | at most |"
        );
        println!("|---|---|--:|--:|--:|--:|--:|");
        for (name, reference, most, allocations) in TARGETS {
            let (Some(row), Some(reference)) = (self.row(name), self.row(reference)) else { continue };
            println!(
                "| {name} | {} | {:.2} | {most:.2} | {} | {:.1} | {allocations:.0} |",
                reference.subject,
                over(row, bare) / over(reference, bare),
                shown(worked(row, bare).zip(worked(reference, bare)).map(|(row, reference)| row / reference), 2),
                row.allocations - bare.allocations,
            );
        }
        if let Some(row) = self.row(RETRY_ONCE) {
            println!(
                "| {RETRY_ONCE} | {BARE} | {:.0} ns over | 10 ns | | {:.1} | 0 |",
                over(row, bare),
                row.allocations
            );
        }
        if let (Some(ours), Some(bare)) = (self.row(STACK).and_then(|row| row.scaling), bare.scaling) {
            println!("| {STACK}, two threads | {BARE} | {:.2} of its scaling | at least 0.95 | | | |", ours / bare);
        }
        println!();
    }

    fn print_wire(&self) {
        let Some(bare) = self.wire.first() else { return };
        println!(
            "| 64 at once | client CPU, ns | over bare | × bare | allocations over bare | bytes over bare | future |"
        );
        println!("|---|--:|--:|--:|--:|--:|--:|");
        for row in &self.wire {
            println!(
                "| {} | {:.0} | {:.0} | {:.2} | {:.1} | {:.0} | {} |",
                row.subject,
                row.ns,
                row.ns - bare.ns,
                row.ratio,
                row.allocations - bare.allocations,
                row.bytes - bare.bytes,
                shown(row.future_bytes.map(|bytes| bytes as f64), 0),
            );
        }
        println!();
    }
}

fn over(row: &Row, bare: &Row) -> f64 {
    row.ns - bare.ns
}

/// Instructions beyond those of the bare service.
fn worked(row: &Row, bare: &Row) -> Option<f64> {
    let counted = row.counted.zip(bare.counted);
    counted.map(|(row, bare)| row.instructions - bare.instructions)
}

fn shown(value: Option<f64>, digits: usize) -> String {
    value.map(|value| format!("{value:.digits$}")).unwrap_or_default()
}

fn print_curve(curve: &Curve) {
    let mut sizes: Vec<_> = curve.series.iter().flat_map(|series| series.points.iter().map(|point| point.0)).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let heads: Vec<_> = sizes.iter().map(|size| format!("{size} {}", curve.of)).collect();
    println!("| {}: {} | {} |", curve.title, curve.what, heads.join(" | "));
    println!("|---{}|", "|--:".repeat(sizes.len()));
    for Series { name, points } in &curve.series {
        let at = |size: &usize| points.iter().find(|point| point.0 == *size).map(|point| point.1);
        let cells: Vec<_> = sizes.iter().map(|size| shown(at(size), 1)).collect();
        println!("| {name} | {} |", cells.join(" | "));
    }
    println!();
}

/// Machine, date, versions.
fn surroundings() -> String {
    #[expect(clippy::disallowed_methods, reason = "the date of a run that took real time")]
    let date = httpdate::fmt_http_date(SystemTime::now());
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|found| found.1);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let rustc = Command::new("rustc").arg("--version").output().map(|output| output.stdout).unwrap_or_default();
    let versions: Vec<_> = CRATES.iter().filter_map(|name| Some(format!("{name} {}", version(name)?))).collect();
    format!(
        "{date}; {}, {cores} cores; {}; {}",
        model.unwrap_or("unknown CPU"),
        String::from_utf8_lossy(&rustc).trim(),
        versions.join(", ")
    )
}

/// The newest version of a crate in the lock file that this was built with.
fn version(name: &str) -> Option<&'static str> {
    let lock = include_str!("../../../../Cargo.lock");
    let found = lock.split("[[package]]").filter(|package| package.contains(&format!("\nname = \"{name}\"\n")));
    found.filter_map(|package| package.split_once("version = \"")?.1.split_once('"').map(|found| found.0)).last()
}
