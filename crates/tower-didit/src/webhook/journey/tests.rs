use super::*;

const BOTH: [(&str, Option<&str>); 2] = [(CORRELATION_ID, Some("c-1")), (OPERATION_ID, Some("op-1"))];

fn stamp_all(body: &str) -> Option<String> {
    stamped(body.as_bytes(), &BOTH)
}

#[test]
fn what_has_room_for_the_ids_gets_them_and_keeps_every_other_byte() {
    let cases = [
        (r#"{}"#, r#"{"metadata":{"correlation_id":"c-1","operation_id":"op-1"}}"#),
        (r#"{"metadata":null}"#, r#"{"metadata":{"correlation_id":"c-1","operation_id":"op-1"}}"#),
        (
            r#"{ "metadata" : {"a": 1.0, "big":123456789012345678901234567890} , "n": 1e5, "s":"\u00e9\/" }"#,
            r#"{"metadata":{"a":1.0,"big":123456789012345678901234567890,"correlation_id":"c-1","operation_id":"op-1"},"n":1e5,"s":"\u00e9\/"}"#,
        ),
        (r#"{"metadata":{"operation_id":"mine"}}"#, r#"{"metadata":{"operation_id":"mine","correlation_id":"c-1"}}"#),
    ];
    for (body, wanted) in cases {
        assert_eq!(stamp_all(body).as_deref(), Some(wanted), "{body}");
    }
}

#[test]
fn what_has_no_room_for_them_stays_as_it_is() {
    for body in [
        "",
        "not json",
        "[]",
        "null",
        r#"{"metadata":"text"}"#,
        r#"{"metadata":[1]}"#,
        r#"{"metadata":7}"#,
        r#"{"metadata":{"correlation_id":"mine","operation_id":null}}"#,
        r#"{"metadata":{},"metadata":{}}"#,
        r#"{"metadata":{"a":1,"a":2}}"#,
        r#"{"metadata":{}} trailing"#,
    ] {
        assert_eq!(stamp_all(body), None, "{body}");
    }
}

#[test]
fn a_stamp_from_outside_is_an_id_or_nothing() {
    let of = |metadata: Value| stamped_id(Some(&metadata)).map(|id| id.to_string());
    assert_eq!(of(serde_json::json!({ "correlation_id": "c-1" })).as_deref(), Some("c-1"));
    for metadata in [
        serde_json::json!({ "correlation_id": "two\nlines" }),
        serde_json::json!({ "correlation_id": "x".repeat(10_240) }),
        serde_json::json!({ "correlation_id": 7 }),
        serde_json::json!({ "correlation_id": "" }),
        serde_json::json!("correlation_id"),
        serde_json::json!(["correlation_id"]),
        Value::Null,
    ] {
        assert_eq!(of(metadata.clone()), None, "{metadata}");
    }
}

#[test]
fn only_an_answer_with_a_session_is_kept() {
    assert_eq!(session_of(br#"{"session_id":"s-1","url":"u"}"#).as_deref(), Some("s-1"));
    for answer in [&b"{}"[..], b"[]", b"not json", br#"{"session_id":7}"#] {
        assert_eq!(session_of(answer), None);
    }
    assert_eq!(session_of(format!(r#"{{"session_id":"{}"}}"#, "x".repeat(65)).as_bytes()), None);
}
