//! What the settings are, for editors and for reading variables.

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
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

/// The schema of the stack's settings without references.
pub(super) fn stack() -> Value {
    with_preset(generator().into_root_schema_for::<Config>()).to_value()
}

/// The schema of a type without references.
pub(super) fn inlined<T: JsonSchema>() -> Value {
    generator().into_root_schema_for::<T>().to_value()
}

fn generator() -> SchemaGenerator {
    SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true).into_generator()
}

/// The schema of a key below a schema without references.
pub(super) fn at<'s>(schema: &'s Value, key: &[String]) -> Option<&'s Value> {
    key.iter().try_fold(schema, |schema, part| match part.parse::<usize>() {
        Ok(_) => schema.get("items"),
        Err(_) => schema.get("properties")?.get(part),
    })
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
