//! Whatever arrives, verifying it ends, does not panic, and takes only what was signed.
//!
//! An input is two bodies with a zero byte between them, then another one and header lines: a byte that picks the header,
//! then its value.

#![no_main]

use std::{
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use didit_api::webhook::{Event, RejectedKind, Secrets, Verifier, canonical_json, sign, verify};
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;

const NAMES: [&str; 5] = ["x-signature-v2", "x-signature", "x-signature-simple", "x-timestamp", "x-didit-test-webhook"];

static SECRETS: LazyLock<Secrets> = LazyLock::new(|| Secrets::new(["a-secret", "another"]).expect("they are two"));

fuzz_target!(|input: &[u8]| {
    let mut parts = input.splitn(3, |byte| *byte == 0);
    let mut part = || parts.next().unwrap_or_default();
    let (body, other, lines) = (part(), part(), part());

    // Nothing is taken that nobody signed.
    let mut given = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n').take(16) {
        let Some((pick, value)) = line.split_first() else { continue };
        let Ok(value) = HeaderValue::from_bytes(value) else { continue };
        given.append(HeaderName::from_static(NAMES[usize::from(*pick) % NAMES.len()]), value);
    }
    let lax = Verifier::new()
        .accept_simple(true)
        .strongest_only(true)
        .timestamp_header(false)
        .tolerance(Duration::MAX);
    for verifier in [Verifier::new(), lax] {
        let rejected = verifier.verify(body, &given, &SECRETS, SystemTime::UNIX_EPOCH).expect_err("nobody signed it");
        assert!(rejected.status().is_client_error() && !rejected.to_string().is_empty());
    }

    // A canonical form is its own.
    let form = canonical_json(body);
    if let Ok(form) = &form {
        assert_eq!(canonical_json(form.as_bytes()).as_ref(), Ok(form));
    }

    // What is signed is taken at its time, if its numbers can be held at all.
    let Ok(headers) = sign(body, &SECRETS) else { return };
    let seconds = headers["x-timestamp"].to_str().ok().and_then(|text| text.parse().ok()).expect("seconds");
    let Some(now) = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)) else { return };
    let signed = match verify(body, &headers, &SECRETS, now) {
        Ok(verified) => verified.event,
        Err(rejected) => {
            assert_eq!(rejected.kind(), RejectedKind::Malformed);
            assert!(Event::read(body).is_none());
            return;
        }
    };
    assert_eq!(signed.timestamp, seconds);

    // Under its signatures nothing else is, and under the canonical one only what means the same.
    if other != body {
        assert!(verify(other, &headers, &SECRETS, now).is_err());
        let mut canonical = headers;
        canonical.remove("x-signature");
        if let Ok(verified) = verify(other, &canonical, &SECRETS, now) {
            let event = verified.event;
            assert_eq!((event.key(), &event.status), (signed.key(), &signed.status));
            assert_eq!(event.others.keys().collect::<Vec<_>>(), signed.others.keys().collect::<Vec<_>>());
        }
    }
});
