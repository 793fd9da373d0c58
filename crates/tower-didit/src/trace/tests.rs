use proptest::prelude::*;

use super::*;

const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn headers<'v>(values: impl IntoIterator<Item = (HeaderName, &'v str)>) -> HeaderMap {
    values.into_iter().map(|(name, value)| (name, HeaderValue::from_str(value).unwrap())).collect()
}

fn parent(value: &str) -> Option<TraceContext> {
    TraceContext::from_headers(&headers([(TRACEPARENT, value)]))
}

/// What is sent on of these `tracestate` headers.
fn state(values: &[&str]) -> Option<String> {
    let states = values.iter().map(|value| (TRACESTATE, *value));
    let context = TraceContext::from_headers(&headers([(TRACEPARENT, VALID)].into_iter().chain(states))).unwrap();
    context.tracestate().map(|state| state.to_str().unwrap().to_owned())
}

#[test]
fn a_valid_header_is_read_and_written_again() {
    let context = parent(VALID).unwrap();
    assert_eq!(context.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(context.parent_id().to_string(), "b7ad6b7169203331");
    assert_eq!((context.is_sampled(), context.is_random()), (true, false));
    assert_eq!(context.to_traceparent(), VALID);
}

#[test]
fn what_the_recommendation_calls_invalid_is_treated_as_absent() {
    let invalid = [
        "",
        "00",
        // The reserved version, and versions that are no numbers.
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "0x-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        // Upper case.
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-B7AD6B7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0A",
        // All zero.
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        // Too short, too long, with something behind, with something else in between.
        "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c0-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
        "00_0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331_01",
        " 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        // A later version whose addition does not begin with a hyphen.
        "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.more",
    ];
    for value in invalid {
        assert_eq!(parent(value), None, "{value:?}");
    }
    let twice = headers([(TRACEPARENT, VALID), (TRACEPARENT, VALID)]);
    assert_eq!(TraceContext::from_headers(&twice), None);
}

#[test]
fn a_later_version_is_continued_in_ours() {
    for value in [
        "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
        "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-may-come",
    ] {
        assert_eq!(parent(value).unwrap().to_traceparent(), VALID, "{value}");
    }
    let endless = format!("01-{}-{}", &VALID[3..], "x".repeat(10_240));
    assert_eq!(parent(&endless), None);
}

#[test]
fn only_the_known_flags_are_sent_on() {
    for (received, sent, sampled, random) in
        [("00", "00", false, false), ("02", "02", false, true), ("03", "03", true, true), ("fc", "00", false, false)]
    {
        let context = parent(&format!("{}{received}", &VALID[..53])).unwrap();
        assert_eq!((context.is_sampled(), context.is_random()), (sampled, random));
        assert_eq!(context.to_traceparent().to_str().unwrap()[53..], *sent);
    }
}

#[test]
fn a_trace_that_begins_here_is_random_and_a_child_keeps_all_but_the_parent() {
    let random = Randomness::seeded(1);
    let started = TraceContext::root(&random, true).child(&random);
    assert!(started.is_sampled() && started.is_random());
    assert!(!TraceContext::root(&random, false).is_sampled());
    let child = started.child(&random);
    assert_eq!(child.trace_id().to_string(), started.trace_id().to_string());
    assert_ne!(child.parent_id().to_string(), started.parent_id().to_string());
    assert_eq!(parent(child.to_traceparent().to_str().unwrap()), Some(child));
}

#[test]
fn a_state_is_sent_on_as_one_list() {
    assert_eq!(state(&["rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"]).unwrap(), "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE");
    assert_eq!(state(&["foo=1", "bar=2"]).unwrap(), "foo=1,bar=2");
    assert_eq!(state(&["foo=1 , ,\t bar=a b,"]).unwrap(), "foo=1,bar=a b");
    assert_eq!(state(&["0tenant@vendor*-_/=!~<>"]).as_deref(), Some("0tenant@vendor*-_/=!~<>"));
    assert_eq!(state(&[]), None);
    assert_eq!(state(&["", " , "]), None);
    assert_eq!(state(&["foo=1,bar=2,foo=3"]).unwrap(), "foo=1,bar=2", "the first of a key is the latest");
}

#[test]
fn a_state_that_is_not_valid_is_left_out_and_the_trace_goes_on() {
    let longest = "k".repeat(256);
    assert!(state(&[&format!("{longest}=1")]).is_some());
    for invalid in ["foo", "foo=", "=1", "Foo=1", "f oo=1", "foo=a=b", "foo=1;bar=2", "-foo=1", "foo\t=1", "ok=1,foo"] {
        assert_eq!(state(&[invalid]), None, "{invalid:?}");
    }
    assert_eq!(state(&[&format!("{longest}k=1")]), None);
    assert_eq!(state(&[&format!("k={longest}v")]), None);
    let members = |count: usize| (0..count).map(|member| format!("k{member}=v")).collect::<Vec<_>>().join(",");
    assert_eq!(state(&[&members(32)]), Some(members(32)));
    assert_eq!(state(&[&members(33)]), None);
}

#[test]
fn a_long_state_loses_its_large_entries_first_and_then_its_last() {
    let large = format!("large={}", "v".repeat(200));
    let medium = |name: &str| format!("{name}={}", "v".repeat(97));
    let list = [medium("a1"), large, medium("b2"), medium("c3"), medium("d4"), medium("e5"), medium("f6")].join(",");
    let kept = state(&[&list]).unwrap();
    assert_eq!(kept, [medium("a1"), medium("b2"), medium("c3"), medium("d4"), medium("e5")].join(","));
    assert!(kept.len() <= 512);
}

proptest! {
    /// Whatever comes in, only a valid header goes out, and it says the same.
    #[test]
    fn no_header_panics_and_what_is_read_is_valid(value in prop_oneof![
        "[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[ -~]{0,20})?",
        "[ -~]{0,80}",
    ]) {
        if let Some(context) = parent(&value) {
            let written = context.to_traceparent();
            prop_assert_eq!(written.len(), LENGTH);
            prop_assert_eq!(&written.to_str().unwrap()[2..53], &value[2..53]);
            prop_assert_eq!(parent(written.to_str().unwrap()), Some(context));
        }
    }

    /// What is sent on is at most as long as promised, valid, and part of what came in.
    #[test]
    fn no_state_panics_and_what_is_sent_on_is_bounded(values in prop::collection::vec(
        prop_oneof!["[a-z0-9]{1,12}=[ -+\\--<>-~]{0,300}(,[a-z]{1,4}=[a-z]{1,200}){0,12}", "[ -~]{0,100}"], 0..4,
    )) {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        if let Some(kept) = state(&values) {
            prop_assert!(!kept.is_empty() && kept.len() <= 512);
            prop_assert_eq!(state(&[&kept]), Some(kept.clone()));
            for member in kept.split(',') {
                prop_assert!(values.iter().any(|value| value.contains(member)));
            }
        }
    }
}
