//! Runs the examples as a user would: as programs.

use std::{
    path::PathBuf,
    process::{Command, Output},
};

/// An example of this package, ready to run. Cargo builds all of them before the tests, beside the tests' own folder.
pub(crate) fn example(name: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    // target/<profile>/deps/<this test> and target/<profile>/examples/<the example>
    let profile = test.parent().and_then(std::path::Path::parent).unwrap();
    let file: PathBuf = [name, std::env::consts::EXE_SUFFIX].concat().into();
    let mut command = Command::new(profile.join("examples").join(file));
    // Nothing of the developer's own may reach a test.
    command.env_remove("DIDIT_API_KEY").env_remove("DIDIT_WORKFLOW_ID").env_remove("DIDIT_BASE_URL");
    command
}

/// What a program said.
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Runs a program to its end.
pub(crate) fn run(command: &mut Command) -> Said {
    let output = command.output();
    // With a single test named on its command line, cargo leaves the examples out.
    output.unwrap_or_else(|error| panic!("{command:?}: {error}; cargo build -p examples --examples builds it")).into()
}
