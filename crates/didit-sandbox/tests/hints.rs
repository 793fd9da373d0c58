//! What a 429 or a 503 says about coming back, and by which clock. In virtual time.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic as the test may")]

mod support;

use std::{collections::HashSet, time::Duration};

use didit_api::{ErrorBody, Limits, Scope, error::OddThrottle};
use didit_sandbox::{
    Fault, Faults, Refusal, ResetForm, RetryAfter, RetryAfterForm, Rule, Sandbox, SandboxBuilder, When,
};
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::json;
use support::{EPOCH, Reply, create, get, request, send, without_key};
use tokio::time::advance;

const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

fn builder() -> SandboxBuilder {
    Sandbox::builder().epoch(support::epoch())
}

/// The 429 of a limit of one, after 10 s of the window's 60.
async fn throttled(builder: SandboxBuilder) -> Reply {
    let limits = Limits::none().with(Scope::methods("generic-get", 1, ["GET"]).unwrap()).unwrap();
    let sandbox = builder.limits(limits).build().unwrap();
    send(&sandbox, get("/v3/sessions/")).await;
    advance(Duration::from_secs(10)).await;
    let reply = send(&sandbox, get("/v3/sessions/")).await;
    assert_eq!(reply.status, StatusCode::TOO_MANY_REQUESTS);
    reply
}

async fn faulted(fault: Fault) -> Reply {
    let sandbox = builder().faults(Faults::none().with(Rule::new(fault))).build().unwrap();
    send(&sandbox, get("/v3/sessions/")).await
}

#[tokio::test(start_paused = true)]
async fn a_limit_can_tell_its_wait_in_every_form() {
    let text = || HeaderValue::from_static("later");
    for (form, value) in [
        (RetryAfterForm::Seconds, Some("50")),
        (RetryAfterForm::HttpDate, Some("Mon, 21 Sep 2026 14:15:00 GMT")),
        (RetryAfterForm::Omitted, None),
        (RetryAfterForm::Instead(RetryAfter::Seconds(0)), Some("0")),
        (RetryAfterForm::Instead(RetryAfter::DateAgo(Duration::from_secs(10))), Some("Mon, 21 Sep 2026 14:14:00 GMT")),
        (RetryAfterForm::Instead(RetryAfter::Text(text())), Some("later")),
    ] {
        let reply = throttled(builder().throttle_retry_after(form)).await;
        assert_eq!(reply.headers.get("retry-after").map(|value| value.to_str().unwrap()), value);
        assert_eq!(reply.headers[RESET], (EPOCH + 60).to_string());
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_can_tell_its_reset_in_every_form() {
    for (form, value) in [
        (ResetForm::EpochSeconds, Some((EPOCH + 60).to_string())),
        (ResetForm::EpochMillis, Some(((EPOCH + 60) * 1_000).to_string())),
        (ResetForm::SecondsLeft, Some("50".to_owned())),
        (ResetForm::MillisLeft, Some("50000".to_owned())),
        (ResetForm::Omitted, None),
        (ResetForm::Instead(HeaderValue::from_static("-1")), Some("-1".to_owned())),
    ] {
        let reply = throttled(builder().throttle_reset(form)).await;
        assert_eq!(reply.headers.get(RESET).map(|value| value.to_str().unwrap().to_owned()), value);
        assert_eq!(reply.headers["retry-after"], "50");
    }
}

#[tokio::test(start_paused = true)]
async fn a_status_can_carry_any_retry_after_and_any_header() {
    let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE)
        .retry_after(RetryAfter::DateIn(Duration::from_secs(30)))
        .header(RESET, HeaderValue::from_static("-1"))
        .header(RESET, HeaderValue::from_static("99999999999999999999"));
    let reply = faulted(Fault::Refusal(refusal)).await;
    assert_eq!(
        (reply.status, reply.header("retry-after")),
        (StatusCode::SERVICE_UNAVAILABLE, "Mon, 21 Sep 2026 14:14:30 GMT")
    );
    let resets: Vec<_> = reply.headers.get_all(RESET).iter().collect();
    assert_eq!(resets, ["-1", "99999999999999999999"]);
}

#[tokio::test(start_paused = true)]
async fn absurd_headers_come_in_many_ways_and_repeat_with_the_seed() {
    let run = async |seed| {
        let faults = Faults::none().with(Rule::new(Fault::AbsurdThrottle));
        let sandbox = Sandbox::builder().seed(seed).faults(faults).build().unwrap();
        let mut shown = Vec::new();
        for _ in 0..50 {
            let reply = send(&sandbox, get("/v3/sessions/")).await;
            assert_eq!(reply.status, StatusCode::TOO_MANY_REQUESTS);
            shown.push(format!("{:?}", reply.headers));
        }
        shown
    };
    let shown = run(1).await;
    assert!(shown.iter().collect::<HashSet<_>>().len() > 40);
    assert_eq!(shown, run(1).await);
    assert_ne!(shown, run(2).await);
}

#[tokio::test(start_paused = true)]
async fn the_quota_of_a_sandbox_rolls_over_a_day_and_has_no_window() {
    let sandbox = builder().sandbox_quota(2).api_key("one").api_key("two").build().unwrap();
    let ask = async |key| send(&sandbox, support::with(create(Some("user-7")), "x-api-key", key)).await;
    assert_eq!(ask("one").await.status, StatusCode::CREATED);
    assert_eq!(send(&sandbox, without_key(create(None))).await.status, StatusCode::FORBIDDEN);
    assert_eq!(ask("two").await.status, StatusCode::CREATED);
    advance(Duration::from_secs(3_600)).await;
    let refused = ask("one").await;
    assert_eq!((refused.status, refused.header("retry-after")), (StatusCode::TOO_MANY_REQUESTS, "82800"));
    assert!(!refused.headers.keys().any(|name| name.as_str().starts_with("x-ratelimit")));
    let body = ErrorBody::parse(&refused.bytes);
    assert_eq!(body.odd_throttle(), Some(OddThrottle::SandboxQuota));
    assert_eq!(body.retry_after_from_text(), Some(Duration::from_secs(82_800)));
    let stats = sandbox.stats();
    assert_eq!((stats.odd_throttled, stats.throttled, stats.accepted), (1, 0, 4));
    advance(Duration::from_secs(82_800)).await;
    assert_eq!(ask("one").await.status, StatusCode::CREATED);
}

#[tokio::test(start_paused = true)]
async fn a_phone_number_has_so_many_attempts_an_hour() {
    let sandbox = builder().phone_attempts(2).build().unwrap();
    let ask =
        async |phone: &str| send(&sandbox, request("POST", "/v3/phone/send/", &json!({ "phone_number": phone }))).await;
    for _ in 0..2 {
        assert_eq!(ask("+34600000000").await.status, StatusCode::OK);
    }
    let refused = ask("+34600000000").await;
    assert_eq!(ErrorBody::parse(&refused.bytes).odd_throttle(), Some(OddThrottle::PhoneAttempts));
    assert_eq!((refused.status, refused.headers.len()), (StatusCode::TOO_MANY_REQUESTS, 1));
    assert_eq!((ask("+34600000001").await.status, sandbox.stats().billed_checks), (StatusCode::OK, 3));
    advance(Duration::from_secs(3_600)).await;
    assert_eq!(ask("+34600000000").await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn one_import_at_a_time() {
    let sandbox = builder().import_time(Duration::from_secs(30)).build().unwrap();
    let ask = async || send(&sandbox, request("POST", "/v3/session/imports/", &json!({}))).await;
    assert_eq!(ask().await.status, StatusCode::CREATED);
    let refused = ask().await;
    assert_eq!(ErrorBody::parse(&refused.bytes).odd_throttle(), Some(OddThrottle::ImportJob));
    assert_eq!((refused.status, refused.headers.len()), (StatusCode::TOO_MANY_REQUESTS, 1));
    advance(Duration::from_secs(30)).await;
    assert_eq!(ask().await.status, StatusCode::CREATED);
}

#[tokio::test(start_paused = true)]
async fn the_odd_429s_can_be_had_at_will() {
    for kind in [OddThrottle::SandboxQuota, OddThrottle::PhoneAttempts, OddThrottle::ImportJob] {
        let faults = Faults::none().with(Rule::new(Fault::OddThrottle(kind)).when(When::First(1)));
        let sandbox = Sandbox::builder().faults(faults).build().unwrap();
        let reply = send(&sandbox, create(None)).await;
        assert_eq!(ErrorBody::parse(&reply.bytes).odd_throttle(), Some(kind));
        let quota = kind == OddThrottle::SandboxQuota;
        assert_eq!(reply.headers.get("retry-after").map(HeaderValue::as_bytes), quota.then_some(&b"3600"[..]));
        assert_eq!((sandbox.stats().sessions_made, sandbox.stats().faults["odd-429"]), (0, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrong_clock_shows_in_every_date() {
    let hour = Duration::from_secs(3_600);
    for (builder, shift) in [(builder().clock_ahead(hour), 3_600), (builder().clock_behind(hour), -3_600)] {
        let reply = throttled(builder.clone().date_header(true)).await;
        let right = i64::try_from(EPOCH).unwrap();
        assert_eq!(reply.headers[RESET], (right + 60 + shift).to_string());
        assert_eq!(reply.headers["retry-after"], "50");
        let date = if shift > 0 { "Mon, 21 Sep 2026 15:14:10 GMT" } else { "Mon, 21 Sep 2026 13:14:10 GMT" };
        assert_eq!(reply.headers["date"], date);
        assert!(!throttled(builder).await.headers.contains_key("date"));
    }
}
