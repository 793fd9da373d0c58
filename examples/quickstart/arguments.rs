//! The command line and the environment.

use std::{
    env::{self, VarError},
    ffi::OsString,
};

use tower_didit::DiditLayer;

pub(crate) const HELP: &str = "\
Creates sessions and reads their decisions through the whole stack, while the server misbehaves.

Usage: quickstart [OPTIONS]

Without --live the calls go to a local Didit, started on a free loopback port, which answers 10 % of all requests
with 503, carries out 5 % and drops the connection, and allows few requests at a time.

Options:
  --json         Print one JSON object instead of a table: calls, succeeded, attempts, retries, throttled,
                 sessions_made, duplicates, lost
  --seed N       Decides which requests fail [default: 1]
  --sessions N   How many sessions to create, 1 to 1000 [default: 40; with --live 2]
  --live         Talk to Didit itself. Creates real sessions; run again, it gets the same ones back for as long as
                 they are unfinished
  -h, --help     Print this help

Environment, read with --live only:
  DIDIT_API_KEY       The application's API key
  DIDIT_WORKFLOW_ID   The workflow to create sessions for
  DIDIT_BASE_URL      Another server, such as a `didit-sandbox` [default: https://verification.didit.me]
";

/// Sessions created locally: three windows' worth, so that most of them have to wait.
const SESSIONS: usize = 40;

/// Sessions created with `--live`: enough to see it work.
const LIVE_SESSIONS: usize = 2;

/// The most sessions: with twice as many calls and some repetitions they still fit into the journal of the local Didit.
const MOST_SESSIONS: usize = 1_000;

/// What the command line asks for.
pub(crate) enum Command {
    Help,
    Run(Arguments),
}

/// How to run.
pub(crate) struct Arguments {
    pub(crate) json: bool,
    pub(crate) seed: u64,
    pub(crate) sessions: usize,
    pub(crate) live: Option<Live>,
}

/// What is needed to talk to Didit. Has no `Debug`: one of them is a secret.
pub(crate) struct Live {
    pub(crate) api_key: String,
    pub(crate) workflow_id: String,
    pub(crate) base_url: String,
}

/// Why the command line or the environment cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArgumentsError {
    #[error("{0}; --help lists what there is")]
    CommandLine(#[from] lexopt::Error),
    #[error("--sessions {given} is not from 1 to {MOST_SESSIONS}")]
    Sessions { given: usize },
    #[error("--live needs the environment variable {name}, {meaning}; it is {problem}")]
    Environment { name: &'static str, meaning: &'static str, problem: &'static str },
}

pub(crate) fn read(arguments: impl Iterator<Item = OsString>) -> Result<Command, ArgumentsError> {
    use lexopt::prelude::{Long, Short, ValueExt as _};

    let mut parser = lexopt::Parser::from_args(arguments);
    let (mut json, mut live, mut seed, mut sessions) = (false, false, 1, None);
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Command::Help),
            Long("json") => json = true,
            Long("live") => live = true,
            Long("seed") => seed = parser.value()?.parse()?,
            Long("sessions") => sessions = Some(parser.value()?.parse()?),
            other => return Err(other.unexpected().into()),
        }
    }
    let sessions = sessions.unwrap_or(if live { LIVE_SESSIONS } else { SESSIONS });
    if !(1..=MOST_SESSIONS).contains(&sessions) {
        return Err(ArgumentsError::Sessions { given: sessions });
    }
    let live = if live { Some(Live::from_environment()?) } else { None };
    Ok(Command::Run(Arguments { json, seed, sessions, live }))
}

impl Live {
    fn from_environment() -> Result<Self, ArgumentsError> {
        Ok(Self {
            api_key: variable("DIDIT_API_KEY", "the application's API key")?,
            workflow_id: variable("DIDIT_WORKFLOW_ID", "the workflow to create sessions for")?,
            base_url: env::var("DIDIT_BASE_URL").unwrap_or_else(|_| DiditLayer::BASE_URL.to_owned()),
        })
    }
}

fn variable(name: &'static str, meaning: &'static str) -> Result<String, ArgumentsError> {
    let problem = match env::var(name) {
        Ok(value) if !value.is_empty() => return Ok(value),
        Ok(_) => "empty",
        Err(VarError::NotPresent) => "not set",
        Err(VarError::NotUnicode(_)) => "not text",
    };
    Err(ArgumentsError::Environment { name, meaning, problem })
}
