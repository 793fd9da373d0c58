//! A JSON object whose values keep their bytes.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// The fields of an object, in order, the values as they were written. An object with a key twice is refused: readers
/// disagree about which counts.
#[derive(Debug, Default)]
pub(super) struct Object<'a>(Vec<(String, Field<'a>)>);

#[derive(Debug)]
enum Field<'a> {
    Read(&'a RawValue),
    Made(Box<RawValue>),
}

// ===== impl Object =====

impl<'a> Object<'a> {
    pub(super) fn get(&self, key: &str) -> Option<&RawValue> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, field)| field.value())
    }

    pub(super) fn push(&mut self, key: &str, value: Box<RawValue>) {
        self.0.push((key.to_owned(), Field::Made(value)));
    }

    /// Replaces a field where it stands, or adds it.
    pub(super) fn set(&mut self, key: &str, value: Box<RawValue>) {
        match self.0.iter_mut().find(|(name, _)| name == key) {
            Some((_, field)) => *field = Field::Made(value),
            None => self.push(key, value),
        }
    }
}

impl Field<'_> {
    fn value(&self) -> &RawValue {
        match self {
            Self::Read(value) => value,
            Self::Made(value) => value,
        }
    }
}

impl fmt::Display for Object<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (number, (key, field)) in self.0.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            // The name as JSON: escaped as it has to be.
            write!(f, "{comma}{}:{}", serde_json::Value::from(key.as_str()), field.value().get())?;
        }
        f.write_str("}")
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut object = Object::default();
                while let Some((key, value)) = map.next_entry::<String, &RawValue>()? {
                    if object.get(&key).is_some() {
                        return Err(A::Error::custom("a key twice"));
                    }
                    object.0.push((key, Field::Read(value)));
                }
                Ok(object)
            }
        }

        deserializer.deserialize_map(Fields)
    }
}
