//! `RateLimit` and `RateLimit-Policy` of draft-ietf-httpapi-ratelimit-headers.
//!
//! In its later versions `"name";r=50;t=30` and `"name";q=100;w=60`; before, `limit=100, remaining=50, reset=30` and
//! `100;w=60`.

use http::HeaderMap;

use super::{
    RateLimit,
    fields::{Member, count, members, pair, seconds},
};

/// The tightest limit that the fields speak of.
pub(super) fn read(headers: &HeaderMap) -> RateLimit {
    let (mut older, mut newer) = (RateLimit::default(), RateLimit::default());
    for member in members(headers, "ratelimit") {
        match pair(member.item()) {
            Some((key, value)) => older = older.tighter(said(key, value)),
            None => newer = newer.tighter(named(headers, member)),
        }
    }
    if older.is_some() {
        let same = policies(headers).find(|policy| policy.limit == older.limit);
        older = older.tighter(RateLimit { window: same.and_then(|policy| policy.window), ..RateLimit::default() });
    }
    let stated = older.tighter(newer);
    // A policy alone says how much there is, not how much is left.
    if stated.is_some() { stated } else { policies(headers).fold(stated, RateLimit::tighter) }
}

/// One key of the older form.
fn said(key: &[u8], value: &[u8]) -> RateLimit {
    let nothing = RateLimit::default();
    match key {
        b"limit" => RateLimit { limit: count(value), ..nothing },
        b"remaining" => RateLimit { remaining: count(value), ..nothing },
        b"reset" => RateLimit { reset: seconds(value), ..nothing },
        _ => nothing,
    }
}

/// One member of the newer form, with what the policy of its name adds.
fn named(headers: &HeaderMap, member: Member<'_>) -> RateLimit {
    let mut same = members(headers, "ratelimit-policy").filter(|policy| policy.item() == member.item());
    let policy = same.next();
    if policy.is_some_and(|policy| !counts_requests(policy)) {
        return RateLimit::default();
    }
    let policy = policy.map(one_policy).unwrap_or_default();
    RateLimit {
        remaining: member.parameter("r").and_then(count),
        reset: member.parameter("t").and_then(seconds),
        ..policy
    }
}

fn policies(headers: &HeaderMap) -> impl Iterator<Item = RateLimit> {
    members(headers, "ratelimit-policy").filter(|policy| counts_requests(*policy)).map(one_policy)
}

fn one_policy(member: Member<'_>) -> RateLimit {
    let quota = member.parameter("q").unwrap_or_else(|| member.item());
    RateLimit { limit: count(quota), window: member.parameter("w").and_then(seconds), ..RateLimit::default() }
}

/// Whether a policy counts requests: bytes left, or calls at once, are another matter.
fn counts_requests(policy: Member<'_>) -> bool {
    policy.parameter("qu").is_none_or(|unit| matches!(unit, b"\"requests\"" | b"requests"))
}
