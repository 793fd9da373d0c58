//! What calls achieve: ours and its peers in simulated worlds.

use std::{ffi::OsString, fs, io::Write as _, path::PathBuf, process::ExitCode};

use benches::outcomes::{
    Problem, Report, Row, Scenario, plot,
    scenarios::{Settings, outage, second_consumer},
    tables,
};

const HELP: &str = "\
What calls achieve in simulated worlds: ours and its peers, side by side.

Usage: cargo run --release -p benches --bin outcomes [-- OPTIONS SCENARIO…]

Scenarios: saturated two-scopes bursts second-consumer cancelled flood ambiguous outage provider-down
[default: all]

Options:
  --json        Print one array of objects instead of Markdown
  --seed N      The seed of all randomness that can have one [default: 1]
  --hours N     Simulated hours of ours where demand has no end [default: 24]
  --tables      Print tables about limiters, budgets, jitter and queues too; the last measures this machine
  --plot DIR    Draw curves of second-consumer and outage into this directory, as SVG
  -h, --help    Print this help
";

struct Arguments {
    json: bool,
    tables: bool,
    plot: Option<PathBuf>,
    settings: Settings,
    scenarios: Vec<Scenario>,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            let _ = writeln!(std::io::stderr(), "outcomes: {problem}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<(), Problem> {
    let Some(arguments) = parse(std::env::args_os().skip(1))? else {
        return say(HELP);
    };
    let mut rows: Vec<Row> = Vec::new();
    for scenario in arguments.scenarios {
        let report = scenario.run(arguments.settings)?;
        if !arguments.json {
            say(&format!("{}\n", report.markdown()))?;
        }
        if let Some(directory) = &arguments.plot {
            draw(directory, scenario, &report)?;
        }
        rows.extend(report.rows);
    }
    if arguments.json {
        return say(&format!("{}\n", serde_json::to_string_pretty(&rows)?));
    }
    if arguments.tables {
        for table in tables::all(arguments.settings)? {
            say(&format!("{}\n", table.markdown()))?;
        }
    }
    Ok(())
}

fn draw(directory: &PathBuf, scenario: Scenario, report: &Report) -> Result<(), Problem> {
    let minutes = |time: std::time::Duration| time.as_secs_f64() / 60.0;
    let (title, (from, until)) = match scenario {
        Scenario::SecondConsumer => ("Calls served while somebody else uses the key", second_consumer::STAY),
        Scenario::Outage => ("Calls served before, during and after an outage", outage::DOWN),
        _ => return Ok(()),
    };
    fs::create_dir_all(directory)?;
    let file = directory.join(format!("{scenario}.svg"));
    plot::draw(&file, title, &report.curves, (minutes(from), minutes(until)))
}

fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Option<Arguments>, Problem> {
    use lexopt::prelude::{Long, Short, Value, ValueExt as _};

    let mut parser = lexopt::Parser::from_args(arguments);
    let mut read =
        Arguments { json: false, tables: false, plot: None, settings: Settings::default(), scenarios: Vec::new() };
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(None),
            Long("json") => read.json = true,
            Long("tables") => read.tables = true,
            Long("seed") => read.settings.seed = parser.value()?.parse()?,
            Long("hours") => {
                read.settings.hours = parser.value()?.parse()?;
                read.settings.peer_hours = read.settings.peer_hours.min(read.settings.hours);
            }
            Long("plot") => read.plot = Some(parser.value()?.into()),
            Value(name) => read.scenarios.push(name.string()?.parse()?),
            other => return Err(other.unexpected().into()),
        }
    }
    if read.settings.hours == 0 {
        return Err("--hours is 0; the least is 1".into());
    }
    if read.scenarios.is_empty() {
        read.scenarios = Scenario::ALL.into();
    }
    Ok(Some(read))
}

/// Writes to a stream; one that is gone ends the program quietly.
fn say(text: &str) -> Result<(), Problem> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
