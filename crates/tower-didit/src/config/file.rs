//! A file's text as a tree of values, and where in it each one stands.

use std::{collections::HashMap, fmt, ops::Range};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value, value::RawValue};
use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue},
};

use super::error::Key;

/// The two languages that configuration is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// TOML 1.
    Toml,
    /// JSON.
    Json,
}

/// What is wrong with a text as such, and at which byte.
pub(super) struct Malformed {
    pub(super) offset: usize,
    pub(super) message: String,
}

/// The values of a text.
pub(super) fn parse(text: &str, format: Format) -> Result<Value, Malformed> {
    match format {
        Format::Toml => toml::from_str(text).map_err(|error| {
            let span = error.span().unwrap_or_default();
            let message = match (error.message(), text.get(span.clone())) {
                ("duplicate key", Some(key)) => format!("key {key} is given twice"),
                (message, _) => message.to_owned(),
            };
            Malformed { offset: span.start, message }
        }),
        Format::Json => serde_json::from_str(text).map(|Strict(value)| value).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            let message = error.to_string();
            let message = message.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&message);
            let begin: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
            Malformed { offset: begin + column.saturating_sub(1), message: message.to_owned() }
        }),
    }
}

/// A JSON value in which no key stands twice: `serde_json` would keep the last, where TOML refuses the text.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Strict;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Strict, A::Error> {
                let mut table = Map::new();
                while let Some(key) = map.next_key::<String>()? {
                    if table.contains_key(&key) {
                        return Err(A::Error::custom(format_args!("key {key:?} is given twice")));
                    }
                    let Strict(value) = map.next_value()?;
                    table.insert(key, value);
                }
                Ok(Strict(table.into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Strict, A::Error> {
                let next = std::iter::from_fn(|| list.next_element().transpose());
                next.map(|item| item.map(|Strict(value)| value))
                    .collect::<Result<_, _>>()
                    .map(|list| Strict(Value::Array(list)))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Strict, E> {
                Ok(Strict(value.into()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Strict, E> {
                Ok(Strict(value.into()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Strict, E> {
                Ok(Strict(value.into()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Strict, E> {
                Ok(Strict(value.into()))
            }

            fn visit_str<E>(self, value: &str) -> Result<Strict, E> {
                Ok(Strict(value.into()))
            }

            fn visit_unit<E>(self) -> Result<Strict, E> {
                Ok(Strict(Value::Null))
            }
        }

        from.deserialize_any(Any)
    }
}

/// What of a setting is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Its name, where that is wrong.
    Name,
    /// Its value, where that is.
    Value,
}

/// The byte at which a key's name or value stands, or the last of its sections that is there; `None` if not even the first is.
pub(super) fn offset(text: &str, format: Format, key: &Key, part: Part) -> Option<usize> {
    match format {
        Format::Toml => in_toml(text, key, part),
        Format::Json => in_json(text, key, part),
    }
}

/// The key and the text of the number that made a text malformed, if it is that.
pub(super) fn number_at<'t>(text: &'t str, format: Format, bad: &Malformed) -> Option<(Key, &'t str)> {
    match format {
        Format::Toml => value_at(text, format, bad.offset),
        Format::Json if bad.message == "number out of range" => value_at(text, format, bad.offset),
        Format::Json => None,
    }
}

/// The key and the text of the value, no table and no list, that stands at a byte of a text which is in its language
/// otherwise.
pub(super) fn value_at(text: &str, format: Format, offset: usize) -> Option<(Key, &str)> {
    let mut path = Vec::new();
    let found = match format {
        Format::Toml => {
            let root = DeTable::parse(text).ok()?;
            let (span, root) = (root.span(), root.into_inner());
            let span = walk_toml(&Spanned::new(span, DeValue::Table(root)), offset, &mut path)?;
            text.get(span)?
        }
        Format::Json => walk_json(text, text, offset, &mut path)?,
    };
    Some((Key(path), found))
}

fn walk_toml(value: &Spanned<DeValue<'_>>, offset: usize, path: &mut Vec<String>) -> Option<Range<usize>> {
    let mut inside = |name: String, value: &Spanned<DeValue<'_>>| {
        path.push(name);
        walk_toml(value, offset, path).or_else(|| path.pop().and(None))
    };
    match value.get_ref() {
        DeValue::Table(table) => {
            table.iter().find_map(|(name, value)| inside(name.get_ref().clone().into_owned(), value))
        }
        DeValue::Array(list) => list.iter().enumerate().find_map(|(index, value)| inside(index.to_string(), value)),
        _ => Some(value.span()).filter(|span| span.start == offset),
    }
}

fn walk_json<'t>(text: &str, here: &'t str, offset: usize, path: &mut Vec<String>) -> Option<&'t str> {
    // Where in a number serde_json gives it up is its own business.
    let begin = here.as_ptr().addr() - text.as_ptr().addr();
    if !(begin..=begin + here.len()).contains(&offset) {
        return None;
    }
    let mut inside = |name: String, value: &'t RawValue| {
        path.push(name);
        walk_json(text, value.get(), offset, path).or_else(|| path.pop().and(None))
    };
    if let Ok(table) = serde_json::from_str::<HashMap<String, &'t RawValue>>(here) {
        return table.into_iter().find_map(|(name, value)| inside(name, value));
    }
    if let Ok(list) = serde_json::from_str::<Vec<&'t RawValue>>(here) {
        return list.into_iter().enumerate().find_map(|(index, value)| inside(index.to_string(), value));
    }
    Some(here)
}

fn in_toml(text: &str, key: &Key, part: Part) -> Option<usize> {
    let wanted = part;
    let root = DeTable::parse(text).ok()?;
    let mut found = None;
    let mut table = Some(root.get_ref());
    let mut array = None;
    for part in &key.0 {
        let value = match (table, array) {
            (Some(table), _) => {
                table.iter().find(|(name, _)| name.get_ref() == part).map(|(name, value)| (name.span(), value))
            }
            (None, Some(array)) => {
                let value = part.parse().ok().and_then(|index: usize| <[_]>::get(array, index));
                value.map(|value: &Spanned<DeValue<'_>>| (value.span(), value))
            }
            (None, None) => None,
        };
        let Some((name, value)) = value else { break };
        found = Some(if wanted == Part::Name { name.start } else { value.span().start });
        table = value.get_ref().as_table();
        array = value.get_ref().as_array().map(|array: &DeArray<'_>| &**array);
    }
    found
}

fn in_json(text: &str, key: &Key, wanted: Part) -> Option<usize> {
    let (mut here, mut found) = (text, None);
    for part in &key.0 {
        let inside: Option<&RawValue> = match part.parse::<usize>() {
            Ok(index) => serde_json::from_str::<Vec<&RawValue>>(here).ok().and_then(|list| list.get(index).copied()),
            Err(_) => {
                let table = serde_json::from_str::<HashMap<String, &RawValue>>(here).ok();
                table.and_then(|table| table.get(part).copied())
            }
        };
        let Some(inside) = inside else { break };
        here = inside.get();
        // A raw value is a slice of the text that it was read from.
        let value = here.as_ptr().addr() - text.as_ptr().addr();
        let name = || {
            let before = text[..value].trim_end().strip_suffix(':')?.trim_end().strip_suffix('"')?;
            // The quotation mark before it that no backslash takes away.
            let marks = before.match_indices('"').map(|(mark, _)| mark);
            marks.rev().find(|mark| before[..*mark].bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 0)
        };
        found = Some(name().filter(|_| wanted == Part::Name).unwrap_or(value));
    }
    found
}

/// Line and column, both from 1, of a byte; the column counts characters.
pub(super) fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    let before = &text[..offset];
    let begin = before.rfind('\n').map_or(0, |end| end + 1);
    (before.matches('\n').count() + 1, before[begin..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str, format: Format, key: &str) -> Option<(usize, usize)> {
        offset(text, format, &Key::from(key), Part::Value).map(|offset| line_and_column(text, offset))
    }

    #[test]
    fn a_value_is_found_in_toml() {
        let text = "a = 1\n[b]\nc = [1,\n  2]\n[[d]]\ne = 1\n[[d]]\n\"é\" = 'x'\nf.g = 7\n";
        for (key, at) in [
            ("a", Some((1, 5))),
            ("b.c", Some((3, 5))),
            ("b.c.1", Some((4, 3))),
            ("d.0.e", Some((6, 5))),
            ("d.1.é", Some((8, 7))),
            ("d.1.f.g", Some((9, 7))),
            // What is not there is where it should be.
            ("b.x", Some((2, 1))),
            ("x.y", None),
        ] {
            assert_eq!(place(text, Format::Toml, key), at, "{key}");
        }
    }

    #[test]
    fn a_value_is_found_in_json() {
        let text = "{\n \"a\": 1,\n \"b\": { \"c\": [1,\n  2] },\n \"\\u0065\": \"é\", \"f\": 7 }";
        for (key, at) in [
            ("a", Some((2, 7))),
            ("b.c", Some((3, 14))),
            ("b.c.1", Some((4, 3))),
            ("e", Some((5, 12))),
            ("f", Some((5, 22))),
            ("b.x", Some((3, 7))),
            ("x.y", None),
        ] {
            assert_eq!(place(text, Format::Json, key), at, "{key}");
        }
    }

    #[test]
    fn a_name_is_found_in_both() {
        let name = |text: &str, format, key: &str| {
            offset(text, format, &Key::from(key), Part::Name).map(|offset| line_and_column(text, offset))
        };
        let toml = "a = 1\n[b]\n c = [{ x = 1 }]\n[[d]]\n\"e f\" = 1\n";
        for (key, at) in [("a", (1, 1)), ("b", (2, 2)), ("b.c", (3, 2)), ("b.c.0.x", (3, 9)), ("d.0.e f", (5, 1))] {
            assert_eq!(name(toml, Format::Toml, key), Some(at), "{key}");
        }
        let json = r#"{ "a" : 1, "b": [{"c\\\"d":2}], "\\": 3 }"#;
        for (key, at) in [("a", (1, 3)), ("b.0.c\\\"d", (1, 19)), ("\\", (1, 33)), ("b.0", (1, 18))] {
            assert_eq!(name(json, Format::Json, key), Some(at), "{key}");
        }
    }

    #[test]
    fn a_text_that_is_neither_is_refused_with_its_place() {
        let at = |text: &str, format| parse(text, format).err().map(|bad| line_and_column(text, bad.offset));
        assert_eq!(at("a = 1\nb = = 2\n", Format::Toml), Some((2, 5)));
        assert_eq!(at("a = 1\na = 2\n", Format::Toml), Some((2, 1)));
        assert_eq!(at("{\n \"a\": 1,\n}", Format::Json), Some((3, 1)));
        assert_eq!(at("{\n \"a\": [{ \"b\": 1,\n \"b\": 2 }] }", Format::Json), Some((3, 4)));
        assert_eq!(at("", Format::Json), Some((1, 1)));
    }

    #[test]
    fn every_kind_of_json_value_is_read() {
        let text = r#"{"a":[true,null,-1,18446744073709551615,0.5,"é"],"b":{}}"#;
        let value = parse(text, Format::Json).ok().unwrap();
        assert_eq!(value.to_string(), text);
    }

    #[test]
    fn no_place_is_beyond_a_text() {
        assert_eq!(line_and_column("é\n", 1), (1, 1));
        assert_eq!(line_and_column("é\n", 99), (2, 1));
        assert_eq!(line_and_column("", 5), (1, 1));
    }
}
