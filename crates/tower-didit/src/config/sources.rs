//! Presets, files, environment and flags, one over the other.

use std::{
    fs,
    path::{Path, PathBuf},
};

use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::{
    Config, HiddenText, Invalid, LoadError, Origin, Preset,
    error::Key,
    file::{self, Format, Part},
    misfit, schema,
};
use crate::stack::DiditLayer;

/// Where a configuration comes from: a preset, over it a file, over it the environment, over it what the program was
/// told otherwise.
///
/// Each is laid over what came before key by key, so a later source names only what it changes. A list replaces a list.
///
/// # Example
///
/// ```
/// use tower_didit::config::{Format, Sources};
///
/// let config = Sources::new()
///     .text("stack.toml", "preset = 'seed'\n[retry]\nmax_attempts = 4", Format::Toml)?
///     .environment([("DIDIT_RETRY__BACKOFF__CAP".to_owned(), "10s".to_owned())])
///     .given("--seed", "seed", "7")
///     .config()?;
/// assert_eq!((config.retry.max_attempts, config.seed), (4, Some(7)));
///
/// let error = Sources::new().text("stack.toml", "[retry]\nmax_attempts = 0", Format::Toml)?.config().unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "stack.toml, line 2, column 16: retry.max_attempts: max_attempts is zero; it must be at least 1",
/// );
/// # Ok::<(), tower_didit::config::LoadError>(())
/// ```
#[derive(Debug, Default)]
#[must_use]
pub struct Sources {
    file: Option<File>,
    // In the order in which they take effect.
    words: Vec<Word>,
    sections: Vec<Section>,
}

/// A file, read and parsed.
#[derive(Debug)]
struct File {
    name: PathBuf,
    text: String,
    format: Format,
    value: Value,
}

/// One setting from outside a file, still a text.
#[derive(Debug)]
struct Word {
    origin: Origin,
    key: Key,
    text: String,
}

/// A top-level key that belongs to the program and not to the stack.
#[derive(Debug)]
struct Section {
    name: &'static str,
    schema: Value,
    defaults: Value,
}

// ===== impl Sources =====

impl Sources {
    /// What every variable's name begins with.
    pub const PREFIX: &str = "DIDIT_";

    /// Nothing but the preset.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a file: JSON if its name ends in `.json`, else TOML.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or is not in its language.
    pub fn file(self, path: impl AsRef<Path>) -> Result<Self, LoadError> {
        let path = path.as_ref();
        let text = fs::read_to_string(path).map_err(|error| LoadError {
            origin: Origin::Given(path.display().to_string()),
            key: None,
            message: format!("cannot be read: {error}"),
        })?;
        let is_json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
        self.text(path, &text, if is_json { Format::Json } else { Format::Toml })
    }

    /// Takes a file's text, and what to call it in errors.
    ///
    /// # Errors
    ///
    /// If it is not in its language.
    pub fn text(mut self, name: impl AsRef<Path>, text: &str, format: Format) -> Result<Self, LoadError> {
        let name = name.as_ref().to_owned();
        let error = |offset, key, message| {
            let (line, column) = file::line_and_column(text, offset);
            LoadError { origin: Origin::File { file: name.clone(), line, column }, key, message }
        };
        let value = file::parse(text, format).map_err(|bad| {
            // A number that no type holds is the one value that is refused before its setting is known.
            let Some((key, value)) = file::number_at(text, format, &bad) else {
                return error(bad.offset, None, bad.message);
            };
            let offset = file::offset(text, format, &key, Part::Value).unwrap_or(bad.offset);
            let is_hidden = self.is_hidden(&key);
            let problem = if is_hidden { "it is no text".to_owned() } else { format!("{value} is out of range") };
            let message = misfit::with(problem, self.allowed(&key));
            error(offset, Some(key), message)
        })?;
        if !value.is_object() {
            return Err(error(0, None, "a table of settings is needed".to_owned()));
        }
        self.file = Some(File { name, text: text.to_owned(), format, value });
        Ok(self)
    }

    /// Takes settings from environment variables, [`std::env::vars`] for instance.
    ///
    /// `DIDIT_RETRY__MAX_ATTEMPTS` is `retry.max_attempts`: two underscores lead into a section. A variable with two
    /// underscores has to be a setting. One without is taken if it is one, such as `DIDIT_API_KEY`, and otherwise left
    /// to others. A list is written as JSON.
    pub fn environment(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        for (name, text) in variables {
            let Some(key) = name.strip_prefix(Self::PREFIX) else { continue };
            let key = Key(key.to_ascii_lowercase().split("__").map(str::to_owned).collect());
            self.words.push(Word { origin: Origin::Variable(name), key, text });
        }
        // The order of an environment is no order.
        self.words.sort_by(|one, other| one.key.0.cmp(&other.key.0));
        self
    }

    /// Sets one key, over everything so far. `flag` is what errors call it.
    pub fn given(mut self, flag: impl Into<String>, key: &str, text: impl Into<String>) -> Self {
        self.words.push(Word { origin: Origin::Given(flag.into()), key: Key::from(key), text: text.into() });
        self
    }

    /// Gives a top-level key to the program's own settings, which [`section`](Self::section) reads.
    pub fn with_section<T: JsonSchema + Serialize + Default>(mut self, name: &'static str) -> Self {
        let defaults = serde_json::to_value(T::default()).unwrap_or_default();
        self.sections.push(Section { name, schema: schema::inlined::<T>(), defaults });
        self
    }

    /// The program's own settings under a top-level key.
    ///
    /// # Errors
    ///
    /// If a value does not fit its setting, or the setting is not known.
    pub fn section<T: DeserializeOwned>(&self, name: &str) -> Result<T, LoadError> {
        let mut tree = self.tree()?;
        let value = tree.remove(name).unwrap_or_default();
        self.read(value, &Key::from(name))
    }

    /// The stack's settings. They are good: the layers were built from them once.
    ///
    /// # Errors
    ///
    /// If a value does not fit its setting, the setting is not known, or the layers refuse it.
    pub fn config(&self) -> Result<Config, LoadError> {
        let mut tree = self.tree()?;
        tree.remove(PRESET);
        for section in &self.sections {
            tree.remove(section.name);
        }
        let mut config: Config = self.read(Value::Object(tree), &Key::default())?;
        if let (None, Some(path)) = (&config.api_key, &config.api_key_file) {
            let key = HiddenText::read(path);
            let key = key.map_err(|error| self.invalid(&Key::from("api_key_file"), format!("{path:?}: {error}")))?;
            config.api_key = Some(key);
        }
        match DiditLayer::from_config(&config) {
            Ok(_) => Ok(config),
            Err(invalid) => Err(self.locate(invalid)),
        }
    }

    /// Says where a setting was written that was refused later.
    pub fn locate(&self, invalid: Invalid) -> LoadError {
        let (key, message) = invalid.into_parts();
        self.invalid(&key, message)
    }

    /// All sources in one tree.
    fn tree(&self) -> Result<Map<String, Value>, LoadError> {
        let schema = schema::stack();
        let words: Vec<_> = self.words.iter().filter(|word| self.is_ours(word, &schema)).collect();
        let mut tree = Map::new();
        for section in &self.sections {
            tree.insert(section.name.to_owned(), section.defaults.clone());
        }
        let preset = Config::preset(self.preset(&words)?);
        lay(&mut tree, serde_json::to_value(preset).unwrap_or_default());
        if let Some(file) = &self.file {
            drop_rivals(&mut tree, &file.value);
            lay(&mut tree, file.value.clone());
        }
        for word in words {
            let value = typed(&word.text, self.schema_of(&word.key, &schema));
            let nested =
                word.key.0.iter().rev().fold(value, |value, part| Map::from_iter([(part.clone(), value)]).into());
            drop_rivals(&mut tree, &nested);
            lay(&mut tree, nested);
        }
        Ok(tree)
    }

    fn preset(&self, words: &[&Word]) -> Result<Preset, LoadError> {
        let word = words.iter().rev().find(|word| word.key.0 == [PRESET]);
        let in_file = || self.file.as_ref().and_then(|file| file.value.get(PRESET).cloned());
        match word.map(|word| Value::from(word.text.as_str())).or_else(in_file) {
            Some(named) => self.read(named, &Key::from(PRESET)),
            None => Ok(Preset::default()),
        }
    }

    /// Whether a variable is a setting, well spelt or not.
    fn is_ours(&self, word: &Word, schema: &Value) -> bool {
        let is_nested = word.key.0.len() > 1 || matches!(word.origin, Origin::Given(_));
        is_nested || word.key.0 == [PRESET] || self.schema_of(&word.key, schema).is_some()
    }

    fn schema_of<'s>(&'s self, key: &Key, stack: &'s Value) -> Option<&'s Value> {
        let Some((first, rest)) = key.0.split_first() else { return Some(stack) };
        let own = self.sections.iter().find(|section| section.name == first);
        match own {
            Some(section) => schema::at(&section.schema, rest),
            None => schema::at(stack, &key.0),
        }
    }

    fn read<T: DeserializeOwned>(&self, value: Value, section: &Key) -> Result<T, LoadError> {
        let stack = schema::stack();
        if let Some(schema) = self.schema_of(section, &stack)
            && let Some(key) = misfit::list_for_table(schema, &value)
        {
            let list = key.within(&value);
            return Err(self.misfit(section.clone().under(key.clone()), list, misfit::OTHER_KIND.to_owned()));
        }
        serde_path_to_error::deserialize(&value).map_err(|error| {
            let inner = Key::from(error.path());
            self.misfit(section.clone().under(inner.clone()), inner.within(&value), error.inner().to_string())
        })
    }

    /// Says what is wrong with the value of a key, where serde has said it in its own words.
    fn misfit(&self, key: Key, value: Option<&Value>, error: String) -> LoadError {
        let stack = schema::stack();
        let value = value.unwrap_or(&Value::Null);
        if error.starts_with(misfit::UNKNOWN) {
            let (_, above) = key.0.split_last().unzip();
            let above = Key(above.unwrap_or_default().to_vec());
            let sections: Vec<_> = self.sections.iter().map(|section| section.name).collect();
            let sections = if above.0.is_empty() { &sections[..] } else { &[] };
            let message = self.schema_of(&above, &stack).map_or(error, |table| misfit::unknown(table, sections));
            return LoadError { origin: self.origin(&key, Part::Name), key: Some(key), message };
        }
        let (origin, schema) = (self.origin(&key, Part::Value), self.schema_of(&key, &stack));
        let shown = self.written(&key, value, &origin).unwrap_or_else(|| misfit::show(value));
        let mut message = misfit::message(error, schema, value, &shown);
        if let (Origin::Variable(_), Some(schema)) = (&origin, schema) {
            message.extend(misfit::in_variables(schema, Self::PREFIX, &key));
        }
        LoadError { origin, key: Some(key), message }
    }

    /// What stands in the file for a value that has no likeness among those of JSON: `nan`, or a date.
    fn written(&self, key: &Key, value: &Value, origin: &Origin) -> Option<String> {
        let (Origin::File { .. }, Value::Null | Value::Object(_)) = (origin, value) else { return None };
        let file = self.file.as_ref()?;
        let offset = file::offset(&file.text, file.format, key, Part::Value)?;
        let (found, text) = file::value_at(&file.text, file.format, offset)?;
        (found == *key).then(|| text.to_owned())
    }

    /// Whether a key is a secret's, or stands inside of what was given for one.
    fn is_hidden(&self, key: &Key) -> bool {
        let stack = schema::stack();
        let mut above = (1..=key.0.len()).map(|length| Key(key.0[..length].to_vec()));
        above.any(|key| self.schema_of(&key, &stack).is_some_and(schema::is_hidden))
    }

    /// What a setting may be.
    fn allowed(&self, key: &Key) -> Option<String> {
        let stack = schema::stack();
        self.schema_of(key, &stack).and_then(misfit::allowed)
    }

    fn invalid(&self, key: &Key, message: String) -> LoadError {
        LoadError { origin: self.origin(key, Part::Value), key: Some(key.clone()), message }
    }

    /// Where a key got its value: from the last source that has it.
    fn origin(&self, key: &Key, part: Part) -> Origin {
        let concerns = |word: &&Word| {
            let shorter = word.key.0.len().min(key.0.len());
            word.key.0[..shorter] == key.0[..shorter]
        };
        if let Some(word) = self.words.iter().rev().find(concerns) {
            return word.origin.clone();
        }
        let in_file = self.file.as_ref().and_then(|file| {
            let offset = file::offset(&file.text, file.format, key, part)?;
            let (line, column) = file::line_and_column(&file.text, offset);
            Some(Origin::File { file: file.name.clone(), line, column })
        });
        in_file.unwrap_or(Origin::Preset)
    }
}

/// The top-level key that names the preset.
pub(super) const PRESET: &str = "preset";

/// A secret is given as it is or as a file that holds it: a source that names one of the two means not the other of
/// a source below.
fn drop_rivals(under: &mut Map<String, Value>, over: &Value) {
    const FILE: &str = "_file";

    let Value::Object(over) = over else { return };
    let names: Vec<&str> = over.keys().map(String::as_str).collect();
    for (name, value) in over {
        if let (Some(Value::Object(under)), true) = (under.get_mut(name), value.is_object()) {
            drop_rivals(under, value);
            continue;
        }
        let rival = name.strip_suffix(FILE).map_or_else(|| format!("{name}{FILE}"), str::to_owned);
        if !value.is_null() && !names.contains(&rival.as_str()) {
            // A setting without the other form has no such neighbour.
            if let Some(rival) = under.get_mut(&rival) {
                *rival = Value::Null;
            }
        }
    }
}

/// Lays a tree over another: tables key by key, everything else as a whole.
fn lay(under: &mut Map<String, Value>, over: Value) {
    let Value::Object(over) = over else { return };
    for (name, value) in over {
        match (under.get_mut(&name), value) {
            (Some(Value::Object(under)), value @ Value::Object(_)) => lay(under, value),
            (_, value) => {
                under.insert(name, value);
            }
        }
    }
}

/// A text as the value that its setting takes: a word stays a word, whatever it looks like.
fn typed(text: &str, schema: Option<&Value>) -> Value {
    let as_it_is = || Value::from(text);
    if schema.is_some_and(schema::is_text) {
        return as_it_is();
    }
    serde_json::from_str(text).unwrap_or_else(|_| as_it_is())
}
