//! Headers that are for the next hop and not for the end (RFC 9110 section 7.6.1).

use http::{HeaderMap, HeaderName, header};

/// Always for one hop, whether `Connection` names them or not. `Trailer` is among them because trailers are.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Takes out what is for this hop alone: the fixed names, and those that `Connection` lists.
pub(crate) fn remove(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in listed.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// Whether the request asks to speak something else than HTTP from here on. `h2c` is HTTP, and is left unanswered, as
/// RFC 9113 section 3.1 has it.
pub(crate) fn asks_for_upgrade(headers: &HeaderMap) -> bool {
    headers.get_all(header::UPGRADE).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"h2c"))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_is_for_one_hop_goes_and_the_rest_stays() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Mine ,, not a name"),
            ("connection", "x-other"),
            ("keep-alive", "timeout=5"),
            ("x-mine", "1"),
            ("x-other", "1"),
            ("te", "trailers"),
            ("trailer", "x-checksum"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("proxy-authorization", "Basic x"),
            ("proxy-connection", "keep-alive"),
            ("x-kept", "1"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        assert!(asks_for_upgrade(&headers));
        remove(&mut headers);
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["x-kept"]);
    }

    #[test]
    fn an_offer_of_http2_is_no_upgrade_to_refuse() {
        let upgrade = |value| HeaderMap::from_iter([(header::UPGRADE, HeaderValue::from_static(value))]);
        assert!(!asks_for_upgrade(&upgrade("h2c")) && asks_for_upgrade(&upgrade("websocket")));
        assert!(asks_for_upgrade(&upgrade("h2c, websocket")));
    }
}
