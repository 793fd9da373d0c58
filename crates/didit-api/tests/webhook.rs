//! Webhooks as they arrive: whole, changed, repeated and hostile.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic as the test may")]

use std::time::{Duration, SystemTime};

use didit_api::webhook::{
    DEFAULT_MAX_BODY, DEFAULT_TOLERANCE, Event, HEADER_TIMESTAMP, HeaderFault, MAX_DEPTH, Malformed, MalformedKind,
    Rejected, RejectedKind, Secrets, SignatureKind, Verified, Verifier, WebhookType, canonical_json, encode, sign,
    verify,
};
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use serde_json::{Value, json};
use sha2::Sha256;

const SECRET: &str = "example-secret-not-real-0123456789abcdefghi";
const BODY: &str = r#"{"created_at":1790000000,"decision":{"list":[1.0,2.5],"name":"Zo\u00eb \u00d1 \ud83d\ude00","neg":-0.0,"ratio":0.75,"score":98.0},"metadata":{"b":true,"corr":"c-1","n":null},"session_id":"11111111-2222-4333-8444-555555555555","status":"Approved","timestamp":1790000000,"vendor_data":"user-7","webhook_type":"status.updated"}"#;
const SIGNED: u64 = 1_790_000_000;

// Made with Python's `json` and `hmac`.
const RAW: &str = "c4db2a3e8e0b828d62b5107a7496cb0a01402b0d7861b3fda641e1344e01609e";
const CANONICAL: &str = "46beea6f3a7fc2911cafa1f412cedd4116ffed1ac3bd8503c3f64d42a8b906fd";
const SIMPLE: &str = "bc2a889a4907cf8d99bbe8e5b2b2bf04519ffea38e22c0ca41e531861e1afec7";

const V2: &str = "x-signature-v2";
const V1: &str = "x-signature";
const V0: &str = "x-signature-simple";

fn secrets() -> Secrets {
    Secrets::new([SECRET]).unwrap()
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    }
    headers
}

/// As Didit sends it.
fn whole() -> HeaderMap {
    headers(&[(V2, CANONICAL), (V1, RAW), (V0, SIMPLE), (HEADER_TIMESTAMP, "1790000000")])
}

/// The headers of the vector, those of these names alone.
fn only(names: &[&str]) -> HeaderMap {
    whole()
        .into_iter()
        .filter_map(|(name, value)| Some((name?, value)))
        .filter(|(name, _)| names.contains(&name.as_str()))
        .collect()
}

fn take(body: &str, headers: &HeaderMap) -> Result<Verified, Rejected> {
    verify(body.as_bytes(), headers, &secrets(), at(SIGNED + 1))
}

fn fault_of(rejected: Rejected) -> Option<(usize, MalformedKind)> {
    match rejected {
        Rejected::Malformed(Malformed { at, kind, .. }) => Some((at, kind)),
        _ => None,
    }
}

/// Signs what `sign` refuses to.
fn by_hand(message: &[u8]) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap().chain_update(message);
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

// ===== the vector =====

#[test]
fn the_vector_is_signed_and_verified() {
    assert_eq!(sign(BODY.as_bytes(), &secrets()).unwrap(), whole());
    let verified = take(BODY, &whole()).unwrap();
    assert_eq!((verified.proof, verified.secret, verified.test), (SignatureKind::Canonical, 0, false));
    let event = verified.event;
    assert_eq!(event.webhook_type, Some(WebhookType::StatusUpdated));
    assert_eq!(
        (event.timestamp, event.created_at, event.vendor_data.as_deref()),
        (SIGNED, Some(SIGNED), Some("user-7"))
    );
    assert_eq!(event.metadata, Some(json!({ "b": true, "corr": "c-1", "n": null })));
    assert_eq!(event.decision.unwrap()["name"], "Zoë Ñ 😀");
}

#[test]
fn an_event_is_encoded_as_didit_sends_it() {
    let value: Value = serde_json::from_str(BODY).unwrap();
    assert_eq!(encode(&value).unwrap(), BODY);
    assert_eq!(canonical_json(BODY.as_bytes()).unwrap().matches("Zoë Ñ 😀").count(), 1);
}

#[test]
fn each_strong_signature_is_enough_and_the_simple_one_only_where_configured() {
    for (name, kind) in [(V2, SignatureKind::Canonical), (V1, SignatureKind::Raw)] {
        assert_eq!(take(BODY, &only(&[name, HEADER_TIMESTAMP])).unwrap().proof, kind);
    }
    let simple = only(&[V0, HEADER_TIMESTAMP]);
    assert_eq!(take(BODY, &simple), Err(Rejected::OnlySimple));
    let lax = Verifier::new().accept_simple(true);
    let event = lax.verify(BODY.as_bytes(), &simple, &secrets(), at(SIGNED)).unwrap().event;
    // Nothing that was not signed is handed out.
    let signed = json!({
        "session_id": "11111111-2222-4333-8444-555555555555", "status": "Approved", "timestamp": SIGNED,
        "webhook_type": "status.updated"
    });
    assert_eq!(event, serde_json::from_value(signed).unwrap());
}

#[test]
fn a_simple_signature_that_would_fit_several_events_is_not_taken() {
    let lax = Verifier::new().accept_simple(true);
    for fields in [json!({ "session_id": "a:b" }), json!({ "status": 7 }), json!({ "webhook_type": ["x"] })] {
        let mut event = json!({ "timestamp": SIGNED });
        event.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let body = encode(&event).unwrap();
        let mut signed = sign(body.as_bytes(), &secrets()).unwrap();
        // It is not made, and one that came all the same decides nothing beside the others.
        assert!(!signed.contains_key(V0));
        signed.insert(V0, HeaderValue::from_static(SIMPLE));
        assert!(take(&body, &signed).is_ok());
        signed.remove(V1);
        signed.remove(V2);
        let alone = lax.verify(body.as_bytes(), &signed, &secrets(), at(SIGNED));
        assert_eq!(alone, Err(Rejected::Forged { kind: SignatureKind::Simple }));
    }
}

#[test]
fn missing_and_null_fields_are_empty_in_the_simple_signature() {
    // Python: hmac.new(secret, b"1790000000:::transaction.created", "sha256").hexdigest()
    let expected = "4deb6cb22c14ca3657bb05129ac9826435c294350db33e6ed1abf8c82deb08f6";
    for event in [
        json!({ "timestamp": SIGNED, "webhook_type": "transaction.created" }),
        json!({ "timestamp": SIGNED, "webhook_type": "transaction.created", "session_id": null, "status": "" }),
    ] {
        let signed = sign(event.to_string().as_bytes(), &secrets()).unwrap();
        assert_eq!(signed[V0], expected);
        assert!(take(&event.to_string(), &signed).is_ok());
    }
}

// ===== changed on the way =====

#[test]
fn no_byte_can_be_changed_under_all_three_signatures() {
    let mut verdicts = std::collections::BTreeMap::new();
    for place in 0..BODY.len() {
        for change in [0x01, 0x20, 0x80] {
            let mut bytes = BODY.as_bytes().to_vec();
            bytes[place] ^= change;
            let rejected = verify(&bytes, &whole(), &secrets(), at(SIGNED)).unwrap_err();
            *verdicts.entry(rejected.status().as_u16()).or_insert(0) += 1;
        }
        let cut = verify(&BODY.as_bytes()[..place], &whole(), &secrets(), at(SIGNED)).unwrap_err();
        assert_eq!(cut.kind(), RejectedKind::Malformed);
    }
    assert_eq!(verdicts.into_keys().collect::<Vec<_>>(), [400, 401]);
}

#[test]
fn under_the_canonical_signature_only_what_means_the_same_can_be_changed() {
    let expected = canonical_json(BODY.as_bytes()).unwrap();
    let alone = only(&[V2, HEADER_TIMESTAMP]);
    let mut the_same = 0;
    for place in 0..BODY.len() {
        for byte in 0..=u8::MAX {
            let mut bytes = BODY.as_bytes().to_vec();
            if bytes[place] == byte {
                continue;
            }
            bytes[place] = byte;
            match verify(&bytes, &alone, &secrets(), at(SIGNED)) {
                Ok(_) => {
                    the_same += 1;
                    assert_eq!(canonical_json(&bytes).unwrap(), expected);
                }
                Err(rejected) => assert_ne!(rejected.kind(), RejectedKind::Stale),
            }
        }
    }
    // Hexadecimal digits in capitals, `-0e0` for `-0.0`, a 0 for the zeros behind a point and the like.
    assert!((1..100).contains(&the_same), "{the_same}");
}

#[test]
fn an_event_written_anew_keeps_its_canonical_signature() {
    for written in [
        // Raw instead of escaped, other order, white space.
        r#"{ "timestamp": 1790000000, "webhook_type": "status.updated", "vendor_data": "user-7", "status": "Approved",
             "session_id": "11111111-2222-4333-8444-555555555555", "created_at": 1790000000,
             "metadata": { "n": null, "corr": "c-1", "b": true },
             "decision": { "score": 98.0, "ratio": 0.75, "neg": -0.0, "name": "Zoë Ñ 😀", "list": [1.0, 2.5] } }"#,
        // As JavaScript writes it: whole floats are integers.
        &BODY.replace("1.0", "1").replace("-0.0", "0").replace("98.0", "98"),
        &BODY.replace("98.0", "9.8e1").replace("0.75", "75E-2").replace("1790000000,", "1.79e9,"),
        &BODY.replace("/", "\\/").replace("Approved", "\\u0041pproved"),
    ] {
        assert!(take(written, &only(&[V2, HEADER_TIMESTAMP])).is_ok(), "{written}");
        let strict = take(written, &whole()).unwrap_err();
        let expected = Rejected::Contradiction { right: SignatureKind::Canonical, wrong: SignatureKind::Raw };
        assert_eq!((&strict, strict.kind()), (&expected, RejectedKind::Forged));
        let lax = Verifier::new().strongest_only(true);
        assert!(lax.verify(written.as_bytes(), &whole(), &secrets(), at(SIGNED)).is_ok());
    }
    let forged = BODY.replace("98.0", "98.5");
    let lax = Verifier::new().strongest_only(true);
    let rejected = lax.verify(forged.as_bytes(), &whole(), &secrets(), at(SIGNED)).unwrap_err();
    assert_eq!(rejected, Rejected::Forged { kind: SignatureKind::Canonical });
}

#[test]
fn big_integers_and_exponents_survive_being_written_anew() {
    // Python: json.dumps, with whole floats shortened for the message.
    let sent = r#"{"big":123456789012345678901234567890,"large":1e+16,"small":1e-05,"timestamp":1790000000}"#;
    let message =
        r#"{"big":123456789012345678901234567890,"large":10000000000000000,"small":1e-05,"timestamp":1790000000}"#;
    assert_eq!(canonical_json(sent.as_bytes()).unwrap(), message);
    let mut signed = sign(sent.as_bytes(), &secrets()).unwrap();
    signed.remove(V1);
    for (large, small) in [("1e16", "0.00001"), ("10000000000000000", "1e-5"), ("1E16", "1.0E-5")] {
        let written = sent.replace("1e+16", large).replace("1e-05", small);
        assert!(take(&written, &signed).is_ok(), "{written}");
    }
    for other in [sent.replace("567890,", "567891,"), sent.replace("1e-05", "1.1e-05"), sent.replace("1e+16", "1e+17")]
    {
        assert_eq!(take(&other, &signed).unwrap_err().kind(), RejectedKind::Forged, "{other}");
    }
}

// ===== secrets =====

#[test]
fn during_a_rotation_both_secrets_are_taken_and_the_events_tells_which() {
    let (old, new) = (secrets(), Secrets::new(["new-secret"]).unwrap());
    let both = Secrets::new(["new-secret", SECRET]).unwrap();
    for (signed_with, secret) in [(&new, 0), (&old, 1)] {
        let signed = sign(BODY.as_bytes(), signed_with).unwrap();
        assert_eq!(verify(BODY.as_bytes(), &signed, &both, at(SIGNED)).unwrap().secret, secret);
    }
    assert_eq!(sign(BODY.as_bytes(), &both).unwrap(), sign(BODY.as_bytes(), &new).unwrap());
    let over = verify(BODY.as_bytes(), &whole(), &new, at(SIGNED));
    assert_eq!(over, Err(Rejected::Forged { kind: SignatureKind::Canonical }));
}

#[test]
fn signatures_of_two_secrets_contradict_each_other() {
    let both = Secrets::new(["new-secret", SECRET]).unwrap();
    let mut mixed = whole();
    mixed.insert(V1, sign(BODY.as_bytes(), &both).unwrap()[V1].clone());
    mixed.remove(V0);
    let rejected = verify(BODY.as_bytes(), &mixed, &both, at(SIGNED)).unwrap_err();
    let expected = Rejected::Contradiction { right: SignatureKind::Canonical, wrong: SignatureKind::Raw };
    assert_eq!(rejected, expected);
}

// ===== time =====

#[test]
fn an_event_is_taken_within_the_tolerance_either_way() {
    let now = |seconds: u64| verify(BODY.as_bytes(), &whole(), &secrets(), at(seconds));
    let most = DEFAULT_TOLERANCE.as_secs();
    assert!(now(SIGNED + most).is_ok() && now(SIGNED - most).is_ok());
    let stale = now(SIGNED + most + 1).unwrap_err();
    let age = Duration::from_secs(most + 1);
    assert_eq!(stale, Rejected::Stale { age, tolerance: DEFAULT_TOLERANCE });
    let future = now(SIGNED - most - 1).unwrap_err();
    assert_eq!(future, Rejected::Future { ahead: age, tolerance: DEFAULT_TOLERANCE });
    assert_eq!((stale.kind(), stale.status().as_u16()), (RejectedKind::Stale, 400));
    let before = verify(BODY.as_bytes(), &whole(), &secrets(), SystemTime::UNIX_EPOCH - Duration::from_secs(9));
    assert_eq!(before.unwrap_err().kind(), RejectedKind::Stale);
    let short = Verifier::new().tolerance(Duration::ZERO);
    assert!(short.verify(BODY.as_bytes(), &whole(), &secrets(), at(SIGNED)).is_ok());
    assert!(short.verify(BODY.as_bytes(), &whole(), &secrets(), at(SIGNED + 1)).is_err());
}

#[test]
fn an_old_event_under_a_new_header_is_a_forgery_or_stale() {
    let mut fresh = whole();
    fresh.insert(HEADER_TIMESTAMP, HeaderValue::from(SIGNED + 300));
    let soon = verify(BODY.as_bytes(), &fresh, &secrets(), at(SIGNED + 300)).unwrap_err();
    assert_eq!(soon, Rejected::TimestampHeader { header: SIGNED + 300, signed: SIGNED });
    assert_eq!(soon.kind(), RejectedKind::Forged);
    fresh.insert(HEADER_TIMESTAMP, HeaderValue::from(SIGNED + 3_600));
    for verifier in [Verifier::new(), Verifier::new().timestamp_header(false)] {
        let late = verifier.verify(BODY.as_bytes(), &fresh, &secrets(), at(SIGNED + 3_600)).unwrap_err();
        assert_eq!(late.kind(), RejectedKind::Stale);
    }
    let lax = Verifier::new().timestamp_header(false);
    assert!(lax.verify(BODY.as_bytes(), &fresh, &secrets(), at(SIGNED)).is_ok());
    for text in ["", "abc", "2026-01-01T00:00:00Z", "1790000000.0"] {
        fresh.insert(HEADER_TIMESTAMP, HeaderValue::from_static(text));
        assert!(lax.verify(BODY.as_bytes(), &fresh, &secrets(), at(SIGNED)).is_ok(), "{text}");
    }
    fresh.append(HEADER_TIMESTAMP, HeaderValue::from_static("1790000000"));
    assert!(lax.verify(BODY.as_bytes(), &fresh, &secrets(), at(SIGNED)).is_ok(), "there twice");
}

#[test]
fn an_event_without_a_time_cannot_be_taken() {
    for timestamp in ["\"1790000000\"", "-1790000000", "1790000000.5", "null", "{\"b\":1,\"a\":2}", "1e300"] {
        let body = BODY.replace("\"timestamp\":1790000000", &format!("\"timestamp\":{timestamp}"));
        assert_eq!(sign(body.as_bytes(), &secrets()).unwrap_err().kind, MalformedKind::NoTimestamp, "{body}");
        let signature = by_hand(canonical_json(body.as_bytes()).unwrap().as_bytes());
        let signed = headers(&[(V2, &signature), (HEADER_TIMESTAMP, "1790000000")]);
        assert_eq!(fault_of(take(&body, &signed).unwrap_err()).unwrap().1, MalformedKind::NoTimestamp, "{body}");
    }
    let float = BODY.replace("\"timestamp\":1790000000", "\"timestamp\":1.79e9");
    assert!(take(&float, &only(&[V2, HEADER_TIMESTAMP])).is_ok());
}

// ===== headers =====

#[test]
fn headers_are_there_once_and_of_their_form() {
    let long = format!("{CANONICAL}00");
    let two = format!("{CANONICAL}, {CANONICAL}");
    let capitals = CANONICAL.to_ascii_uppercase();
    for value in ["", "c4", &long, &two, &capitals, &CANONICAL.replace('4', "g"), "sha256=46beea6f"] {
        let mut bad = whole();
        bad.insert(V2, value.parse().unwrap());
        let rejected = take(BODY, &bad).unwrap_err();
        assert_eq!(rejected, Rejected::Header { name: V2, fault: HeaderFault::Malformed }, "{value:?}");
        assert_eq!(rejected.status().as_u16(), 400);
    }
    for value in ["", "+1790000000", "1790000000.0", "soon", "99999999999999999999", "-1"] {
        let mut bad = whole();
        bad.insert(HEADER_TIMESTAMP, value.parse().unwrap());
        let expected = Rejected::Header { name: HEADER_TIMESTAMP, fault: HeaderFault::Malformed };
        assert_eq!(take(BODY, &bad), Err(expected), "{value:?}");
    }
    for name in [V2, V1, V0, HEADER_TIMESTAMP] {
        let mut twice = whole();
        twice.append(name, whole()[name].clone());
        assert_eq!(take(BODY, &twice), Err(Rejected::Header { name, fault: HeaderFault::Repeated }));
    }
    let mut opaque = whole();
    opaque.insert(V1, HeaderValue::from_bytes(b"\xff").unwrap());
    assert_eq!(take(BODY, &opaque), Err(Rejected::Header { name: V1, fault: HeaderFault::Malformed }));
}

#[test]
fn without_a_signature_nothing_is_taken_and_without_a_time_only_where_configured() {
    for headers in [HeaderMap::new(), only(&[HEADER_TIMESTAMP])] {
        let rejected = take(BODY, &headers).unwrap_err();
        assert_eq!((&rejected, rejected.status().as_u16()), (&Rejected::Unsigned, 401));
    }
    let timeless = only(&[V2, V1, V0]);
    let missing = Rejected::Header { name: HEADER_TIMESTAMP, fault: HeaderFault::Missing };
    assert_eq!(take(BODY, &timeless), Err(missing));
    let lax = Verifier::new().timestamp_header(false);
    assert!(lax.verify(BODY.as_bytes(), &timeless, &secrets(), at(SIGNED)).is_ok());
}

#[test]
fn one_wrong_signature_refuses_the_event_and_is_named() {
    for (wrong, right) in [
        (SignatureKind::Canonical, SignatureKind::Raw),
        (SignatureKind::Raw, SignatureKind::Canonical),
        (SignatureKind::Simple, SignatureKind::Canonical),
    ] {
        let mut mixed = whole();
        mixed.insert(
            wrong.header(),
            HeaderValue::from_static("00000000000000000000000000000000000000000000000000000000000000ff"),
        );
        assert_eq!(take(BODY, &mixed), Err(Rejected::Contradiction { right, wrong }));
    }
    let none = Secrets::new(["another"]).unwrap();
    let forged = verify(BODY.as_bytes(), &whole(), &none, at(SIGNED));
    assert_eq!(forged, Err(Rejected::Forged { kind: SignatureKind::Canonical }));
}

#[test]
fn a_test_of_the_console_is_told_and_has_a_key() {
    let mut test = whole();
    test.insert("x-didit-test-webhook", HeaderValue::from_static("true"));
    let verified = take(BODY, &test).unwrap();
    assert!(verified.test);
    let key = "at:1790000000/status.updated/Approved/11111111-2222-4333-8444-555555555555";
    assert_eq!(verified.event.key().as_str(), key);
}

#[test]
fn every_type_and_one_that_is_new_is_read() {
    for kind in WebhookType::DOCUMENTED.iter().map(WebhookType::as_str).chain(["added.later"]) {
        let body = encode(&json!({ "timestamp": SIGNED, "webhook_type": kind, "event_id": "e" })).unwrap();
        let signed = sign(body.as_bytes(), &secrets()).unwrap();
        let event = take(&body, &signed).unwrap().event;
        assert_eq!(event.webhook_type.as_ref().map(WebhookType::as_str), Some(kind));
        assert_eq!(Event::read(body.as_bytes()), Some(event));
    }
}

// ===== hostile bodies =====

/// An event with a text of so many bytes.
fn padded(length: usize) -> String {
    let frame = r#"{"pad":"","timestamp":1790000000}"#;
    frame.replace("\"\"", &format!("\"{}\"", "x".repeat(length - frame.len())))
}

#[test]
fn ten_mebibytes_are_taken_and_one_byte_more_is_413() {
    let most = padded(DEFAULT_MAX_BODY);
    assert_eq!(most.len(), DEFAULT_MAX_BODY);
    let signed = sign(most.as_bytes(), &secrets()).unwrap();
    assert!(take(&most, &signed).is_ok());
    // Refused before anything is looked at, signatures included.
    let more = padded(DEFAULT_MAX_BODY + 1);
    let rejected = take(&more, &HeaderMap::new()).unwrap_err();
    assert_eq!((&rejected, rejected.status().as_u16()), (&Rejected::TooLarge { limit: DEFAULT_MAX_BODY }, 413));
    assert!(Verifier::new().max_body(more.len()).verify(more.as_bytes(), &signed, &secrets(), at(SIGNED)).is_err());
}

#[test]
fn ten_mebibytes_of_any_shape_are_refused_without_harm() {
    let fill = |part: &str| part.repeat(DEFAULT_MAX_BODY / part.len());
    for body in [
        fill("["),
        fill("{\"a\":"),
        fill("{\"a\":["),
        format!("{{\"a\":[{}", fill("0,").get(..DEFAULT_MAX_BODY - 9).unwrap()),
        format!("{{\"a\":[{}", fill("1e308,").get(..DEFAULT_MAX_BODY - 9).unwrap()),
        format!("{{\"a\":{}", fill("9").get(..DEFAULT_MAX_BODY - 9).unwrap()),
        format!("{{\"a\":0.{}", fill("9").get(..DEFAULT_MAX_BODY - 9).unwrap()),
        fill("\\"),
        fill(" "),
    ] {
        let rejected = take(&body, &whole()).unwrap_err();
        assert!([400, 413].contains(&rejected.status().as_u16()), "{rejected}");
    }
}

#[test]
fn a_signed_body_nested_ten_thousand_deep_is_413() {
    let nested = |depth: usize| {
        let (open, close) = ("[".repeat(depth - 1), "]".repeat(depth - 1));
        format!("{{\"timestamp\":1790000000,\"x\":{open}{close}}}")
    };
    let rejected = take(&nested(10_000), &whole()).unwrap_err();
    assert_eq!((rejected.status().as_u16(), rejected.kind()), (413, RejectedKind::TooLarge));
    let deepest = nested(MAX_DEPTH);
    assert!(take(&deepest, &sign(deepest.as_bytes(), &secrets()).unwrap()).is_ok());
    let beyond = nested(MAX_DEPTH + 1);
    let at_bracket = beyond.find('[').unwrap() + MAX_DEPTH - 1;
    assert_eq!(fault_of(take(&beyond, &whole()).unwrap_err()), Some((at_bracket, MalformedKind::TooDeep)));
}

#[test]
fn a_key_that_is_there_twice_is_400_though_it_is_signed() {
    let twice = r#"{"status":"Declined","timestamp":1790000000,"status":"Approved"}"#;
    // Python signs what it read last; a receiver may have read the first.
    let once = r#"{"status":"Approved","timestamp":1790000000}"#;
    let mut signed = sign(once.as_bytes(), &secrets()).unwrap();
    signed.remove(V1);
    assert!(take(once, &signed).is_ok());
    assert_eq!(fault_of(take(twice, &signed).unwrap_err()).unwrap().1, MalformedKind::DuplicateKey);
}

#[test]
fn a_signed_number_that_cannot_be_held_is_400() {
    let body = format!(r#"{{"n":{},"timestamp":1790000000}}"#, "9".repeat(400));
    let signed = sign(body.as_bytes(), &secrets()).unwrap();
    assert_eq!(fault_of(take(&body, &signed).unwrap_err()).unwrap().1, MalformedKind::Unreadable);
}

#[test]
fn nothing_secret_is_printed() {
    let canary = "canary-in-the-body";
    let body = BODY.replace("user-7", canary);
    let mut shown = vec![format!("{:?}", secrets()), format!("{:?}", take(BODY, &whole()).unwrap())];
    let mut short = whole();
    short.remove(V2);
    for rejected in [
        take(&body, &whole()).unwrap_err(),
        take(&body, &short).unwrap_err(),
        take(&body[1..], &whole()).unwrap_err(),
        take(&format!("{{\"{canary}\":1,\"{canary}\":2}}"), &whole()).unwrap_err(),
    ] {
        shown.push(format!("{rejected} {rejected:?}"));
    }
    for text in shown {
        for secret in [SECRET, canary, RAW, CANONICAL, SIMPLE, "user-7", "Zoë"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

proptest! {
    /// Whatever is signed verifies, and after any change of one byte either does not or means the same.
    #[test]
    fn a_changed_event_verifies_only_if_it_means_the_same(
        text in any::<String>(), number in any::<f64>(), place: usize, byte: u8,
    ) {
        let body = encode(&json!({ "timestamp": SIGNED, "text": text, "number": number })).unwrap();
        let signed = sign(body.as_bytes(), &secrets()).unwrap();
        prop_assert!(take(&body, &signed).is_ok());
        let mut bytes = body.clone().into_bytes();
        let place = place % bytes.len();
        prop_assume!(bytes[place] != byte);
        bytes[place] = byte;
        prop_assert!(verify(&bytes, &signed, &secrets(), at(SIGNED)).is_err());
        let mut canonical = signed;
        canonical.remove(V1);
        if let Ok(verified) = verify(&bytes, &canonical, &secrets(), at(SIGNED)) {
            prop_assert_eq!(verified.event, Event::read(body.as_bytes()).unwrap());
        }
    }
}
