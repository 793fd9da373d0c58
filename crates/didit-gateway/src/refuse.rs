//! What the gateway does not take: who may ask, in which form, and addressed to whom.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, Method, Request, StatusCode, Uri, Version, header, request::Parts, uri::Authority};
use subtle::ConstantTimeEq;

use crate::{hop, problem::Problem, settings::Settings};

/// The header that carries the access token.
pub(crate) const TOKEN: HeaderName = HeaderName::from_static("x-gateway-token");

/// Sent by browsers only: where the page that made the request stands to the one it goes to.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The names that requests to one address may be addressed to; `None` takes every name.
#[derive(Debug)]
struct Names(Option<Vec<String>>);

/// Decides which requests are taken.
#[derive(Debug)]
pub(crate) struct Doorkeeper {
    token: Option<Vec<u8>>,
    names: Names,
    operators: Names,
    max_body: u64,
    max_headers: usize,
    /// Told to requests that come back, so that a gateway in front of itself is noticed.
    name: String,
}

// ===== impl Doorkeeper =====

impl Doorkeeper {
    pub(crate) fn new(settings: &Settings) -> Self {
        let metrics = settings.metrics.on().unwrap_or(settings.listen);
        Self {
            token: settings.access_token.as_ref().map(|token| token.expose().as_bytes().to_vec()),
            names: Names::of(settings.listen, &settings.hosts),
            operators: Names::of(metrics, &settings.hosts),
            max_body: settings.max_body,
            max_headers: settings.max_headers,
            name: format!("didit-gateway-{:08x}", rand::random::<u32>()),
        }
    }

    /// The name in `Via` (RFC 9110 section 7.6.3), one for each gateway.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether a token opens the door; without one configured, the door is open.
    pub(crate) fn opens(&self, given: Option<&[u8]>) -> bool {
        match (&self.token, given) {
            (None, _) => true,
            (Some(_), None) => false,
            // A difference in length shows; where the texts differ does not.
            (Some(token), Some(given)) => token.as_slice().ct_eq(given).into(),
        }
    }

    /// Refuses a request for what it is, before anything is known about where it goes.
    pub(crate) fn check(&self, parts: &Parts) -> Result<(), Problem> {
        let bad = |kind, title, detail: &str| Err(Problem::refused(StatusCode::BAD_REQUEST, kind, title, detail));
        let headers = &parts.headers;
        let mut tokens = headers.get_all(&TOKEN).iter();
        if !self.opens(tokens.next().map(http::HeaderValue::as_bytes)) || tokens.next().is_some() {
            return Err(Problem::refused(
                StatusCode::UNAUTHORIZED,
                "token",
                "The access token is missing or wrong",
                "this gateway wants its access token, once, as x-gateway-token",
            ));
        }
        if headers.len() > self.max_headers {
            // Of HTTP/2; hyper counts those of HTTP/1.
            return Err(Problem::unreadable(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, None));
        }
        if parts.method == Method::CONNECT {
            let detail = "this gateway makes no tunnels";
            return Err(Problem::refused(StatusCode::METHOD_NOT_ALLOWED, "connect", "CONNECT is refused", detail));
        }
        let http1 = parts.version < Version::HTTP_2;
        if http1 && (parts.uri.authority().is_some() || parts.uri.scheme().is_some()) {
            return bad(
                "absolute-form",
                "A request to a proxy is refused",
                "this gateway sends to one upstream only; requests name a path, and no other host",
            );
        }
        if !parts.uri.path().starts_with('/') {
            return bad("target", "The request's target is no path", "a path that begins with / is needed");
        }
        self.names.check(headers, &parts.uri)?;
        if hop::asks_for_upgrade(headers) {
            let detail = "this gateway speaks HTTP and changes to nothing else";
            return Err(Problem::refused(StatusCode::NOT_IMPLEMENTED, "upgrade", "An upgrade is refused", detail));
        }
        let expects = headers.get_all(header::EXPECT).iter();
        if expects.into_iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
            let detail = "only 100-continue can be expected of this gateway";
            return Err(Problem::refused(StatusCode::EXPECTATION_FAILED, "expect", "It cannot be expected", detail));
        }
        let via = headers.get_all(header::VIA).iter().filter_map(|value| value.to_str().ok());
        if via.into_iter().any(|value| value.contains(&self.name)) {
            let detail = "the upstream leads back to this gateway";
            return Err(Problem::refused(StatusCode::LOOP_DETECTED, "loop", "The request goes in a circle", detail));
        }
        let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        if announced.is_some_and(|length: u64| length > self.max_body) {
            return Err(Problem::of_upload(crate::body::UploadError::TooLarge { most: self.max_body }));
        }
        Ok(())
    }

    /// Refuses an operator's request as [`check`](Self::check) does: by whom it is addressed to, and where it comes from.
    pub(crate) fn check_operator(&self, headers: &HeaderMap, uri: &Uri) -> Result<(), Problem> {
        self.operators.check(headers, uri)
    }
}

// ===== impl Names =====

impl Names {
    /// The names of an address, and those configured.
    fn of(address: SocketAddr, hosts: &[String]) -> Self {
        let remote = !address.ip().to_canonical().is_loopback();
        // On the loopback, a foreign name is a page in a browser that had its own name point here (DNS rebinding).
        Self((!remote || !hosts.is_empty()).then(|| hosts.to_vec()))
    }

    /// Refuses a request that is addressed to somebody else, or comes from a page in a browser.
    fn check(&self, headers: &HeaderMap, uri: &Uri) -> Result<(), Problem> {
        self.check_host(headers, uri)?;
        if headers.contains_key(header::ORIGIN) || headers.get(FETCH_SITE).is_some_and(|site| site != "none") {
            let detail = "this gateway holds a key, so no page in a browser may use it";
            return Err(Problem::refused(StatusCode::FORBIDDEN, "browser", "Browsers are refused", detail));
        }
        Ok(())
    }

    fn check_host(&self, headers: &HeaderMap, uri: &Uri) -> Result<(), Problem> {
        let bad =
            |detail| Err(Problem::refused(StatusCode::BAD_REQUEST, "host", "The request's Host is no use", detail));
        let mut named = headers.get_all(header::HOST).iter();
        let in_header = match named.next().map(|host| Authority::try_from(host.as_bytes())) {
            Some(Ok(host)) => Some(host),
            Some(Err(_)) => return bad("Host is not a host"),
            None => None,
        };
        if named.next().is_some() {
            return bad("there is more than one Host");
        }
        let host = match (uri.authority(), in_header) {
            (Some(authority), Some(host)) if *authority != host => return bad("Host and :authority differ"),
            (Some(authority), _) => authority.clone(),
            (None, Some(host)) => host,
            (None, None) => return bad("there is no Host"),
        };
        if host.as_str().contains('@') {
            return bad("Host has user information");
        }
        if self.has(host.host()) {
            return Ok(());
        }
        Err(Problem::refused(
            StatusCode::MISDIRECTED_REQUEST,
            "host",
            "The request is for somebody else",
            "Host is none of the names that this gateway goes by; `gateway.hosts` has them",
        ))
    }

    fn has(&self, host: &str) -> bool {
        let Some(hosts) = &self.0 else { return true };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        bare.eq_ignore_ascii_case("localhost")
            || bare.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
            || hosts.iter().any(|known| known.eq_ignore_ascii_case(bare))
    }
}

/// Takes out of a request what was for the gateway alone, and says that it passed here.
pub(crate) fn pass_on<B>(request: &mut Request<B>, name: &str) {
    let version = match request.version() {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    };
    let headers = request.headers_mut();
    hop::remove(headers);
    // The client writes both anew: for where the request goes, and for how its body is sent.
    for ours in [header::HOST, header::CONTENT_LENGTH, header::EXPECT, TOKEN] {
        headers.remove(ours);
    }
    if let Ok(via) = format!("{version} {name}").parse() {
        headers.append(header::VIA, via);
    }
}

#[cfg(test)]
mod tests {
    use tower_didit::config::OrOff;

    use super::*;

    fn keeper(change: impl FnOnce(&mut Settings)) -> Doorkeeper {
        let mut settings = Settings::default();
        change(&mut settings);
        Doorkeeper::new(&settings)
    }

    #[test]
    fn only_the_token_opens() {
        let open = keeper(|_| {});
        assert!(open.opens(None) && open.opens(Some(b"anything")));
        let closed = keeper(|settings| settings.access_token = Some("0123456789abcdef".into()));
        assert!(closed.opens(Some(b"0123456789abcdef")));
        for wrong in [None, Some(&b""[..]), Some(b"0123456789abcdeF"), Some(b"0123456789abcdef0"), Some(b"0")] {
            assert!(!closed.opens(wrong), "{wrong:?}");
        }
        assert!(
            !format!("{:?}", keeper(|settings| settings.access_token = Some("0123456789abcdef".into())))
                .contains("0123")
        );
    }

    #[test]
    fn on_the_loopback_only_its_names_and_those_configured_are_taken() {
        let keeper = keeper(|settings| settings.hosts = vec!["gateway.internal".to_owned()]);
        for ours in
            ["localhost", "LOCALHOST", "127.0.0.1", "127.8.8.8", "[::1]", "[::ffff:127.0.0.1]", "Gateway.internal"]
        {
            assert!(keeper.names.has(ours), "{ours}");
        }
        for other in ["evil.example", "localhost.evil.example", "10.0.0.1", "[::2]", ""] {
            assert!(!keeper.names.has(other), "{other}");
        }
    }

    #[test]
    fn elsewhere_every_name_is_taken_unless_some_are_configured() {
        let remote = |hosts: &[&str]| {
            keeper(|settings| {
                settings.listen = ([0, 0, 0, 0], 80).into();
                settings.hosts = hosts.iter().map(ToString::to_string).collect();
            })
        };
        assert!(remote(&[]).names.has("anything"));
        assert!(!remote(&["gateway"]).names.has("anything") && remote(&["gateway"]).names.has("gateway"));
    }

    #[test]
    fn each_port_goes_by_the_names_of_its_own_address() {
        let (near, far) = (SocketAddr::from(([127, 0, 0, 1], 80)), SocketAddr::from(([0, 0, 0, 0], 80)));
        for (listen, metrics) in [(near, far), (far, near), (near, near), (far, far)] {
            let keeper = keeper(|settings| (settings.listen, settings.metrics) = (listen, OrOff::On(metrics)));
            assert_eq!(keeper.names.has("anything"), listen == far, "{listen} {metrics}");
            assert_eq!(keeper.operators.has("anything"), metrics == far, "{listen} {metrics}");
            assert!(keeper.names.has("localhost") && keeper.operators.has("localhost"));
        }
    }

    #[test]
    fn what_was_for_the_gateway_stays_here() {
        let mut request = Request::post("/")
            .header("host", "localhost")
            .header("x-gateway-token", "secret")
            .header("content-length", "5")
            .header("expect", "100-continue")
            .header("x-api-key", "key")
            .header("via", "1.1 somebody")
            .body(())
            .unwrap();
        pass_on(&mut request, "me");
        let mut left: Vec<_> =
            request.headers().iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        left.sort_unstable();
        assert_eq!(left, [("via", "1.1 me"), ("via", "1.1 somebody"), ("x-api-key", "key")]);
    }
}
