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
        // As bytes: one name that is none must not hide the others.
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect();
    // RFC 9112 section 6.3: of the two, this is the one that does not count, and it must not go on alone.
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
    }
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
    fn a_name_that_is_none_does_not_hide_the_others() {
        let mut headers = HeaderMap::new();
        headers.insert("connection", HeaderValue::from_bytes(b"x-one,\xe9, x-two").unwrap());
        headers.insert("x-one", HeaderValue::from_static("1"));
        headers.insert("x-two", HeaderValue::from_static("1"));
        remove(&mut headers);
        assert!(headers.is_empty(), "{headers:?}");
    }

    #[test]
    fn a_length_beside_an_encoding_goes_with_it() {
        let length = (header::CONTENT_LENGTH, HeaderValue::from_static("5"));
        let mut headers = HeaderMap::from_iter([length.clone()]);
        remove(&mut headers);
        assert_eq!(headers.len(), 1);
        headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        remove(&mut headers);
        assert!(headers.is_empty(), "{headers:?}");
    }

    #[test]
    fn an_offer_of_http2_is_no_upgrade_to_refuse() {
        let upgrade = |value| HeaderMap::from_iter([(header::UPGRADE, HeaderValue::from_static(value))]);
        assert!(!asks_for_upgrade(&upgrade("h2c")) && asks_for_upgrade(&upgrade("websocket")));
        assert!(asks_for_upgrade(&upgrade("h2c, websocket")));
    }
}
