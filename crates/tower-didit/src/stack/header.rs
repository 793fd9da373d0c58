//! Which headers may carry what the stack sends of its own.

use http::HeaderName;

use crate::error::ConfigError;

/// The setting of the correlation layer's header.
pub(crate) const CORRELATION: &str = "correlation.header";

/// The setting of the idempotency layer's header.
pub(crate) const IDEMPOTENCY: &str = "idempotency.header";

/// Checks the two names that can be chosen.
pub(super) fn check(correlation: &HeaderName, idempotency: &HeaderName) -> Result<(), ConfigError> {
    for (setting, name) in [(CORRELATION, correlation), (IDEMPOTENCY, idempotency)] {
        if let Some(problem) = problem(name.as_str()) {
            return Err(refused(setting, name.as_str(), problem));
        }
    }
    if correlation == idempotency {
        return Err(refused(IDEMPOTENCY, idempotency.as_str(), "which is the header of the correlation id"));
    }
    Ok(())
}

/// The error of a name.
pub(crate) fn refused(setting: &'static str, name: &str, problem: &'static str) -> ConfigError {
    let such_as = if setting == CORRELATION { "x-correlation-id" } else { "idempotency-key" };
    ConfigError::Header { setting, name: name.to_owned(), problem, such_as }
}

fn problem(name: &str) -> Option<&'static str> {
    if STACK.contains(&name) {
        return Some("which the stack or Didit uses for something else");
    }
    let is_http = HTTP.contains(&name) || HTTP_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    is_http.then_some("which HTTP uses for something else")
}

/// What the stack itself sends or reads beside the two, and what Didit does.
const STACK: [&str; 8] = [
    "x-api-key",
    "traceparent",
    "tracestate",
    "baggage",
    "ratelimit",
    "ratelimit-policy",
    "retry-after",
    "x-signature",
];

/// What HTTP, its caches, its proxies and its browsers give a meaning to: the fields of RFC 9110, 9111, 9112 and 6265, and
/// the common ones beside them.
const HTTP: [&str; 49] = [
    "accept",
    "age",
    "allow",
    "alt-svc",
    "authentication-info",
    "authorization",
    "cache-control",
    "connection",
    "cookie",
    "date",
    "dnt",
    "etag",
    "expect",
    "expires",
    "forwarded",
    "from",
    "host",
    "http2-settings",
    "keep-alive",
    "last-modified",
    "link",
    "location",
    "max-forwards",
    "mime-version",
    "origin",
    "pragma",
    "prefer",
    "priority",
    "range",
    "referer",
    "server",
    "set-cookie",
    "strict-transport-security",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "upgrade-insecure-requests",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "x-content-type-options",
    "x-frame-options",
    "x-http-method-override",
    "x-method-override",
    "x-real-ip",
    "x-xss-protection",
];

/// Families of such fields.
const HTTP_PREFIXES: [&str; 9] =
    ["accept-", "access-control-", "content-", "if-", "proxy-", "sec-", "x-forwarded-", "x-ratelimit-", "x-signature-"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{correlation, idempotency};

    #[test]
    fn names_with_a_meaning_are_refused_and_others_are_not() {
        let name = |name: &'static str| HeaderName::from_static(name);
        let (id, key) = (correlation::HEADER, idempotency::HEADER);
        check(&id, &key).unwrap();
        check(&name("x-request-id"), &name("x-idempotency-key")).unwrap();
        check(&name("request-id"), &name("if")).unwrap();
        for taken in [
            "host",
            "content-length",
            "content-type",
            "authorization",
            "transfer-encoding",
            "connection",
            "x-api-key",
            "te",
            "traceparent",
            "cookie",
            "expect",
            "proxy-authorization",
            "x-ratelimit-reset",
            "if-match",
            "x-forwarded-for",
        ] {
            let error = check(&name(taken), &key).unwrap_err();
            assert!(
                matches!(&error, ConfigError::Header { setting: CORRELATION, name, .. } if name == taken),
                "{error}"
            );
            let error = check(&id, &name(taken)).unwrap_err();
            assert!(
                matches!(&error, ConfigError::Header { setting: IDEMPOTENCY, name, .. } if name == taken),
                "{error}"
            );
        }
        let error = check(&id, &id).unwrap_err().to_string();
        assert_eq!(
            error,
            "idempotency.header is \"x-correlation-id\", which is the header of the correlation id; allowed is a header \
             that neither HTTP nor the stack uses, such as idempotency-key"
        );
    }
}
