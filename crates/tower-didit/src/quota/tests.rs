//! Headers as they come: well-formed, doubled, mangled, hostile.

use std::time::UNIX_EPOCH;

use http::{HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;

/// What the server's clock says in these tests: seconds after 1970.
const NOW: u64 = 1_790_000_000;

fn headers<'a>(lines: impl IntoIterator<Item = &'a (&'a str, &'a str)>) -> HeaderMap {
    let line = |(name, value): &(&str, &str)| {
        (name.parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap())
    };
    lines.into_iter().map(line).collect()
}

fn read_all(lines: &[(&str, &str)]) -> Quota {
    read(&headers(lines), UNIX_EPOCH + Duration::from_secs(NOW))
}

fn seconds(count: u64) -> Option<Duration> {
    Some(Duration::from_secs(count))
}

/// A limit of this many requests, this many left, for this many seconds more, in a window of this many.
fn limit(
    limit: impl Into<Option<u32>>,
    remaining: impl Into<Option<u32>>,
    reset: impl Into<Option<u64>>,
    window: impl Into<Option<u64>>,
) -> RateLimit {
    let seconds = |count: Option<u64>| count.map(Duration::from_secs);
    RateLimit {
        limit: limit.into(),
        remaining: remaining.into(),
        reset: seconds(reset.into()),
        window: seconds(window.into()),
    }
}

// ===== Retry-After =====

#[test]
fn both_forms_of_retry_after_are_read_and_everything_else_is_absent() {
    let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
    let cases = [
        ("0", seconds(0)),
        ("7", seconds(7)),
        (" 7\t", seconds(7)),
        ("007", seconds(7)),
        ("86400", seconds(86_400)),
        ("86401", seconds(86_400)),
        ("18446744073709551615", seconds(86_400)),
        ("18446744073709551616", seconds(86_400)),
        ("99999999999999999999999999", seconds(86_400)),
        ("Sun, 06 Nov 1994 08:49:47 GMT", seconds(10)),
        ("  Sun, 06 Nov 1994 08:49:47 GMT ", seconds(10)),
        ("Sunday, 06-Nov-94 08:49:47 GMT", seconds(10)),
        ("Sun Nov  6 08:49:47 1994", seconds(10)),
        ("Sun, 06 Nov 1994 08:49:07 GMT", seconds(0)),
        ("Thu, 01 Jan 1970 00:00:00 GMT", seconds(0)),
        ("Fri, 31 Dec 9999 23:59:59 GMT", seconds(86_400)),
        ("", None),
        (" ", None),
        ("-1", None),
        ("+1", None),
        ("1.5", None),
        ("1e3", None),
        ("0x10", None),
        ("7s", None),
        ("seven", None),
        ("\"7\"", None),
        ("\u{ff17}", None),
        ("Sun, 06 Nov 1994 08:49:47", None),
        ("Sun, 99 Nov 1994 08:49:47 GMT", None),
        ("2026-11-21T08:49:47Z", None),
    ];
    for (value, wait) in cases {
        assert_eq!(retry_after(&headers(&[("retry-after", value)]), now), wait, "{value:?}");
    }
}

#[test]
fn of_several_retry_afters_the_longest_counts() {
    let cases: [(&[&str], _); 7] = [
        (&["7", "9"], seconds(9)),
        (&["9", "7"], seconds(9)),
        (&["7, 9"], seconds(9)),
        (&["9,7"], seconds(9)),
        (&["soon", "7"], seconds(7)),
        (&["7", "Tue, 01 Jan 2030 00:00:00 GMT"], seconds(86_400)),
        (&["7", "Tue, 01 Jan 2020 00:00:00 GMT"], seconds(7)),
    ];
    for (values, wait) in cases {
        let lines: Vec<_> = values.iter().map(|value| ("retry-after", *value)).collect();
        assert_eq!(read_all(&lines).retry_after, wait, "{values:?}");
    }
}

#[test]
fn retry_after_goes_before_the_end_of_the_window() {
    let both = read_all(&[("retry-after", "7"), ("x-ratelimit-reset", "30")]);
    assert_eq!(both.wait(), seconds(7));
    assert_eq!(read_all(&[("x-ratelimit-reset", "30")]).wait(), seconds(30));
    assert_eq!(read_all(&[("x-ratelimit-remaining", "3")]).wait(), None);
}

// ===== X-RateLimit-* =====

#[test]
fn a_complete_429_of_didits_is_read() {
    let lines = [("x-ratelimit-limit", "300"), ("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1790000012")];
    assert_eq!(read_all(&lines).rate_limit, limit(300, 0, 12, None));
}

#[test]
fn the_size_of_a_reset_tells_what_it_is() {
    let cases = [
        // Seconds from now.
        ("0", seconds(0)),
        ("1", seconds(1)),
        ("60", seconds(60)),
        ("86400", seconds(86_400)),
        ("999999999", seconds(86_400)),
        // Epoch seconds: long past, just past, now, soon, beyond a day.
        ("1000000000", seconds(0)),
        ("1789999999", seconds(0)),
        ("1790000000", seconds(0)),
        ("1790000012", seconds(12)),
        ("1790086400", seconds(86_400)),
        ("1790086401", seconds(86_400)),
        ("99999999999", seconds(86_400)),
        // Epoch milliseconds, the same.
        ("100000000000", seconds(0)),
        ("1789999999999", seconds(0)),
        ("1790000000000", seconds(0)),
        ("1790000012500", Some(Duration::from_millis(12_500))),
        ("1790086400001", seconds(86_400)),
        ("99999999999999", seconds(86_400)),
        // Nonsense: microseconds, nanoseconds, and more than any integer holds.
        ("100000000000000", seconds(86_400)),
        ("1790000012000000", seconds(86_400)),
        ("18446744073709551616", seconds(86_400)),
        ("99999999999999999999999", seconds(86_400)),
    ];
    for (value, wait) in cases {
        assert_eq!(read_all(&[("x-ratelimit-reset", value)]).rate_limit.reset, wait, "{value}");
    }
}

#[test]
fn a_reset_is_measured_by_the_servers_own_clock() {
    let lines = [("date", "Mon, 21 Sep 2026 13:33:20 GMT"), ("x-ratelimit-reset", "1790000012")];
    let headers = headers(&lines);
    let date = wall_clock(&headers);
    assert_eq!(date, httpdate::parse_http_date(lines[0].1).unwrap());
    let since = date.duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert_eq!(RateLimit::read(&headers, date).reset, seconds(1_790_000_012 - since));
}

#[test]
fn what_is_missing_or_malformed_is_absent_and_hides_nothing_beside_it() {
    assert_eq!(read_all(&[]), Quota::default());
    for nonsense in ["many", "-1", "+5", "1.5", "", " ", "\"5\"", "0x5", "5 6", "4294967296", "\u{ff15}", "NaN", "="] {
        for name in ["x-ratelimit-limit", "x-ratelimit-remaining"] {
            assert_eq!(read_all(&[(name, nonsense)]), Quota::default(), "{name}: {nonsense:?}");
        }
    }
    let lines = [("x-ratelimit-limit", "many"), ("x-ratelimit-remaining", " 4 "), ("x-ratelimit-reset", "soon")];
    assert_eq!(read_all(&lines).rate_limit, limit(None, 4, None, None));
}

#[test]
fn of_several_limits_the_most_careful_counts() {
    let lines = [
        ("x-ratelimit-limit", "600"),
        ("x-ratelimit-limit", "300"),
        ("x-ratelimit-remaining", "17, 3"),
        ("x-ratelimit-reset", "5"),
        ("x-ratelimit-reset", "1790000020, 1"),
    ];
    assert_eq!(read_all(&lines).rate_limit, limit(300, 3, 20, None));
}

#[test]
fn the_three_fields_of_older_drafts_are_read_too() {
    let lines =
        [("ratelimit-limit", "100, 100;w=60, 5000;w=3600"), ("ratelimit-remaining", "9"), ("ratelimit-reset", "8")];
    assert_eq!(read_all(&lines).rate_limit, limit(100, 9, 8, None));
}

// ===== RateLimit and RateLimit-Policy =====

#[test]
fn every_form_of_the_ietfs_fields_is_read() {
    let none: Option<u64> = None;
    let cases = [
        // RateLimit, RateLimit-Policy, and what they say.
        (r#""default";r=50;t=30"#, "", limit(None, 50, 30, none)),
        (r#""default";r=50;t=30"#, r#""default";q=100;w=60"#, limit(100, 50, 30, 60)),
        (r#""default";r=50"#, r#""default";q=100"#, limit(100, 50, none, none)),
        (r#"default;r=50;t=30"#, r#"default;q=100;w=60"#, limit(100, 50, 30, 60)),
        (r#""a";r=50;t=30"#, r#""b";q=100;w=60"#, limit(None, 50, 30, none)),
        (r#""a";r=50;t=30, "b";r=3;t=9"#, r#""a";q=100;w=60, "b";q=10;w=10"#, limit(10, 3, 9, 10)),
        (r#""a";r=3;t=9, "b";r=3;t=30"#, "", limit(None, 3, 30, none)),
        (r#" "a" ; r=3 ; t=9 "#, r#""a" ;q=10;  w=10"#, limit(10, 3, 9, 10)),
        (r#""a";t=9;r=3;pk=:YQ==:"#, r#""a";w=10;pk=:YQ==:;q=10"#, limit(10, 3, 9, 10)),
        (r#""a";r=3;r=4"#, "", limit(None, 4, none, none)),
        (r#""a";R=3;T=9"#, "", limit(None, 3, 9, none)),
        ("limit=100, remaining=50, reset=30", "", limit(100, 50, 30, none)),
        ("limit=100,remaining=50,reset=30", "100;w=60", limit(100, 50, 30, 60)),
        ("limit=100, remaining=50, reset=30", "10;w=1, 100;w=60", limit(100, 50, 30, 60)),
        ("remaining=0", "", limit(None, 0, none, none)),
        ("limit=100, remaining=many, reset=30", "", limit(100, None, 30, none)),
        ("", r#""a";q=100;w=60"#, limit(100, None, none, 60)),
        ("", r#""a";q=100;w=60, "b";q=10;w=1"#, limit(10, None, none, 1)),
        ("", "100;w=60", limit(100, None, none, 60)),
    ];
    for (rate_limit, policy, expected) in cases {
        let found = read_all(&[("ratelimit", rate_limit), ("ratelimit-policy", policy)]).rate_limit;
        assert_eq!(found, expected, "{rate_limit} and {policy}");
    }
}

#[test]
fn a_policy_that_counts_something_else_than_requests_is_no_limit_of_requests() {
    let bytes = r#""volume";q=1000000;w=60;qu="content-bytes""#;
    assert_eq!(read_all(&[("ratelimit-policy", bytes)]), Quota::default());
    assert_eq!(read_all(&[("ratelimit-policy", bytes), ("ratelimit", r#""volume";r=0;t=9"#)]), Quota::default());
    let both = format!(r#"{bytes}, "calls";q=10;w=1;qu="requests""#);
    let lines = [("ratelimit-policy", both.as_str()), ("ratelimit", r#""volume";r=0;t=9, "calls";r=4;t=1"#)];
    assert_eq!(read_all(&lines).rate_limit, limit(10, 4, 1, 1));
}

#[test]
fn quotes_hold_together_what_they_hold() {
    let cases = [
        (r#""a,b;r=1";r=3;t=9"#, limit(None, 3, 9, None)),
        (r#""a\",\\";r=3"#, limit(None, 3, None, None)),
        (r#""r=1";r=3"#, limit(None, 3, None, None)),
        (r#""never closed;r=3, "b";r=1"#, limit(None, None, None, None)),
        (r#""x"#, RateLimit::default()),
        (r#"\"#, RateLimit::default()),
    ];
    for (value, expected) in cases {
        assert_eq!(read_all(&[("ratelimit", value)]).rate_limit, expected, "{value}");
    }
}

#[test]
fn nonsense_in_the_ietfs_fields_is_absent_and_hides_nothing_beside_it() {
    for nonsense in ["", ",", ";;;", "=", "a=", "=a", ";r=", "\"\"", "()", "(a b);r=x", "?1", ":AA==:", "r;r", "limit"]
    {
        assert_eq!(read_all(&[("ratelimit", nonsense)]), Quota::default(), "{nonsense:?}");
        assert_eq!(read_all(&[("ratelimit-policy", nonsense)]), Quota::default(), "{nonsense:?}");
        let beside = format!(r#"{nonsense}, "a";r=0;t=9"#);
        let found = read_all(&[("ratelimit", &beside)]).rate_limit;
        assert_eq!((found.remaining, found.reset), (Some(0), seconds(9)), "{beside:?}");
    }
    let absurd = read_all(&[("ratelimit", r#""a";r=99999999999999999999;t=99999999999999999999"#)]).rate_limit;
    assert_eq!(absurd, limit(None, None, 86_400, None));
}

#[test]
fn a_second_line_continues_the_first() {
    let lines = [
        ("ratelimit", r#""a";r=50;t=30"#),
        ("ratelimit", r#""b";r=3;t=9"#),
        ("ratelimit-policy", r#""a";q=100;w=60"#),
        ("ratelimit-policy", r#""b";q=10;w=10"#),
    ];
    assert_eq!(read_all(&lines).rate_limit, limit(10, 3, 9, 10));
}

#[test]
fn both_families_of_headers_complete_each_other() {
    let x = [("x-ratelimit-limit", "300"), ("x-ratelimit-remaining", "0"), ("ratelimit", r#""w";r=0;t=12"#)];
    assert_eq!(read_all(&x).rate_limit, limit(300, 0, 12, None));
}

#[test]
fn a_list_without_end_is_looked_at_from_its_beginning_only() {
    let mut members = vec![r#""a";r=7"#; MOST_MEMBERS];
    members.push(r#""b";r=0"#);
    assert_eq!(read_all(&[("ratelimit", &members.join(","))]).rate_limit.remaining, Some(7));
    members.swap(0, MOST_MEMBERS);
    assert_eq!(read_all(&[("ratelimit", &members.join(","))]).rate_limit.remaining, Some(0));
    assert_eq!(read_all(&[("ratelimit", &",".repeat(1 << 16))]), Quota::default());
}

// ===== hostile headers =====

#[test]
fn bytes_that_are_no_text_are_absent() {
    let foreign: &[&[u8]] = &[b"\xff\xfe", b"7\xa0", b"\xc2\xa07", b"\"\xe9\";r=\xb2", b"limit=\xb9"];
    for name in NAMES {
        for value in foreign {
            let name = HeaderName::from_static(name);
            let headers = HeaderMap::from_iter([(name.clone(), HeaderValue::from_bytes(value).unwrap())]);
            assert_eq!(read(&headers, UNIX_EPOCH), Quota::default(), "{name}: {value:?}");
        }
    }
    // A name may be written in any alphabet; what is said of it is read.
    let named = HeaderValue::from_bytes(b"\"\xe9\";r=3").unwrap();
    let headers = HeaderMap::from_iter([(HeaderName::from_static("ratelimit"), named)]);
    assert_eq!(read(&headers, UNIX_EPOCH).rate_limit.remaining, Some(3));
}

#[test]
fn values_of_any_length_are_read_in_bounds() {
    let (digits, zeros) = ("9".repeat(1 << 16), "0".repeat(1 << 16) + "7");
    for name in ["retry-after", "x-ratelimit-reset"] {
        let wait = |value: &str| read_all(&[(name, value)]).wait();
        assert_eq!((wait(&digits), wait(&zeros)), (Some(LONGEST), seconds(7)), "{name}");
    }
    assert_eq!(read_all(&[("x-ratelimit-remaining", &digits)]), Quota::default());
    let parameters = format!("\"a\"{};r=3", ";r=9".repeat(1 << 14));
    assert_eq!(read_all(&[("ratelimit", &parameters)]).rate_limit.remaining, Some(3));
}

#[test]
fn more_lines_than_are_looked_at_change_nothing() {
    let mut lines = vec![("retry-after", "7"), ("x-ratelimit-remaining", "3"), ("x-ratelimit-reset", "9")];
    lines.extend([("retry-after", "1"), ("x-ratelimit-remaining", "5"), ("x-ratelimit-reset", "2")].repeat(1_000));
    lines.extend([("retry-after", "8"), ("x-ratelimit-remaining", "1"), ("x-ratelimit-reset", "99")]);
    let found = read_all(&lines);
    assert_eq!(found.retry_after, seconds(7));
    assert_eq!(found.rate_limit, limit(None, 3, 9, None));
}

#[test]
fn a_clock_before_1970_or_after_every_date_does_no_harm() {
    let lines = [("x-ratelimit-reset", "1790000012"), ("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")];
    let clocks = [
        (UNIX_EPOCH - Duration::from_secs(1 << 40), LONGEST, LONGEST),
        (UNIX_EPOCH, LONGEST, LONGEST),
        (UNIX_EPOCH + Duration::from_secs(1 << 40), Duration::ZERO, Duration::ZERO),
    ];
    for (now, retry_after, reset) in clocks {
        let found = read(&headers(&lines), now);
        assert_eq!((found.retry_after, found.rate_limit.reset), (Some(retry_after), Some(reset)), "{now:?}");
    }
}

#[test]
fn a_date_that_is_none_leaves_our_own_clock() {
    for date in ["", "now", "Sun, 99 Nov 1994 08:49:37 GMT", "1790000000"] {
        let before = crate::clock::wall();
        assert!(wall_clock(&headers(&[("date", date)])) >= before, "{date:?}");
    }
}

// ===== properties =====

const NAMES: [&str; 9] = [
    "retry-after",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "ratelimit-limit",
    "ratelimit-reset",
    "ratelimit",
    "ratelimit-policy",
    "date",
];

/// Values that look like something: pieces of the grammars in any order.
fn value() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[0-9]{1,25}",
        "[\",;=\\\\ ]{1,3}",
        prop::sample::select(vec!["r", "t", "q", "w", "qu", "limit", "remaining", "reset", "\"a\"", "\"requests\""])
            .prop_map(str::to_owned),
        Just("Sun, 06 Nov 2094 08:49:37 GMT".to_owned()),
        "[ -~]{0,8}",
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

fn lines() -> impl Strategy<Value = Vec<(&'static str, String)>> {
    prop::collection::vec((prop::sample::select(&NAMES[..]), value()), 0..8)
}

fn map(lines: &[(&'static str, String)]) -> HeaderMap {
    headers(&lines.iter().map(|(name, value)| (*name, value.as_str())).collect::<Vec<_>>())
}

proptest! {
    #[test]
    fn whatever_the_headers_say_waits_are_bounded(lines in lines(), now in 0..u64::from(u32::MAX)) {
        let quota = read(&map(&lines), UNIX_EPOCH + Duration::from_secs(now));
        for wait in [quota.retry_after, quota.rate_limit.reset, quota.rate_limit.window, quota.wait()] {
            prop_assert!(wait.is_none_or(|wait| wait <= LONGEST), "{:?}", quota);
        }
    }

    #[test]
    fn one_more_line_of_retry_after_never_shortens_the_wait(lines in lines(), more in value()) {
        let now = UNIX_EPOCH + Duration::from_secs(NOW);
        let mut headers = map(&lines);
        let before = retry_after(&headers, now);
        headers.append("retry-after", more.parse().unwrap());
        prop_assert!(retry_after(&headers, now) >= before);
    }

    #[test]
    fn one_more_member_never_loosens_the_limit(left in prop::collection::vec(0..1_000_u32, 1..MOST_MEMBERS)) {
        let member = |(index, left): (usize, &u32)| format!(r#""p{index}";r={left};t=9"#);
        let all: Vec<_> = left.iter().enumerate().map(member).collect();
        let found = read_all(&[("ratelimit", &all.join(", "))]).rate_limit;
        prop_assert_eq!(found.remaining, left.iter().min().copied());
    }

    #[test]
    fn the_order_of_lines_changes_nothing(numbers in prop::collection::vec(0..u64::MAX, 1..MOST_MEMBERS), name in 0..6_usize) {
        let lines: Vec<_> = numbers.iter().map(|number| (NAMES[name], number.to_string())).collect();
        let reversed: Vec<_> = lines.iter().rev().cloned().collect();
        let now = UNIX_EPOCH + Duration::from_secs(NOW);
        prop_assert_eq!(read(&map(&lines), now), read(&map(&reversed), now));
    }

    #[test]
    fn a_reset_in_seconds_and_in_milliseconds_is_the_same(ahead in 0..86_400_u64) {
        let (reset, millis) = ((NOW + ahead).to_string(), ((NOW + ahead) * 1_000).to_string());
        let read = |value: &str| read_all(&[("x-ratelimit-reset", value)]).rate_limit.reset;
        prop_assert_eq!(read(&reset), seconds(ahead));
        prop_assert_eq!(read(&millis), seconds(ahead));
        prop_assert_eq!(read(&ahead.to_string()), seconds(ahead));
    }

    #[test]
    fn what_a_server_writes_is_what_is_read(
        quota in 1..u32::MAX,
        left in 0..u32::MAX,
        reset in 0..86_400_u64,
        window in 1..86_400_u64,
    ) {
        let newer = [
            ("ratelimit", format!(r#""default";r={left};t={reset}"#)),
            ("ratelimit-policy", format!(r#""default";q={quota};w={window}"#)),
        ];
        let older = [
            ("ratelimit", format!("limit={quota}, remaining={left}, reset={reset}")),
            ("ratelimit-policy", format!("{quota};w={window}")),
        ];
        for lines in [newer, older] {
            let found = read(&map(&lines), UNIX_EPOCH).rate_limit;
            prop_assert_eq!(found, limit(quota, left, reset, window), "{:?}", lines);
        }
    }
}
