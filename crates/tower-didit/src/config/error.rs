//! Which setting is wrong, and where it was set.

use std::{error::Error as StdError, fmt, path::PathBuf};

use serde_json::Value;

use crate::error::ConfigError;

/// A setting that the layers refuse: its key, and why.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct Invalid {
    key: Key,
    #[source]
    problem: Box<dyn StdError + Send + Sync>,
}

/// A configuration that cannot be used: where that was written, which key, and why.
#[derive(Debug)]
pub struct LoadError {
    pub(super) origin: Origin,
    pub(super) key: Option<Key>,
    pub(super) message: String,
}

/// Where a setting was written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// In a file.
    File {
        /// The file's name.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column in characters, from 1.
        column: usize,
    },
    /// In an environment variable of this name.
    Variable(String),
    /// In what the program was told otherwise: a flag, by its name.
    Given(String),
    /// Nowhere: it is what the preset says.
    Preset,
}

/// The way to a setting: the sections it lies in, and its name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Key(pub(super) Vec<String>);

/// Says which setting a result is about.
pub(super) trait At<T> {
    /// `section` is the key of the setting, or of the section that the error's own setting lies in.
    fn at(self, section: impl Into<String>) -> Result<T, Invalid>;
}

// ===== impl Invalid =====

impl Invalid {
    /// A program's own refusal of a setting; `key` is dotted.
    pub fn new(key: &str, problem: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { key: Key::from(key), problem: problem.into() }
    }

    pub(super) fn text(key: impl Into<String>, problem: String) -> Self {
        Self { key: Key::from(key.into().as_str()), problem: problem.into() }
    }

    /// The setting's key, such as `retry.max_attempts`.
    pub fn key(&self) -> String {
        self.key.to_string()
    }

    pub(super) fn into_parts(self) -> (Key, String) {
        (self.key, self.problem.to_string())
    }
}

// ===== impl At =====

impl<T> At<T> for Result<T, ConfigError> {
    fn at(self, section: impl Into<String>) -> Result<T, Invalid> {
        self.map_err(|error| {
            let mut key = Key::from(section.into().as_str());
            if let Some(name) = name_of(&error) {
                key = key.under(Key::from(name));
            }
            Invalid { key, problem: error.into() }
        })
    }
}

/// The key of what a builder calls by a name of its own. Where the two are one, there is nothing to add here.
fn name_of(error: &ConfigError) -> Option<&str> {
    Some(match error {
        ConfigError::Zero { setting, .. }
        | ConfigError::Duration { setting, .. }
        | ConfigError::Bytes { setting, .. }
        | ConfigError::Number { setting, .. } => match *setting {
            "deadline" => "deadline.total",
            "unknown_timeout" => "attempt_timeout.unknown",
            "slow call threshold" => "slow_call_threshold",
            "open time" => "open",
            "open time cap" => "open_cap",
            "the base of a backoff" => "base",
            "the cap of a backoff" => "cap",
            "the factor of a backoff" => "factor",
            setting => setting,
        },
        ConfigError::CapBelowBase { .. } => "cap",
        ConfigError::ColdStart { .. } => "cold_start",
        ConfigError::Header { setting, .. } => setting,
        ConfigError::ApiKey { .. } => "api_key",
        ConfigError::BaseUrl { .. } => "base_url",
        ConfigError::UnknownEndpoints { .. } => "scopes",
    })
}

// ===== impl LoadError =====

impl LoadError {
    /// Where the setting was written.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The setting's key, such as `retry.max_attempts`; `None` if the text as a whole is no configuration.
    pub fn key(&self) -> Option<String> {
        self.key.as_ref().map(ToString::to_string)
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::File { file, line, column } => {
                write!(f, "{}, line {line}, column {column}: ", file.display())?;
            }
            Origin::Variable(name) => write!(f, "environment variable {name}: ")?,
            Origin::Given(name) => write!(f, "{name}: ")?,
            Origin::Preset => {}
        }
        match &self.key {
            Some(key) if !key.0.is_empty() => write!(f, "{key}: {}", self.message),
            _ => f.write_str(&self.message),
        }
    }
}

impl StdError for LoadError {}

// ===== impl Key =====

impl Key {
    /// The value under this key.
    pub(super) fn within<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        self.0.iter().try_fold(value, |value, part| match value {
            Value::Array(list) => list.get(part.parse::<usize>().ok()?),
            _ => value.get(part),
        })
    }

    /// A key in a section that is this key.
    pub(super) fn under(mut self, inner: Self) -> Self {
        self.0.extend(inner.0);
        self
    }
}

impl From<&str> for Key {
    fn from(dotted: &str) -> Self {
        Self(dotted.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect())
    }
}

impl From<&serde_path_to_error::Path> for Key {
    fn from(path: &serde_path_to_error::Path) -> Self {
        use serde_path_to_error::Segment;

        let known = path.iter().filter(|segment| !matches!(segment, Segment::Unknown | Segment::Enum { .. }));
        Self(
            known
                .map(|segment| match segment {
                    // Bare, as the other way to write a place in a list.
                    Segment::Seq { index } => index.to_string(),
                    other => other.to_string(),
                })
                .collect(),
        )
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (depth, part) in self.0.iter().enumerate() {
            match part.parse::<usize>() {
                // People count from 1, files from 0; what is shown is what a file would say.
                Ok(index) => write!(f, "[{index}]")?,
                Err(_) if depth == 0 => f.write_str(part)?,
                Err(_) => write!(f, ".{part}")?,
            }
        }
        Ok(())
    }
}
