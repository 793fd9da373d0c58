//! Values as people write them.

use std::{fmt, fs, io, path::Path, time::Duration};

use didit_api::Secret;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use super::misfit;

/// A duration as people write it: `"30s"`, `"1m 30s"`, `"500ms"`, `"1day"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct HumanDuration(pub Duration);

/// A setting that can be switched off: `"off"`, or a value.
///
/// A word instead of a missing value, because TOML has no null and a missing key means the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrOff<T> {
    /// `"off"`.
    Off,
    /// The value.
    On(T),
}

/// A text that is read and never shown: not by `Debug`, not when the settings are written out, and not by the error that
/// says that it is no text.
///
/// Written out, it is `"[redacted]"`, which is refused when it is read again, since it is nobody's secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HiddenText {
    text: Secret,
    is_from_file: bool,
}

/// What is shown instead of a secret.
const REDACTED: &str = "[redacted]";

const NO_SECRET: &str = "is what is shown instead of a secret; the secret itself is needed, or a file that holds it";

/// The word that switches a setting off.
const OFF: &str = "off";

// ===== impl HumanDuration =====

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl From<Duration> for HumanDuration {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        const ALLOWED: &str = r#"allowed is a duration with its unit, such as "30s" or "1m 30s""#;

        let value = serde_json::Value::deserialize(from)?;
        let read = value.as_str().and_then(|text| humantime::parse_duration(text).ok());
        let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
        read.map(Self).ok_or_else(|| {
            let problem = if number.is_some() { "has no unit" } else { "is no duration" };
            Error::custom(format_args!("{} {problem}; {ALLOWED}", misfit::show(&value)))
        })
    }
}

impl JsonSchema for HumanDuration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": r"^\s*[0-9]+(\.[0-9]+)?\s*[a-zA-Zµ]*(\s*[0-9]+(\.[0-9]+)?\s*[a-zA-Zµ]+)*\s*$",
            "examples": ["30s", "1m 30s", "500ms"],
        })
    }
}

// ===== impl HiddenText =====

impl HiddenText {
    /// The text itself.
    pub fn expose(&self) -> &str {
        self.text.expose()
    }

    /// Reads a file that holds the text and nothing else. A line end behind it is none of it: editors and `echo` write
    /// one, and no secret has any.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or holds what is shown instead of a secret.
    pub fn read(file: &Path) -> io::Result<Self> {
        let text = fs::read_to_string(file)?;
        let text = text.trim_end();
        if text == REDACTED {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{REDACTED:?} {NO_SECRET}")));
        }
        Ok(Self { text: text.into(), is_from_file: true })
    }

    /// Whether there is nothing to write out, for serde's `skip_serializing_if`: settings name the file that a text came
    /// from, and not the text.
    pub fn is_elsewhere(text: &Option<Self>) -> bool {
        text.as_ref().is_none_or(|text| text.is_from_file)
    }
}

impl From<&str> for HiddenText {
    fn from(text: &str) -> Self {
        Self { text: text.into(), is_from_file: false }
    }
}

impl Serialize for HiddenText {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(REDACTED)
    }
}

impl<'de> Deserialize<'de> for HiddenText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // serde's errors quote the value.
        match serde_json::Value::deserialize(from)? {
            serde_json::Value::String(text) if text == REDACTED => {
                Err(Error::custom(format_args!("{REDACTED:?} {NO_SECRET}")))
            }
            serde_json::Value::String(text) => Ok(text.as_str().into()),
            _ => Err(Error::custom("it is no text; allowed is a text in quotes")),
        }
    }
}

impl JsonSchema for HiddenText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "HiddenText".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "writeOnly": true })
    }
}

// ===== impl OrOff =====

impl<T> OrOff<T> {
    /// The value, if there is one.
    pub fn on(self) -> Option<T> {
        match self {
            Self::Off => None,
            Self::On(value) => Some(value),
        }
    }
}

impl<T> From<Option<T>> for OrOff<T> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Off, Self::On)
    }
}

impl<T: Serialize> Serialize for OrOff<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => to.serialize_str(OFF),
            Self::On(value) => value.serialize(to),
        }
    }
}

impl<'de, T: serde::de::DeserializeOwned> Deserialize<'de> for OrOff<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(from)?;
        if value.as_str() == Some(OFF) {
            return Ok(Self::Off);
        }
        T::deserialize(value).map(Self::On).map_err(|error| Error::custom(format_args!("{error}, or {OFF:?}")))
    }
}

impl<T: JsonSchema> JsonSchema for OrOff<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("{} or off", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let value = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [value, { "const": OFF }] })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn durations_are_read_and_written_as_people_do() {
        for (text, duration) in [
            ("30s", Duration::from_secs(30)),
            ("1m 30s", Duration::from_secs(90)),
            ("500ms", Duration::from_millis(500)),
            ("1day", Duration::from_secs(86_400)),
            ("0s", Duration::ZERO),
        ] {
            let read: HumanDuration = serde_json::from_value(json!(text)).unwrap();
            assert_eq!(read.0, duration, "{text}");
            assert_eq!(serde_json::to_value(read).unwrap(), json!(text));
        }
    }

    #[test]
    fn a_duration_that_cannot_be_read_is_shown_with_one_that_can() {
        let error = |value| serde_json::from_value::<HumanDuration>(value).unwrap_err().to_string();
        for value in [json!(30), json!("30"), json!("30x"), json!(""), json!("-1s"), json!("999999999999999999999y")] {
            let text = error(value.clone());
            assert!(text.contains(&value.to_string()) && text.contains("1m 30s"), "{text}");
        }
    }

    #[test]
    fn a_setting_is_off_or_a_value() {
        let read = |value| serde_json::from_value::<OrOff<u32>>(value);
        assert_eq!(read(json!("off")).unwrap(), OrOff::Off);
        assert_eq!(read(json!(3)).unwrap(), OrOff::On(3));
        let error = read(json!("on")).unwrap_err().to_string();
        assert!(error.contains(r#""on""#) && error.contains(r#"or "off""#), "{error}");
        assert_eq!(serde_json::to_value([OrOff::Off, OrOff::On(3)]).unwrap(), json!(["off", 3]));
    }
}
