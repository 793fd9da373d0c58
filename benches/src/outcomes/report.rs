//! What a run prints.

use std::fmt::Write as _;

use serde::Serialize;

/// What one strategy achieved in one scenario. A column that does not apply is `None`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The scenario's name.
    pub scenario: &'static str,
    /// The strategy's name; ours is `tower-didit`.
    pub strategy: String,
    /// Calls served, per minute, or in all where the scenario says so.
    pub goodput: Option<f64>,
    /// The most that can be had of the world, in the same unit.
    pub best: Option<f64>,
    /// 429s met.
    pub throttled: Option<u64>,
    /// Effects beyond the first of an operation.
    pub duplicates: Option<u64>,
    /// Calls that ended without success.
    pub lost: Option<u64>,
    /// Attempts for each call.
    pub attempts_per_call: Option<f64>,
    /// The median time from a call to when its last attempt was sent, in milliseconds.
    pub p50_wait_ms: Option<f64>,
    /// The same that 99 of 100 calls do not exceed.
    pub p99_wait_ms: Option<f64>,
    /// Seconds from the end of the trouble until calls are served as before.
    pub recovery_s: Option<f64>,
}

impl Row {
    /// A row with nothing in it.
    pub fn new(scenario: &'static str, strategy: impl Into<String>) -> Self {
        Self {
            scenario,
            strategy: strategy.into(),
            goodput: None,
            best: None,
            throttled: None,
            duplicates: None,
            lost: None,
            attempts_per_call: None,
            p50_wait_ms: None,
            p99_wait_ms: None,
            recovery_s: None,
        }
    }
}

/// A table with other columns than those of rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// What it is about.
    pub title: String,
    /// The names of its columns.
    pub columns: Vec<String>,
    /// Its cells.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub fn new(title: impl Into<String>, columns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { title: title.into(), columns: columns.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    /// As Markdown.
    pub fn markdown(&self) -> String {
        let mut text = format!("{}\n\n", self.title);
        line(&mut text, &self.columns);
        let rules = self.columns.iter().enumerate().map(|(number, _)| if number == 0 { "---" } else { "--:" });
        line(&mut text, &rules.map(str::to_owned).collect::<Vec<_>>());
        for row in &self.rows {
            line(&mut text, row);
        }
        text
    }
}

fn line(text: &mut String, cells: &[String]) {
    let _ = writeln!(text, "| {} |", cells.join(" | "));
}

/// How something went over time: minutes, and calls served per minute.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    /// Whose it is.
    pub strategy: String,
    /// The points, by time.
    pub points: Vec<(f64, f64)>,
}

/// How a column is written; `None` where it does not apply.
type Cell = fn(&Row) -> Option<String>;

/// What a scenario left behind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// A sentence or two: the world, the demand, and what the columns mean here.
    pub about: String,
    /// A row for each strategy.
    pub rows: Vec<Row>,
    /// Further tables.
    pub tables: Vec<Table>,
    /// Curves for a plot.
    pub curves: Vec<Curve>,
}

impl Report {
    /// As Markdown, with the columns that have something in them.
    pub fn markdown(&self) -> String {
        let name = self.rows.first().map_or("", |row| row.scenario);
        let mut text = format!("## {name}\n\n{}\n\n", self.about);
        let columns: [(&str, Cell); 9] = [
            ("goodput", |row| row.goodput.map(|number| format!("{number:.1}"))),
            ("best", |row| row.best.map(|number| format!("{number:.1}"))),
            ("429s", |row| row.throttled.map(|number| number.to_string())),
            ("duplicates", |row| row.duplicates.map(|number| number.to_string())),
            ("lost", |row| row.lost.map(|number| number.to_string())),
            ("attempts per call", |row| row.attempts_per_call.map(|number| format!("{number:.3}"))),
            ("p50 wait, ms", |row| row.p50_wait_ms.map(|number| format!("{number:.0}"))),
            ("p99 wait, ms", |row| row.p99_wait_ms.map(|number| format!("{number:.0}"))),
            ("recovery, s", |row| row.recovery_s.map(|number| format!("{number:.0}"))),
        ];
        let used: Vec<_> = columns.iter().filter(|(_, cell)| self.rows.iter().any(|row| cell(row).is_some())).collect();
        let mut table = Table::new("", std::iter::once("strategy").chain(used.iter().map(|(name, _)| *name)));
        for row in &self.rows {
            let cells = used.iter().map(|(_, cell)| cell(row).unwrap_or_else(|| "–".to_owned()));
            table.rows.push(std::iter::once(row.strategy.clone()).chain(cells).collect());
        }
        text.push_str(table.markdown().trim_start());
        for table in &self.tables {
            let _ = write!(text, "\n{}", table.markdown());
        }
        text
    }
}
