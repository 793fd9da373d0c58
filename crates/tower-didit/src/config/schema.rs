//! What the settings are, for editors and for reading variables.

use schemars::{JsonSchema, Schema, generate::SchemaSettings};
use serde_json::{Value, json};

use super::{Config, Preset, sources::PRESET};

impl Config {
    /// The JSON Schema (draft 2020-12) of a file with the stack's settings.
    pub fn schema() -> Schema {
        with_preset(SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Self>())
    }
}

/// Adds the key that is read before all others.
pub(super) fn with_preset(mut schema: Schema) -> Schema {
    let preset = json!({
        "description": "The values that everything starts from.",
        "enum": [Preset::Didit, Preset::Seed, Preset::Off],
        "default": Preset::default(),
    });
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.insert(PRESET.to_owned(), preset);
    }
    schema
}

/// The schema of a type without references.
pub(super) fn inlined<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

/// The schema of a key below a schema without references.
pub(super) fn at<'s>(schema: &'s Value, key: &[String]) -> Option<&'s Value> {
    key.iter().try_fold(schema, |schema, part| match part.parse::<usize>() {
        Ok(_) => schema.get("items"),
        Err(_) => schema.get("properties")?.get(part),
    })
}

/// What fits, as an error says it; `None` where the error of reading says it already.
pub(super) fn allowed(schema: &Value) -> Option<String> {
    let other = schema.get("anyOf").and_then(Value::as_array);
    let kind = other.and_then(|kinds| kinds.first()).unwrap_or(schema);
    let off = other.and_then(|kinds| kinds.iter().find_map(|kind| kind.get("const")));
    let or_off = off.map(|off| format!(", or {off}")).unwrap_or_default();
    if let Some(example) = schema.get("examples").and_then(|examples| examples.get(0)) {
        return Some(format!("allowed is something such as {example}{or_off}"));
    }
    let least = schema.get("minimum").or_else(|| kind.get("minimum"));
    let most = schema.get("maximum").or_else(|| kind.get("maximum")).cloned().or_else(|| {
        Some(match kind.get("format")?.as_str()? {
            "uint32" => u32::MAX.into(),
            // As many as the machine counts; the numbers of a file end here anyway.
            "uint64" | "uint" => u64::MAX.into(),
            _ => return None,
        })
    });
    Some(format!("allowed is {} to {}{or_off}", least?, most?))
}

/// Whether what is given may not be shown.
pub(super) fn is_hidden(schema: &Value) -> bool {
    schema.get("writeOnly").is_some_and(|hidden| hidden == true)
}

/// Whether only text fits.
pub(super) fn is_text(schema: &Value) -> bool {
    match schema.get("type") {
        Some(Value::Array(types)) => types.iter().all(|kind| kind == "string" || kind == "null"),
        Some(kind) => kind == "string",
        None => false,
    }
}
