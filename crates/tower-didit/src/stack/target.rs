//! Where requests go, and under which key.

use http::{
    HeaderName, HeaderValue, Request, Uri,
    uri::{Authority, Parts, Scheme},
};

use crate::{error::ConfigError, outcome::NeverSent};

/// The header of Didit's server credential.
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Completes requests with the key and the host.
#[derive(Clone, Debug)]
pub(super) struct Target {
    scheme: Scheme,
    authority: Authority,
    // Marked sensitive, so that no Debug shows it. `None` if somebody else adds it.
    key: Option<HeaderValue>,
}

/// A request for another host than the base URL's: not sent, because the API key would have gone with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request is for {wanted}, but this stack sends to {expected} only")]
pub struct ForeignHost {
    host: String,
    wanted: String,
    expected: String,
    #[source]
    never_sent: NeverSent,
}

impl ForeignHost {
    /// The host that the request named.
    pub fn host(&self) -> &str {
        &self.host
    }
}

// ===== impl Target =====

impl Target {
    pub(super) fn new(base: &str, key: Option<&str>) -> Result<Self, ConfigError> {
        let wrong = |problem| ConfigError::BaseUrl { url: without_secrets(base), problem };
        let uri: Uri = base.parse().map_err(|_| wrong("cannot be parsed"))?;
        let Parts { scheme, authority, path_and_query, .. } = uri.into_parts();
        let authority = authority.ok_or_else(|| wrong("has no host"))?;
        let scheme = scheme.ok_or_else(|| wrong("has no scheme"))?;
        if scheme != Scheme::HTTP && scheme != Scheme::HTTPS {
            return Err(wrong("is neither http nor https"));
        }
        if authority.host().is_empty() {
            return Err(wrong("has no host"));
        }
        if authority.as_str().contains('@') {
            return Err(wrong("carries user information"));
        }
        if path_and_query.is_some_and(|path| path != "/") {
            return Err(wrong("has a path"));
        }
        Ok(Self { scheme, authority, key: key.map(checked_key).transpose()? })
    }

    /// Adds what is missing: the host, and the key unless the request brings its own.
    pub(super) fn complete<B>(&self, request: &mut Request<B>) -> Result<(), ForeignHost> {
        match request.uri().authority() {
            None => {
                let mut parts = Parts::default();
                parts.scheme = Some(self.scheme.clone());
                parts.authority = Some(self.authority.clone());
                // A URI without authority may lack a path too (`*`, or nothing): then it is the root.
                let path = request.uri().path_and_query().filter(|path| path.as_str().starts_with('/'));
                parts.path_and_query = Some(path.cloned().unwrap_or(http::uri::PathAndQuery::from_static("/")));
                if let Ok(uri) = Uri::from_parts(parts) {
                    *request.uri_mut() = uri;
                }
            }
            Some(authority) if self.is_ours(request.uri().scheme(), authority) => {}
            Some(authority) => {
                return Err(ForeignHost {
                    host: authority.host().to_owned(),
                    wanted: origin(request.uri().scheme(), authority),
                    expected: origin(Some(&self.scheme), &self.authority),
                    never_sent: NeverSent::new(),
                });
            }
        }
        if let Some(key) = &self.key {
            // A request's own key is as secret as ours.
            request.headers_mut().entry(API_KEY).or_insert_with(|| key.clone()).set_sensitive(true);
        }
        Ok(())
    }

    fn is_ours(&self, scheme: Option<&Scheme>, authority: &Authority) -> bool {
        // The usual case, without looking for a port: the base URL carries no user information.
        if scheme == Some(&self.scheme) && authority.as_str() == self.authority.as_str() {
            return true;
        }
        let port =
            |authority: &Authority| authority.port_u16().unwrap_or(if self.scheme == Scheme::HTTPS { 443 } else { 80 });
        scheme == Some(&self.scheme)
            && authority.host().eq_ignore_ascii_case(self.authority.host())
            && port(authority) == port(&self.authority)
            && !authority.as_str().contains('@')
    }
}

/// Scheme, host and port as an error may show them: without user information.
fn origin(scheme: Option<&Scheme>, authority: &Authority) -> String {
    let port = authority.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
    match scheme {
        Some(scheme) => format!("{scheme}://{}{port}", authority.host()),
        None => format!("{}{port}", authority.host()),
    }
}

fn checked_key(key: &str) -> Result<HeaderValue, ConfigError> {
    let wrong = |problem| ConfigError::ApiKey { problem };
    if key.is_empty() {
        return Err(wrong("empty"));
    }
    if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(wrong("not visible ASCII throughout"));
    }
    let mut key = HeaderValue::from_str(key).map_err(|_| wrong("not a header value"))?;
    key.set_sensitive(true);
    Ok(key)
}

/// A base URL as an error may show it: without user information and query.
pub(super) fn without_secrets(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    if scheme.is_empty() { host.to_owned() } else { format!("{scheme}://{host}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(base: &str) -> &'static str {
        match Target::new(base, Some("key")) {
            Err(ConfigError::BaseUrl { problem, .. }) => problem,
            other => panic!("{base:?} gave {other:?}"),
        }
    }

    #[test]
    fn a_base_url_that_cannot_be_sent_to_is_refused_with_the_reason() {
        assert_eq!(problem("/v3/"), "has no host");
        assert_eq!(problem("verification.didit.me"), "has no scheme");
        assert_eq!(problem("https://"), "cannot be parsed");
        assert_eq!(problem(""), "cannot be parsed");
        assert_eq!(problem("ftp://verification.didit.me"), "is neither http nor https");
        assert_eq!(problem("https://verification.didit.me/v3/"), "has a path");
        assert_eq!(problem("https://user:secret@verification.didit.me"), "carries user information");
        assert_eq!(problem("https://:443"), "has no host");
    }

    #[test]
    fn no_error_and_no_debug_shows_a_secret() {
        let error = Target::new("https://user:secret@host", None).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
        let error = Target::new("https://host", Some("secret\n")).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
        let error = Target::new("https://host/?token=secret", None).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
        let target = Target::new("https://host", Some("secret")).unwrap();
        assert!(!format!("{target:?}").contains("secret"));
        let mut request = Request::get("/").header("x-api-key", "secret").body(()).unwrap();
        target.complete(&mut request).unwrap();
        assert!(!format!("{request:?}").contains("secret"));
        let mut request = Request::get("https://user:secret@host/").body(()).unwrap();
        let foreign = target.complete(&mut request).unwrap_err();
        assert!(!foreign.to_string().contains("secret"), "{foreign}");
    }

    #[test]
    fn a_relative_request_is_completed_with_host_and_key() {
        let target = Target::new("https://verification.didit.me", Some("key")).unwrap();
        let mut request = Request::get("/v3/sessions/?limit=5").body(()).unwrap();
        target.complete(&mut request).unwrap();
        assert_eq!(request.uri(), "https://verification.didit.me/v3/sessions/?limit=5");
        assert_eq!(request.headers()["x-api-key"], "key");
    }

    #[test]
    fn a_request_for_the_same_host_passes_and_one_for_another_keeps_its_key_to_itself() {
        let target = Target::new("https://verification.didit.me", Some("key")).unwrap();
        for uri in ["https://verification.didit.me/v3/sessions/", "https://VERIFICATION.didit.me:443/v3/sessions/"] {
            let mut request = Request::get(uri).body(()).unwrap();
            assert_eq!(target.complete(&mut request), Ok(()), "{uri}");
        }
        for uri in ["http://verification.didit.me/", "https://didit.example/", "https://verification.didit.me:8443/"] {
            let mut request = Request::get(uri).body(()).unwrap();
            assert!(target.complete(&mut request).is_err(), "{uri}");
            assert!(!request.headers().contains_key("x-api-key"));
        }
    }

    #[test]
    fn a_requests_own_key_is_kept() {
        let target = Target::new("https://verification.didit.me", Some("key")).unwrap();
        let mut request = Request::get("/").header("x-api-key", "own").body(()).unwrap();
        target.complete(&mut request).unwrap();
        assert_eq!(request.headers()["x-api-key"], "own");
    }
}
