use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn form(body: &str) -> String {
    canonical_json(body.as_bytes()).unwrap()
}

fn fault(body: &[u8]) -> (usize, MalformedKind) {
    let malformed = canonical_json(body).unwrap_err();
    (malformed.at, malformed.kind)
}

/// A member's value, in canonical form.
fn value(json: &str) -> String {
    form(&format!("{{\"v\":{json}}}")).strip_prefix("{\"v\":").unwrap().strip_suffix('}').unwrap().to_owned()
}

#[test]
fn keys_are_in_the_order_of_code_points_at_every_level() {
    for (body, expected) in [
        ("{}", "{}"),
        (" { \"b\" : 1 , \"a\" : [ ] } ", "{\"a\":[],\"b\":1}"),
        (r#"{"b":{"d":1,"c":[{"f":1,"e":{}}]},"a":0}"#, r#"{"a":0,"b":{"c":[{"e":{},"f":1}],"d":1}}"#),
        // Sorted outside, unsorted inside, twice, and the other way round.
        (r#"{"a":{"d":1,"c":2},"b":{"d":1,"c":2}}"#, r#"{"a":{"c":2,"d":1},"b":{"c":2,"d":1}}"#),
        (r#"{"b":{"c":1,"d":2},"a":{"c":1,"d":2}}"#, r#"{"a":{"c":1,"d":2},"b":{"c":1,"d":2}}"#),
        // By code point and not by UTF-16 unit, where U+1F600 would come before U+FFFD.
        (r#"{"\ud83d\ude00":1,"\ufffd":2}"#, "{\"\u{fffd}\":2,\"\u{1f600}\":1}"),
        // By what an escape stands for: a quotation mark, a newline and a backslash.
        (r#"{"\\":1,"\"":2,"\n":3,"A":4,"":5}"#, r#"{"":5,"\n":3,"\"":2,"A":4,"\\":1}"#),
        (r#"{"a\u001f":1,"a\u0001":2,"a ":3}"#, r#"{"a\u0001":2,"a\u001f":1,"a ":3}"#),
    ] {
        assert_eq!(form(body), expected, "{body}");
    }
}

#[test]
fn text_is_escaped_as_python_does_without_ascii() {
    for (json, expected) in [
        (r#""Zo\u00eb""#, "\"Zoë\""),
        (r#""\ud83d\uDE00""#, "\"\u{1f600}\""),
        (r#""\/\u002f""#, "\"//\""),
        (r#""\u0022\u005c""#, r#""\"\\""#),
        (r#""\b\f\n\r\t""#, r#""\b\f\n\r\t""#),
        (r#""\u0008\u000C\u000a\u000D\u0009""#, r#""\b\f\n\r\t""#),
        (r#""\u0000\u001F""#, r#""\u0000\u001f""#),
        (r#""\u007f\u2028""#, "\"\u{7f}\u{2028}\""),
    ] {
        assert_eq!(value(json), expected, "{json}");
    }
}

#[test]
fn whole_floats_become_integers_and_other_numbers_keep_their_digits() {
    for (json, expected) in [
        ("98.0", "98"),
        ("-0.0", "0"),
        ("-0", "0"),
        ("1e3", "1000"),
        ("-1.50E+1", "-15"),
        ("100e-2", "1"),
        ("0e999", "0"),
        // Python: int(1e23)
        ("1e23", "99999999999999991611392"),
        ("1E22", "10000000000000000000000"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("-9007199254740993", "-9007199254740993"),
        ("0.75", "0.75"),
        ("2.50", "2.50"),
        ("1e-05", "1e-05"),
        ("0.1000000000000000055511151231257827", "0.1000000000000000055511151231257827"),
        ("[true,false,null,1.0]", "[true,false,null,1]"),
    ] {
        assert_eq!(value(json), expected, "{json}");
    }
    // Python: len(str(int(1e308)))
    assert_eq!(value("1e308").len(), 309);
}

#[test]
fn fractions_are_written_as_python_writes_them_where_asked() {
    // Python: repr of each.
    for (json, expected) in [
        ("0.00001", "1e-05"),
        ("1e-5", "1e-05"),
        ("1.5E-7", "1.5e-07"),
        ("0.00012", "0.00012"),
        ("1.2e-4", "0.00012"),
        ("5e-324", "5e-324"),
        ("2.50", "2.5"),
        ("1234567890123456.5", "1234567890123456.5"),
        ("-12345e-2", "-123.45"),
        ("0.1000000000000000055511151231257827", "0.1"),
        ("-0.012", "-0.012"),
        // Halfway between two decimals of the fewest digits: the even one.
        ("7.3433665119440125e14", "734336651194401.2"),
        ("760211291875769.75", "760211291875769.8"),
        ("-75029174549810.625", "-75029174549810.62"),
    ] {
        let body = format!("{{\"v\":{json}}}");
        let python = canonical(body.as_bytes(), Floats::Python, MAX_DEPTH).unwrap();
        assert_eq!(python.text, format!("{{\"v\":{expected}}}"), "{json}");
        assert!(python.has_fractions);
    }
}

#[test]
fn what_can_be_read_in_two_ways_or_none_is_refused_where_it_is() {
    use MalformedKind::{DuplicateKey, LoneSurrogate, NotAnObject, NotFinite, NotUtf8, Syntax, TooDeep, TooLong};
    for (body, at, kind) in [
        ("", 0, NotAnObject),
        ("[1]", 0, NotAnObject),
        ("null", 0, NotAnObject),
        ("\u{feff}{}", 0, NotAnObject),
        ("{", 1, Syntax),
        ("{}{}", 2, Syntax),
        ("{\"a\":1,}", 7, Syntax),
        ("{\"a\":[1,]}", 8, Syntax),
        ("{\"a\":1 \"b\":2}", 7, Syntax),
        ("{\"a\" 1}", 5, Syntax),
        ("{a:1}", 1, Syntax),
        ("{\"a\":[1}", 7, Syntax),
        ("{\"a\":01}", 6, Syntax),
        ("{\"a\":+1}", 5, Syntax),
        ("{\"a\":.5}", 5, Syntax),
        ("{\"a\":1.}", 7, Syntax),
        ("{\"a\":1e}", 7, Syntax),
        ("{\"a\":-}", 6, Syntax),
        ("{\"a\":NaN}", 5, Syntax),
        ("{\"a\":-Infinity}", 6, Syntax),
        ("{\"a\":tru}", 5, Syntax),
        ("{\"a\":\"\n\"}", 6, Syntax),
        ("{\"a\":\"\\x\"}", 7, Syntax),
        ("{\"a\":\"\\u12g4\"}", 10, Syntax),
        ("{\"a\":\"", 6, Syntax),
        ("{\"a\":1e400}", 10, NotFinite),
        ("{\"a\":\"\\ud83d\"}", 12, LoneSurrogate),
        ("{\"a\":\"\\ud83d\\u0041\"}", 18, LoneSurrogate),
        ("{\"a\":\"\\ude00\"}", 12, LoneSurrogate),
        ("{\"a\":1,\"b\":2,\"a\":1}", 18, DuplicateKey),
        ("{\"a\":1,\"\\u0061\":1}", 17, DuplicateKey),
        ("{\"v\":[{\"\\n\":1,\"\\u000a\":1}]}", 24, DuplicateKey),
    ] {
        assert_eq!(fault(body.as_bytes()), (at, kind), "{body}");
    }
    assert_eq!(fault(b"{\"a\":\"\xff\"}"), (6, NotUtf8));
    let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
    assert_eq!(form(&nested(MAX_DEPTH)), nested(MAX_DEPTH));
    assert_eq!(fault(nested(MAX_DEPTH + 1).as_bytes()).1, TooDeep);
    let long = format!("{{\"a\":[{}1]}}", "1e308,".repeat(1_000));
    assert_eq!(fault(long.as_bytes()).1, TooLong);
}

/// What is accepted nests no deeper than `serde_json` reads, so that a verified event can be read.
#[test]
fn serde_reads_the_deepest_body_and_not_one_deeper() {
    let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
    assert!(serde_json::from_str::<Value>(&nested(MAX_DEPTH)).is_ok());
    assert!(serde_json::from_str::<Value>(&nested(MAX_DEPTH + 1)).is_err());
}

#[test]
fn nesting_takes_no_stack_and_every_byte_is_copied_once() {
    // Unsorted on every level, which would be copied once for each of them if objects were put in order one by one.
    let depth = 200_000;
    let body = format!("{}1{}", "{\"b\":".repeat(depth), ",\"a\":0}".repeat(depth));
    let sorted = canonical(body.as_bytes(), Floats::Shortened, depth).unwrap().text;
    assert_eq!(sorted, format!("{}1{}", "{\"a\":0,\"b\":".repeat(depth), "}".repeat(depth)));
    assert_eq!(fault(body.as_bytes()).1, MalformedKind::TooDeep);
}

#[test]
fn the_sent_form_escapes_everything_outside_ascii() {
    let sent = to_ascii(&form(r#"{"name":"Zoë \n 😀"}"#));
    assert_eq!(sent, r#"{"name":"Zo\u00eb \n \ud83d\ude00"}"#);
    assert_eq!(form(&sent), form(r#"{"name":"Zoë \n 😀"}"#));
}

// ===== against serde =====

fn any_json() -> impl Strategy<Value = Value> {
    let text = prop_oneof!["[a-c\\\\\"\n\u{1}\u{7f}é\u{fffd}😀]{0,4}", any::<String>()];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        text.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map(text.clone(), inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Writes JSON anew in one of the ways there are, chosen by the bits of `style`.
fn written(value: &Value, style: &mut impl FnMut() -> usize) -> String {
    let gap = ["", "", " ", "\n\t"][style() % 4];
    let inside = match value {
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| written(item, style)).collect();
            format!("[{gap}{}{gap}]", items.join(&format!("{gap},")))
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members
                .iter()
                .map(|(key, value)| format!("{gap}{}{gap}:{}", escaped(key, style), written(value, style)))
                .collect();
            if !members.is_empty() {
                let first = style() % members.len();
                members.rotate_left(first);
            }
            format!("{{{}{gap}}}", members.join(","))
        }
        Value::String(text) => escaped(text, style),
        Value::Number(number) if number.is_i64() || number.is_u64() => match (number.to_string(), style() % 3) {
            // Only what a double holds survives being written as a float.
            (digits, 1) if digits.len() < 16 => format!("{digits}.0"),
            (digits, 2) if digits.len() < 16 => format!("{digits}000E-3"),
            (digits, _) => digits,
        },
        other => other.to_string(),
    };
    format!("{gap}{inside}{gap}")
}

fn escaped(text: &str, style: &mut impl FnMut() -> usize) -> String {
    let mut json = String::from("\"");
    for character in text.chars() {
        if style().is_multiple_of(3) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                json += &if style().is_multiple_of(2) { format!("\\u{unit:04x}") } else { format!("\\u{unit:04X}") };
            }
        } else {
            let quoted = Value::from(character.to_string()).to_string();
            json += &quoted[1..quoted.len() - 1];
        }
    }
    json + "\""
}

fn styles(seed: u64) -> impl FnMut() -> usize {
    let mut state = seed | 1;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap_or_default()
    }
}

proptest! {
    /// Without floats, canonical JSON is what `serde_json` writes of sorted maps.
    #[test]
    fn however_a_document_is_written_its_form_is_the_same(document in any_json(), seed: u64) {
        let document = json!({ "v": document });
        let expected = document.to_string();
        prop_assert_eq!(form(&expected), &expected[..]);
        let again = written(&document, &mut styles(seed));
        prop_assert!(serde_json::from_str::<Value>(&again).is_ok());
        prop_assert_eq!(form(&again), &expected[..], "{}", again);
    }

    /// A canonical form is its own canonical form, floats and all.
    #[test]
    fn a_canonical_form_is_its_own(floats in prop::collection::vec(any::<f64>(), 1..8)) {
        let floats: Vec<_> = floats.into_iter().filter(|float| float.is_finite()).collect();
        let once = form(&json!({ "v": floats }).to_string());
        prop_assert_eq!(form(&once), &once[..]);
        for (float, written) in floats.iter().zip(once[6..].trim_end_matches("]}").split(',')) {
            prop_assert_eq!(written.parse::<f64>().unwrap() + 0.0, float + 0.0);
        }
    }

    /// Whatever the bytes are, reading them ends, and what is read is JSON to serde too.
    #[test]
    fn anything_at_all_is_read_or_refused(body in prop::collection::vec(prop::sample::select(b"{}[]:,\"\\u0e1.-a \xc3".to_vec()), 0..40)) {
        let known = serde_json::from_slice::<serde_json::Map<String, Value>>(&body);
        if let Ok(form) = canonical_json(&body) {
            prop_assert_eq!(canonical_json(form.as_bytes()).unwrap(), form);
            prop_assert!(known.is_ok());
        }
    }
}
