//! Why a value does not fit its setting, in plain words: serde's errors speak of its data model.

use serde_json::{Map, Value};

use super::{error::Key, schema};

/// How serde's and std's errors begin that are said here in other words. All others are a type's own, and plain already.
const NOT_PLAIN: [&str; 5] =
    [OTHER_KIND, "invalid value", "invalid length", "unknown variant", "invalid socket address"];

/// How serde's error for a value of another kind begins.
pub(super) const OTHER_KIND: &str = "invalid type";

/// How serde's error for a key that is no setting begins.
pub(super) const UNKNOWN: &str = "unknown field";

/// How serde's error for a setting that is needed begins.
const MISSING: &str = "missing field";

/// What every sentence about what would fit begins with.
const ALLOWED: &str = "allowed is";

/// What is wrong with a value that was refused with this error, which may show it as this; and what would fit.
pub(super) fn message(error: String, schema: Option<&Value>, value: &Value, shown: &str) -> String {
    if let Some(name) = error.strip_prefix(MISSING) {
        return format!("{} is missing, and has no default", name.trim().trim_matches('`'));
    }
    let Some(schema) = schema else { return error };
    let problem = match NOT_PLAIN.iter().any(|begin| error.starts_with(begin)) {
        // Not even a word that almost is a secret is shown.
        true if schema::is_hidden(schema) => "it cannot be used".to_owned(),
        true => format!("{shown} {}", wrong(schema, value)),
        false => error,
    };
    with(problem, allowed(schema))
}

/// A problem, and what would fit unless it says so.
pub(super) fn with(problem: String, allowed: Option<String>) -> String {
    match allowed.filter(|_| !problem.contains(ALLOWED)) {
        Some(allowed) => format!("{problem}; {ALLOWED} {allowed}"),
        None => problem,
    }
}

/// What is wrong with a key that is no setting of a table.
pub(super) fn unknown(table: &Value, more: &[&str]) -> String {
    let known = properties(table).into_iter().flat_map(Map::keys).map(String::as_str);
    let mut known: Vec<_> = known.chain(more.iter().copied()).collect();
    known.sort_unstable();
    format!("no such setting; known are {}", list(&known, "and"))
}

/// How a value that is no secret's is shown.
pub(super) fn show(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a table".to_owned(),
        scalar => scalar.to_string(),
    }
}

/// The first list that stands where a table is due: serde would take it for the table's values, in no order that anybody
/// knows.
pub(super) fn list_for_table(schema: &Value, value: &Value) -> Option<Key> {
    match value {
        Value::Array(_) if properties(schema).is_some() => Some(Key::default()),
        Value::Array(list) => {
            let inside = |(index, item)| within(index, schema.get("items")?, item);
            list.iter().enumerate().map(|(index, item)| (index.to_string(), item)).find_map(inside)
        }
        Value::Object(table) => {
            let inside = |(name, value): (&String, _)| within(name.clone(), properties(schema)?.get(name)?, value);
            table.iter().find_map(inside)
        }
        _ => None,
    }
}

fn within(name: String, schema: &Value, value: &Value) -> Option<Key> {
    list_for_table(schema, value).map(|inner| Key(vec![name]).under(inner))
}

/// What fits, for the end of a sentence; `None` for what a type says itself.
pub(super) fn allowed(schema: &Value) -> Option<String> {
    let kinds = kinds(schema);
    let is_switched = kinds.iter().any(|kind| !is_words(kind)) && words(schema).contains(&OFF);
    let words = words(schema).into_iter().filter(|word| !is_switched || *word != OFF);
    let words = words.map(|word| format!("{word:?}"));
    let example = example(schema).map(|example| vec![example]);
    let forms = kinds.into_iter().filter(|kind| !is_words(kind)).filter_map(|kind| form(schema, kind));
    let all = example.unwrap_or_else(|| words.chain(forms).collect());
    (!all.is_empty()).then(|| format!("{}{}", list(&all, "or"), if is_switched { ", or \"off\"" } else { "" }))
}

/// The word that switches a setting off.
const OFF: &str = "off";

fn example(schema: &Value) -> Option<String> {
    Some(format!("something such as {}", schema.get("examples")?.get(0)?))
}

/// One form that a value may have.
fn form(schema: &Value, kind: &Value) -> Option<String> {
    Some(match type_of(kind)? {
        "object" => format!("a table of {}", names(kind)),
        "array" => match kind.get("items") {
            Some(items) if properties(items).is_some() => format!("a list of tables of {}", names(items)),
            _ => "a list of texts, such as [\"a\", \"b\"]".to_owned(),
        },
        "boolean" => "true or false".to_owned(),
        "string" => example(kind).unwrap_or_else(|| "a text in quotes".to_owned()),
        "integer" | "number" => {
            let least = schema.get("minimum").or_else(|| kind.get("minimum"))?;
            let most = schema.get("maximum").or_else(|| kind.get("maximum")).cloned().or_else(|| {
                Some(match kind.get("format")?.as_str()? {
                    "uint32" => u32::MAX.into(),
                    // As many as the machine counts; the numbers of a file end here anyway.
                    "uint64" | "uint" => u64::MAX.into(),
                    _ => return None,
                })
            });
            format!("{least} to {}", most?)
        }
        _ => return None,
    })
}

fn names(table: &Value) -> String {
    let names: Vec<_> = properties(table).into_iter().flat_map(Map::keys).collect();
    list(&names, "and")
}

/// How a table or a list is given in the environment, `prefix` being what the names of variables begin with.
pub(super) fn in_variables(schema: &Value, prefix: &str, key: &Key) -> Option<String> {
    if type_of(schema) == Some("array") {
        return Some(", written as JSON".to_owned());
    }
    let first = properties(schema)?.keys().next()?;
    if key.0.iter().any(|part| part.parse::<usize>().is_ok()) {
        // Within a list there are no variables.
        return None;
    }
    let name = [&key.0[..], std::slice::from_ref(first)].concat().join("__").to_ascii_uppercase();
    Some(format!(", each in a variable of its own, such as {prefix}{name}"))
}

/// What is wrong, behind the value.
fn wrong(schema: &Value, value: &Value) -> &'static str {
    let kinds = kinds(schema);
    let kind = kinds.iter().find(|kind| !is_words(kind)).and_then(|kind| type_of(kind));
    match kind {
        Some("object") => "is no table",
        Some("array") => "is no list",
        Some("integer") if value.is_i64() || value.is_u64() => "is out of range",
        Some("integer") => "is no whole number",
        Some("number") if value.is_number() => "is out of range",
        Some("number") => "is no number",
        Some("string") if !value.is_string() => "is no text",
        None if value.is_string() => "is not known",
        _ => "does not fit",
    }
}

/// The forms that a value may have, but for null, which is what is not given.
fn kinds(schema: &Value) -> Vec<&Value> {
    let other = schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Value::as_array);
    let kinds = other.map_or_else(|| vec![schema], |kinds| kinds.iter().collect());
    kinds.into_iter().filter(|kind| type_of(kind) != Some("null")).collect()
}

/// All words that fit.
fn words(schema: &Value) -> Vec<&str> {
    let of = |kind| {
        let listed = Value::get(kind, "enum").and_then(Value::as_array).into_iter().flatten();
        listed.chain(kind.get("const")).filter_map(Value::as_str)
    };
    kinds(schema).into_iter().flat_map(of).collect()
}

/// Whether nothing but words fits.
fn is_words(kind: &Value) -> bool {
    kind.get("enum").is_some() || kind.get("const").is_some()
}

fn type_of(kind: &Value) -> Option<&str> {
    match kind.get("type")? {
        Value::Array(types) => types.iter().filter_map(Value::as_str).find(|kind| *kind != "null"),
        kind => kind.as_str(),
    }
}

fn properties(schema: &Value) -> Option<&Map<String, Value>> {
    schema.get("properties")?.as_object()
}

fn list(items: &[impl AsRef<str>], and: &str) -> String {
    match items {
        [] => String::new(),
        [one] => one.as_ref().to_owned(),
        [first @ .., last] => {
            let first: Vec<_> = first.iter().map(AsRef::as_ref).collect();
            format!("{} {and} {}", first.join(", "), last.as_ref())
        }
    }
}
