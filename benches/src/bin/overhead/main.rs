//! What a call costs, through each layer, through the stack, and through what others publish, measured in one run.
//!
//! `benches/README.md` says how to read it.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

mod calls;
mod floor;
mod growth;
mod instructions;
mod measure;
mod peers;
mod plot;
mod report;
mod subjects;
mod wire;

use std::{path::PathBuf, process::ExitCode};

use lexopt::prelude::*;

use self::report::Report;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const HELP: &str = "\
What a call costs, beside others, in one run.

cargo run --release -p benches --bin overhead -- [OPTIONS]

  --json       one array of objects instead of Markdown tables
  --plot DIR   draws the growth curves as SVG into this folder
  --help       this
";

/// What the command line asks for.
#[derive(Default)]
struct Arguments {
    json: bool,
    plot: Option<PathBuf>,
    help: bool,
    watched: bool,
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("overhead: {error}");
            return ExitCode::from(2);
        }
    };
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("overhead: {error}");
            ExitCode::FAILURE
        }
    }
}

fn arguments() -> Result<Arguments, lexopt::Error> {
    let mut arguments = Arguments::default();
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("json") => arguments.json = true,
            Long("plot") => arguments.plot = Some(parser.value()?.into()),
            Long("help") => arguments.help = true,
            // How the program calls itself under valgrind.
            Long(instructions::WATCHED) => arguments.watched = true,
            other => return Err(other.unexpected()),
        }
    }
    Ok(arguments)
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    if arguments.help {
        print!("{HELP}");
        return Ok(());
    }
    if arguments.watched {
        return instructions::watched();
    }
    let counted = instructions::of_all()?;
    if counted.is_empty() {
        eprintln!("overhead: valgrind is not installed, so no instructions are counted");
    }
    let (mut rows, wire) = (measure::rows(&counted)?, wire::rows()?);
    let draws = !arguments.json || arguments.plot.is_some();
    let curves = if draws { growth::curves()? } else { Vec::new() };
    if let Some(folder) = &arguments.plot {
        plot::draw(folder, &curves)?;
    }
    rows.extend(measure::listened(counted.get(rows.len()..).unwrap_or_default())?);
    let report = Report { rows, wire, curves };
    match arguments.json {
        true => println!("{}", serde_json::to_string_pretty(&report.json())?),
        false => report.print(),
    }
    Ok(())
}
