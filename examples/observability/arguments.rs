//! The command line.

use std::{ffi::OsString, path::PathBuf, time::Duration};

pub(crate) const HELP: &str = "\
Calls a local Didit that misbehaves, and shows the metrics to a Prometheus.

Usage: observability [OPTIONS]

Without --simulate it runs in real time, act after act and over again, serves its metrics at
http://127.0.0.1:9464/metrics, and logs JSON lines to standard output.

Options:
  --port N          Port of the metrics, 0 for any [default: 9464]
  --seconds N       Stop after so long [default: at Ctrl-C]
  --seed N          Decides what fails [default: 1]
  --simulate STORY  Play a story in virtual time instead; `tour` is that of the picture
  --picture FILE    With --simulate: draw the dashboard's panels as SVG
  --test FILE       With --simulate: write what was scraped as a test for `promtool test rules`
  --rules FILE      With --test: the rules to be tested
  --list            List the stories, as JSON lines, with the alerts that they set off
  -h, --help        Print this help
";

/// What the command line asks for.
pub(crate) enum Command {
    Help,
    List,
    Live(Live),
    Simulate(Simulate),
}

/// How to run in real time.
pub(crate) struct Live {
    pub(crate) port: u16,
    pub(crate) length: Option<Duration>,
    pub(crate) seed: u64,
}

/// What to do in virtual time.
pub(crate) struct Simulate {
    pub(crate) story: String,
    pub(crate) seed: u64,
    pub(crate) picture: Option<PathBuf>,
    /// The test, and the rules that it tests.
    pub(crate) test: Option<(PathBuf, PathBuf)>,
}

/// Why the command line cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArgumentsError {
    #[error("{0}; --help lists what there is")]
    CommandLine(#[from] lexopt::Error),
    #[error("--test and --rules need one another")]
    TestWithoutRules,
    #[error("--picture and --test need --simulate")]
    NothingToShow,
}

pub(crate) fn read(arguments: impl Iterator<Item = OsString>) -> Result<Command, ArgumentsError> {
    use lexopt::prelude::{Long, Short, ValueExt as _};

    let mut parser = lexopt::Parser::from_args(arguments);
    let (mut port, mut length, mut seed, mut story) = (9464, None, 1, None);
    let (mut picture, mut test, mut rules) = (None, None, None);
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Command::Help),
            Long("list") => return Ok(Command::List),
            Long("port") => port = parser.value()?.parse()?,
            Long("seconds") => length = Some(Duration::from_secs(parser.value()?.parse()?)),
            Long("seed") => seed = parser.value()?.parse()?,
            Long("simulate") => story = Some(parser.value()?.string()?),
            Long("picture") => picture = Some(parser.value()?.into()),
            Long("test") => test = Some(parser.value()?.into()),
            Long("rules") => rules = Some(parser.value()?.into()),
            other => return Err(other.unexpected().into()),
        }
    }
    let test = match (test, rules) {
        (Some(test), Some(rules)) => Some((test, rules)),
        (None, None) => None,
        _ => return Err(ArgumentsError::TestWithoutRules),
    };
    match story {
        Some(story) => Ok(Command::Simulate(Simulate { story, seed, picture, test })),
        None if picture.is_some() || test.is_some() => Err(ArgumentsError::NothingToShow),
        None => Ok(Command::Live(Live { port, length, seed })),
    }
}
