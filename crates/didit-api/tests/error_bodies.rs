//! Every shape of error body is read, and nothing that is no error body does harm.

use std::time::Duration;

use didit_api::{
    ErrorBody, Limits,
    error::{ErrorShape, OddThrottle},
};

fn parse(body: &str) -> ErrorBody {
    ErrorBody::parse(body.as_bytes())
}

#[test]
fn every_documented_shape_is_read() {
    use ErrorShape::{CodeDetail, Detail, Empty, Error, ErrorCode, ErrorList, FieldText, Fields, List, NotJson, Other};
    // Body, shape, code, message, fields.
    type Case =
        (&'static str, ErrorShape, Option<&'static str>, Option<&'static str>, &'static [(&'static str, &'static str)]);
    #[rustfmt::skip]
    let cases: &[Case] = &[
        (r#"{"detail":"Not found."}"#, Detail, None, Some("Not found."), &[]),
        (r#"{"error":"Unreadable document"}"#, Error, None, Some("Unreadable document"), &[]),
        (r#"{"error":["Weights must sum to 100."]}"#, ErrorList, None, Some("Weights must sum to 100."), &[]),
        (r#"{"workflow_id":["This field is required."]}"#, Fields, None, None, &[("workflow_id", "This field is required.")]),
        (r#"{"workflow_id":"Invalid workflow_id."}"#, FieldText, None, None, &[("workflow_id", "Invalid workflow_id.")]),
        (r#"["The new status is the same as the current status."]"#, List, None, Some("The new status is the same as the current status."), &[]),
        (r#"{"code":"application_deleted","detail":"Gone."}"#, CodeDetail, Some("application_deleted"), Some("Gone."), &[]),
        (r#"{"error":"wallet_unavailable","detail":"Try later"}"#, ErrorCode, Some("wallet_unavailable"), Some("Try later"), &[]),
        (r#"{"error":"wallet_unavailable","wallet":"x"}"#, ErrorCode, Some("wallet_unavailable"), None, &[]),
        ("<html>502</html>", NotJson, None, None, &[]),
        ("upstream connect error", NotJson, None, Some("upstream connect error"), &[]),
        // Neighbours of the documented ones.
        (r#"{"contact_details":{"email":["Bad."],"phone":["Bad too."]}}"#, Fields, None, None, &[("contact_details.email", "Bad."), ("contact_details.phone", "Bad too.")]),
        (r#"{"events":[{},{"event_id":["Missing."]}]}"#, Fields, None, None, &[("events.1.event_id", "Missing.")]),
        (r#"{"code":["This field is required."]}"#, Fields, None, None, &[("code", "This field is required.")]),
        (r#"{"code":"Invalid code."}"#, FieldText, None, None, &[("code", "Invalid code.")]),
        (r#"{"code":"only_a_code"}"#, CodeDetail, Some("only_a_code"), None, &[]),
        (r#"{"detail":"No.","validation_errors":[{"code":"empty_provider_response"}]}"#, Detail, None, Some("No."), &[("validation_errors.0.code", "empty_provider_response")]),
        (r#"{"detail":"No.","session_id":"s1"}"#, Detail, None, Some("No."), &[]),
        (r#""only a text""#, Other, None, Some("only a text"), &[]),
        ("{}", Other, None, None, &[]),
        ("[]", Other, None, None, &[]),
        ("null", Other, None, None, &[]),
        ("17", Other, None, None, &[]),
        (r#"{"a":null}"#, Other, None, None, &[]),
        ("", Empty, None, None, &[]),
        (" \r\n", Empty, None, None, &[]),
        (r#"{"detail":"cut"#, NotJson, None, None, &[]),
    ];
    for (body, shape, code, message, fields) in cases {
        let read = parse(body);
        assert_eq!((read.shape(), read.code(), read.message()), (*shape, *code, *message), "{body}");
        let found: Vec<_> = read.fields().iter().map(|field| (field.field(), field.message())).collect();
        assert_eq!(found, *fields, "{body}");
    }
}

#[test]
fn hostile_bodies_are_read_and_stay_small() {
    let deep = |open: &str, close: &str| open.repeat(20_000) + &close.repeat(20_000);
    let wide: String = (0..2_000).map(|n| format!(r#""field{n}":["{}"],"#, "x".repeat(10))).collect();
    let bodies = [
        deep("[", "]"),
        deep("{\"a\":", ""),
        "[".repeat(100) + &"]".repeat(100),
        "{\"a\":".repeat(100) + "\"x\"" + &"}".repeat(100),
        format!("{{{wide}\"last\":\"x\"}}"),
        format!(r#"{{"detail":"{}"}}"#, "\u{1f600}".repeat(10_000)),
        format!("[{}\"x\"]", "\"y\",".repeat(10_000)),
        "x".repeat(ErrorBody::MAX_BYTES + 1),
    ];
    for body in bodies {
        let read = parse(&body);
        assert!(read.fields().len() <= ErrorBody::MAX_MESSAGES);
        assert!(read.messages().count() <= ErrorBody::MAX_MESSAGES);
        assert!(read.messages().all(|text| text.chars().count() <= ErrorBody::MAX_TEXT));
        assert!(format!("{read} {read:?}").len() < 40_000);
    }
    assert_eq!(parse(&"x".repeat(ErrorBody::MAX_BYTES + 1)).shape(), ErrorShape::TooLarge);
}

#[test]
fn bytes_that_are_no_text_are_read() {
    for length in 0..64u8 {
        let bytes: Vec<u8> = (0..length).map(|n| n.wrapping_mul(167).wrapping_add(length)).collect();
        let read = ErrorBody::parse(&bytes);
        assert!(matches!(read.shape(), ErrorShape::NotJson | ErrorShape::Empty | ErrorShape::Other));
    }
}

#[test]
fn printing_shows_no_secret_and_no_person() {
    let bodies = [
        r#"{"detail":"Open https://verify.didit.me/session/aB3dE5fG7hJ9 as ada@example.com"}"#,
        r#"{"vendor_data":"aB3dE5fG7hJ9 of ada@example.com"}"#,
        r#"{"email":["ada@example.com aB3dE5fG7hJ9"]}"#,
    ];
    for body in bodies {
        let read = parse(body);
        let printed = format!("{read} {read:?}");
        assert!(!printed.contains("aB3dE5fG7hJ9") && !printed.contains("ada@"), "{printed}");
    }
}

#[test]
fn display_is_one_readable_line() {
    let table = [
        (r#"{"code":"a_b","detail":"Text."}"#, "a_b: Text."),
        (r#"{"detail":"Not found."}"#, "Not found."),
        (r#"{"a":["x"],"b":["y"]}"#, "refused field a, b"),
        ("", "no body"),
        ("<html>", "a body that is not JSON"),
    ];
    for (body, line) in table {
        assert_eq!(parse(body).to_string(), line);
    }
}

#[test]
fn duplicate_transactions_are_recognised() {
    let duplicates = [
        r#"{"transaction_id":["A transaction with this transaction_id already exists."]}"#,
        r#"{"transaction_id":"A transaction with this transaction_id already exists."}"#,
        r#"{"detail":"A transaction with this transaction_id already exists."}"#,
    ];
    let others = [
        r#"{"transaction_id":["This field is required."]}"#,
        r#"{"transaction_id":["A transaction with this transaction_id already exists."],"amount":["Invalid."]}"#,
        r#"{"vendor_data":["A user with this vendor_data already exists."]}"#,
        r#"{"detail":"A user already exists."}"#,
        "",
    ];
    for body in duplicates {
        assert!(parse(body).is_duplicate_transaction(), "{body}");
    }
    for body in others {
        assert!(!parse(body).is_duplicate_transaction(), "{body}");
    }
}

#[test]
fn same_status_is_recognised_as_a_bare_list_only() {
    assert!(parse(r#"["The new status is the same as the current status."]"#).is_same_status());
    assert!(!parse(r#"["Too late to arm a scenario."]"#).is_same_status());
    assert!(!parse(r#"{"detail":"The new status is the same as the current status."}"#).is_same_status());
}

#[test]
fn throttles_are_told_apart() {
    let window = |text: &str| format!("{text} rate limit exceeded. You can make up to 600 requests per minute.");
    let second = Duration::from_secs;
    let cases = [
        (window("GET request"), None, Some("generic-get"), None),
        (window("Write request"), None, Some("generic-write"), None),
        (window("Session creation"), None, Some("session-v2-create"), None),
        (window("Session PDF generation"), None, Some("session-generate-pdf"), None),
        (window("Session KYC data update"), None, Some("session-update-kyc"), None),
        (window("Session POA data update"), None, Some("session-update-poa"), None),
        ("Request was throttled. Expected available in 17 seconds.".into(), None, None, Some(second(17))),
        ("Request was throttled. Expected available in 1 second.".into(), None, None, Some(second(1))),
        (
            "Sandbox session quota of 500 per day exceeded. Expected available in 3600 seconds.".into(),
            Some(OddThrottle::SandboxQuota),
            None,
            Some(second(3600)),
        ),
        (
            "Maximum verification attempts reached for this phone number. Try again later.".into(),
            Some(OddThrottle::PhoneAttempts),
            None,
            None,
        ),
        (
            "This application already has an active import job. Wait for it.".into(),
            Some(OddThrottle::ImportJob),
            None,
            None,
        ),
    ];
    for (detail, odd, scope, wait) in cases {
        let read = parse(&serde_json::json!({ "detail": detail }).to_string());
        assert_eq!(
            (read.odd_throttle(), read.throttled_scope(), read.retry_after_from_text()),
            (odd, scope, wait),
            "{detail}"
        );
        if let Some(scope) = scope {
            assert!(Limits::didit().scope(scope).is_some(), "{scope}");
        }
    }
}

#[test]
fn waits_in_sentences_are_bounded_before_they_are_added_up() {
    let wait = |n: &str| {
        parse(&serde_json::json!({ "detail": format!("Expected available in {n}") }).to_string())
            .retry_after_from_text()
    };
    let table = [
        ("0 seconds.", Some(0)),
        ("007 seconds.", Some(7)),
        ("999999999 seconds.", Some(999_999_999)),
        ("9999999999 seconds.", Some(u64::from(u32::MAX))),
        ("18446744073709551616 seconds.", Some(u64::from(u32::MAX))),
        ("-5 seconds.", None),
        ("5 minutes.", None),
        ("5", None),
        (" seconds.", None),
        ("\u{0665} seconds.", None),
    ];
    for (text, seconds) in table {
        assert_eq!(wait(text), seconds.map(Duration::from_secs), "{text}");
    }
}
